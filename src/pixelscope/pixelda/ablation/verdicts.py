"""What the numbers of a cell say of its claim, in words."""

from dataclasses import dataclass
from typing import Literal

from pixelscope.pixelda.ablation.collecting import Collected, Outcome, Spread
from pixelscope.pixelda.ablation.grid import Expectation, Grid

Judgement = Literal["supported", "contradicted", "undecided", "not measured", "reference"]

NAMES = {"accuracy": "target accuracy", "unsteadiness": "swing of the target accuracy along a run"}


@dataclass(frozen=True)
class Verdict:
    """A judgement on a claim."""

    cell: str
    judgement: Judgement
    words: str
    """A sentence or two, made from the numbers."""
    difference: Spread | None
    """Cell less reference, paired by seed, in points of percent."""


def judge(grid: Grid, cells: list[Collected]) -> list[Verdict]:
    """Return the verdict on each cell's claim."""
    reference = next(cell for cell in cells if cell.name == grid.reference)
    return [_verdict(cell, reference, grid.cells[cell.name].expect) for cell in cells]


def _verdict(cell: Collected, reference: Collected, expect: Expectation | None) -> Verdict:
    if cell.name == reference.name:
        return Verdict(cell.name, "reference", "What the others are compared with.", None)
    measure = "accuracy" if expect is None else expect.measure
    pairs = _pairs(cell, reference, measure)
    if not pairs:
        return Verdict(cell.name, "not measured", "No seed has been run both with it and in the reference.", None)
    difference = Spread.of([100 * (value - other) for value, other in pairs])
    found = (
        f"{NAMES[measure].capitalize()} changes by {_points(difference)}, over {_seeds(len(pairs))} paired with the reference"
    )
    if expect is None:
        return Verdict(cell.name, "undecided", f"{found}. No claim was made of it.", difference)
    judgement = _judgement(difference, expect.direction)
    return Verdict(cell.name, judgement, f"{found}. {_conclusion(judgement, difference, expect)}", difference)


def _pairs(cell: Collected, reference: Collected, measure: str) -> list[tuple[float, float]]:
    def values(outcomes: list[Outcome]) -> dict[int, float]:
        return {one.seed: value for one in outcomes if (value := getattr(one, measure)) is not None}

    mine, others = values(cell.outcomes), values(reference.outcomes)
    return [(mine[seed], others[seed]) for seed in mine if seed in others]


def _judgement(difference: Spread, direction: str) -> Judgement:
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "undecided"
    lower = difference.high < 0
    return "supported" if lower == (direction == "lower") else "contradicted"


def _conclusion(judgement: Judgement, difference: Spread, expect: Expectation) -> str:
    if judgement == "supported":
        return f"This supports the claim, by which it is {expect.direction}."
    if judgement == "contradicted":
        return f"This contradicts the claim, by which it is {expect.direction}."
    if difference.low is None:
        return "One seed decides nothing."
    tends = "as claimed" if (difference.mean < 0) == (expect.direction == "lower") else "the other way"
    return f"The interval holds 0: these seeds do not decide; the mean goes {tends}."


def _points(difference: Spread) -> str:
    interval = "" if difference.low is None else f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.mean:+.2f}{interval} points".replace("-", "−")


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
