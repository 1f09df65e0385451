"""The sections "Result" and "Does adaptation help?": accuracies from evaluation.json, in tables."""

from pixelscope.pixelda.report.data import FEW, ReportData, percent, points
from pixelscope.pixelda.results import SetResult
from pixelscope.reports.document import Row, Section, Table, present

CHECKPOINTS = {
    "last": "last: the weights at the end",
    "ema-last": "ema-last: the moving average at the end",
    "best-source": "best-source: best on held-out source images",
}
"""Checkpoints chosen without target labels, as the table names them."""


def result_section(data: ReportData) -> Section:
    """Return accuracy by set, before and after adaptation, and by checkpoint."""
    parts = present(_accuracy_table(data), _checkpoint_table(data))
    return Section("Result", "result", prose=_result_prose(data), parts=parts)


def verdict_section(data: ReportData) -> Section:
    """Compare T of the source alone with the adapted T, without target labels."""
    numbers, title = data.numbers, "Does adaptation help?"
    if numbers is None or numbers.verdict is None:
        return Section(title, "verdict")
    rows = [Row((name, f"{before:.3f}", f"{after:.3f}")) for name, (before, after) in numbers.verdict.criteria.items()]
    truth = data.results("target_test")
    if numbers.source_only is not None and truth is not None and "target_test" in numbers.source_only:
        known = (percent(numbers.source_only["target_test"], truth.count), percent(truth.accuracy, truth.count))
        rows.append(Row(("accuracy on the target's test split, by its labels", *known), separate=True))
    agreed = f"Both classifiers predict the same class for {numbers.verdict.agreement:.0%} of the target images."
    text = " ".join(filter(None, (numbers.verdict.headline(), numbers.verdict.basis(), agreed, numbers.contradiction())))
    caption = f"Higher is better. {_label_caption(rows, 'Criteria')}"
    table = Table(caption, ("Criterion", "source alone", "adapted"), tuple(rows))
    return Section(title, "verdict", prose=(text,), parts=(table,))


def _result_prose(data: ReportData) -> tuple[str, ...]:
    numbers = data.numbers
    if numbers is None:
        return ()
    text = f"Measured at {numbers.images:,} images with the checkpoint {numbers.checkpoint}."
    if "target_all" in numbers.sets and data.adapted:
        text += " All target images include those that training used, without their labels."
    return (text,)


def _sets(data: ReportData) -> dict[str, str]:
    """Return the sets that an evaluation may hold, by name, with their titles."""
    source, target = data.names
    return {
        "source_test": f"{source}, test split",
        "target_test": f"{target}, test split",
        "target_all": f"{target}, all images",
    }


def _accuracy_table(data: ReportData) -> Table | None:
    """Return accuracy by set; a PixelDA run with a measured baseline also has the accuracy before, and the change."""
    header, caption, baseline = ("Accuracy", "images"), "± is one standard error.", None
    if data.adapted and data.before is not None:
        baseline = data.before.numbers
    if baseline is not None:
        header, caption = (*header, "before"), f"Before: the baseline, with the checkpoint {baseline.checkpoint}. {caption}"
    header = (*header, "after" if data.adapted else "accuracy", *(["change, points"] if baseline else []))
    rows = []
    for name, title in _sets(data).items():
        after, before = data.results(name), data.results_before(name)
        if after is not None:
            was = [_with_error(before) if before else ""] if baseline else []
            change = [points(after.accuracy - before.accuracy, after.count) if before else ""] if baseline else []
            rows.append(Row((title, f"{after.count:,}", *was, _with_error(after), *change)))
    return Table(caption, header, tuple(rows)) if rows else None


def _checkpoint_table(data: ReportData) -> Table | None:
    """Return accuracy by checkpoint, and separately the best checkpoint by target labels."""
    numbers = data.numbers
    if numbers is None or not numbers.checkpoints:
        return None
    sets = {name: title for name, title in _sets(data).items() if name in numbers.sets}
    rows = []
    for name, result in numbers.checkpoints.items():
        title, found = CHECKPOINTS.get(name, name) + (" (headline)" if name == numbers.checkpoint else ""), result.accuracies()
        cells = (percent(found[key], numbers.sets[key].count) if key in found else "" for key in sets)
        rows.append(Row((title, f"{result.images:,}", *cells)))
    if numbers.oracle is not None and "target_test" in sets:
        accuracy = percent(numbers.oracle.target_test, numbers.sets["target_test"].count)
        cells = (accuracy if name == "target_test" else "" for name in sets)
        rows.append(Row((numbers.oracle.label, f"{numbers.oracle.images:,}", *cells), separate=True))
    return Table(_label_caption(rows, "Checkpoints"), ("Checkpoint", "images seen", *sets.values()), tuple(rows))


def _label_caption(rows: list[Row], what: str) -> str:
    if rows[-1].separate:
        return f"{what} above the line use no target label; the row below it does, and is not a result."
    return f"{what} here use no target label."


def _with_error(result: SetResult) -> str:
    error = f"{100 * result.standard_error:.{1 if result.count <= FEW else 2}f}"
    return f"{percent(result.accuracy, result.count)} ± {error}"
