"""Every setting of EndoVAE; the defaults are the report's protocol (preset `paper`)."""

from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from pixelscope.config import Config
from pixelscope.engine.config import AugmentConfig, RuntimeConfig, TrainingConfig
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
TrainOn = Literal["normal", "abnormal", "both"]

PRESETS = ("paper", "demo")


class SplitConfig(Config):
    """Which frames are trained on; near-duplicates never part."""

    train_on: TrainOn = "normal"
    """Kind of frames to learn; the other kind is only measured. The paper used both."""
    validation_fraction: Fraction = 0.1
    """Share of the frames of that kind held out to steer the schedule and to choose the checkpoint."""
    test_fraction: Fraction = 0.1
    """Share of the frames of that kind held out for the final measurement alone."""
    duplicate_distance: Annotated[int, Field(ge=0, le=64)] = 8
    """Bits of 64 in which the perceptual hashes of two frames may differ to count as near-duplicates."""
    seed: int = 0
    """Seed of the split, apart from the training's, so that several seeds share one test set."""


class AugmentationConfig(AugmentConfig):
    """How many altered copies of each training frame are added, and by how much they are altered."""

    copies: Annotated[int, Field(ge=0)] = 2
    """Altered copies beside each original in an epoch: 2 triple the set."""
    fresh: bool = False
    """Draw the alterations anew every epoch; off, each copy stays the same, as in the report."""


class ModelConfig(Config):
    """Encoder and decoder."""

    latent: Count = 6
    """Length of z."""
    width: Count = 16
    """Channels of the first convolution; every other layer is a multiple of it."""


class LossConfig(Config):
    """The two terms of the loss."""

    reading: Literal["channel-mean", "sum"] = "channel-mean"
    """Cross-entropy of an image: the mean of its channels, summed over its pixels; or the sum of all its values."""
    kl: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence; 1 is the variational bound."""


class OptimizerConfig(Config):
    """Adam."""

    learning_rate: Positive = 1e-3
    """Step size before any halving."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of Adam's first moment, a step."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of Adam's second moment, a step."""
    epsilon: Positive = 1e-7
    """Adam's guard against division by zero; 1e-7 is the default of the report's framework."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient; unset for none."""


class ScheduleConfig(Config):
    """When the learning rate falls and when training ends, counted in evaluations, one an epoch."""

    factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor on the learning rate at a plateau; 1 turns it off."""
    patience: Count = 10
    """Epochs without a lower validation loss before it falls."""
    floor: Annotated[float, Field(ge=0)] = 1e-6
    """Learning rate that it never falls under."""
    stop_after: Count = 50
    """Epochs without a lower validation loss after which training ends."""
    take_off: Annotated[float, Field(ge=0)] = 1.0
    """Divergence in nats at which these counters start; before, the network decodes the mean image and nothing is a plateau."""


class EpochsConfig(Config):
    """How long to train, and what happens every so many epochs; an epoch is every training frame and all its copies."""

    batch_size: Annotated[int, Field(ge=2)] = 128
    """Frames a step, over all devices together."""
    epochs: Count = 1000
    """Most epochs; the schedule may end it earlier."""
    log_every: Positive = 0.25
    """Epochs between two lines of stats.jsonl."""
    sample_every: Positive = 10
    """Epochs between two grids of samples."""
    checkpoint_every: Positive = 5
    """Epochs between two checkpoints; the last two are kept."""
    ema_half_life: Annotated[float, Field(ge=0)] = 0
    """Epochs after which a weight counts half in the moving average; 0 turns the average off."""

    def in_images(self, epoch: int) -> TrainingConfig:
        """Return the same durations in images seen, which is what the engine counts; `epoch` is the images of one."""

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
        )


class EndoVAEConfig(Config):
    """EndoVAE: encoder and decoder trained together on frames of one kind."""

    frames: str = ""
    """A store made by `pixelscope endovae prepare`, or a folder of frames, which is prepared first."""
    seed: int = 0
    """Seed of weights, order of data and every random draw."""
    prepare: PrepareConfig = PrepareConfig()
    split: SplitConfig = SplitConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: EpochsConfig = EpochsConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def endovae_preset(name: str) -> dict[str, Any]:
    """Return the settings of a packaged preset, to be laid under a file's and the flags'."""
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    file = resources.files("pixelscope.endovae") / "presets" / f"endovae-{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))
