"""What a run folder holds for its figures, read and checked; whatever it lacks is None or empty."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.config import read_yaml
from pixelscope.errors import InputError
from pixelscope.pixelda.results import Evaluation, SetResult
from pixelscope.report.plotting import Series, series
from pixelscope.runs.arrays import read_arrays
from pixelscope.runs.folder import RunFolder, read_stats
from pixelscope.runs.record import RunRecord, read_record

SAMPLES = {
    "pairs": {"source": 4, "target": 4, "labels": 1, "classes": 1},
    "gallery": {
        "source": 4,
        "generated": 4,
        "target": 4,
        "source_labels": 1,
        "generated_predictions": 1,
        "source_predictions": 1,
        "target_labels": 1,
        "target_predictions": 1,
    },
    "styles": {"source": 4, "generated": 5},
    "progress": {"images": 1, "generated": 5, "source": 4},
}
"""The arrays of each file in samples/, and how many dimensions each has."""

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Material:
    """Everything that the figures and tables of one run are made from."""

    folder: RunFolder
    record: RunRecord
    config: dict[str, Any]
    train: Lines
    evaluations: Lines
    warnings: Lines
    numbers: Evaluation | None
    """None before the first evaluation."""
    before: "Material | None"
    """The baseline that a PixelDA run was made with."""

    @classmethod
    def read(cls, run: Path) -> "Material":
        """Read a run folder; raises InputError where `run` is not one, or where a file in it is damaged."""
        folder = RunFolder.open(run)
        lines = _checked_lines(folder.stats)
        return cls(
            folder=folder,
            record=read_record(folder),
            config=read_yaml(folder.config),
            train=[line for line in lines if line["kind"] == "train"],
            evaluations=[line for line in lines if line["kind"] == "evaluation"],
            warnings=[line for line in lines if line["kind"] == "warning"],
            numbers=Evaluation.load(folder.evaluation) if folder.evaluation.is_file() else None,
            before=cls.read(folder.baseline) if folder.baseline.is_dir() else None,
        )

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return self.numbers.classes if self.numbers else self.record.classes

    @property
    def steps(self) -> int:
        """Steps done, as the newest of the run's files knows."""
        return max([self.record.steps, *(line.get("step", 0) for line in (*self.train[-1:], *self.evaluations[-1:]))])

    @property
    def planned_steps(self) -> int | None:
        """Steps that the configuration asks for; None where it does not say."""
        training = self.config.get("training")
        if not isinstance(training, dict) or not training.get("images") or not training.get("batch_size"):
            return None
        return -(-int(training["images"]) // int(training["batch_size"]))

    def results(self, name: str) -> SetResult | None:
        """Return the numbers on `source_test`, `target_test` or `target_all`; None where that was not measured."""
        return self.numbers.sets.get(name) if self.numbers else None

    def samples(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of samples/NAME.npz; None where there is no such file, or no image in it."""
        return read_arrays(self.folder.samples / f"{name}.npz", SAMPLES[name])

    def accuracies(self) -> dict[str, Series]:
        """Return accuracy over images seen: the source's as training measured it, the target's as `evaluate` did."""
        measured = {name: series(self.evaluations, f"accuracy/{name}") for name in ("source_train", "source_test")}
        curve = [point.model_dump() for point in self.numbers.curve] if self.numbers else []
        found = {name: measured.get(name) or series(curve, name) for name in (*measured, "target_test", "ema_target_test")}
        return {name: line for name, line in found.items() if line is not None}


def _checked_lines(path: Path) -> Lines:
    lines = read_stats(path)
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not isinstance(line.get("images"), int) or "kind" not in line:
            raise InputError(f"{path}, line {number} is not a line of statistics (no kind and images); remove the line.")
    return lines
