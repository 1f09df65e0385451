"""The report on an ablation or a search."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixelscope.config import read_yaml
from pixelscope.errors import plural
from pixelscope.pixelda.ablation.grid import Grid, GridConfig
from pixelscope.pixelda.ablation.results import (
    ABLATION,
    COMPARISON_HEADER,
    HEADER,
    RUNS,
    SAMPLES,
    SEARCH,
    TRIAL_HEADER,
    AblationResult,
    Cells,
    ConditionResult,
    SearchResult,
)
from pixelscope.pixelda.report.generated import named_rows
from pixelscope.reports.document import CaptionedFigure, Part, Row, Section, Table, record_section
from pixelscope.reports.plotting import BLUE, GREY, INK, Panel, count_images, count_percent, padded_figure, panels, styled
from pixelscope.runs.folder import RunFolder, read_arrays
from pixelscope.runs.record import parse_record

ACCURACY_CAPTION = (
    "Target accuracy on the test split, by each run's headline checkpoint, chosen without target labels. Dots: runs. Bar: "
    "95% interval of the mean (Student's t). Dotted line: mean of the reference."
)
CURVES_CAPTION = "Target accuracy over the training. Thin: one line per seed. Bold: their mean. Grey: mean of the reference."
SAMPLES_CAPTION = "Source images, their translations by each condition's G at the end, with the same z, and target images."
DIAGNOSTICS_CAPTION = (
    "Means over seeds; warnings per run. D(real), D(generated): D's "
    "mean probability over the last tenth. Diversity: standard deviation of generated images over z."
)
TRIALS_CAPTION = (
    "T of the source alone → adapted T. View information: mutual information of predictions for a target image and for "
    "altered views of it, in nats, without labels. Swapped classes: fraction of target images in classes that the two "
    "exchange. Content warnings: number of warnings that G changes what images show. Accuracies choose nothing."
)


def ablation_sections(run: Path) -> list[Section]:
    """Return the sections of the report on an ablation.

    Raises:
        InputError: `run` is not such a folder, or a file in it is damaged.
    """
    folder = RunFolder.open(run)
    grid = GridConfig.parse(read_yaml(folder.config), str(folder.config)).grid
    record = record_section(folder, parse_record(folder.read_record(), folder.record), None)
    path = folder.path / ABLATION
    numbers = AblationResult.load(path) if path.is_file() else None
    if numbers is None:
        return [_summary(None, grid), record]
    found = [_result(numbers), _claims(numbers), _curves(numbers), _samples(folder), _diagnostics(numbers)]
    return [_summary(numbers, grid), *(section for section in found if section.parts), record]


def search_sections(run: Path) -> list[Section]:
    """Return the sections of the report on a search.

    Raises:
        InputError: `run` is not such a folder, or a file in it is damaged.
    """
    folder = RunFolder.open(run)
    path = folder.path / SEARCH
    record = record_section(folder, parse_record(folder.read_record(), folder.record), None)
    if not path.is_file():
        return [Section("Search", "summary", headline="Not finished yet, so nothing is chosen."), record]
    found = SearchResult.load(path)
    what, _, reason = found.reason.partition(". ")
    about = f"{len(found.trials)} settings of PixelDA, each trained for a short time; their run folders are in {RUNS}/."
    command = () if found.command is None else (f"To train it in full size: {found.command}", *found.about_settings())
    notes = (*found.failed, *found.contradictions)
    summary = Section("Search", "summary", prose=(reason, about, *command), notes=notes, headline=f"{what.rstrip('.')}.")
    tried = tuple((trial.name, trial.about) for trial in found.trials if trial.about)
    rows = [tuple(cell.replace("->", "→") for cell in cells) for cells in found.rows()]
    tables = [_table(TRIALS_CAPTION, TRIAL_HEADER, rows)]
    tables += [Table("What is tried", (), tuple(map(Row, tried)), numeric=False)] if tried else []
    samples = _samples(folder)
    return [summary, Section("Trials", "trials", parts=tuple(tables)), *([samples] if samples.parts else []), record]


def _summary(numbers: AblationResult | None, grid: Grid) -> Section:
    seeds = plural(len(grid.seeds), "seed")
    prose = f"{len(grid.conditions)} conditions, {seeds} each, preset {grid.preset}; their run folders are in {RUNS}/."
    if numbers is None:
        return Section("Ablation", "summary", prose=(prose,), headline="Not finished yet, so nothing is known.")
    judged = [one.judgement for one in numbers.comparisons]
    counts = {word: judged.count(word) for word in ("supported", "contradicted", "undecided")}
    # A claim may have two tests.
    headline = f"{plural(sum(counts.values()), 'test')} of claims: " + ", ".join(f"{n} {word}" for word, n in counts.items())
    notes = tuple(numbers.missing)
    return Section(f"Ablation: {numbers.grid}", "summary", prose=(prose,), notes=notes, headline=f"{headline}.")


def _table(caption: str, header: Sequence[str], rows: Sequence[Cells], numeric: bool = True) -> Table:
    return Table(caption, (header[0].capitalize(), *header[1:]), tuple(map(Row, rows)), numeric)


def _result(numbers: AblationResult) -> Section:
    measured = [one for one in numbers.conditions if one.accuracy is not None]
    parts: list[Part] = []
    if measured:
        parts.append(CaptionedFigure("accuracy", _dots(measured, numbers.reference), ACCURACY_CAPTION))
    caption = (
        "Target accuracy over seeds. Swing: standard deviation of T's target accuracy around a line, over the last half of "
        "evaluations, mean over seeds. Swapped classes, per seed: classes mostly predicted as another one. Collapsed: runs "
        "that end with less than half of their best accuracy."
    )
    return Section("Result", "result", parts=(*parts, _table(caption, HEADER, numbers.rows())))


def _claims(numbers: AblationResult) -> Section:
    rows = numbers.comparison_rows()
    caption = (
        "Condition minus reference, paired by seed. p: Student's t, corrected for all tests in this table (Holm); "
        "the intervals are not corrected. A claim is supported or contradicted if p is below 0.05."
    )
    return Section("Claims", "claims", parts=(_table(caption, COMPARISON_HEADER, rows, numeric=False),) if rows else ())


def _curves(numbers: AblationResult) -> Section:
    measured = [one for one in numbers.conditions if any(len(seed.curve) > 1 for seed in one.seeds)]
    reference = next((one for one in measured if one.name == numbers.reference), None)
    figure = _panels([(one.name, partial(_draw_curves, one=one, reference=reference)) for one in measured])
    shown = () if figure is None else (CaptionedFigure("curves", figure, CURVES_CAPTION),)
    return Section("Over the training", "curves", parts=shown)


def _samples(folder: RunFolder) -> Section:
    arrays = read_arrays(folder.path / SAMPLES, {"names": 1, "drawn": 5})
    if arrays is None:
        return Section("Samples", "samples")
    rows = [(str(name), drawn) for name, drawn in zip(arrays["names"], arrays["drawn"], strict=True)]
    return Section("Samples", "samples", parts=(CaptionedFigure("samples", named_rows(rows), SAMPLES_CAPTION),))


def _diagnostics(numbers: AblationResult) -> Section:
    rows = [
        (
            one.name,
            _mean([seed.source_accuracy for seed in one.seeds], "{:.2%}"),
            _mean([seed.probability_real for seed in one.seeds], "{:.2f}"),
            _mean([seed.probability_generated for seed in one.seeds], "{:.2f}"),
            _mean([seed.diversity for seed in one.seeds], "{:.4f}"),
            ", ".join(str(seed.warnings) for seed in one.seeds),
        )
        for one in numbers.conditions
    ]
    header = ("condition", "source accuracy", "D(real)", "D(generated)", "diversity", "warnings")
    return Section("Diagnostics", "diagnostics", parts=(_table(DIAGNOSTICS_CAPTION, header, rows),))


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(float(np.mean(known))) if known else ""


@styled
def _panels(parts: Sequence[Panel]) -> Figure | None:
    return panels(parts, 2, 260)


def _draw_curves(axes: Axes, one: ConditionResult, reference: ConditionResult | None) -> None:
    if reference is not None and reference is not one:
        _draw_mean(axes, reference, GREY, 1.6)
    for seed in one.seeds:
        axes.plot(*np.array(seed.curve, float).T, color=BLUE, linewidth=0.9, alpha=0.7)
    _draw_mean(axes, one, BLUE, 2.4)
    count_images(axes)
    count_percent(axes)


def _draw_mean(axes: Axes, one: ConditionResult, colour: str, width: float) -> None:
    curves = [dict(seed.curve) for seed in one.seeds]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if shared:
        axes.plot(shared, [np.mean([curve[at] for curve in curves]) for at in shared], color=colour, linewidth=width)


@styled
def _dots(conditions: Sequence[ConditionResult], reference: str) -> Figure:
    figure = padded_figure(820, 80 + 34 * len(conditions))
    axes = figure.add_subplot()
    for row, one in enumerate(conditions):
        colour = INK if one.name == reference else BLUE
        found = one.accuracy
        assert found is not None
        if found.low is not None and found.high is not None:
            axes.hlines(row, max(0.0, found.low), min(1.0, found.high), color=colour, linewidth=5, alpha=0.25)
        axes.plot([seed.accuracy for seed in one.seeds], [row] * len(one.seeds), "o", color=colour, markersize=5)
        if one.name == reference:
            axes.axvline(found.mean, color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(conditions)), [one.name for one in conditions])
    axes.set_ylim(len(conditions) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
    axes.set_xlabel("target accuracy, test split")
    return figure
