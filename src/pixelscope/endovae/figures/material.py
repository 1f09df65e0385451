"""What a run folder of EndoVAE holds for its figures, read and checked; whatever it lacks is None or empty."""

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
from pixelscope.runs.arrays import read_arrays
from pixelscope.runs.folder import RunFolder, read_stats
from pixelscope.runs.record import RunRecord, read_record

RECONSTRUCTIONS = {"originals": 4, "reconstructions": 4, "psnr": 1, "ssim": 1}
HEAT = {"frames": 4, "overlays": 4, "lesions": 3, "p": 1}
SAMPLES = {
    "frames": {"frames": 4, "labels": 1, "classes": 1},
    "augmentation": {"versions": 5},
    "progress": {"images": 1, "originals": 4, "reconstructions": 5, "generated": 5},
    "generated": {"generated": 4},
    "interpolation": {"ends": 5, "ways": 5},
    "traversal": {"walks": 5, "values": 1, "dimensions": 1, "kl": 1},
}
"""The arrays of each file in samples/, and how many dimensions each has."""

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class FrameRows:
    """Quality frame by frame, as evaluation.csv has it; arrays of one length."""

    kind: np.ndarray
    psnr: np.ndarray
    """Of the model's reconstructions, in dB."""
    pixels: np.ndarray
    """Of the original frame."""

    def of(self, kind: str) -> "FrameRows":
        """Return the frames of one kind."""
        rows = self.kind == kind
        return FrameRows(self.kind[rows], self.psnr[rows], self.pixels[rows])


@dataclass(frozen=True)
class Best:
    """The evaluation of the lowest validation loss."""

    images: int
    total: float
    reconstruction: float
    kl: float


@dataclass(frozen=True)
class Material:
    """Everything that the figures and tables of one run are made from."""

    folder: RunFolder
    record: RunRecord
    config: EndoVAEConfig
    train: Lines
    evaluations: Lines
    warnings: Lines
    numbers: Evaluation | None
    """None before the first evaluation."""
    rows: FrameRows | None
    frames: FrameSummary | None

    @classmethod
    def read(cls, run: Path) -> "Material":
        """Read a run folder; raises InputError where `run` is not one, or where a file in it is damaged."""
        folder = RunFolder.open(run)
        lines, frames = _checked_lines(folder.stats), folder.path / "frames.json"
        return cls(
            folder=folder,
            record=read_record(folder),
            config=EndoVAEConfig.parse(read_yaml(folder.config), str(folder.config)),
            train=[line for line in lines if line["kind"] == "train"],
            evaluations=[line for line in lines if line["kind"] == "evaluation"],
            warnings=[line for line in lines if line["kind"] == "warning"],
            numbers=Evaluation.load(folder.evaluation) if folder.evaluation.is_file() else None,
            rows=_read_rows(folder.path / "evaluation.csv"),
            frames=FrameSummary.load(frames) if frames.is_file() else None,
        )

    @property
    def sets(self) -> dict[str, SetResult]:
        """Return what was measured, by kind of frame; empty before the first evaluation."""
        return self.numbers.sets if self.numbers else {}

    @property
    def images(self) -> int:
        """Return the images seen, as the newest of the run's files knows."""
        return max([self.record.images, *(line["images"] for line in (*self.train[-1:], *self.evaluations[-1:]))])

    @property
    def best(self) -> Best | None:
        """Return where the validation loss was lowest; None before the first evaluation in training."""
        names = ("total", "reconstruction", "kl")
        known = [line for line in self.evaluations if all(f"loss/validation_{name}" in line for name in names)]
        if not known:
            return None
        line = min(known, key=lambda line: line["loss/validation_total"])
        return Best(line["images"], *(line[f"loss/validation_{name}"] for name in names))

    def samples(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of samples/NAME.npz; None where there is no such file, or no image in it."""
        return read_arrays(self.folder.samples / f"{name}.npz", SAMPLES[name])

    def reconstructions(self, kind: str, which: str) -> dict[str, np.ndarray] | None:
        """Return the `random`, `worst` or `best` reconstructions of one kind of frame, or None as `samples` does."""
        return read_arrays(self.folder.samples / f"reconstructions-{kind}-{which}.npz", RECONSTRUCTIONS)

    def heat_maps(self, kind: str) -> dict[str, np.ndarray] | None:
        """Return the heat maps of one kind of frame, or None as `samples` does."""
        return read_arrays(self.folder.samples / f"heat-{kind}.npz", HEAT)

    def stages(self) -> list[Stages]:
        """Return the stages of preprocessing of the frames that they were kept of; empty where there is no such file."""
        path = self.folder.samples / "preparation.npz"
        try:
            return read_stages(path) if path.is_file() else []
        except UNREADABLE as error:
            raise InputError(f"{path} is damaged ({error}); delete it, or train again.") from None


def _checked_lines(path: Path) -> Lines:
    lines = read_stats(path)
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not isinstance(line.get("images"), int) or "kind" not in line:
            raise InputError(f"{path}, line {number} is not a line of statistics (no kind and images); remove the line.")
    return lines


def _read_rows(path: Path) -> FrameRows | None:
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            # A frame that could not be measured has no number.
            rows = [row for row in csv.DictReader(file) if row["endovae_psnr"] != ""]
        return FrameRows(
            kind=np.array([row["kind"] for row in rows], str),
            psnr=np.array([float(row["endovae_psnr"]) for row in rows]),
            pixels=np.array([int(row["width"]) * int(row["height"]) for row in rows], float),
        )
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); evaluate the run again.") from None
