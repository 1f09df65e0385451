"""What is compared: settings by name, for several seeds, each with a claim that its numbers can support or not."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from pixelscope.config import Config, merge, read_yaml
from pixelscope.errors import InputError
from pixelscope.pixelda.config import BaselineConfig, ClassifierConfig, PixelDAConfig, preset

GRIDS = ("claims", "search")
"""Grids that come with the package."""

Measure = Literal["accuracy", "unsteadiness"]
System = Literal["pixelda", "baseline"]


class Expectation(Config):
    """What a claim says of a cell's numbers beside the reference's."""

    measure: Measure
    """Target accuracy; or how much it swings along a run: its standard deviation over the last half of the evaluations."""
    direction: Literal["lower", "higher"]


class Cell(Config):
    """One configuration."""

    claim: str = ""
    """What it is to show, a sentence."""
    expect: Expectation | None = None
    system: System = "pixelda"
    settings: dict[str, Any] = Field(default_factory=dict)
    """Laid over the grid's own."""


class Grid(Config):
    """Cells and seeds."""

    preset: Literal["auto", "paper", "usps", "demo"] = "paper"
    base: dict[str, Any] = Field(default_factory=dict)
    """Settings of all cells, laid over the preset."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    reference: str
    """The cell that the others are compared with."""
    cells: Annotated[dict[str, Cell], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_its_reference(self) -> "Grid":
        if self.reference not in self.cells:
            raise ValueError(f"the reference {self.reference!r} is none of the cells {', '.join(self.cells)}")
        wrong = [name for name in self.cells if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")]
        if wrong:
            raise ValueError(f"the cell name {wrong[0]!r} has other characters than small letters, digits and hyphens")
        return self

    def config(self, name: str, seed: int) -> BaselineConfig:
        """Return the whole configuration of one cell and seed.

        Raises InputError with the setting at fault, for a setting that there is not.
        """
        cell = self.cells[name]
        kind = PixelDAConfig if cell.system == "pixelda" else BaselineConfig
        base = self.base if cell.system == "pixelda" else _without_others(self.base)
        return kind.parse(merge(preset(cell.system, self.preset), base, cell.settings, {"seed": seed}), f"cell {name}")


def _without_others(base: dict[str, Any]) -> dict[str, Any]:
    """Return what a baseline takes of settings that are meant for PixelDA."""
    known = {name: value for name, value in base.items() if name in BaselineConfig.model_fields}
    if isinstance(known.get("classifier"), dict):
        known["classifier"] = {k: v for k, v in known["classifier"].items() if k in ClassifierConfig.model_fields}
    return known


def read_grid(name: str, changes: dict[str, Any] | None = None) -> Grid:
    """Read a packaged grid by name, or a YAML file; `changes` are laid over its base settings.

    Raises InputError where there is no such grid, or it has unknown keys or settings.
    """
    if name in GRIDS:
        text = (resources.files("pixelscope.pixelda") / "grids" / f"{name}.yaml").read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    elif Path(name).suffix in (".yaml", ".yml"):
        values = read_yaml(Path(name))
    else:
        raise InputError(f"There is no grid {name!r}; name one of {', '.join(GRIDS)}, or a file ending in .yaml.")
    grid = Grid.parse(merge(values, {"base": changes or {}}), name)
    for cell in grid.cells:
        grid.config(cell, grid.seeds[0])
    return grid
