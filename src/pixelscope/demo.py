"""The demo: both systems from data to one report in minutes, with nothing to download."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelscope.data.frames.prepare import prepare
from pixelscope.data.phantom import write_phantom
from pixelscope.endovae.config import EndoVAEConfig, endovae_preset
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.results import MODEL, PCA
from pixelscope.endovae.results import Evaluation as FrameEvaluation
from pixelscope.endovae.training import train_endovae
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig, preset
from pixelscope.pixelda.evaluation import Evaluation, evaluate_pixelda
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.reports.builder import build_report

NORMAL, POLYPS = 400, 100
"""Number of synthetic frames per class."""
METRICS = (("psnr", 2), ("ssim", 3))
"""Metrics in the demo's table, with their decimal places."""


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo, and its report."""

    baseline: Evaluation
    """Classifier trained on the source alone."""
    adapted: Evaluation
    """Classifier adapted to the target by PixelDA."""
    frames: FrameEvaluation
    """EndoVAE on test frames."""
    report: Path
    """One page on both systems."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        parts = {"baseline": self.baseline, "adapted": self.adapted, "frames": self.frames}
        return {name: part.to_dict() for name, part in parts.items()} | {"report": str(self.report)}

    def to_text(self) -> str:
        """Return a table per system for a terminal, and the path of the report."""
        return "\n".join([*self._digit_lines(), "", *self._frame_lines(), "", f"Report: {self.report}"])

    def _digit_lines(self) -> list[str]:
        names = {"target_test": "target, test split", "source_test": "source, test split"}
        lines = [f"{'PixelDA: accuracy':<30} {'images':>7} {'before':>9} {'after':>9} {'change':>9}"]
        for key, name in names.items():
            before, after = self.baseline.sets[key], self.adapted.sets[key]
            change = f"{100 * (after.accuracy - before.accuracy):+.1f}"
            lines.append(f"{name:<30} {after.count:>7,} {before.accuracy:>9.1%} {after.accuracy:>9.1%} {change:>9}")
        return lines

    def _frame_lines(self) -> list[str]:
        pca = f"PCA-{self.frames.components}"
        lines = [
            f"{'EndoVAE: reconstruction':<30} {'frames':>7} {'PSNR, dB':>9} {pca:>9} {'SSIM':>9} {pca:>9}",
        ]
        for found in self.frames.sets.values():
            model, linear = found.methods[MODEL], found.methods[PCA]
            psnr, ssim = (f"{model[name].mean:>9.{digits}f} {linear[name].mean:>9.{digits}f}" for name, digits in METRICS)
            lines.append(f"{found.title:<30} {found.count:>7,} {psnr} {ssim}")
        return lines


def run_demo(runs: Path = Path("runs"), seed: int = 0) -> DemoResult:
    """Adapt digits to another domain, train on synthetic endoscopy frames, and report on both.

    PixelDA: 5,000 MNIST digits and MNIST-M made from them with packaged photos (extra `demo`). EndoVAE: synthetic frames. Both
    use their preset `demo`.

    Args:
        runs: folder for the run folders and the report.
        seed: seed of weights, order of data and every random draw.

    Raises:
        InputError: the packages of the extra `demo` are not installed.

    Example:
        >>> print(pixelscope.run_demo().to_text())
    """
    adapted, before, after = adapt_digits(runs, seed)
    learnt, frames = learn_frames(runs, seed)
    report = build_report([adapted, learnt], out=runs / f"demo-{learnt.name[:5]}.html")
    return DemoResult(before, after, frames, report)


def adapt_digits(runs: Path, seed: int) -> tuple[Path, Evaluation, Evaluation]:
    """Train and evaluate the baseline, then PixelDA; return PixelDA's run folder and both evaluations."""
    baseline = train_baseline(BaselineConfig.parse({**preset("baseline", "demo"), "seed": seed}), runs=runs)
    before = evaluate_pixelda(baseline)
    run = train_pixelda(PixelDAConfig.parse({**preset("pixelda", "demo"), "seed": seed}), runs=runs, baseline=baseline)
    return run, before, evaluate_pixelda(run)


def learn_frames(runs: Path, seed: int) -> tuple[Path, FrameEvaluation]:
    """Generate frames, prepare them, train and evaluate EndoVAE; return its run folder and its evaluation."""
    config = EndoVAEConfig.parse({**endovae_preset("demo"), "seed": seed})
    drawn = write_phantom(runs / f"phantom-{seed}", normal=NORMAL, polyps=POLYPS, seed=seed)
    store = prepare([drawn], config=config.prepare, stores=runs / "stores")
    run = train_endovae(config.model_copy(update={"frames": str(store.path)}), runs=runs)
    return run, evaluate_endovae(run)
