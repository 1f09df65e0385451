"""What is compared: named conditions (settings), each run with several seeds, and a claim about each."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from pixelscope.config import Config, merge, read_yaml
from pixelscope.errors import InputError
from pixelscope.pixelda.config import BaselineConfig, ClassifierConfig, PixelDAConfig, preset

GRIDS = ("claims", "search")
"""Packaged grids."""

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
        base = self.base if condition.system == "pixelda" else _baseline_settings(self.base)
        values = merge(preset(condition.system, self.preset), base, condition.settings, {"seed": seed})
        return kind.parse(values, f"condition {name}")


class GridConfig(Config):
    """The content of config.yaml in a folder of runs: the resolved grid, and the name that it was given by."""

    grid: Grid
    name: str


def read_grid(name: str, changes: dict[str, Any] | None = None) -> Grid:
    """Read a packaged grid by name, or a YAML file; `changes` override its base settings.

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
    grid = Grid.parse(merge(values, {"base": changes or {}}), name)
    for condition in grid.conditions:
        grid.config(condition, grid.seeds[0])
    return grid


def _baseline_settings(base: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of PixelDA that a baseline has too."""
    known = {name: value for name, value in base.items() if name in BaselineConfig.model_fields}
    if isinstance(known.get("classifier"), dict):
        known["classifier"] = {k: v for k, v in known["classifier"].items() if k in ClassifierConfig.model_fields}
    return known
