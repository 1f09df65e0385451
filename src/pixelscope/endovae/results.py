"""The result of an evaluation of EndoVAE: the schema of evaluation.json, written and read by it. Imports no torch."""

from collections.abc import Mapping

from pydantic import Field

from pixelscope.config import Config
from pixelscope.runs.record import ResultFile

MODEL, PCA, MEAN = METHODS = ("endovae", "pca", "mean image")
"""The model and its linear baselines, as an evaluation names them."""
RESEARCH = "For research only: an anomaly score is no diagnosis and no measure of health."


class MeanStd(Config):
    """Mean and standard deviation over frames."""

    mean: float
    std: float

    def format(self, decimals: int) -> str:
        """Return both for a reader: 17.16 ± 2.37."""
        return f"{self.mean:.{decimals}f} ± {self.std:.{decimals}f}"


class SizeResult(Config):
    """Mean quality of the frames of one original size."""

    width: int
    height: int
    count: int
    psnr: float
    ssim: float


class SetResult(Config):
    """What was measured on one set of held-out frames."""

    title: str
    count: int
    classes: dict[str, int]
    methods: dict[str, dict[str, MeanStd]]
    """By method (endovae, pca, mean image), then by metric (psnr in dB, ssim, squared_error)."""
    by_class: dict[str, dict[str, MeanStd]]
    """The model's metrics in each class."""
    by_size: tuple[SizeResult, ...]
    """The model's mean metrics by original size, most frequent first."""
    kl: tuple[float, ...]
    """Mean nats of each latent dimension."""
    detail_kept: dict[str, float]
    """Share of the originals' fine energy that each method's reconstructions have."""
    spectra: dict[str, tuple[float, ...]]
    """Mean energy by spatial frequency, of the originals and of each method."""
    region_error: dict[str, float]
    region_share: dict[str, float]
    unmeasured: int = 0
    """Frames without quality, as every pixel of them is left out; they are in no mean."""


class Interval(Config):
    """A number, and the interval in which it lies in most resamples of the frames."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ScoreSeparation(Config):
    """How well a score tells abnormal from normal frames."""

    auroc: Interval
    average_precision: Interval


class MapResult(Config):
    """How well one map marks lesion pixels."""

    auroc: float
    dice: float
    """The best that one threshold for all frames reaches: chosen on these very masks."""


class Localization(Config):
    """How lesion pixels were told from the others of abnormal frames, insets left out."""

    frames: int
    """Abnormal test frames with a lesion mask."""
    lesion_share: float
    """Share of their pixels that lies in a lesion."""
    maps: dict[str, MapResult]

    def to_text(self) -> str:
        """Return lines for a terminal."""
        head = f"lesion pixels ({self.frames:,} frames with masks, lesions {self.lesion_share:.1%} of their pixels):"
        rows = [f"  {name:<26} pixel AUROC {one.auroc:.3f}, best Dice {one.dice:.3f}" for name, one in self.maps.items()]
        return "\n".join([head, *rows])


class Anomaly(Config):
    """How frames of the test were told apart; AUROC and average precision with 95% bootstrap intervals."""

    chosen: str
    """The score chosen on the validation split."""
    choice: dict[str, float]
    """AUROC of every score there."""
    choice_counts: dict[str, int]
    counts: dict[str, int]
    """Test frames of each class, and `abnormal`: those not set apart for the choice."""
    scores: dict[str, dict[str, ScoreSeparation]]
    """By score, then by class of healthy frames, and `all` of them, against all abnormal frames."""
    baselines: dict[str, dict[str, ScoreSeparation]]
    """Of trivial scores likewise."""
    rate: float
    """The false-positive rate at which frames were flagged."""
    flagged: dict[str, float]
    """Share of the frames of each healthy class, and of the abnormal ones, that the chosen score flagged."""
    localization: Localization | None
    """How well the error map marks lesions; None where no test frame has a lesion mask."""
    warnings: tuple[str, ...]
    unscored: dict[str, int] = Field(default_factory=dict)
    """Test frames of each kind in which no tissue is seen: they have no score, and are in none of these numbers."""

    @property
    def groups(self) -> dict[str, str]:
        """Return the groups of healthy frames with their titles; all of them only where there are several classes."""
        classes = {name: name for name in self.counts if name not in ("all", "abnormal")}
        return {"all": "all healthy", **classes} if len(classes) > 1 else classes

    def to_text(self) -> str:
        """Return tables for a terminal."""
        return "\n".join([*_choice_lines(self), *_table_lines(self), *_end_lines(self), *self.warnings, RESEARCH])


class Evaluation(ResultFile):
    """What a run reaches; the content of evaluation.json."""

    system: str
    images: int
    epochs: float
    rule: str
    """The rule that chose the measured weights."""
    rules: dict[str, dict[str, int | float]]
    """Mean metrics by each rule that the run supports."""
    latent: int
    components: int
    """Principal components of the baseline, fitted to the training frames and their mirror images."""
    ssim_rule: str
    sets: dict[str, SetResult]
    separation: dict[str, float]
    """Area under the ROC curve of the squared error, abnormal against held-out normal frames, by method."""
    anomaly: Anomaly | None = None
    """How anomaly scores tell them apart; None where no healthy frames were trained on, or no abnormal ones are there."""

    @property
    def method_names(self) -> dict[str, str]:
        """Return what a reader calls each method."""
        return {MODEL: "EndoVAE", PCA: f"PCA, {self.components} components", MEAN: "mean image"}

    def to_text(self) -> str:
        """Return tables for a terminal."""
        head = f"{self.system}: {self.images:,} images, {self.epochs:.1f} epochs; checkpoint rule {self.rule}"
        tables = ["\n".join(_set_lines(result, self.method_names)) for result in self.sets.values()]
        listed = ", ".join(f"{name} {value:.3f}" for name, value in self.separation.items())
        found = [f"separation of abnormal from normal by squared error, AUROC: {listed}"] if listed else []
        anomaly = [] if self.anomaly is None else [self.anomaly.to_text()]
        return "\n\n".join([head, *tables, *found, f"SSIM: {self.ssim_rule}", *anomaly])


def _set_lines(result: SetResult, names: Mapping[str, str]) -> list[str]:
    classes = ", ".join(f"{name} {count:,}" for name, count in result.classes.items())
    lines = [f"{result.title}: {result.count:,} ({classes})"]
    if result.unmeasured:
        lines.append(f"  {result.unmeasured:,} of them are not measured: every pixel of them is left out as inset")
    lines.append(f"  {'':<20}  {'PSNR, dB':>14}  {'SSIM':>15}  {'fine detail kept':>16}")
    for method, metrics in result.methods.items():
        psnr, ssim = metrics["psnr"], metrics["ssim"]
        kept = f"{result.detail_kept[method]:.1%}"
        lines.append(
            f"  {names[method]:<20}  {psnr.mean:>6.2f} +- {psnr.std:<4.2f}  {ssim.mean:>6.3f} +- {ssim.std:<5.3f}  {kept:>16}"
        )
    lines.append(f"  KL by latent dimension, nats: {'  '.join(f'{value:.2f}' for value in result.kl)}")
    return lines


def _choice_lines(found: Anomaly) -> list[str]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.choice_counts.items())
    if not found.choice:
        return [f"anomaly score: {found.chosen}, the default, as there are no abnormal frames to choose by ({kinds} calibrate)"]
    best = f"AUROC {found.choice[found.chosen]:.3f} there"
    return [f"anomaly score: {found.chosen}, chosen on validation frames ({kinds}; {best})"]


def _table_lines(found: Anomaly) -> list[str]:
    groups = found.groups
    first = next(iter(groups))
    lines = [f"AUROC of {found.counts['abnormal']:,} abnormal frames against healthy ones, 95% bootstrap intervals"]
    head = "  ".join(f"{f'{title} ({found.counts[key]:,})':>22}" for key, title in groups.items())
    lines.append(f"  {'':<18}{head}  {'AP, ' + groups[first]:>24}")
    for title, rows in (("", found.scores), ("trivial scores:", found.baselines)):
        lines += [f"  {title}"] if title else []
        for name, by in rows.items():
            cells = "  ".join(f"{by[key].auroc!s:>22}" for key in groups)
            mark = "*" if name == found.chosen and rows is found.scores else " "
            lines.append(f"{mark} {name:<18}{cells}  {by[first].average_precision!s:>24}")
    return lines


def _end_lines(found: Anomaly) -> list[str]:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found.flagged.items())
    lines = [f"flagged at a false-positive rate of {found.rate:g}: {shares}"]
    if found.unscored:
        unscored = ", ".join(f"{count:,} {kind}" for kind, count in found.unscored.items())
        lines.append(f"not scored, as no tissue is seen in them: {unscored}")
    return lines if found.localization is None else [*lines, found.localization.to_text()]


CHARTS = {
    "Reconstruction, nats per image": {"loss/reconstruction": "training", "loss/validation_reconstruction": "validation"},
    "Divergence, nats per image": {"loss/kl": "training", "loss/validation_kl": "validation"},
}

SAMPLES = {"originals": "frames", "reconstructions": "reconstructed", "generated": "generated"}
"""Images of samples/progress.npz, with their titles."""
