"""What the numbers of a cell say of its claim, in words."""

from pixelscope.pixelda.ablation.collecting import mean_std
from pixelscope.pixelda.ablation.grid import Expectation, Grid
from pixelscope.pixelda.ablation.results import ClaimVerdict, ConditionResult, Judgement, MeanStd, SeedResult

NAMES = {"accuracy": "target accuracy", "unsteadiness": "swing of the target accuracy along a run"}


def judge(grid: Grid, cells: list[ConditionResult]) -> list[ClaimVerdict]:
    """Return the verdict on each cell's claim."""
    reference = next(cell for cell in cells if cell.name == grid.reference)
    return [_verdict(cell, reference, grid.cells[cell.name].expect) for cell in cells]


def _verdict(cell: ConditionResult, reference: ConditionResult, expect: Expectation | None) -> ClaimVerdict:
    if cell.name == reference.name:
        return ClaimVerdict(cell=cell.name, judgement="reference", words="What the others are compared with.")
    measure = "accuracy" if expect is None else expect.measure
    pairs = _pairs(cell, reference, measure)
    if not pairs:
        words = "No seed has been run both with it and in the reference."
        return ClaimVerdict(cell=cell.name, judgement="not measured", words=words)
    difference = mean_std([100 * (value - other) for value, other in pairs])
    found = (
        f"{NAMES[measure].capitalize()} changes by {_points(difference)}, over {_seeds(len(pairs))} paired with the reference"
    )
    judgement, conclusion = "undecided", "No claim was made of it."
    if expect is not None:
        judgement = _judgement(difference, expect.direction)
        conclusion = _conclusion(judgement, difference, expect)
    return ClaimVerdict(cell=cell.name, judgement=judgement, words=f"{found}. {conclusion}", difference=difference)


def _pairs(cell: ConditionResult, reference: ConditionResult, measure: str) -> list[tuple[float, float]]:
    def values(outcomes: list[SeedResult]) -> dict[int, float]:
        return {one.seed: value for one in outcomes if (value := getattr(one, measure)) is not None}

    mine, others = values(cell.outcomes), values(reference.outcomes)
    return [(mine[seed], others[seed]) for seed in mine if seed in others]


def _judgement(difference: MeanStd, direction: str) -> Judgement:
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "undecided"
    lower = difference.high < 0
    return "supported" if lower == (direction == "lower") else "contradicted"


def _conclusion(judgement: Judgement, difference: MeanStd, expect: Expectation) -> str:
    if judgement == "supported":
        return f"This supports the claim, by which it is {expect.direction}."
    if judgement == "contradicted":
        return f"This contradicts the claim, by which it is {expect.direction}."
    if difference.low is None:
        return "One seed decides nothing."
    tends = "as claimed" if (difference.mean < 0) == (expect.direction == "lower") else "the other way"
    return f"The interval holds 0: these seeds do not decide; the mean goes {tends}."


def _points(difference: MeanStd) -> str:
    interval = "" if difference.low is None else f" [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"{difference.mean:+.2f}{interval} points".replace("-", "−")


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
