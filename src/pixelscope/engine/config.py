"""Settings of the loop and of the machine it runs on; every duration is in images seen."""

from typing import Annotated, Literal

from pydantic import Field

from pixelscope.config import Config

Images = Annotated[int, Field(ge=1)]


class TrainingConfig(Config):
    """How long to train, and what happens every so many images. The defaults are 20 epochs of 56,000 images."""

    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images of each domain a step, over all devices together."""
    images: Images = 1_120_000
    """Source images to train on in all: 35,000 steps of 32."""
    log_every: Images = 1_600
    """Images between two lines of stats.jsonl."""
    evaluate_every: Images = 56_000
    """Images between two evaluations on the source and two stored classifiers."""
    sample_every: Images = 56_000
    """Images between two grids of samples."""
    checkpoint_every: Images = 16_000
    """Images between two checkpoints; the last two are kept."""
    ema_half_life: Annotated[int, Field(ge=0)] = 22_000
    """Images after which a weight counts half in the moving average; 0 turns the average off."""


class RuntimeConfig(Config):
    """Where and how it runs; none of this changes what is computed, only its rounding and speed."""

    devices: Annotated[int, Field(ge=1)] = 1
    """Processes, one a device; the batch is divided among them."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto`: bf16-mixed where the hardware computes in bf16, else 32-true."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Memory format of images and weights; channels-last convolutions are faster on CPUs and GPUs."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads a process; 0 shares the cores among the processes."""
    collective_timeout: Annotated[float, Field(gt=0)] = 50.0
    """Seconds that a process waits for the others in a step before it stops with an error."""


class AdamConfig(Config):
    """What every optimizer has; a system adds its own schedule."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Initial learning rate."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Adam beta1: exponential decay rate of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Adam beta2: exponential decay rate of the second moment."""


class AugmentConfig(Config):
    """How far an altered copy may be from its original."""

    flip: bool = True
    """Mirror one copy in two, left to right."""
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Most that a copy is turned either way, in turns: 0.05 are 18 degrees."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Most by which height and width grow or shrink, each by its own draw."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Most by which the contrast grows or shrinks."""
