"""The demo: both systems from data to one report in minutes, with nothing to download."""

from pathlib import Path

from pixelscope.data.frames import prepare
from pixelscope.endovae.config import EndoVAEConfig, endovae_preset
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.phantom import write_phantom
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig, preset
from pixelscope.pixelda.evaluation import evaluate
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.report.builder import build_report

NORMAL, POLYPS = 400, 100
"""Frames drawn of each class."""


def run_demo(runs: Path = Path("runs"), seed: int = 0) -> Path:
    """Adapt digits to another domain, learn drawn endoscopy frames, and return the path of the report on both.

    PixelDA: 5,000 real MNIST digits and the MNIST-M made from them with packaged photos (extra `demo`). EndoVAE: frames that
    the package draws. Both with their preset `demo`.
    """
    adapted, learnt = adapt_digits(runs, seed), learn_frames(runs, seed)
    return build_report([adapted, learnt], out=runs / f"demo-{learnt.name[:5]}.html")


def adapt_digits(runs: Path, seed: int) -> Path:
    """Train and measure the baseline, then PixelDA beside it; returns PixelDA's run folder."""
    baseline = train_baseline(BaselineConfig.parse({**preset("baseline", "demo"), "seed": seed}), runs=runs)
    evaluate(baseline)
    run = train_pixelda(PixelDAConfig.parse({**preset("pixelda", "demo"), "seed": seed}), runs=runs, baseline=baseline)
    evaluate(run)
    return run


def learn_frames(runs: Path, seed: int) -> Path:
    """Draw frames, prepare them, train EndoVAE and measure it; returns its run folder."""
    config = EndoVAEConfig.parse({**endovae_preset("demo"), "seed": seed})
    drawn = write_phantom(runs / f"phantom-{seed}", normal=NORMAL, polyps=POLYPS, seed=seed)
    store = prepare([drawn], config=config.prepare, stores=runs / "stores")
    run = train_endovae(config.model_copy(update={"frames": str(store.path)}), runs=runs)
    evaluate_endovae(run)
    return run
