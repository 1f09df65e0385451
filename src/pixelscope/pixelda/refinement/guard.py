"""Estimate without target labels whether a refinement is likely more accurate on the target than the T it started from.

Confidence, consistency over views and accuracy on generated images do not decide. Training with pseudo-labels makes a
classifier confident and consistent, right or wrong; accuracy on generated images falls while it learns the target. The
agreement of predictions with clusters of features decides: it was right in the five refinements that it was chosen on
(docs/decisions/0013). It does not see that a refinement from a T of full length harms (results/refine.md). There both agree on
nearly all images, and their mean is better than either (docs/decisions/0032).
"""

from collections.abc import Mapping, Sequence

import torch
from scipy import stats
from torch import Tensor, nn

from pixelscope.data.disk_array import sampled
from pixelscope.data.imageset import ImageSet
from pixelscope.pixelda.metrics import MeasuredSet
from pixelscope.pixelda.refinement.results import ClassShare, Guard
from pixelscope.pixelda.results import SWAPPED
from pixelscope.pixelda.verdict import CRITERIA as VERDICT_CRITERIA
from pixelscope.pixelda.verdict import MAX_IMAGES, answers_of, criterion_values, swapped_share

CRITERIA = {"redrawn accuracy": "accuracy on held-out source images translated by G", **VERDICT_CRITERIA}
"""Description of each criterion; higher values are better."""

DECIDES = "cluster agreement"
"""Criterion that decides; the others are only shown."""

FALL = 0.02
"""Decrease in cluster agreement from which a refinement likely harms."""

AGREED = 0.9
"""Agreement of two networks from which their mean is used: their accuracies then differ by a tenth at most."""

UNLEARNED = 0.5
"""Fraction of the former accuracy on the source under which a classifier has not learned its task."""

VANISHED = 0.25
"""Ratio of a class's frequency to its former one below which it has vanished from the predictions."""

FEW = 0.05
"""Maximum fraction of vanished classes that does not decide; each lowers balanced accuracy by at most its share."""

ADVICE = "Raise --training.images, or start from T with --preset paper-classifier."
"""What to do about a refinement that has not learned the source."""

RISK = 0.05
"""Maximum probability, over all classes, that chance alone lets a class vanish: a few images may have none of it."""


def guard(
    start: nn.Module,
    refined: nn.Module,
    target: ImageSet,
    source: ImageSet,
    redrawn: ImageSet | None,
    threshold: float,
    *,
    frequencies: Sequence[float],
    independent: bool = True,
    finished: bool = True,
) -> Guard:
    """Compare a refined classifier with the T it started from.

    Args:
        start, refined: the classifiers.
        target: target images held out of the refinement; labels are not used.
        source: labelled source images held out of it.
        redrawn: the same images, translated by G; None without generated images.
        threshold: minimum probability of a pseudo-label.
        frequencies: fraction of the source's training images per class.
        independent: whether the refined classifier is a new network, which makes other errors than T, so that their mean may
            be used.
        finished: whether the refinement is finished; advice is given only then.
    """
    shown = sampled(target.images, MAX_IMAGES)
    networks = {"start": start, "refined": refined}
    found = {name: answers_of(network, shown) for name, network in networks.items()}
    known = {"source accuracy": MeasuredSet("source", [source], source=True)}
    if redrawn is not None:
        known["redrawn accuracy"] = MeasuredSet("redrawn", [redrawn], source=False)
    values = [criterion_values(network, shown, *found[name], known) for name, network in networks.items()]
    criteria = {name: (values[0][name], values[1][name]) for name in CRITERIA if name in values[0]}
    before, after = (logits.argmax(1) for logits, _ in found.values())
    shares = _shares(source.classes, frequencies, before, after)
    gone = [one.name for one in shares if _vanished(one, len(shown), RISK / len(shares))]
    vanished = (f"It almost never predicts {', '.join(gone)}.",) if gone else ()
    decides = len(gone) > FEW * len(shares)
    reasons = _reasons(criteria, swapped_share(before, after)) + (vanished if decides else ())
    agreement = float((before == after).double().mean())
    confidence = {name: logits.softmax(1).amax(1) for name, (logits, _) in found.items()}
    return Guard(
        kept="start" if reasons else "mean" if independent and agreement >= AGREED else "refined",
        reasons=reasons,
        remarks=() if decides else vanished,
        advice=ADVICE if finished and _unlearned(criteria) else "",
        criteria=criteria,
        agreement=agreement,
        start_weight=_start_weight(*(float(values.double().mean()) for values in confidence.values())),
        pseudo_label_rate=float((confidence["refined"] >= threshold).double().mean()),
        classes=shares,
        images=len(shown),
    )


def _start_weight(start: float, refined: float) -> float:
    """Return the weight of the first of two classifiers in their mean, by their mean confidence.

    Weights are inverse to the fraction of images that each would call wrongly if its probabilities were right. Two decimals are
    the same on all machines.
    """
    wrong = [max(1 - one, 1e-6) for one in (start, refined)]
    return min(max(round(wrong[1] / sum(wrong), 2), 0.01), 0.99)


def _shares(classes: Sequence[str], frequencies: Sequence[float], before: Tensor, after: Tensor) -> tuple[ClassShare, ...]:
    def of(labels: Tensor) -> list[float]:
        return (torch.bincount(labels, minlength=len(classes)).double() / len(labels)).tolist()

    rows = zip(classes, frequencies, of(before), of(after), strict=True)
    return tuple(ClassShare(name=name, source=own, start=start, refined=refined) for name, own, start, refined in rows)


def _reasons(criteria: Mapping[str, tuple[float, float]], swapped: float) -> tuple[str, ...]:
    reasons = []
    before, after = criteria["source accuracy"]
    if _unlearned(criteria):
        reasons.append(f"It has not learned the source: its accuracy there is {after:.0%}, before {before:.0%}.")
    before, after = criteria[DECIDES]
    if before - after > FALL:
        reasons.append(f"Its predictions agree less with clusters of its features: {after:.2f}, before {before:.2f}.")
    if swapped > SWAPPED:
        reasons.append("It swaps classes.")
    return tuple(reasons)


def _vanished(share: ClassShare, images: int, risk: float) -> bool:
    """Return whether a class has vanished from the predictions for `images` images.

    Both must hold: its frequency is below `VANISHED` of the former one, and a Poisson variable with the former mean count is as
    low with a probability below `risk`.
    """
    former = min(share.start, share.source)
    by_chance = float(stats.poisson.cdf(round(share.refined * images), former * images))
    return share.refined < VANISHED * former and by_chance < risk


def _unlearned(criteria: Mapping[str, tuple[float, float]]) -> bool:
    before, after = criteria["source accuracy"]
    return after < UNLEARNED * before
