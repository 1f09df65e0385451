"""Every setting of a refinement; the defaults are preset `full`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pixelscope.config import Config, PathText, load_preset, merge, read_yaml
from pixelscope.data.sources.relocate import find
from pixelscope.engine.config import AdamConfig, Images, RuntimeConfig, TrainingConfig, ViewsConfig
from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder

PRESETS = ("full", "generated", "self-training", "paper-classifier", "demo")
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class NetworkConfig(Config):
    """The classifier that is trained."""

    kind: Literal["strong", "paper"] = "strong"
    """`strong`: six convolutions with batch norm. `paper`: the run's own T, of either kind, starting from its weights."""
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Channels of the first two convolutions of `strong`, doubled twice; 32 makes 0.3 million parameters, 96 2.6 million."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout probability of the features before the last layer of `strong`."""

    @property
    def is_new(self) -> bool:
        """Return whether it is another network than T, with other weights."""
        return self.kind == "strong"

    @model_validator(mode="after")
    def _check_strong(self) -> "NetworkConfig":
        for name in ("width", "dropout"):
            value = getattr(self, name)
            if self.kind == "paper" and value != type(self).model_fields[name].default:
                raise ValueError(f"{name} {value} has no effect on the run's own T; leave it out, or set kind to strong")
        return self


class GeneratedConfig(Config):
    """Stage 1: images that the run's G generates from source images, with their labels."""

    enabled: bool = True
    """Train on them."""
    pool_size: Count = 16_000
    """Number of generated images in the pool, each with its own z."""
    refresh_every: Count = 160_000
    """Training images after which the pool is generated again."""


class SelfTrainingConfig(Config):
    """Target images with confident pseudo-labels, by the classifier's moving average and the T to start from (after FixMatch,
    Sohn et al. 2020)."""

    enabled: bool = True
    """Train on them."""
    threshold: Share = 0.95
    """Minimum probability of a pseudo-label if `thresholds` is `fixed`."""
    thresholds: Literal["fixed", "adaptive"] = "adaptive"
    """`fixed` uses `threshold` for every class. `adaptive` uses the mean confidence of the predictions that label, and less for
    a class that they have less often than `distribution_alignment` assumes (after FreeMatch, Wang et al. 2023, section 3)."""
    weak_views: Annotated[int, Field(ge=1, le=16)] = 3
    """Weak views of a target image whose mean prediction labels it. One is shifted only; several are rotated, zoomed, sheared
    and shifted, each half as far as strong views."""
    start_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Weight, at the beginning, of the predictions of the T to start from in the mean that labels target images; it falls
    linearly to 0. Two networks make different errors, so that their mean makes fewer. Not used with a teacher."""
    weight: Weight = 1.0
    """Weight of their loss."""
    rampup_images: Annotated[int, Field(ge=0)] = 64_000
    """Images over which the weights of all losses of target images grow from 0, as early predictions are unreliable."""
    distribution_alignment: Literal["predicted", "source", "none"] = "predicted"
    """Class frequencies that pseudo-labels are corrected towards (Berthelot et al. 2020). `predicted`: those that the T to
    start from predicts on the target; `source`: the source's; `none`: no correction."""
    teacher: PathText = ""
    """A finished run whose classifier labels the target images instead of the moving average, for example a refinement with a
    stronger network (distillation, Hinton et al. 2015); of a refinement, the classifier that its evaluation chose."""

    @model_validator(mode="after")
    def _check_threshold(self) -> "SelfTrainingConfig":
        # Flags are checked before a preset is merged, which may set the thresholds.
        adaptive = self.thresholds == "adaptive" and "thresholds" in self.model_fields_set
        if adaptive and self.threshold != type(self).model_fields["threshold"].default:
            raise ValueError(f"threshold {self.threshold} has no effect on adaptive thresholds; set thresholds to fixed")
        if self.teacher and self.start_weight not in (0, type(self).model_fields["start_weight"].default):
            raise ValueError(f"start_weight {self.start_weight:g} has no effect on the labels of a teacher; leave it out")
        return self


class RegularizationConfig(Config):
    """Losses of target images that need no label (VADA, Shu et al. 2018)."""

    entropy: Weight = 0.0
    """Weight of the mean entropy of predictions, in nats: decision boundaries avoid target images."""
    virtual_adversarial: Weight = 0.0
    """Weight of the change of predictions under the worst small change of an image (Miyato et al. 2018)."""
    radius: Annotated[float, Field(gt=0)] = 1.0
    """L2 norm of that change, of an image with pixels in [-1, 1]."""


class AdamWConfig(AdamConfig):
    """AdamW with a learning rate that falls to 0 along a cosine."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Initial learning rate."""
    weight_decay: Weight = 1e-4
    """Decoupled weight decay (AdamW)."""


class HoldoutConfig(Config):
    """Images held out of training, for the criteria that select a checkpoint without target labels."""

    target: Share = 0.1
    """Fraction of the target's training images; they have no labels."""
    source: Share = 0.05
    """Fraction of the source's training images."""
    seed: int = 0
    """Seed of the split."""


class ScheduleConfig(TrainingConfig):
    """Length of the training: 5,000 steps of 128 images of each kind."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images of each kind (source, generated, target) per step, over all devices."""
    images: Images = 640_000
    """Total number of training images of each kind."""
    log_every: Images = 6_400
    """Images between two lines of stats.jsonl."""
    evaluate_every: Images = 64_000
    """Images between two evaluations on the source; each stores the classifier."""
    sample_every: Images = 640_000
    """Without effect, because a refinement draws no samples."""
    checkpoint_every: Images = 32_000
    """Images between two checkpoints; the last two are kept."""
    ema_half_life: Annotated[int, Field(ge=1)] = 32_000
    """Half-life, in images, of the moving average, which is the teacher and the result."""

    @model_validator(mode="after")
    def _check_samples(self) -> "ScheduleConfig":
        if self.sample_every != type(self).model_fields["sample_every"].default:
            raise ValueError(
                f"sample_every {self.sample_every} has no effect, because a refinement draws no samples; leave it out"
            )
        return self


class RefineConfig(Config):
    """A refinement of a trained run of PixelDA."""

    run: PathText = ""
    """Run folder of PixelDA to start from; its G, T and images are used."""
    checkpoint: Literal["auto", "last", "ema-last", "best-source"] = "auto"
    """Checkpoint of that run and of a teacher; `auto` needs a finished run."""
    choose: Literal["auto", "adapted", "source-only"] = "auto"
    """T to start from and to compare with: the adapted T, or T of the source alone. `auto` takes the one that is likely more
    accurate on the target; if it is T of the source alone, generated images are not used. A refinement records its choice."""
    seed: int = 0
    """Seed of initial weights, data order and every random draw."""
    network: NetworkConfig = NetworkConfig()
    generated: GeneratedConfig = GeneratedConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    regularization: RegularizationConfig = RegularizationConfig()
    views: ViewsConfig = ViewsConfig()
    optimizer: AdamWConfig = AdamWConfig()
    selection_holdout: HoldoutConfig = HoldoutConfig()
    training: ScheduleConfig = ScheduleConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def refine_preset(name: str | None = None, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a packaged preset, `full` by default; `known` is not used.

    Example:
        >>> pixelscope.pixelda.RefineConfig.parse(pixelscope.pixelda.refine_preset("demo"))
    """
    return load_preset("pixelscope.pixelda", "refine", name or "full", PRESETS)


SYSTEM = "refined"

UNRECORDED = {"self_training": {"thresholds": "fixed", "weak_views": 1, "start_weight": 0.0}}
"""Values of settings that a refinement used before they existed."""


@dataclass(frozen=True)
class StoredRefinement:
    """The content of a refinement's run folder, read once."""

    folder: RunFolder
    record: Mapping[str, Any]
    """The content of run.json."""
    config: RefineConfig

    def located(self, teacher: bool = True) -> RefineConfig:
        """Return the configuration with the current places of the runs that it names.

        Args:
            teacher: whether the teacher is looked up, too; only training needs it.

        Raises:
            InputError: a run is not found, or is of other images than those that were refined with.
        """
        if not self.config.run:
            raise InputError(f"{self.folder.config} names no run that the refinement started from; restore the file.")
        names = {name: place for name, place in places_of(self.config).items() if teacher or name != "teacher"}
        found = find(names, self.record, self.folder.path, _digests)
        recorded = {name: domain.get("sha256") for name, domain in self.record.get("data", {}).items()}
        if _digests(found) != recorded:
            raise InputError(
                f"The images of {found['run']} are not those that {self.folder.path} was refined with (their SHA-256 differs); "
                "restore the run that it started from."
            )
        taught = self.config.self_training
        taught = taught.model_copy(update={"teacher": found.get("teacher", taught.teacher)})
        return self.config.model_copy(update={"run": found["run"], "self_training": taught})


def read_refinement(folder: RunFolder, record: Mapping[str, Any] | None = None) -> StoredRefinement:
    """Read the run folder of a refinement.

    Args:
        folder: the run folder.
        record: its run.json, if it was read already.

    Raises:
        InputError: the folder is damaged, or not of a refinement.
    """
    record = folder.read_record() if record is None else record
    system = record.get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not a refinement; give one of `pixelscope pixelda refine`.")
    values = read_yaml(folder.config)
    if isinstance(values.get("training"), dict):
        # Presets once set it, without effect; now it is refused.
        values["training"].pop("sample_every", None)
    return StoredRefinement(folder, record, RefineConfig.parse(merge(UNRECORDED, values), str(folder.config)))


def require_known_views(run: Path) -> None:
    """Raise InputError if a refinement labels by two views that must agree, which this version does not have."""
    file = RunFolder.open(run).config
    recorded = read_yaml(file).get("self_training") or {}
    if recorded.get("weak_views", 1) > 1 and "start_weight" not in recorded:
        raise InputError(
            f"{run} labels target images where two views agree, and this version labels by their mean; refine again, or go on "
            "with the version of Pixelscope that started it."
        )


def places_of(config: RefineConfig) -> dict[str, str]:
    """Return the places of the runs that a refinement names."""
    return {"run": config.run, "teacher": config.self_training.teacher}


def _digests(places: dict[str, str]) -> dict[str, str]:
    data = RunFolder.open(Path(places["run"])).read_record().get("data", {})
    return {name: domain.get("sha256", "") for name, domain in data.items()}
