"""A finished run of PixelDA or its baseline, its weights chosen by a rule."""

from pathlib import Path

from pixelscope.pixelda.chosen import Weights, available_weights
from pixelscope.pixelda.config import BaselineConfig
from pixelscope.pixelda.evaluation import headline_rule
from pixelscope.pixelda.training import read_config
from pixelscope.runs.folder import RunFolder


class TrainedRun:
    """A finished run of PixelDA or its baseline, its weights chosen by a rule."""

    def __init__(self, run: Path, rule: str = "auto", finished: bool = True) -> None:
        """Open it; raises InputError where it is not one, or damaged.

        finished: refuse a run that is not, unless a rule is named.
        """
        self.folder = RunFolder.open(run)
        self.config: BaselineConfig
        self.config, self.system = read_config(self.folder)
        if finished and rule == "auto":
            self.folder.require_finished()
        self.classes = tuple(self.folder.read_record().get("classes", ()))
        found = available_weights(self.folder, self.config, self.classes)
        self.rule = headline_rule(rule, self.system, found)
        self.weights: Weights = found[self.rule]
