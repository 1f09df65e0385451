"""Every setting of PixelDA and its baseline; the defaults are the report's protocol (preset `paper`)."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pixelscope.config import Config, ValueRange, load_preset
from pixelscope.engine.config import AdamConfig, RuntimeConfig, TrainingConfig

if TYPE_CHECKING:
    # It brings NumPy, which printing a help does without.
    from pixelscope.imaging.framing import Framing

Fraction = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=4096)]
Byte = Annotated[int, Field(ge=0, le=255)]
FramingNumbers = tuple[Side, int, int, Byte, Byte, Byte]

PRESETS = ("auto", "paper", "usps", "demo")


def _with_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from None
    if not groups:
        raise ValueError(r"this has no group; put what never parts in round brackets, as in ^(\d+/\d+)_")
    return pattern


GroupBy = Annotated[str, AfterValidator(_with_group)]
"""A regular expression with a group."""


class DataConfig(Config):
    """How images are read and split."""

    size: Annotated[int, Field(ge=16, multiple_of=8)] = 32
    """Side in pixels to which every image is resized; a multiple of 8, as D halves it three times."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the images held out as test split where the source defines none; one draw for aligned sets."""
    validation_fraction: Fraction = 0.0
    """Share of the source's training split held out to choose the best checkpoint by source validation."""
    strict: bool = False
    """Refuse a folder with an unreadable image rather than skip the image and count it."""
    group_by: GroupBy | None = None
    """Regular expression on an image's path in its source; images for which its first group matches the same text are never
    parted by a random split: frames of one video, slices of one patient. For the tracks of GTSRB: ^(\\d+/\\d+)_"""
    classes: Literal["all", "source"] = "all"
    """`source` leaves out images of a labelled target whose classes the source lacks; `all` leaves none out."""
    seed: int = 0
    """Seed of the split, apart from the training's, so that several seeds share one test set."""
    range: ValueRange | None = None
    """LOW HIGH: values that become black and white in images deeper than 8 bits; unset, a range is found per domain."""
    source_range: ValueRange | None = None
    """LOW HIGH for the source alone; a training writes here what it found."""
    target_range: ValueRange | None = None
    """LOW HIGH for the target alone; a training writes here what it found."""
    framing: Literal["none", "match"] = "none"
    """`match` scales and places target images so that their foregrounds lie as the source's do, where both can be measured and
    differ. `none` leaves them as they are."""
    target_framing: FramingNumbers | None = None
    """SIDE LEFT TOP RED GREEN BLUE: the framing of target images, in pixels of `size`; a training writes here what it found."""

    @property
    def source_values(self) -> tuple[float, float] | None:
        """Return the range of deep source images; None finds it."""
        return self.source_range or self.range

    @property
    def target_values(self) -> tuple[float, float] | None:
        """Return the range of deep target images; None finds it."""
        return self.target_range or self.range

    @property
    def input_values(self) -> tuple[float, float] | None:
        """Return the range by which a trained classifier reads deep images: the target's, else the source's."""
        return self.target_values or self.source_range

    @property
    def framed(self) -> "Framing | None":
        """Return the framing of target images, where one was found or given."""
        from pixelscope.imaging.framing import Framing

        return None if self.target_framing is None else Framing.of(self.target_framing)

    def ranges_of(self, source: tuple[float, float] | None, target: tuple[float, float] | None) -> dict[str, Any]:
        """Return the settings of ranges that were found in both domains, as far as none is given."""
        found = {"source_range": None if self.source_values else source, "target_range": None if self.target_values else target}
        return {name: low_high for name, low_high in found.items() if low_high is not None}


class GeneratorConfig(Config):
    """G: a residual network on the source image and a noise channel (Bousmalis 2017, Figure 3)."""

    noise: Literal["uniform", "normal"] = "uniform"
    """Distribution of z: uniform on [-1, 1], or standard normal."""
    noise_dim: Count = 10
    """Length of z."""
    blocks: Annotated[int, Field(ge=0)] = 6
    """Residual blocks."""
    width: Count = 64
    """Channels of every hidden layer."""
    conditioned: bool = True
    """Redraw the source image; off, G sees z alone, as a GAN without adaptation does."""


class DiscriminatorConfig(Config):
    """D: four convolutions, each followed by noise and dropout in training."""

    width: Count = 64
    """Filters of the first layer, doubled in each of the three that follow."""
    noise_std: Weight = 0.2
    """Standard deviation of the Gaussian noise after each layer; 0 turns it off."""
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    """Factor on D's learning rate beside that of G and T; well above 1 D overpowers G."""
    dropout: Fraction = 0.1
    """Probability with which an activation is dropped after each layer; 0 turns it off."""


class ClassifierConfig(Config):
    """T: what tells the classes apart."""

    kind: Literal["paper", "residual"] = "paper"
    """`paper`: two convolutions and three fully connected layers (Bousmalis 2017, Figure 7), made for 32 pixels. `residual`: a
    small residual network with group normalisation, for 64 pixels and more."""
    width: Count = 32
    """Channels of the first convolution of `residual`, doubled twice; 32 makes 0.7 million parameters at every size."""

    def describe(self) -> str:
        """Return kind and, where it matters, width; equal for equal networks but for a private first layer."""
        return self.kind if self.kind == "paper" else f"{self.kind} of width {self.width}"


class AdaptedClassifierConfig(ClassifierConfig):
    """T of PixelDA, which sees source and generated images."""

    private_first_layer: bool = False
    """Give source images a first convolution of their own; generated and target images share the other."""


class LossConfig(Config):
    """Weights of the losses and what they see."""

    discriminator: Weight = 0.13
    """Weight of D's loss in the D step."""
    classifier: Weight = 1.0
    """Weight of T's loss in the D step."""
    generator_domain: Weight = 0.011
    """Weight of D's verdict on generated images in the G step."""
    generator_task: Weight = 0.01
    """Weight of T's loss on generated images in the G step."""
    task_bound: Weight | None = None
    """Most by which T's loss on redrawn images may exceed that on the source; while it does, the weight above grows by 2% a
    step, up to `task_most`, and else falls back. Unset keeps the weight."""
    task_most: Weight = 1.0
    """Greatest weight to which `task_bound` lets it grow."""
    semantic: Weight = 0.0
    """Weight of the judge's loss on redrawn images in the G step (semantic consistency, Hoffman et al. 2018): G then cannot
    come to agree with T on wrong drawings. Above 0 a judge is trained, whatever `judge` says."""
    content: Weight = 0.0
    """Weight of the content-similarity loss in the G step; 0 turns it off."""
    content_mask: str = "pixels"
    """Foreground of the content loss: `pixels` (any source pixel above black), or a source of masks aligned with the images."""
    soft_labels: bool = False
    """Teach D 0.9 for real and 0.1 for generated, in place of 1 and 0."""
    classifier_inputs: Literal["source", "generated", "both"] = "both"
    """Which images train T."""


class OptimizerConfig(AdamConfig):
    """Adam and its schedule, the same for every network."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Adam beta1: exponential decay rate of the first moment."""
    weight_decay: Weight = 1e-5
    """L2 penalty added to the gradient, as in Adam's own weight decay."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Factor on the learning rate every `decay_every` images."""
    decay_every: Count = 640_000
    """Images between two decays: 20,000 steps of 32."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of each optimizer's gradient; unset for none."""


class BaselineConfig(Config):
    """The classifier trained on the source alone: what the domain gap is measured with."""

    source: str = ""
    """Labelled images: PATH, or KIND:PATH; `pixelscope data info` tells what it sees in one."""
    target: str = ""
    """Images of the other domain; optional for a baseline, used in evaluation only."""
    seed: int = 0
    """Seed of weights, order of data and every random draw."""
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    classifier: ClassifierConfig = ClassifierConfig()


class PixelDAConfig(BaselineConfig):
    """PixelDA: G, D and T trained together on labelled source and unlabelled target images."""

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    classifier: AdaptedClassifierConfig = AdaptedClassifierConfig()
    losses: LossConfig = LossConfig()
    judge: bool = False
    """Train a second T beside the first, on the source alone. It never learns from G, so it tells whether redrawn images keep
    their class, and whether the target is read better than without adaptation."""
    reuse_generated_batch: bool = True
    """Use one generated batch for the D step and the G step; off, each step draws its own."""

    @property
    def has_judge(self) -> bool:
        """Return whether a judge is trained."""
        return self.judge or self.losses.semantic > 0


def preset(system: Literal["pixelda", "baseline"], name: str) -> dict[str, Any]:
    """Return the settings of a packaged preset, to be laid under a file's and the flags'."""
    return load_preset("pixelscope.pixelda", system, name, PRESETS)


def pixelda_preset(name: str | None = None, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a preset of PixelDA; by default the one that suits the sources in the settings `known` already."""
    return preset("pixelda", name or _default_preset(known))


def baseline_preset(name: str | None = None, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a preset of the baseline; by default the one that suits the sources in the settings `known` already."""
    return preset("baseline", name or _default_preset(known))


def _default_preset(known: Mapping[str, Any] | None) -> str:
    return default_preset((known or {}).get("source"), (known or {}).get("target"))


def default_preset(source: str | None, target: str | None) -> str:
    """Return the preset to start from where none is named: `auto` for two sources that are not MNIST and MNIST-M."""
    from pixelscope.data import parse

    if not source or not target:
        return "paper"
    kinds = [rest if kind == "demo" else kind for kind, rest in (parse(source), parse(target))]
    return "paper" if kinds == ["mnist", "mnist-m"] else "auto"


def exported_data(config: Mapping[str, Any], origin: str) -> DataConfig:
    """Return the settings by which images are read, from the configuration in an exported file; `origin` names the file."""
    return DataConfig.parse(config.get("data", {}), origin)
