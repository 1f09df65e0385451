"""Accuracies in words and in tables, from evaluation.json."""

import re

from pixelscope.pixelda.figures.material import Lines, Material
from pixelscope.pixelda.results import SetResult
from pixelscope.report.document import Row, Table

FEW = 5000
"""Up to as many images one decimal of a percentage is as fine as the standard error supports."""

RULES = {
    "last": "last: the weights at the end",
    "ema-last": "ema-last: the moving average at the end",
    "best-source": "best-source: best on held-out source images",
}
"""Rules that need no target label, as the table names them."""


def percent(share: float, count: int) -> str:
    """Return a share of `count` images in percent, with as many decimals as their number supports."""
    return f"{100 * share:.{1 if count <= FEW else 2}f}%"


def points(change: float, count: int) -> str:
    """Return a signed difference of two shares in points, with a minus sign as typeset."""
    text = f"{100 * change:+.{1 if count <= FEW else 2}f}"
    return re.sub(r"^[+-](0\.0+)$", r"\1", text).replace("-", "−")


def domain_names(material: Material) -> tuple[str, str]:
    """Return what source and target are called in a sentence: their titles up to the first comma, told apart if alike."""
    data = material.record.data
    source, target = (_short(data[role].title) if role in data else "" for role in ("source", "target"))
    if source == target and source:
        return f"{source} (source)", f"{target} (target)"
    return source or "the source", target or "the target"


def measured_sets(material: Material) -> dict[str, str]:
    """Return the sets that an evaluation may hold, by name, with what a reader calls them."""
    source, target = domain_names(material)
    return {
        "source_test": f"{source}, test split",
        "target_test": f"{target}, test split",
        "target_all": f"{target}, all images",
    }


def before_after_table(material: Material) -> Table | None:
    """Return accuracy before and after adaptation on both domains; the column before is left out where it was not measured."""
    found = {title: (_before(material, name), material.results(name)) for name, title in measured_sets(material).items()}
    rows = [_compared(title, before, after) for title, (before, after) in found.items() if after is not None]
    if not rows:
        return None
    header, caption = ("Accuracy", "images", "before", "after", "change, points"), "± is one standard error."
    if material.before is None or material.before.numbers is None:
        return Table(caption, (*header[:2], header[3]), tuple(Row((*row.cells[:2], row.cells[3])) for row in rows))
    rule = material.before.numbers.rule
    return Table(f"Before is the baseline, trained on the source alone, by the rule {rule}; {caption}", header, tuple(rows))


def accuracy_table(material: Material) -> Table | None:
    """Return accuracy on every set that was measured."""
    found = ((title, material.results(name)) for name, title in measured_sets(material).items())
    rows = tuple(Row((title, f"{result.count:,}", _with_error(result))) for title, result in found if result is not None)
    return Table("± is one standard error.", ("Accuracy", "images", "accuracy"), rows) if rows else None


def rules_table(material: Material) -> Table | None:
    """Return accuracy by each rule of choosing a checkpoint, and apart from them what target labels would have chosen."""
    numbers = material.numbers
    if numbers is None or not numbers.rules:
        return None
    sets = {name: title for name, title in measured_sets(material).items() if name in numbers.sets}
    rows = []
    for rule, result in numbers.rules.items():
        title, found = RULES.get(rule, rule) + (" (headline)" if rule == numbers.rule else ""), result.accuracies()
        cells = (percent(found[name], numbers.sets[name].count) if name in found else "" for name in sets)
        rows.append(Row((title, f"{result.images:,}", *cells)))
    if numbers.oracle is not None and "target_test" in sets:
        accuracy = percent(numbers.oracle.target_test, numbers.sets["target_test"].count)
        cells = (accuracy if name == "target_test" else "" for name in sets)
        rows.append(Row((numbers.oracle.label, f"{numbers.oracle.images:,}", *cells), apart=True))
    caption = "Rules above the line use no target label; the oracle does, and is no result."
    return Table(
        caption if rows[-1].apart else "No rule here uses a target label.",
        ("Checkpoint rule", "images seen", *sets.values()),
        tuple(rows),
    )


def verdict_table(material: Material) -> Table | None:
    """Return what each rule says of T of the source alone and of the adapted T, and apart from them what target labels say."""
    numbers = material.numbers
    if numbers is None or numbers.verdict is None:
        return None
    rows = [Row((rule, f"{before:.3f}", f"{after:.3f}")) for rule, (before, after) in numbers.verdict.rules.items()]
    truth = material.results("target_test")
    if numbers.source_only is not None and truth is not None and "target_test" in numbers.source_only:
        known = (percent(numbers.source_only["target_test"], truth.count), percent(truth.accuracy, truth.count))
        rows.append(Row(("accuracy on the target's test split, with its labels", *known), apart=True))
    caption = "Higher is better. " + (
        "Rules above the line use no target label." if rows[-1].apart else "No rule here uses one."
    )
    return Table(caption, ("Rule", "source alone", "adapted"), tuple(rows))


def warnings_table(warnings: Lines) -> Table | None:
    """Return the warnings that a training raised, by cause."""
    causes = dict.fromkeys(str(line.get("cause", "unknown")) for line in warnings)
    rows = []
    for cause in causes:
        raised = [line for line in warnings if str(line.get("cause", "unknown")) == cause]
        first, last = raised[0]["images"], raised[-1]["images"]
        when = f"at {first:,} images" if first == last else f"from {first:,} to {last:,} images"
        rows.append(Row((cause, f"{len(raised):,}", when, str(raised[-1].get("text", "")))))
    return (
        Table("Warnings raised while training ran.", ("Cause", "times", "when", "the last one"), tuple(rows), numeric=False)
        if rows
        else None
    )


def _short(title: str) -> str:
    return re.split(r"[,:;(]", title)[0].strip()[:48]


def _before(material: Material, name: str) -> SetResult | None:
    return material.before.results(name) if material.before else None


def _compared(title: str, before: SetResult | None, after: SetResult) -> Row:
    change = "" if before is None else points(after.accuracy - before.accuracy, after.count)
    return Row((title, f"{after.count:,}", "" if before is None else _with_error(before), _with_error(after), change))


def _with_error(result: SetResult) -> str:
    error = f"{100 * result.standard_error:.{1 if result.count <= FEW else 2}f}"
    return f"{percent(result.accuracy, result.count)} ± {error}"
