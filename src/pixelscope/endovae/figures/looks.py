"""Bars and marks that are told apart without colour."""

from typing import Any

from pixelscope.report.plotting import BLUE, ORANGE

KIND_COLOURS = {"normal": BLUE, "abnormal": ORANGE}
KIND_MARKS = {"normal": "o", "abnormal": "D"}


def filled(colour: str) -> dict[str, Any]:
    """Return the look of a bar of one colour."""
    return {"color": colour}


def hatched(colour: str) -> dict[str, Any]:
    """Return the look of a hatched bar with an edge of one colour."""
    return {"facecolor": "none", "edgecolor": colour, "hatch": "////", "linewidth": 1.4}


def kind_bar(kind: str) -> dict[str, Any]:
    """Return the look of the bars of a kind of frame."""
    return (filled if kind == "normal" else hatched)(KIND_COLOURS[kind])
