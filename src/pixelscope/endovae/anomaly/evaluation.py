"""How well a run's anomaly scores tell abnormal from healthy frames, beside trivial scores. For research only.

Each class of healthy frames is measured apart: frames of another camera than the abnormal ones are told from them by anything.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixelscope.endovae.anomaly.baselines import BASELINES, baseline_scores, mean_colours
from pixelscope.endovae.anomaly.calibrate import calibrate, compute_raw_scores, split_for_anomaly
from pixelscope.endovae.anomaly.calibration import FILE, RATE, Calibration, GaussianReference
from pixelscope.endovae.anomaly.localization import localize
from pixelscope.endovae.anomaly.scores import NO_TISSUE, SCORES, Values, scores
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import FrameSubset, Splits
from pixelscope.endovae.metrics import auroc_with_ci
from pixelscope.endovae.pca import PrincipalComponents
from pixelscope.endovae.results import Anomaly, ScoreSeparation
from pixelscope.endovae.samples import write_heat_maps
from pixelscope.errors import InputError
from pixelscope.files import write_text

NEAR = 0.03
"""AUROC by which the model must be ahead of every trivial score, lest a warning is printed."""
COLOURS = 20_000
"""Training frames that the mean colours are described by at most."""


@dataclass(frozen=True)
class Scored:
    """The scores of one part's frames, float64 (N,) each; NaN where there is nothing to measure."""

    scores: dict[str, Values]
    baselines: dict[str, Values]

    @property
    def seen(self) -> np.ndarray:
        """Return in which frames tissue is seen, bool (N,)."""
        return np.isfinite(self.scores["whole"])

    def select(self, rows: np.ndarray) -> "Scored":
        """Return the scores of some frames, by position or bool (N,)."""
        return Scored(*({name: values[rows] for name, values in some.items()} for some in (self.scores, self.baselines)))


@dataclass(frozen=True)
class AnomalyMeasured:
    """What a run's anomaly scores were measured to be, frame by frame and in all."""

    calibration: Calibration
    test: dict[str, FrameSubset]
    scored: dict[str, Scored]
    p: dict[str, Values]
    """Of the chosen score of each frame, (N,); NaN where there is nothing to measure."""
    found: Anomaly | None

    def store(self, checkpoint: Checkpoint) -> None:
        """Write the calibration, anomaly.csv and the heat maps into the run folder."""
        folder = checkpoint.folder
        self.calibration.save(folder.checkpoints / FILE)
        write_text(folder.path / "anomaly.csv", anomaly_table(self.test, self.scored, self.p))
        write_heat_maps(checkpoint, self.test, self.p, self.calibration)


def measure_anomaly(
    splits: Splits, checkpoint: Checkpoint, components: PrincipalComponents, others: dict[str, FrameSubset] | None = None
) -> AnomalyMeasured | None:
    """Calibrate on the run's own validation frames and test on its held-out ones, or on `others`.

    None where no healthy frames were trained on.
    """
    parts = split_for_anomaly(splits, checkpoint.config.split)
    if parts is None:
        return None
    calibration = calibrate(checkpoint, splits.train, parts.choosing)
    test = parts.test if others is None else others
    colours = fit_colour_reference(splits.train)
    scored = {kind: score_part(part, checkpoint, calibration, colours, components) for kind, part in test.items()}
    p = {kind: calibration.p_values(calibration.chosen, one.scores[calibration.chosen]) for kind, one in scored.items()}
    found = evaluate_anomaly(test, scored, p, calibration)
    if found is not None:
        found = found.model_copy(update={"localization": localize(test["abnormal"], checkpoint, components)})
    return AnomalyMeasured(calibration, test, scored, p, found)


def fit_colour_reference(train: FrameSubset) -> GaussianReference:
    """Return where the mean colours of the training frames lie, told from at most `COLOURS` of them."""
    some = train.at_most(COLOURS)
    colours = mean_colours(some.frames, some.insets)
    return GaussianReference.fit(colours[np.isfinite(colours).all(1)])


def score_part(
    part: FrameSubset,
    checkpoint: Checkpoint,
    calibration: Calibration,
    colours: GaussianReference,
    components: PrincipalComponents,
) -> Scored:
    """Return all scores and trivial scores of a part's frames; colours: see `describe_colours`."""
    return Scored(
        scores(compute_raw_scores(checkpoint, part, calibration.latent), calibration.spread),
        baseline_scores(part.frames, part.insets, colours, components),
    )


def evaluate_anomaly(
    test: Mapping[str, FrameSubset], scored: Mapping[str, Scored], p: Mapping[str, Values], calibration: Calibration
) -> Anomaly | None:
    """Compare the scores of the test's healthy and abnormal frames, those in which tissue is seen.

    None where there are no frames of either kind; raises InputError where none of a kind shows tissue.
    """
    if set(test) != {"normal", "abnormal"}:
        return None
    unscored = {kind: int((~one.seen).sum()) for kind, one in scored.items() if not one.seen.all()}
    inside = {"all": np.ones(len(test["normal"]), bool)} | _by_class(test["normal"])
    inside = {name: which[scored["normal"].seen] for name, which in inside.items()}
    inside = {name: which for name, which in inside.items() if which.any()}
    flagged = {kind: p[kind][one.seen] <= RATE for kind, one in scored.items()}
    scored = {kind: _with_tissue(kind, one) for kind, one in scored.items()}
    found = {kind: _separations(scored, kind, inside) for kind in ("scores", "baselines")}
    chosen = calibration.chosen
    return Anomaly(
        chosen=chosen,
        choice=calibration.choice,
        choice_counts=calibration.choice_counts,
        counts={name: int(which.sum()) for name, which in inside.items()}
        | {"abnormal": len(scored["abnormal"].scores[chosen])},
        scores=found["scores"],
        baselines=found["baselines"],
        rate=RATE,
        flagged={name: float(flagged["normal"][which].mean()) for name, which in inside.items()}
        | {"abnormal": float(flagged["abnormal"].mean())},
        localization=None,
        warnings=_warnings(found["scores"][chosen], found["baselines"], chosen),
        unscored=unscored,
    )


def anomaly_table(parts: Mapping[str, FrameSubset], scored: Mapping[str, Scored], p: Mapping[str, Values]) -> str:
    """Return one CSV row a test frame: name, class, kind, p-value, flagged or not, every score, every trivial score, and an
    error where there is no score.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "class", "kind", "p", "flagged", *SCORES, *BASELINES, "error"])
    for kind, part in parts.items():
        found = scored[kind]
        classes = [part.store.classes[label] for label in part.store.labels[part.positions]]
        columns = [*(found.scores[name] for name in SCORES), *(found.baselines[name] for name in BASELINES)]
        for row, (name, label) in enumerate(zip(part.names, classes, strict=True)):
            values = [number(column[row]) for column in columns]
            flagged, error = (int(p[kind][row] <= RATE), "") if found.seen[row] else ("", NO_TISSUE)
            writer.writerow([name, label, kind, number(p[kind][row]), flagged, *values, error])
    return text.getvalue()


def number(value: float) -> str:
    """Return a number as a table has it; nothing for NaN, which was not measured."""
    return "" if np.isnan(value) else f"{value:.6g}"


def _with_tissue(kind: str, scored: Scored) -> Scored:
    if not scored.seen.any():
        raise InputError(
            f"No tissue is seen in any of the {len(scored.seen):,} {kind} test frames, so that there is nothing to tell apart; "
            "give others."
        )
    return scored.select(scored.seen)


def _by_class(part: FrameSubset) -> dict[str, np.ndarray]:
    labels = part.store.labels[part.positions]
    return {part.store.classes[label]: labels == label for label in np.unique(labels)}


def _separations(
    scored: Mapping[str, Scored], kind: str, inside: Mapping[str, np.ndarray]
) -> dict[str, dict[str, ScoreSeparation]]:
    normal, abnormal = (getattr(scored[side], kind) for side in ("normal", "abnormal"))
    return {
        name: {group: auroc_with_ci(values[which], abnormal[name]) for group, which in inside.items()}
        for name, values in normal.items()
    }


def _warnings(
    model: Mapping[str, ScoreSeparation], baselines: Mapping[str, Mapping[str, ScoreSeparation]], chosen: str
) -> tuple[str, ...]:
    found = []
    for group, one in model.items():
        near = {name: by[group].auroc.value for name, by in baselines.items() if by[group].auroc.value > one.auroc.value - NEAR}
        if near:
            rivals = " and ".join(f"{name} ({value:.3f})" for name, value in near.items())
            where = "all healthy frames" if group == "all" else group
            found.append(
                f"Warning: against {where}, {chosen} has an AUROC of {one.auroc.value:.3f} and a trivial score comes within "
                f"{NEAR:g} of it or passes it: {rivals}. Do not credit the network with the separation."
            )
    return tuple(found)
