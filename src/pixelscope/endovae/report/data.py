"""Reads what the report on a run is made from; whatever the run folder lacks is None or empty."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.config import read_yaml
from pixelscope.data.frames.preprocess import Stages, read_stages
from pixelscope.data.frames.store import FrameSummary
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.results import Evaluation, SetResult
from pixelscope.errors import InputError
from pixelscope.files import UNREADABLE
from pixelscope.runs.folder import RunFolder, read_arrays, read_stats
from pixelscope.runs.record import RunRecord, parse_record

KINDS = ("normal", "abnormal")
RECONSTRUCTIONS = {"originals": 4, "reconstructions": 4, "psnr": 1, "ssim": 1}
HEATMAPS = {"frames": 4, "overlays": 4, "lesions": 3, "p": 1}
SAMPLES = {
    "frames": {"frames": 4, "labels": 1, "classes": 1},
    "augmentation": {"versions": 5},
    "progress": {"images": 1, "originals": 4, "reconstructions": 5, "generated": 5},
    "generated": {"generated": 4},
    "interpolation": {"ends": 5, "frames": 5},
    "traversal": {"frames": 5, "values": 1, "dimensions": 1, "kl": 1},
    **{f"reconstructions-{kind}-{which}": RECONSTRUCTIONS for kind in KINDS for which in ("random", "worst", "best")},
    **{f"heatmaps-{kind}": HEATMAPS for kind in KINDS},
}
"""Number of dimensions of each array in samples/, by file."""

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation of the lowest validation loss, per image, in `ReportData.unit`; KL is in nats."""

    images: int
    total: float
    reconstruction: float
    kl: float


@dataclass(frozen=True)
class ReportData:
    """Everything that the report on one run is made from."""

    folder: RunFolder
    record: RunRecord
    config: EndoVAEConfig
    train: Lines
    evaluations: Lines
    warnings: Lines
    numbers: Evaluation | None
    """None before the first evaluation."""
    psnr: dict[str, np.ndarray]
    """PSNR per test frame in dB, by kind, from evaluation.csv."""
    frames: FrameSummary | None

    @classmethod
    def read(cls, run: Path) -> "ReportData":
        """Read a run folder.

        Raises:
            InputError: `run` is not a run folder, or a file in it is damaged.
        """
        folder = RunFolder.open(run)
        lines, frames = read_stats(folder.stats), folder.path / "frames.json"
        return cls(
            folder=folder,
            record=parse_record(folder.read_record(), folder.record),
            config=EndoVAEConfig.parse(read_yaml(folder.config), str(folder.config)),
            train=[line for line in lines if line["kind"] == "train"],
            evaluations=[line for line in lines if line["kind"] == "evaluation"],
            warnings=[line for line in lines if line["kind"] == "warning"],
            numbers=Evaluation.load(folder.evaluation) if folder.evaluation.is_file() else None,
            psnr=_read_psnr(folder.path / "evaluation.csv"),
            frames=FrameSummary.load(frames) if frames.is_file() else None,
        )

    @property
    def sets(self) -> dict[str, SetResult]:
        """Return the measured sets by kind of frame; empty before the first evaluation."""
        return self.numbers.sets if self.numbers else {}

    @property
    def images(self) -> int:
        """Return the number of images seen, by the newest of the run's files."""
        return max([self.record.images, *(line["images"] for line in (*self.train[-1:], *self.evaluations[-1:]))])

    @property
    def training_frames(self) -> int:
        """Return the number of training frames; 0 if run.json does not have it."""
        frames = self.record.data.get("frames")
        return (frames.train or 0) if frames else 0

    @property
    def best(self) -> BestEvaluation | None:
        """Return the evaluation of the lowest validation loss; None before the first evaluation in training."""
        names = ("total", "reconstruction", "kl")
        known = [line for line in self.evaluations if all(f"loss/validation_{name}" in line for name in names)]
        if not known:
            return None
        line = min(known, key=lambda line: line["loss/validation_total"])
        return BestEvaluation(line["images"], *(line[f"loss/validation_{name}"] for name in names))

    @property
    def unit(self) -> str:
        """Return the unit of the loss and its reconstruction term: nats only of a cross-entropy."""
        return "nats" if self.config.losses.cross_entropy else "loss"

    def samples(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of samples/NAME.npz; None if there is no such file, or no image in it."""
        return read_arrays(self.folder.samples / f"{name}.npz", SAMPLES[name])

    def stages(self) -> list[Stages]:
        """Return the stages of preprocessing of some frames; empty if there is no such file."""
        path = self.folder.samples / "preparation.npz"
        try:
            return read_stages(path) if path.is_file() else []
        except UNREADABLE as error:
            raise InputError(f"{path} is damaged ({error}); delete it, or train again.") from None

    def set_name(self, kind: str) -> str:
        """Return the name of the measured frames of a kind."""
        return f"{kind} test frames" if self.config.split.train_on in (kind, "both") else f"{kind} frames"

    def epochs_at(self, images: int) -> str:
        """Return a number of images seen and, where the length of an epoch is known, its epoch."""
        epoch = self.record.epoch
        return f"{images:,} images" + (f" (epoch {images / epoch:,.0f})" if epoch else "")


def short_number(value: float, decimals: int = 2) -> str:
    """Return a number with `decimals`, or with three significant digits below 10."""
    return f"{value:,.{decimals}f}" if value >= 10 else f"{value:.3g}"


def listed(names: list[str]) -> str:
    """Return names as in a sentence: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _read_psnr(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            # A frame without a valid pixel has no number.
            rows = [(row["kind"], float(row["endovae_psnr"])) for row in csv.DictReader(file) if row["endovae_psnr"] != ""]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); evaluate the run again.") from None
    return {kind: np.array([value for one, value in rows if one == kind]) for kind in KINDS}
