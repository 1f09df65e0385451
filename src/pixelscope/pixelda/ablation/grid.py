"""What is compared: named conditions (settings), each run with several seeds, and a claim about each."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from pixelscope.config import Config, dotted, merge, read_yaml
from pixelscope.errors import InputError
from pixelscope.pixelda.config import BaselineConfig, ClassifierConfig, PixelDAConfig, preset

GRIDS = ("claims", "search")
"""Packaged grids."""

LENGTH = ("images", "ema_half_life")
"""Settings of `training`, in addition to all intervals (`*_every`), that belong to its length."""

CHANGES = "The file of --config"
"""Origin, in messages, of settings that override a grid's."""

Measure = Literal["accuracy", "accuracy_deviation", "accuracy_swing", "swapped_classes", "collapsed"]
System = Literal["pixelda", "baseline"]


class Expectation(Config):
    """How a condition should differ from the reference if its claim holds."""

    measure: Measure
    """`accuracy`: on the target. `accuracy_deviation`: its distance to the median over seeds. `accuracy_swing`: its standard
    deviation around a line, over the last half of a run's evaluations. `swapped_classes`: number of classes that are mostly
    predicted as another one. `collapsed`: whether a run ends with less than half of its best accuracy."""
    direction: Literal["lower", "higher"]


class Condition(Config):
    """One configuration."""

    claim: str = ""
    """What it should show, in a sentence."""
    expect: tuple[Expectation, ...] = ()
    """One, or a list; each is tested by itself."""
    system: System = "pixelda"
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that override the grid's."""

    @field_validator("expect", mode="before")
    @classmethod
    def _as_list(cls, given: Any) -> Any:
        if given is None:
            return ()
        return (given,) if isinstance(given, dict) else given


class Grid(Config):
    """Conditions and seeds."""

    preset: Literal["auto", "paper", "usps", "demo"] = "paper"
    base: dict[str, Any] = Field(default_factory=dict)
    """Settings of all conditions, which override the preset's."""
    trial: dict[str, Any] = Field(default_factory=dict)
    """Settings that make the conditions of a search small and short, and override the base's. The settings that a search
    writes are without them."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    reference: str
    """The condition that the others are compared with."""
    conditions: Annotated[dict[str, Condition], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_names(self) -> "Grid":
        if self.reference not in self.conditions:
            raise ValueError(f"the reference {self.reference!r} is none of the conditions {', '.join(self.conditions)}")
        for name in self.conditions:
            if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
                raise ValueError(f"the condition name {name!r} may only contain small letters, digits and hyphens")
        return self

    def config(self, name: str, seed: int) -> BaselineConfig:
        """Return the whole configuration of one condition and seed.

        Raises:
            InputError: a setting does not exist or has a wrong value; the message names it.
        """
        condition = self.conditions[name]
        kind = PixelDAConfig if condition.system == "pixelda" else BaselineConfig
        base = merge(self.base, self.trial)
        known = base if condition.system == "pixelda" else _baseline_settings(base)
        values = merge(preset(condition.system, self.preset), known, condition.settings, {"seed": seed})
        return kind.parse(values, f"condition {name}")

    def full_config(self, name: str, seed: int) -> PixelDAConfig:
        """Return the configuration of one condition at full size: without `trial`, and with the preset's length of training.

        Raises:
            InputError: settings do not fit each other without `trial`.
        """
        values = merge(preset("pixelda", self.preset), _without_length(self.base), self.conditions[name].settings)
        return PixelDAConfig.parse(merge(values, {"seed": seed}), f"condition {name} at full size")

    def kept(self) -> list[str]:
        """Return the dotted names of the base's settings that `full_config` keeps."""
        return [name for name, _ in dotted(_without_length(self.base))]

    def left_out(self) -> list[str]:
        """Return the dotted names of settings of the trial, and of the base, that `full_config` leaves out."""
        kept = self.kept()
        return [name for name, _ in dotted(merge(self.trial, self.base)) if name not in kept]


class GridConfig(Config):
    """The content of config.yaml in a folder of runs: the resolved grid, and the name that it was given by."""

    grid: Grid
    name: str


def read_grid(name: str, changes: dict[str, Any] | None = None) -> Grid:
    """Read a packaged grid by name, or a YAML file; `changes` override its base and its trial.

    Raises:
        InputError: there is no such grid, or it has unknown keys or settings.
    """
    if name in GRIDS:
        text = (resources.files("pixelscope.pixelda.ablation") / "grids" / f"{name}.yaml").read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    elif Path(name).suffix in (".yaml", ".yml"):
        values = read_yaml(Path(name))
    else:
        raise InputError(f"There is no grid {name!r}; name one of {', '.join(GRIDS)}, or a file ending in .yaml.")
    grid = Grid.parse(values, name)
    _refuse_seeds(grid, name)
    changes = changes or {}
    grid = grid.model_copy(update={"base": merge(grid.base, changes), "trial": merge(grid.trial, _shared(changes, grid.trial))})
    for name, condition in grid.conditions.items():
        PixelDAConfig.check_file(changes, condition.settings, CHANGES)
        grid.config(name, grid.seeds[0])
    return grid


def _refuse_seeds(grid: Grid, name: str) -> None:
    """Raise InputError if settings of a grid have a seed, which `Grid.seeds` overrides."""
    settings = {"base": grid.base, "trial": grid.trial}
    settings |= {f"conditions.{one}.settings": condition.settings for one, condition in grid.conditions.items()}
    where = next((place for place, some in settings.items() if "seed" in some), None)
    if where is not None:
        raise InputError(f"{name}: {where}.seed has no effect; remove it, and list the seeds in `seeds`.")


def _shared(changes: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the part of `changes` that `settings` has too."""
    both = {name: (value, settings[name]) for name, value in changes.items() if name in settings}
    return {
        name: _shared(value, own) if isinstance(value, dict) and isinstance(own, dict) else value
        for name, (value, own) in both.items()
    }


def _without_length(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the length of the training and its intervals."""
    training = settings.get("training")
    if not isinstance(training, dict):
        return settings
    kept = {name: value for name, value in training.items() if name not in LENGTH and not name.endswith("_every")}
    others = {name: value for name, value in settings.items() if name != "training"}
    return others | ({"training": kept} if kept else {})


def _baseline_settings(base: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of PixelDA that a baseline has too."""
    known = {name: value for name, value in base.items() if name in BaselineConfig.model_fields}
    if isinstance(known.get("classifier"), dict):
        known["classifier"] = {k: v for k, v in known["classifier"].items() if k in ClassifierConfig.model_fields}
    return known
