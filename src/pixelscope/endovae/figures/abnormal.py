"""The section on anomaly scores: how they tell frames apart, beside trivial scores, and where they see a difference."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from pixelscope.endovae.anomaly.baselines import BASELINES
from pixelscope.endovae.anomaly.scores import SCORES
from pixelscope.endovae.figures.galleries import HeatMaps, heat_gallery
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.separation import separation_panel
from pixelscope.endovae.figures.words import KINDS
from pixelscope.endovae.results import RESEARCH, Anomaly, ScoreSeparation
from pixelscope.report.document import Illustration, Part, Row, Section, Table


def anomaly_section(material: Material) -> Section:
    """Return how anomaly scores tell abnormal from healthy test frames; empty where that was not measured."""
    found = None if material.numbers is None else material.numbers.anomaly
    if found is None:
        return Section("Anomaly scores", "anomaly")
    parts: list[Part | None] = [
        _compared(found),
        _table(found),
        _words(found),
        _heat_maps(material),
        _localization(found),
    ]
    return Section(
        "Anomaly scores",
        "anomaly",
        prose=(f"{RESEARCH} {_choice(found)}", _flagged(found)),
        parts=tuple(part for part in parts if part is not None),
        notes=found.warnings,
    )


def _choice(found: Anomaly) -> str:
    kinds = " and ".join(f"{count:,} {kind}" for kind, count in found.choice_counts.items())
    if not found.choice:
        return f"The score is {found.chosen}, the default: there are no abnormal frames to choose one by."
    best = found.choice[found.chosen]
    return (
        f"The score {found.chosen} was chosen on {kinds} frames of the validation split (AUROC {best:.3f} there), the healthy "
        "ones of which calibrate it. The frames below are others."
    )


def _flagged(found: Anomaly) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found.flagged.items())
    return f"Flagged at a false-positive rate of {found.rate:.0%} by the calibration: {shares}."


def _compared(found: Anomaly) -> Illustration:
    groups = found.groups
    figure: Figure = separation_panel(
        {name: _points(by, groups) for name, by in found.scores.items()},
        {name: _points(by, groups) for name, by in found.baselines.items()},
        found.chosen,
    )
    caption = (
        f"AUROC with its 95% bootstrap interval, {found.counts['abnormal']:,} abnormal against healthy test frames by class. "
        f"Networks above, trivial scores below; the chosen score is {found.chosen}."
    )
    return Illustration("separation", figure, caption, caption)


def _points(by: Mapping[str, ScoreSeparation], groups: Mapping[str, str]) -> dict[str, tuple[float, float, float]]:
    return {title: (by[key].auroc.value, by[key].auroc.low, by[key].auroc.high) for key, title in groups.items()}


def _table(found: Anomaly) -> Table:
    groups = found.groups
    rows = [_row(f"{name} (chosen)" if name == found.chosen else name, by, groups) for name, by in found.scores.items()]
    rows += [_row(name, by, groups, apart=True) for name, by in found.baselines.items()]
    heads = [f"{title} ({found.counts[key]:,})" for key, title in groups.items()]
    caption = "AUROC by class of healthy frames, and average precision against all of them; 95% bootstrap intervals."
    return Table(caption, ("Score", *heads, "average precision"), tuple(rows))


def _row(name: str, by: Mapping[str, ScoreSeparation], groups: Mapping[str, str], apart: bool = False) -> Row:
    found = [by[key].auroc for key in groups] + [by[next(iter(groups))].average_precision]
    return Row((name, *map(str, found)), apart)


def _words(found: Anomaly) -> Table:
    rows = [Row((name, text)) for name, text in (SCORES | BASELINES).items() if name in found.scores or name in found.baselines]
    return Table("What each score is.", ("Score", "what it is"), tuple(rows), numeric=False)


def _heat_maps(material: Material) -> Illustration | None:
    groups = []
    for kind in KINDS:
        arrays = material.heat_maps(kind)
        if arrays is not None:
            groups.append(HeatMaps(kind, arrays["frames"], arrays["overlays"], arrays["lesions"] > 0, arrays["p"]))
    if not groups:
        return None
    caption = (
        "Random test frames, lesions outlined in white where masks are known, above where their reconstruction differs: "
        "the brighter, the larger the squared error, on one scale for all. p: the share of healthy calibration "
        "frames that score as high."
    )
    return Illustration("heat-maps", heat_gallery(groups), caption, caption)


def _localization(found: Anomaly) -> Table | None:
    if found.localization is None:
        return None
    rows = [Row((name, f"{one.auroc:.3f}", f"{one.dice:.3f}")) for name, one in found.localization.maps.items()]
    caption = (
        f"How maps tell lesion pixels ({found.localization.lesion_share:.1%}) from the others in {found.localization.frames:,} "
        "abnormal test frames, insets left out. The best Dice takes the threshold that suits these very masks."
    )
    return Table(caption, ("Map", "pixel AUROC", "best Dice"), tuple(rows))
