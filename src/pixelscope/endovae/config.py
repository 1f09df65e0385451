"""Settings of EndoVAE; the defaults are the protocol of the reference study (preset `paper`)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pixelscope.config import Config, PathText, Unsettable, check_found, load_preset
from pixelscope.engine.config import AdamConfig, AugmentConfig, RuntimeConfig, TrainingConfig
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig

Count = Annotated[int, Field(ge=1)]
Channels = Annotated[int, Field(ge=1, le=4096)]
"""Channels of a layer, or dimensions of z; limited, so that a damaged file cannot allocate too much memory."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
TrainOn = Literal["normal", "abnormal", "both"]

PRETRAINED = "pretrained"
"""The extra that brings EfficientNet-Lite0 and its weights."""
PRESETS = ("paper", "demo", "spatial", "spatial-small")


class SplitConfig(Config):
    """Split of the frames; near-duplicates stay together."""

    train_on: TrainOn = "normal"
    """Kind of frames to train on; the other kind is only tested. The paper used both."""
    validation_fraction: Fraction = 0.1
    """Fraction of the frames of that kind for validation: they drive the schedule and select the checkpoint. Of the healthy
    ones, half calibrate anomaly scores and choose nothing."""
    test_fraction: Fraction = 0.1
    """Fraction of the frames of that kind for the test."""
    duplicate_distance: Annotated[int, Field(ge=0, le=64)] = 8
    """Maximum Hamming distance of two 64-bit perceptual hashes that count as near-duplicates."""
    seed: int = 0
    """Seed of the split. It is separate from the training seed, so that several training seeds share one test set."""


class AugmentationConfig(AugmentConfig):
    """Augmented copies of the training frames."""

    copies_per_frame: Annotated[int, Field(ge=0)] = 2
    """Augmented copies per original frame in an epoch; 2 triple the training set."""
    resample_every_epoch: bool = False
    """Draw new augmentations every epoch. If off, each copy stays the same, as in the reference study."""

    def images_per_epoch(self, frames: int) -> int:
        """Return the number of images per epoch: the training frames and all their copies."""
        return frames * (1 + self.copies_per_frame)


class ModelConfig(Config):
    """Encoder and decoder."""

    kind: Literal["global", "spatial"] = "global"
    """Latent code: `global` is one vector per frame, as in the paper; `spatial` is one per block of pixels."""
    latent: Channels = 6
    """Dimensions of the latent vector z; of a spatial code, per block."""
    width: Channels = 16
    """Channels of the first convolution; the widths of all other layers are multiples of it."""
    stride: Annotated[int, Field(ge=2, le=16)] = 4
    """Side of a block in pixels, of a spatial code, a power of 2: 4 makes 24 x 24 positions of 96 x 96 pixels. A
    global code has none."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    """Residual blocks per halving, of a spatial code. A global code has none."""

    @model_validator(mode="after")
    def _check_latent(self) -> "ModelConfig":
        for name in ("stride", "blocks"):
            value = getattr(self, name)
            # Flags are checked before a preset is merged, which may set the kind.
            if self.kind == "global" and "kind" in self.model_fields_set and value != type(self).model_fields[name].default:
                raise ValueError(f"{name} {value} has no effect on a global code; leave it out, or set kind to spatial")
        if self.kind == "spatial" and self.stride.bit_count() != 1:
            raise ValueError(f"a stride of {self.stride} cannot be made of halvings; give 2, 4, 8 or 16")
        if self.kind == "spatial" and self.latent > 3 * self.stride**2:
            raise ValueError(
                f"a block of {self.stride} x {self.stride} pixels has {3 * self.stride**2} values; lower --model.latent"
            )
        return self

    def code_shape(self, size: int) -> tuple[int, ...]:
        """Return the shape of the code of a frame of side `size`: (latent,), or (height, width, latent) of a spatial code.

        Raises:
            InputError: the side is not divisible by the stride.
        """
        if self.kind == "global":
            return (self.latent,)
        if size % self.stride:
            raise InputError(
                f"A spatial code with --model.stride {self.stride} needs frames whose side is divisible by it, and theirs is "
                f"{size} pixels; prepare them with --size {size - size % self.stride or self.stride}, or change the stride."
            )
        return (size // self.stride, size // self.stride, self.latent)


Weight = Annotated[float, Field(ge=0)]


class LossConfig(Config):
    """The terms of the loss, per frame: reconstruction and KL divergence."""

    cross_entropy: Weight = 1.0
    """Weight of the cross-entropy; the loss of a global code. A spatial code has none."""
    reduction: Literal["channel-mean", "sum"] = "channel-mean"
    """Reduction of the cross-entropy per image: `channel-mean` averages channels and sums pixels; `sum` sums all values."""
    l1: Weight = 0.0
    """Weight of the mean absolute error."""
    mse: Weight = 0.0
    """Weight of the mean squared error."""
    ssim: Weight = 0.0
    """Weight of 1 - SSIM (Wang et al. 2004)."""
    perceptual: Weight = 0.0
    """Weight of the distance of features of EfficientNet-Lite0 (Zhang et al. 2018); needs the extra `pretrained`."""
    kl: Weight = 1.0
    """Weight of the KL divergence, in nats summed over the code; 1 with the cross-entropy gives the evidence lower bound."""
    adversarial: Weight = 0.0
    """Weight of a discriminator's output on patches of reconstructions (Esser et al. 2021). It makes them sharp, by details
    that the code does not hold. Training then does not end early, and the last checkpoint is used: validation rewards blur."""
    adversarial_from: Annotated[int, Field(ge=0)] = 0
    """Epochs after which the adversarial loss counts; from then on, the decoder is trained alone, more slowly."""

    @model_validator(mode="after")
    def _check_weights(self) -> "LossConfig":
        if not (self.cross_entropy or self.l1 or self.mse or self.ssim or self.perceptual):
            raise ValueError(
                "all terms of the reconstruction have weight 0; give l1, mse, ssim, perceptual or cross-entropy a weight"
            )
        return self


class OptimizerConfig(AdamConfig):
    """Adam."""

    epsilon: Positive = 1e-7
    """Adam epsilon; 1e-7 is the default of the reference study's framework."""
    clip_norm: Annotated[Positive | None, Unsettable] = None
    """Maximum gradient norm; `none` for no clipping."""


class ScheduleConfig(Config):
    """Learning-rate schedule and early stopping, counted in epochs; there is one evaluation per epoch."""

    factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor on the learning rate at a plateau; 1 disables it."""
    patience: Count = 10
    """Epochs without a lower validation loss before the learning rate is lowered."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-6
    """Minimum learning rate."""
    early_stopping_patience: Count = 50
    """Epochs without a lower validation loss after which training ends."""
    start_kl: Annotated[float, Field(ge=0)] = 1.0
    """KL divergence in nats at which both counters start. Before that, the network decodes the mean image."""


class EpochsConfig(Config):
    """Length of the training and intervals, in epochs; an epoch is every training frame and all its copies."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Frames per step, over all devices together."""
    epochs: Count = 1000
    """Maximum number of epochs; early stopping may end the training before."""
    log_every: Positive = 0.25
    """Epochs between lines of stats.jsonl."""
    sample_every: Positive = 10
    """Epochs between stored samples."""
    checkpoint_every: Positive = 5
    """Epochs between checkpoints; the last two are kept."""
    ema_half_life: Annotated[float, Field(ge=0)] = 0
    """Half-life of the moving average of the weights; 0 disables it."""
    tensorboard: bool = False
    """Write TensorBoard event files into the run folder, too; needs the extra tensorboard."""

    def require_average(self, epoch: int) -> None:
        """Raise InputError if the half-life of the moving average is 0 images and not disabled; an epoch is `epoch` images."""
        if self.ema_half_life and not round(self.ema_half_life * epoch):
            raise InputError(
                f"training.ema_half_life {self.ema_half_life:g} is 0 images, because an epoch has {epoch:,}; give at least "
                f"{1 / epoch:.2g}, or 0 for no moving average."
            )

    def in_images(self, epoch: int) -> TrainingConfig:
        """Return the same durations in images seen, the unit of the engine; `epoch` is the number of images per epoch."""

        def images(epochs: float) -> int:
            return max(1, round(epochs * epoch))

        return TrainingConfig(
            batch_size=self.batch_size,
            images=images(self.epochs),
            log_every=images(self.log_every),
            evaluate_every=epoch,
            sample_every=images(self.sample_every),
            checkpoint_every=images(self.checkpoint_every),
            ema_half_life=round(self.ema_half_life * epoch),
            tensorboard=self.tensorboard,
        )


FOUND_WITH = {"prepare.range": ("frames",)}
"""Settings that a training finds in its frames and records in config.yaml, and the settings that they were found with."""


class EndoVAEConfig(Config):
    """EndoVAE: an encoder and a decoder trained together on endoscopy frames."""

    frames: PathText = ""
    """Frame store made by `pixelscope endovae prepare`, or a folder of frames, which is prepared first."""
    seed: int = 0
    """Seed of the weights, the order of the data and all random draws."""
    prepare: PrepareConfig = PrepareConfig()
    split: SplitConfig = SplitConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: EpochsConfig = EpochsConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _check_loss(self) -> "EndoVAEConfig":
        if self.model.kind == "spatial" and self.losses.cross_entropy:
            raise ValueError(
                "a spatial code has no cross-entropy; use preset spatial, or set losses.cross_entropy to 0, losses.l1 to 1"
            )
        if self.losses.adversarial:
            self._check_start()
        return self

    def _check_start(self) -> None:
        start, epochs = self.losses.adversarial_from, self.training.epochs
        # Flags are checked before a preset is merged, which may set what they leave out.
        if "adversarial_from" not in self.losses.model_fields_set:
            return
        if not start:
            raise ValueError("the encoder is trained without the adversarial loss; give losses.adversarial_from its epochs")
        if start >= epochs and "epochs" in self.training.model_fields_set:
            raise ValueError(
                f"the adversarial loss starts after {start} epochs, and training ends after {epochs}; raise training.epochs, "
                "lower losses.adversarial_from, or set losses.adversarial to 0"
            )

    @classmethod
    def check_file(cls, file: Mapping[str, Any], changes: Mapping[str, Any], origin: str) -> None:
        """Raise InputError if a file has the value range of frames other than the folder in `changes`; see `FOUND_WITH`.

        A store has the range that its frames were prepared with, and takes no other.
        """
        from pixelscope.data.frames.store import FrameStore  # it imports NumPy, which --help does without

        if not FrameStore.is_store(Path(changes.get("frames", ""))):
            check_found(FOUND_WITH, file, changes, origin)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Return the shape of the code of one frame; see `ModelConfig.code_shape`."""
        return self.model.code_shape(self.prepare.size)

    @property
    def code_values(self) -> int:
        """Return the number of values of the code of one frame."""
        return math.prod(self.code_shape)


def endovae_preset(name: str | None = None, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a packaged preset, `paper` by default; `known` is not used.

    Example:
        >>> pixelscope.endovae.EndoVAEConfig.parse(pixelscope.endovae.preset("demo"))
    """
    return load_preset("pixelscope.endovae", "endovae", name or "paper", PRESETS)
