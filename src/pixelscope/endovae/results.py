"""Schema of the evaluation of EndoVAE, evaluation.json; imports no torch."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, FiniteFloat, model_validator

from pixelscope.config import Config, Natural
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.errors import InputError, plural
from pixelscope.imaging.config import MIN_LESION
from pixelscope.runs.record import ResultFile

METRICS = ("psnr", "ssim", "squared_error")
MODEL, PCA, MEAN = METHODS = ("endovae", "pca", "mean image")
"""Names of the model and its linear baselines in an evaluation."""
RESEARCH = "For research only: an anomaly score is no diagnosis and no measure of health."


class MeanStd(Config):
    """Mean and standard deviation over frames."""

    mean: float
    std: float

    def format(self, decimals: int) -> str:
        """Return both as text: 17.16 ± 2.37."""
        return f"{self.mean:.{decimals}f} ± {self.std:.{decimals}f}"


class SizeResult(Config):
    """Mean quality of the frames of one original size."""

    width: Natural
    height: Natural
    count: Natural
    psnr: float
    ssim: float


class SetResult(Config):
    """Results on one set of test frames."""

    title: str
    count: Natural
    classes: dict[str, Natural]
    methods: dict[str, dict[str, MeanStd]]
    """By method (endovae, pca, mean image), then by metric (psnr in dB, ssim, squared_error)."""
    by_class: dict[str, dict[str, MeanStd]]
    """Metrics of the model per class."""
    by_size: tuple[SizeResult, ...]
    """Mean metrics of the model by original size, most frequent first."""
    kl: tuple[FiniteFloat, ...]
    """Mean KL divergence per latent dimension, in nats; of a spatial code per channel, summed over its positions."""
    detail_kept: dict[str, float]
    """Fine energy of each method's reconstructions, as a fraction of the originals'."""
    spectra: dict[str, tuple[float, ...]]
    """Mean energy per spatial frequency, of the originals and of each method."""
    region_error: dict[str, FiniteFloat]
    region_share: dict[str, FiniteFloat]
    unmeasured: Natural = 0
    """Number of frames whose pixels are all ignored; no mean includes them."""

    @property
    def measured(self) -> int:
        """Return the number of frames that means are of."""
        return self.count - self.unmeasured

    @model_validator(mode="after")
    def _check_complete(self) -> "SetResult":
        _require("methods", self.methods, METHODS)
        for name, metrics in self.methods.items():
            _require(f"methods.{name}", metrics, METRICS)
            if not math.isfinite(metrics["squared_error"].mean):
                raise ValueError(f"methods.{name} has no finite squared_error")
        for name, metrics in self.by_class.items():
            _require(f"by_class.{name}", metrics, METRICS)
        _require("detail_kept", self.detail_kept, METHODS)
        _require("spectra", self.spectra, ("original", *METHODS))
        _require("region_share", self.region_share, self.region_error)
        return self


class Interval(Config):
    """A number with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ScoreSeparation(Config):
    """How well a score separates abnormal from normal frames."""

    auroc: Interval
    average_precision: Interval


class MapResult(Config):
    """How well one map localizes lesion pixels."""

    auroc: float
    """AUROC of pixels inside lesions against those outside."""
    dice: float
    """Best Dice coefficient over all thresholds, chosen on the masks themselves."""


class RegionMapResult(MapResult):
    """How well one map localizes lesions, with measures per lesion and per frame."""

    aupro: float
    """Area under the per-region overlap up to a false-positive rate of 0.3, as a fraction of its maximum."""
    hottest: float
    """Fraction of frames whose highest value lies on the lesion."""


class Localization(Config):
    """How well maps localize lesions in abnormal frames, insets ignored."""

    frames: Natural
    """Number of abnormal test frames with a lesion mask that were compared."""
    lesion_share: float
    """Fraction of their pixels inside a lesion."""
    maps: dict[str, MapResult]

    def to_text(self) -> str:
        """Return lines for a terminal."""
        head = f"lesion pixels ({plural(self.frames, 'frame')} with masks, lesions {self.lesion_share:.1%} of their pixels):"
        rows = [f"  {name:<26} pixel AUROC {one.auroc:.3f}, best Dice {one.dice:.3f}" for name, one in self.maps.items()]
        return "\n".join([head, *rows])


class Lead(Config):
    """How far the selected score is above the best trivial baseline, on the same frames."""

    baseline: str
    """The baseline with the largest AUROC on these frames."""
    difference: Interval
    """AUROC of the score minus that of the baseline, paired: both on the same frames in each resample."""


class CameraResult(Config):
    """Healthy test frames of one camera: one class, one size."""

    count: Natural
    flagged: float
    """Fraction of them that is flagged."""


class ShortcutTest(Config):
    """AUROC of cross-validated classifiers without tissue, by class of healthy frames and `all`, against all abnormal ones."""

    frames: Natural
    """All frames of the store, those of the training included: whole clusters are held out in turn."""
    shortcuts: dict[str, Interval]
    """A classifier of border, insets, size and compression; see `anomaly.shortcuts.SHORTCUTS`."""
    mean_colour: dict[str, Interval]
    """A classifier of the mean colour alone."""


class ViewResult(Config):
    """How well scores separate the test frames in one view; AUROC and average precision with 95% bootstrap intervals."""

    selected: str
    """The score selected on validation frames."""
    selection_auroc: dict[str, float]
    """AUROC of every score on these frames."""
    selection_counts: dict[str, Natural]
    """Number of these frames by kind."""
    calibration_count: Natural
    """Number of healthy frames that calibrate."""
    counts: dict[str, Natural]
    """Number of test frames per healthy class, and of `all` healthy and `abnormal` ones."""
    scores: dict[str, dict[str, ScoreSeparation]]
    """By score, then by class of healthy frames and `all` of them, against all abnormal frames."""
    baselines: dict[str, dict[str, ScoreSeparation]]
    """Likewise, of the trivial baselines."""
    leads: dict[str, Lead]
    """By class of healthy frames and `all` of them."""
    flagged: dict[str, float]
    """Fraction of flagged frames per healthy class, and of the abnormal ones; empty with too few calibration frames, as is
    `cameras`."""
    cameras: dict[str, CameraResult]
    """Healthy frames by class and original size."""
    shortcuts: ShortcutTest | None
    """None where a kind has too few clusters to hold any out."""
    warnings: tuple[str, ...]
    unscored: dict[str, Natural] = Field(default_factory=dict)
    """Number of test frames by kind without visible tissue; no number includes them."""
    not_finite: dict[str, Natural] = Field(default_factory=dict)
    """Number of test frames by kind for which outputs of the model are not finite; no number includes them."""
    invisible: Natural = 0
    """Number of abnormal test frames with tissue whose lesion covers less than `MIN_LESION` of this view; no number includes
    them."""

    @model_validator(mode="after")
    def _check_complete(self) -> "ViewResult":
        _require("counts", self.counts, ("all", "abnormal"))
        for name, values in {"scores": self.scores, "baselines": self.baselines}.items():
            for one, by in values.items():
                _require(f"{name}.{one}", by, self.groups)
        _require("scores", self.scores, (self.selected,))
        _require("leads", self.leads, self.groups)
        for one in () if self.shortcuts is None else (self.shortcuts.shortcuts, self.shortcuts.mean_colour):
            _require("shortcuts", one, self.groups)
        return self

    @property
    def groups(self) -> dict[str, str]:
        """Return the groups of healthy frames with their titles; `all` only if there are several classes."""
        classes = {name: name for name in self.counts if name not in ("all", "abnormal")}
        return {"all": "all healthy", **classes} if len(classes) > 1 else classes

    @property
    def left_out(self) -> list[str]:
        """Return which test frames no number includes, and why."""
        reasons = {"no tissue is visible": self.unscored, "the outputs of the model are not finite": self.not_finite}
        found = [
            f"not scored, because {reason}: {', '.join(f'{count:,} {kind}' for kind, count in by_kind.items())}"
            for reason, by_kind in reasons.items()
            if by_kind
        ]
        if self.invisible:
            found.append(f"left out, because {small_lesion(MIN_LESION)}: {self.invisible:,} abnormal")
        return found


class Anomaly(Config):
    """How well anomaly scores separate abnormal from healthy test frames."""

    headline: ViewName
    """The view of the first numbers."""
    views: dict[ViewName, ViewResult]
    rate: float
    """False-positive rate at which frames are flagged."""
    localization: Localization | None
    """On the view `full`; None unless a test frame has a lesion mask."""
    warnings: tuple[str, ...]
    """Of the calibration frames; those of a view stand there."""

    @model_validator(mode="after")
    def _check_complete(self) -> "Anomaly":
        if self.headline not in self.views:
            raise ValueError(f"views has no {self.headline}")
        return self

    @property
    def ordered(self) -> dict[ViewName, ViewResult]:
        """Return the views, that of the headline first."""
        return {self.headline: self.views[self.headline], **self.views}

    def only(self, view: ViewName) -> "Anomaly":
        """Return the numbers of one view alone.

        Raises:
            InputError: it was not measured.
        """
        if view not in self.views:
            raise InputError(f"There is no view {view!r}; choose one of {', '.join(self.views)}.")
        return self.model_copy(update={"headline": view, "views": {view: self.views[view]}})

    def to_text(self) -> str:
        """Return tables for a terminal, the headline last."""
        views = [line for name in reversed(self.ordered) for line in [*_view_lines(name, self.views[name], self.rate), ""]]
        located = [] if self.localization is None else [self.localization.to_text(), ""]
        return "\n".join([*located, *views, *self.warnings, *_headline(self), RESEARCH])


def small_lesion(least: float) -> str:
    """Return why abnormal frames are left out of a view; their masks cover less than the fraction `least` of it."""
    return f"their lesion covers less than {100 * least:g}% of this view"


def _require(where: str, values: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise ValueError, which makes the file a damaged one, where an entry is missing that the report shows."""
    for name in names:
        if name not in values:
            raise ValueError(f"{where} has no {name}")


class Evaluation(ResultFile):
    """Results of a run; the content of evaluation.json."""

    version: Literal[4] = 4
    system: str
    images: Natural
    epochs: float
    checkpoint: str
    """Name of the measured checkpoint."""
    checkpoints: dict[str, dict[str, Natural | float]]
    """Mean metrics per checkpoint."""
    latent: Natural
    """Number of values of the code of one frame."""
    code: tuple[Natural, ...] = ()
    """Its shape: height, width and channels of a spatial code; one number or none of a global one."""
    components: Natural
    """Number of principal components of the PCA baseline."""
    ssim_method: str
    sets: dict[str, SetResult]
    separation: dict[str, float]
    """AUROC of the squared error per method, abnormal against normal test frames."""
    anomaly: Anomaly | None = None
    """None unless the run was trained on healthy frames and there are abnormal ones."""

    @model_validator(mode="after")
    def _check_complete(self) -> "Evaluation":
        measured = ("images", *(f"{kind}_{metric}" for kind in self.sets for metric in ("psnr", "ssim")))
        for name, values in self.checkpoints.items():
            _require(f"checkpoints.{name}", values, measured)
        if len({len(one.kl) for one in self.sets.values()}) > 1:
            raise ValueError("the sets have different numbers of KL divergences")
        return self

    @property
    def method_names(self) -> dict[str, str]:
        """Return the titles of the methods."""
        blocks = f"block PCA, {' x '.join(map(str, self.code))}"
        linear = blocks if len(self.code) > 1 else f"PCA, {self.components} components"
        return {MODEL: "EndoVAE", PCA: linear, MEAN: "mean image"}

    def only(self, view: ViewName) -> "Evaluation":
        """Return the results with the anomaly scores of one view alone; raises InputError if it was not measured."""
        return self if self.anomaly is None else self.model_copy(update={"anomaly": self.anomaly.only(view)})

    def to_text(self) -> str:
        """Return tables for a terminal."""
        head = f"{self.system}: {self.images:,} images, {self.epochs:.1f} epochs; checkpoint {self.checkpoint}"
        unit = "channel, summed over its positions" if len(self.code) > 1 else "latent dimension"
        tables = ["\n".join(_set_lines(result, self.method_names, unit)) for result in self.sets.values()]
        listed = ", ".join(f"{name} {value:.3f}" for name, value in self.separation.items())
        found = [f"AUROC of the squared error, abnormal against normal frames: {listed}"] if listed else []
        anomaly = [] if self.anomaly is None else [self.anomaly.to_text()]
        return "\n\n".join([head, *tables, *found, f"SSIM: {self.ssim_method}", *anomaly])


def _set_lines(result: SetResult, names: Mapping[str, str], unit: str) -> list[str]:
    classes = ", ".join(f"{name} {count:,}" for name, count in result.classes.items())
    lines = [f"{result.title}: {result.count:,} ({classes})"]
    if result.unmeasured:
        lines.append(f"  {result.unmeasured:,} of them are not measured: all their pixels lie in insets")
    lines.append(f"  {'':<20}  {'PSNR, dB':>14}  {'SSIM':>15}  {'fine detail kept':>16}")
    for method, metrics in result.methods.items():
        psnr, ssim = metrics["psnr"], metrics["ssim"]
        kept = f"{result.detail_kept[method]:.1%}"
        lines.append(
            f"  {names[method]:<20}  {psnr.mean:>6.2f} +- {psnr.std:<4.2f}  {ssim.mean:>6.3f} +- {ssim.std:<5.3f}  {kept:>16}"
        )
    lines.append(f"  KL per {unit}, nats: {'  '.join(f'{value:.2f}' for value in result.kl)}")
    return lines


def _view_lines(name: ViewName, found: ViewResult, rate: float) -> list[str]:
    return [
        f"View {name}",
        *_selection_lines(found),
        *_table_lines(found),
        *_shortcut_lines(found),
        *_end_lines(found, rate),
        *found.warnings,
    ]


def _selection_lines(found: ViewResult) -> list[str]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.selection_counts.items())
    calibrated = f"calibrated on {plural(found.calibration_count, 'healthy frame')}"
    if not found.selection_auroc:
        return [f"anomaly score: {found.selected}, the default without abnormal validation frames; {calibrated}"]
    area = found.selection_auroc[found.selected]
    return [f"anomaly score: {found.selected}, selected on validation frames ({kinds}; AUROC {area:.3f}); {calibrated}"]


def _table_lines(found: ViewResult) -> list[str]:
    groups = found.groups
    first = next(iter(groups))
    lines = [f"AUROC of {found.counts['abnormal']:,} abnormal frames against healthy ones, 95% bootstrap intervals"]
    head = "  ".join(f"{f'{title} ({found.counts[key]:,})':>22}" for key, title in groups.items())
    lines.append(f"  {'':<26}{head}  {'AP, ' + groups[first]:>24}")
    for title, rows in (("", found.scores), ("trivial baselines:", found.baselines)):
        lines += [f"  {title}"] if title else []
        for name, by in rows.items():
            cells = "  ".join(f"{by[key].auroc!s:>22}" for key in groups)
            mark = "*" if name == found.selected and rows is found.scores else " "
            lines.append(f"{mark} {name:<26}{cells}  {by[first].average_precision!s:>24}")
    leads = "  ".join(f"{found.leads[key].difference!s:>22}" for key in groups)
    return [*lines, f"  {'lead over the best':<26}{leads}"]


def _shortcut_lines(found: ViewResult) -> list[str]:
    if found.shortcuts is None:
        return []
    rows = {"without tissue": found.shortcuts.shortcuts, "mean colour alone": found.shortcuts.mean_colour}
    lines = [f"  shortcut test: classifiers with labels, cross-validated on {found.shortcuts.frames:,} frames:"]
    return lines + [f"  {name:<26}{'  '.join(f'{by[key]!s:>22}' for key in found.groups)}" for name, by in rows.items()]


def _end_lines(found: ViewResult, rate: float) -> list[str]:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found.flagged.items())
    shares = shares or f"not measured, with {found.calibration_count} calibration frames"
    lines = [f"flagged at a false-positive rate of {rate:g}: {shares}"]
    cameras = "; ".join(f"{name}: {one.flagged:.1%} of {one.count:,}" for name, one in found.cameras.items())
    if cameras:
        lines.append(f"  healthy frames by class and original size: {cameras}")
    return lines + found.left_out


def _headline(anomaly: Anomaly) -> list[str]:
    """Return what a reader should take away: the numbers of the headline's view."""
    found = anomaly.views[anomaly.headline]
    lines = [f"On the view {anomaly.headline}, {found.selected} of {found.counts['abnormal']:,} abnormal test frames:"]
    for key, title in found.groups.items():
        area, lead = found.scores[found.selected][key].auroc, found.leads[key]
        against = f"against {title} ({found.counts[key]:,})"
        lines.append(f"  AUROC {area} {against}; lead over {lead.baseline}, the best trivial baseline: {lead.difference}")
        if found.shortcuts is not None:
            lines[-1] += f"; shortcut test {found.shortcuts.shortcuts[key].value:.3f}"
    return lines
