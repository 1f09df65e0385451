"""Schema of the evaluation of EndoVAE, evaluation.json; imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, model_validator

from pixelscope.config import Config
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

    width: int
    height: int
    count: int
    psnr: float
    ssim: float


class SetResult(Config):
    """Results on one set of test frames."""

    title: str
    count: int
    classes: dict[str, int]
    methods: dict[str, dict[str, MeanStd]]
    """By method (endovae, pca, mean image), then by metric (psnr in dB, ssim, squared_error)."""
    by_class: dict[str, dict[str, MeanStd]]
    """Metrics of the model per class."""
    by_size: tuple[SizeResult, ...]
    """Mean metrics of the model by original size, most frequent first."""
    kl: tuple[float, ...]
    """Mean KL divergence per latent dimension, in nats."""
    detail_kept: dict[str, float]
    """Fine energy of each method's reconstructions, as a fraction of the originals'."""
    spectra: dict[str, tuple[float, ...]]
    """Mean energy per spatial frequency, of the originals and of each method."""
    region_error: dict[str, float]
    region_share: dict[str, float]
    unmeasured: int = 0
    """Number of frames whose pixels are all ignored; no mean includes them."""

    @model_validator(mode="after")
    def _check_complete(self) -> "SetResult":
        _require("methods", self.methods, METHODS)
        for name, metrics in self.methods.items():
            _require(f"methods.{name}", metrics, METRICS)
        for name, metrics in self.by_class.items():
            _require(f"by_class.{name}", metrics, METRICS)
        _require("detail_kept", self.detail_kept, METHODS)
        _require("spectra", self.spectra, ("original", *METHODS))
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
    dice: float
    """Best Dice coefficient over all thresholds, chosen on the masks themselves."""


class Localization(Config):
    """How well maps localize lesions in abnormal frames, insets ignored."""

    frames: int
    """Abnormal test frames with a lesion mask."""
    lesion_share: float
    """Fraction of their pixels inside a lesion."""
    maps: dict[str, MapResult]

    def to_text(self) -> str:
        """Return lines for a terminal."""
        head = f"lesion pixels ({self.frames:,} frames with masks, lesions {self.lesion_share:.1%} of their pixels):"
        rows = [f"  {name:<26} pixel AUROC {one.auroc:.3f}, best Dice {one.dice:.3f}" for name, one in self.maps.items()]
        return "\n".join([head, *rows])


class Anomaly(Config):
    """How well scores separate the test frames; AUROC and average precision with 95% bootstrap intervals."""

    selected: str
    """The score selected on validation frames."""
    selection_auroc: dict[str, float]
    """AUROC of every score on these frames."""
    selection_counts: dict[str, int]
    """Number of these frames by kind."""
    counts: dict[str, int]
    """Number of test frames per healthy class, and of `all` healthy and `abnormal` ones."""
    scores: dict[str, dict[str, ScoreSeparation]]
    """By score, then by class of healthy frames and `all` of them, against all abnormal frames."""
    baselines: dict[str, dict[str, ScoreSeparation]]
    """Likewise, of the trivial baselines."""
    rate: float
    """False-positive rate at which frames are flagged."""
    flagged: dict[str, float]
    """Fraction of flagged frames per healthy class, and of the abnormal ones."""
    localization: Localization | None
    """None unless a test frame has a lesion mask."""
    warnings: tuple[str, ...]
    unscored: dict[str, int] = Field(default_factory=dict)
    """Number of test frames by kind without visible tissue; no number includes them."""

    @property
    def groups(self) -> dict[str, str]:
        """Return the groups of healthy frames with their titles; `all` only if there are several classes."""
        classes = {name: name for name in self.counts if name not in ("all", "abnormal")}
        return {"all": "all healthy", **classes} if len(classes) > 1 else classes

    def to_text(self) -> str:
        """Return tables for a terminal."""
        return "\n".join([*_selection_lines(self), *_table_lines(self), *_end_lines(self), *self.warnings, RESEARCH])


def _require(where: str, values: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise ValueError, which makes the file a damaged one, where an entry is missing that the report shows."""
    for name in names:
        if name not in values:
            raise ValueError(f"{where} has no {name}")


class Evaluation(ResultFile):
    """Results of a run; the content of evaluation.json."""

    version: Literal[3] = 3
    system: str
    images: int
    epochs: float
    checkpoint: str
    """Name of the measured checkpoint."""
    checkpoints: dict[str, dict[str, int | float]]
    """Mean metrics per checkpoint."""
    latent: int
    components: int
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
        return self

    @property
    def method_names(self) -> dict[str, str]:
        """Return the titles of the methods."""
        return {MODEL: "EndoVAE", PCA: f"PCA, {self.components} components", MEAN: "mean image"}

    def to_text(self) -> str:
        """Return tables for a terminal."""
        head = f"{self.system}: {self.images:,} images, {self.epochs:.1f} epochs; checkpoint {self.checkpoint}"
        tables = ["\n".join(_set_lines(result, self.method_names)) for result in self.sets.values()]
        listed = ", ".join(f"{name} {value:.3f}" for name, value in self.separation.items())
        found = [f"AUROC of the squared error, abnormal against normal frames: {listed}"] if listed else []
        anomaly = [] if self.anomaly is None else [self.anomaly.to_text()]
        return "\n\n".join([head, *tables, *found, f"SSIM: {self.ssim_method}", *anomaly])


def _set_lines(result: SetResult, names: Mapping[str, str]) -> list[str]:
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
    lines.append(f"  KL per latent dimension, nats: {'  '.join(f'{value:.2f}' for value in result.kl)}")
    return lines


def _selection_lines(found: Anomaly) -> list[str]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.selection_counts.items())
    if not found.selection_auroc:
        return [f"anomaly score: {found.selected}, the default without abnormal validation frames (calibrated on {kinds})"]
    area = found.selection_auroc[found.selected]
    return [f"anomaly score: {found.selected}, selected on validation frames ({kinds}; AUROC {area:.3f})"]


def _table_lines(found: Anomaly) -> list[str]:
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
    return lines


def _end_lines(found: Anomaly) -> list[str]:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found.flagged.items())
    lines = [f"flagged at a false-positive rate of {found.rate:g}: {shares}"]
    if found.unscored:
        unscored = ", ".join(f"{count:,} {kind}" for kind, count in found.unscored.items())
        lines.append(f"not scored, because no tissue is visible: {unscored}")
    return lines if found.localization is None else [*lines, found.localization.to_text()]
