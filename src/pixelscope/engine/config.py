"""Settings of the training loop and of the hardware; durations are in images seen."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pixelscope.config import Config

Images = Annotated[int, Field(ge=1)]


def _as_word(value: object) -> object:
    """YAML 1.1 reads `on` and `off` as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_word)]


class TrainingConfig(Config):
    """Duration of a training and its intervals. The defaults are 20 epochs of 56,000 images."""

    batch_size: Annotated[int, Field(ge=2)] = 32
    """Images of each domain per step, over all devices."""
    images: Images = 1_120_000
    """Total number of source images: 35,000 steps of 32."""
    log_every: Images = 1_600
    """Images between log lines in stats.jsonl."""
    evaluate_every: Images = 56_000
    """Images between evaluations; each stores a classifier."""
    sample_every: Images = 56_000
    """Images between grids of samples."""
    checkpoint_every: Images = 16_000
    """Images between checkpoints; the last two are kept."""
    ema_half_life: Annotated[int, Field(ge=0)] = 22_000
    """Half-life of the weights' moving average, in images; 0 disables it."""
    tensorboard: bool = False
    """Write TensorBoard event files into the run folder, too; needs the extra tensorboard."""


class RuntimeConfig(Config):
    """Hardware settings; they change speed and rounding only."""

    devices: Annotated[int, Field(ge=1)] = 1
    """Number of devices, one process each; the batch is divided among them."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU if there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto`: bf16-mixed if the hardware supports bfloat16, else 32-true."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Memory format of images and weights; channels-last convolutions are faster on CPUs and GPUs."""
    capture: Switch = "auto"
    """Capture the training step as CUDA graphs, so that each step is one launch, on one GPU. `auto`: off."""
    compile: Switch = "auto"
    """Compile the networks' passes in the training step with torch.compile; needs a C++ compiler, on a GPU also Triton. `auto`:
    off."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads per process; 0 divides the cores among the processes, without cores that other programs keep busy."""
    collective_timeout: Annotated[float, Field(gt=0)] = 50.0
    """Seconds that a process waits for the others in a step before it stops with an error."""


class AdamConfig(Config):
    """Settings of Adam; a system adds its schedule."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Initial learning rate."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Adam beta1: exponential decay rate of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Adam beta2: exponential decay rate of the second moment."""


class AugmentConfig(Config):
    """Random augmentation."""

    flip: bool = True
    """Flip horizontally with probability 0.5."""
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Maximum rotation to either side, as a fraction of a full turn: 0.05 is 18 degrees."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Maximum relative change of height and of width, drawn independently."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Maximum relative change of contrast."""


class ViewsConfig(Config):
    """Augmentation: weak views for the teacher, strong views for the classifier in training."""

    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    """Maximum shift of a view, as a fraction of the side."""
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Maximum rotation of a strong view, as a fraction of a full turn."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Maximum zoom of a strong view, in and out; height and width have separate draws."""
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Maximum shear of a strong view."""
    colour: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Maximum change in contrast and brightness per channel of a strong view."""
    invert: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of inverting a strong view."""
    erase: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Maximum side of the square erased from a strong view, as a fraction of the image's."""
