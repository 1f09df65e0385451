"""The demo: PixelDA from data to report in minutes, with nothing to download."""

from pathlib import Path

from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig, preset
from pixelscope.pixelda.evaluation import evaluate
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.report.builder import build_report


def run_demo(runs: Path = Path("runs"), seed: int = 0) -> Path:
    """Train the baseline, show the gap, adapt, evaluate, and return the path of the report.

    5,000 real MNIST digits and the MNIST-M made from them with packaged photos (extra `demo`), preset `demo`.
    """
    baseline = train_baseline(BaselineConfig.parse({**preset("baseline", "demo"), "seed": seed}), runs=runs)
    evaluate(baseline)
    run = train_pixelda(PixelDAConfig.parse({**preset("pixelda", "demo"), "seed": seed}), runs=runs, baseline=baseline)
    evaluate(run)
    return build_report(run)
