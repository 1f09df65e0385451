"""Every setting of PixelDA and its baseline; the defaults are the reference study's protocol (preset `paper`)."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pixelscope.config import Config, PathText, Unsettable, ValueRange, check_found, load_preset
from pixelscope.engine.config import AdamConfig, RuntimeConfig, TrainingConfig
from pixelscope.errors import InputError

if TYPE_CHECKING:
    # Imports NumPy, which --help does not need.
    from pixelscope.imaging.framing import Framing

Fraction = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Channels = Annotated[int, Field(ge=1, le=4096)]
"""Also for lengths of z. The limit keeps a damaged file from asking for more memory than there is."""
Side = Annotated[int, Field(ge=1, le=4096)]
Byte = Annotated[int, Field(ge=0, le=255)]
FramingNumbers = tuple[Side, int, int, Byte, Byte, Byte]

PRESETS = ("auto", "paper", "usps", "demo")


def _with_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"it is no regular expression ({error}); write one, such as ^([^/]+/[^/]+)/") from None
    if not groups:
        raise ValueError(r"it has no parentheses; put them around what the images of one group share, as in ^(\d+/\d+)_")
    return pattern


GroupBy = Annotated[str, AfterValidator(_with_group)]
"""A regular expression with a group."""


class DataConfig(Config):
    """How images are read and split."""

    size: Annotated[int, Field(ge=16, le=4096, multiple_of=8)] = 32
    """Side in pixels to which every image is resized; a multiple of 8, because D halves it three times."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of images in the test split, if the source defines none; aligned sources share one split."""
    validation_fraction: Fraction = 0.0
    """Fraction of the source's training split held out to choose the best checkpoint."""
    strict: bool = False
    """Refuse a folder with an unreadable image instead of skipping the image."""
    group_by: Annotated[GroupBy | None, Unsettable] = None
    """Regular expression on the path of an image in its source. Images whose first group matches the same text stay on one side
    of a random split, such as frames of one video or slices of one patient. For the tracks of GTSRB: ^(\\d+/\\d+)_"""
    classes: Literal["all", "source"] = "all"
    """`source` leaves out images of a labelled target whose class the source lacks; `all` keeps every image."""
    seed: int = 0
    """Seed of the split, separate from the training's so that several seeds share one test set; its low 32 bits count."""
    range: ValueRange | None = None
    """LOW HIGH: values that become black and white in images deeper than 8 bits. Without it, a range is found per domain."""
    source_range: ValueRange | None = None
    """LOW HIGH for the source alone. A training records here the range that it found."""
    target_range: ValueRange | None = None
    """LOW HIGH for the target alone. A training records here the range that it found."""
    framing: Literal["none", "match"] = "none"
    """`match` scales and shifts target images so that size and position of their foregrounds match the source's, if both can be
    measured and differ. `none` leaves them unchanged."""
    target_framing: FramingNumbers | None = None
    """SIDE LEFT TOP RED GREEN BLUE: framing of target images in pixels of `size`; a training records what it found."""

    @property
    def source_values(self) -> tuple[float, float] | None:
        """Return the range of deep source images; None if it is to be found."""
        return self.source_range or self.range

    @property
    def target_values(self) -> tuple[float, float] | None:
        """Return the range of deep target images; None if it is to be found."""
        return self.target_range or self.range

    @property
    def input_values(self) -> tuple[float, float] | None:
        """Return the range with which a trained classifier reads deep images: the target's, or else the source's."""
        return self.target_values or self.source_range

    @property
    def framed(self) -> "Framing | None":
        """Return the framing of target images; None if none was found or given."""
        from pixelscope.imaging.framing import Framing

        return None if self.target_framing is None else Framing.of(self.target_framing)

    def ranges_of(self, source: tuple[float, float] | None, target: tuple[float, float] | None) -> dict[str, Any]:
        """Return as settings the ranges that were found, without those that are given."""
        found = {"source_range": None if self.source_values else source, "target_range": None if self.target_values else target}
        return {name: low_high for name, low_high in found.items() if low_high is not None}


class GeneratorConfig(Config):
    """G: a residual network of the source image and a noise channel (Bousmalis 2017, Figure 3)."""

    noise: Literal["uniform", "normal"] = "uniform"
    """Distribution of the noise z: uniform on [-1, 1], or standard normal."""
    noise_dim: Channels = 10
    """Length of z."""
    blocks: Annotated[int, Field(ge=0, le=256)] = 6
    """Number of residual blocks."""
    width: Channels = 64
    """Channels of every hidden layer."""
    conditioned: bool = True
    """Condition G on the source image; off, its input is z alone, as in a GAN without adaptation."""


class DiscriminatorConfig(Config):
    """D: four convolutions, each followed in training by noise and dropout."""

    width: Channels = 64
    """Filters of the first layer, doubled in each of the next three."""
    noise_std: Weight = 0.2
    """Standard deviation of Gaussian noise after each layer; 0 turns it off."""
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    """Factor on D's learning rate relative to G and T; well above 1, D overpowers G."""
    dropout: Fraction = 0.1
    """Dropout probability after each layer; 0 turns it off."""


class ClassifierConfig(Config):
    """T: the classifier."""

    kind: Literal["paper", "residual"] = "paper"
    """`paper`: two convolutions and three fully connected layers (Bousmalis 2017, Figure 7), for 32 pixels. `residual`: a small
    residual network with group normalisation, for 64 pixels and more."""
    width: Channels = 32
    """Channels of the first convolution of `residual`, doubled twice; 32 gives 0.7 million parameters at any size."""

    def describe(self) -> str:
        """Return the kind, and the width of `residual`; a private first layer is not described."""
        return self.kind if self.kind == "paper" else f"{self.kind} of width {self.width}"


class AdaptedClassifierConfig(ClassifierConfig):
    """T of PixelDA, trained on source and generated images."""

    private_first_layer: bool = False
    """Give source images a separate first convolution; generated and target images share the other."""


class LossConfig(Config):
    """Weights and inputs of the losses."""

    discriminator: Weight = 0.13
    """Weight of D's loss in the D step."""
    classifier: Weight = 1.0
    """Weight of T's loss in the D step."""
    generator_domain: Weight = 0.011
    """Weight of G's adversarial loss, from D's output on generated images, in the G step."""
    generator_task: Weight = 0.01
    """Weight of T's loss on generated images in the G step."""
    task_bound: Annotated[Weight | None, Unsettable] = None
    """Maximum excess of T's loss on generated images over that on source images. Above it, `generator_task` grows by 2% a step,
    up to `task_most`; below it, the weight falls back. `none` keeps the weight fixed."""
    task_most: Weight = 1.0
    """Maximum of `generator_task` under `task_bound`."""
    semantic: Weight = 0.0
    """Weight of the judge's loss on generated images in the G step (semantic consistency, Hoffman et al. 2018), which keeps G
    and T from agreeing on wrong classes. Above 0, a judge is trained even if `judge` is off."""
    content: Weight = 0.0
    """Weight of the content-similarity loss in the G step; 0 turns it off."""
    content_mask: str = "pixels"
    """Foreground of the content loss: `pixels` (source pixels above black), or a source of masks in the order of the images."""
    soft_labels: bool = False
    """Train D with labels 0.9 (real) and 0.1 (generated) instead of 1 and 0."""
    classifier_inputs: Literal["source", "generated", "both"] = "both"
    """Images on which T is trained; with a private first layer `both`."""


class OptimizerConfig(AdamConfig):
    """Adam and its schedule, the same for every network."""

    beta1: Fraction = 0.5
    """Adam beta1: exponential decay rate of the first moment."""
    weight_decay: Weight = 1e-5
    """L2 penalty added to the gradient, as in Adam's own weight decay."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Factor on the learning rate every `decay_every` images."""
    decay_every: Count = 640_000
    """Images between two decays: 20,000 steps of 32."""
    clip_norm: Annotated[Annotated[float, Field(gt=0)] | None, Unsettable] = None
    """Maximum gradient norm of each optimizer; `none` for no clipping."""

    def learning_rate_at(self, images: int) -> float:
        """Return the learning rate after `images` images."""
        return self.learning_rate * self.decay ** (images // self.decay_every)


FOUND_WITH = {
    "data.source_range": ("source", "data.range"),
    "data.target_range": ("target", "data.range"),
    "data.target_framing": ("source", "target", "data.size", "data.framing"),
}
"""Settings that a training finds in its images and records in config.yaml, and the settings that they were found with."""


class BaselineConfig(Config):
    """The classifier trained on the source alone, with which the domain gap is measured."""

    source: PathText = ""
    """Labelled images: PATH or KIND:PATH; `pixelscope data info` describes a source."""
    target: PathText = ""
    """Images of the other domain; a baseline uses them in evaluation only, and they are optional."""
    seed: int = 0
    """Seed of initial weights, data order and every random draw."""
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    classifier: ClassifierConfig = ClassifierConfig()

    @classmethod
    def check_file(cls, file: Mapping[str, Any], changes: Mapping[str, Any], origin: str) -> None:
        """Raise InputError if a file has what a training found in other images, or with other settings; see `FOUND_WITH`."""
        check_found(FOUND_WITH, file, changes, origin)


class PixelDAConfig(BaselineConfig):
    """PixelDA: G, D and T trained together on labelled source and unlabelled target images."""

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    classifier: AdaptedClassifierConfig = AdaptedClassifierConfig()
    losses: LossConfig = LossConfig()
    judge: bool = False
    """Also train a second T on the source alone. As it never sees generated images, it measures whether they keep their class,
    and whether adaptation improves the accuracy on the target."""
    reuse_generated_batch: bool = True
    """Use one generated batch for both the D step and the G step; off, each step generates its own."""

    @model_validator(mode="after")
    def _check_first_layers(self) -> "PixelDAConfig":
        inputs = self.losses.classifier_inputs
        if self.classifier.private_first_layer and inputs != "both":
            other = "generated" if inputs == "source" else "source"
            raise ValueError(
                f"losses.classifier_inputs {inputs} leaves T's first layer for {other} images untrained; set it to both, or "
                "turn off classifier.private_first_layer"
            )
        return self

    @property
    def has_judge(self) -> bool:
        """Return whether a judge is trained."""
        return self.judge or self.losses.semantic > 0


def require_effect(config: BaselineConfig) -> None:
    """Raise InputError if a setting has no effect next to the others.

    Checked where a training starts or is planned; runs trained with such a setting stay readable.
    """
    width, usual = config.classifier.width, ClassifierConfig.model_fields["width"].default
    if config.classifier.kind == "paper" and width != usual:
        raise InputError(
            f"classifier.width {width} has no effect on the paper's T; leave it out, or set classifier.kind to residual."
        )
    if not isinstance(config, PixelDAConfig) or config.losses.task_bound is not None:
        return
    most = config.losses.task_most
    if most != LossConfig.model_fields["task_most"].default:
        raise InputError(
            f"losses.task_most {most:g} has no effect without losses.task_bound; leave it out, or set losses.task_bound."
        )


def preset(system: Literal["pixelda", "baseline"], name: str) -> dict[str, Any]:
    """Return the settings of a packaged preset, which a file and flags override.

    Example:
        >>> settings = pixelscope.pixelda.preset("pixelda", "paper")
        >>> config = pixelscope.pixelda.PixelDAConfig.parse(settings)
    """
    return load_preset("pixelscope.pixelda", system, name, PRESETS)


def pixelda_preset(name: str | None = None, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a preset of PixelDA; by default the one that suits the sources in `known`."""
    return preset("pixelda", name or _default_preset(known))


def baseline_preset(name: str | None = None, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a preset of the baseline; by default the one that suits the sources in `known`."""
    return preset("baseline", name or _default_preset(known))


def _default_preset(known: Mapping[str, Any] | None) -> str:
    return default_preset((known or {}).get("source"), (known or {}).get("target"))


def default_preset(source: str | None, target: str | None) -> str:
    """Return the preset used if none is named: `paper` for MNIST and MNIST-M, `auto` for two other sources.

    Example:
        >>> pixelscope.pixelda.default_preset("my/labelled", "my/unlabelled")
        'auto'
    """
    from pixelscope.data import parse

    if not source or not target:
        return "paper"
    kinds = [rest if kind == "demo" else kind for kind, rest in (parse(source), parse(target))]
    return "paper" if kinds == ["mnist", "mnist-m"] else "auto"


def exported_data(config: Mapping[str, Any], origin: str) -> DataConfig:
    """Return the data settings of the configuration in an exported file; `origin` names the file in errors."""
    return DataConfig.parse(config.get("data", {}), origin)
