"""An ablation as the sections of a page."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelscope.config import read_yaml
from pixelscope.pixelda.ablation.ablate import RESULT
from pixelscope.pixelda.ablation.grid import Grid
from pixelscope.pixelda.ablation.results import AblationResult, ConditionResult
from pixelscope.pixelda.ablation.running import GridConfig, samples_section
from pixelscope.report.document import Illustration, Part, Row, Section, Table
from pixelscope.report.plotting import BLUE, GREY, INK, Panel, count_images, count_percent, padded_figure, panels, styled
from pixelscope.report.record import record_section
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.record import read_record

DRAWN = (
    "The same source images with the same z, as each setting's G of the first seed redraws them at the end, and target images."
)


def sections(run: Path) -> list[Section]:
    """Return the sections of the page on an ablation; raises InputError where a file in it is damaged."""
    folder = RunFolder.open(run)
    grid = GridConfig.parse(read_yaml(folder.config), str(folder.config)).grid
    record = read_record(folder)
    path = folder.path / RESULT
    numbers = AblationResult.load(path) if path.is_file() else None
    middle = (
        []
        if numbers is None
        else [
            _result(numbers, grid),
            _claims(numbers),
            _curves(numbers, grid),
            samples_section(folder, DRAWN),
            _health(numbers),
        ]
    )
    shown = [section for section in middle if section.parts]
    return [_lead(numbers, grid), *shown, record_section(folder, record, None)]


def _lead(numbers: AblationResult | None, grid: Grid) -> Section:
    seeds = f"{len(grid.seeds)} seed{'s' if len(grid.seeds) > 1 else ''}"
    prose = f"{len(grid.cells)} settings of PixelDA, {seeds} each, preset {grid.preset}; each is a run of its own in cells/."
    if numbers is None:
        return Section("Ablation", "lead", prose=(prose,), headline="Not finished yet, so nothing is known.")
    count = {
        word: sum(one.judgement == word for one in numbers.verdicts) for word in ("supported", "contradicted", "undecided")
    }
    missing = [f"{cell.name}, seed {seed}: {why}" for cell in numbers.cells for seed, why in cell.missing.items()]
    headline = ", ".join(f"{number} {'claim' if number == 1 else 'claims'} {word}" for word, number in count.items())
    return Section(f"Ablation: {numbers.grid}", "lead", prose=(prose,), notes=tuple(missing), headline=f"{headline}.")


def _result(numbers: AblationResult, grid: Grid) -> Section:
    measured = [cell for cell in numbers.cells if cell.accuracy is not None]
    parts: list[Part] = []
    if measured:
        caption = (
            "Target accuracy on the test split, by each run's headline rule, which no target label chose. Dots are "
            "runs, the bar is the 95% interval of the mean (Student's t), the line the reference's mean."
        )
        parts.append(Illustration("accuracy", _dots(measured, grid.reference), caption, caption))
    rows = tuple(_row(cell, cell.name == grid.reference) for cell in numbers.cells)
    header = ("Setting", "seeds", "mean", "std", "95% of the mean", "swing along a run, points")
    table = Table(
        "Target accuracy over seeds, and how much T's swings over the last half of a run's evaluations.", header, rows
    )
    return Section("Result", "result", parts=(*parts, table))


def _row(cell: ConditionResult, reference: bool) -> Row:
    found, swing = cell.accuracy, cell.unsteadiness
    name = f"{cell.name} (reference)" if reference else cell.name
    if found is None:
        return Row((name, "0", "", "", "", ""))
    interval = "" if found.low is None or found.high is None else f"{found.low:.2%} to {found.high:.2%}"
    std = "" if found.std is None else f"{100 * found.std:.2f}"
    swings = "" if swing is None else f"{100 * swing.mean:.2f}"
    return Row((name, str(len(cell.outcomes)), f"{found.mean:.2%}", std, interval, swings))


def _claims(numbers: AblationResult) -> Section:
    claims = {cell.name: cell.claim for cell in numbers.cells}
    rows = tuple(
        Row((one.cell, claims[one.cell], one.judgement, one.words)) for one in numbers.verdicts if one.judgement != "reference"
    )
    caption = "What each setting is to show, and what its numbers say; the words are made from the numbers."
    table = Table(caption, ("Setting", "claim", "verdict", "measured"), rows, numeric=False)
    return Section("Claims", "claims", parts=(table,) if rows else ())


def _curves(numbers: AblationResult, grid: Grid) -> Section:
    measured = [cell for cell in numbers.cells if any(len(one.curve) > 1 for one in cell.outcomes)]
    reference = next((cell for cell in measured if cell.name == grid.reference), None)
    parts: list[Panel] = [(cell.name, partial(_draw_curves, cell=cell, reference=reference)) for cell in measured]
    figure = panels_of(parts)
    caption = "Target accuracy along the runs, a thin line a seed and their mean in bold; the reference's mean in grey."
    shown = () if figure is None else (Illustration("curves", figure, caption, caption),)
    return Section("Along the runs", "curves", parts=shown)


@styled
def panels_of(parts: Sequence[Panel]) -> Figure | None:
    """Draw panels in rows of two."""
    return panels(parts, 2, 260)


def _draw_curves(axes: Axes, cell: ConditionResult, reference: ConditionResult | None) -> None:
    if reference is not None and reference is not cell:
        _mean_line(axes, reference, GREY, 1.6)
    for one in cell.outcomes:
        axes.plot(*np.array(one.curve, float).T, color=BLUE, linewidth=0.9, alpha=0.7)
    _mean_line(axes, cell, BLUE, 2.4)
    count_images(axes)
    count_percent(axes)


def _mean_line(axes: Axes, cell: ConditionResult, colour: str, width: float) -> None:
    curves = [dict(one.curve) for one in cell.outcomes]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if shared:
        axes.plot(shared, [np.mean([curve[at] for curve in curves]) for at in shared], color=colour, linewidth=width)


@styled
def _dots(cells: Sequence[ConditionResult], reference: str) -> Figure:
    figure = padded_figure(820, 80 + 34 * len(cells))
    axes = figure.add_subplot()
    for row, cell in enumerate(cells):
        colour = INK if cell.name == reference else BLUE
        found = cell.accuracy
        assert found is not None
        if found.low is not None and found.high is not None:
            axes.hlines(row, max(0.0, found.low), min(1.0, found.high), color=colour, linewidth=5, alpha=0.25)
        axes.plot([one.accuracy for one in cell.outcomes], [row] * len(cell.outcomes), "o", color=colour, markersize=5)
        if cell.name == reference:
            axes.axvline(found.mean, color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(cells)), [cell.name for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
    axes.set_xlabel("target accuracy, test split")
    return figure


def _health(numbers: AblationResult) -> Section:
    rows = []
    for cell in numbers.cells:
        one = cell.outcomes
        rows.append(
            Row(
                (
                    cell.name,
                    _mean([o.source for o in one], "{:.2%}"),
                    _mean([o.real for o in one], "{:.2f}"),
                    _mean([o.generated for o in one], "{:.2f}"),
                    _mean([o.diversity for o in one], "{:.4f}"),
                    ", ".join(str(o.swapped) for o in one),
                    ", ".join(str(o.warnings) for o in one),
                )
            )
        )
    header = ("Setting", "source accuracy", "D(real)", "D(generated)", "diversity", "classes swapped", "warnings")
    caption = (
        "Means over seeds; of swapped classes (those most often taken for another) and warnings the number in each run. D's "
        "verdicts are means over the last tenth; diversity is the spread of generated images over z."
    )
    return Section("Diagnostics", "diagnostics", parts=(Table(caption, header, tuple(rows)),))


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(float(np.mean(known))) if known else ""
