"""Reads what the report on a run is made from; whatever the run folder lacks is None or empty."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.config import read_yaml
from pixelscope.pixelda.results import Evaluation, SetResult, read_samples
from pixelscope.reports.plotting import Series, series
from pixelscope.runs.folder import RunFolder, read_stats
from pixelscope.runs.record import RunRecord, parse_record

SAMPLES = {
    "pairs": {"source": 4, "target": 4, "labels": 1},
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

FEW = 5000
"""Largest number of images at which a percentage has one decimal, which is as fine as its standard error supports."""

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class ReportData:
    """Everything that the report on one run is made from."""

    folder: RunFolder
    record: RunRecord
    config: dict[str, Any]
    train: Lines
    evaluations: Lines
    warnings: Lines
    numbers: Evaluation | None
    """None before the first evaluation."""
    before: "ReportData | None"
    """The baseline that a PixelDA run was trained with."""

    @classmethod
    def read(cls, run: Path) -> "ReportData":
        """Read a run folder.

        Raises:
            InputError: `run` is not a run folder, or a file in it is damaged.
        """
        folder = RunFolder.open(run)
        lines = read_stats(folder.stats)
        return cls(
            folder=folder,
            record=parse_record(folder.read_record(), folder.record),
            config=read_yaml(folder.config),
            train=[line for line in lines if line["kind"] == "train"],
            evaluations=[line for line in lines if line["kind"] == "evaluation"],
            warnings=[line for line in lines if line["kind"] == "warning"],
            numbers=Evaluation.load(folder.evaluation) if folder.evaluation.is_file() else None,
            before=cls.read(folder.baseline) if folder.baseline.is_dir() else None,
        )

    @property
    def adapted(self) -> bool:
        """Return whether the run is one of PixelDA, not of its baseline."""
        return self.record.system == "pixelda"

    @property
    def names(self) -> tuple[str, str]:
        """Return the names of source and target: their titles up to the first comma, with the role added to equal ones."""
        titles = (self.record.data[role].title if role in self.record.data else "" for role in ("source", "target"))
        source, target = (re.split(r"[,:;(]", title)[0].strip()[:48] for title in titles)
        if source == target and source:
            return f"{source} (source)", f"{target} (target)"
        return source or "the source", target or "the target"

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes, in the order of the labels."""
        return self.numbers.classes if self.numbers else self.record.classes

    @property
    def steps(self) -> int:
        """Return the number of steps done, by the newest of the run's files."""
        return max([self.record.steps, *(line.get("step", 0) for line in self._last_lines)])

    @property
    def images(self) -> int:
        """Return the number of images seen, by the newest of the run's files."""
        return max([self.record.images, *(line["images"] for line in self._last_lines)])

    @property
    def _last_lines(self) -> Lines:
        return [*self.train[-1:], *self.evaluations[-1:]]

    @property
    def planned_steps(self) -> int | None:
        """Return the number of steps that the configuration sets; None if it sets none."""
        training = self.config.get("training")
        if not isinstance(training, dict) or not training.get("images") or not training.get("batch_size"):
            return None
        return -(-int(training["images"]) // int(training["batch_size"]))

    def results(self, name: str) -> SetResult | None:
        """Return the results on `source_test`, `target_test` or `target_all`; None if it was not measured."""
        return self.numbers.sets.get(name) if self.numbers else None

    def results_before(self, name: str) -> SetResult | None:
        """Return the baseline's results on a set; None if there is no baseline, or it was not measured."""
        return self.before.results(name) if self.before else None

    def samples(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of samples/NAME.npz; None if there is no such file, or no image in it."""
        return read_samples(self.folder.samples / f"{name}.npz", SAMPLES[name], len(self.classes))

    def accuracies(self) -> dict[str, Series]:
        """Return accuracy over images seen: the source's as measured in training, the target's as measured by `evaluate`."""
        measured = {name: series(self.evaluations, f"accuracy/{name}") for name in ("source_train", "source_test")}
        curve = [point.model_dump() for point in self.numbers.curve] if self.numbers else []
        found = {name: measured.get(name) or series(curve, name) for name in (*measured, "target_test", "ema_target_test")}
        return {name: line for name, line in found.items() if line is not None}


def percent(share: float, count: int) -> str:
    """Return a share of `count` images in percent, with as many decimals as the count supports."""
    return f"{100 * share:.{1 if count <= FEW else 2}f}%"


def points(change: float, count: int) -> str:
    """Return a signed difference of two shares in percentage points, with a typographic minus sign."""
    text = f"{100 * change:+.{1 if count <= FEW else 2}f}"
    return re.sub(r"^[+-](0\.0+)$", r"\1", text).replace("-", "−")
