"""Settings of a prior of latent codes; importing this imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from pixelscope.config import Config

Kind = Literal["normal", "abnormal"]
KINDS: tuple[Kind, ...] = ("normal", "abnormal")
UsePrior = Literal["auto", "none"]


class PriorConfig(Config):
    """Distribution of the codes of training frames, from which new frames are drawn."""

    kinds: bool = True
    """Learn one distribution of healthy and one of abnormal frames, if the run was trained on both."""
    mirrored: bool = True
    """Train the velocity field of a spatial code on mirror images too; they have their own label, and none is generated."""
    components: Annotated[int, Field(ge=1, le=100)] = 10
    """Maximum number of Gaussians per kind of frames, of a global code; the number with the lowest BIC is used."""
    images: Annotated[int, Field(ge=1, le=1_000_000_000)] = 200_000
    """Number of codes that the velocity field of a spatial code is trained on, with repetition."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Codes per step of that training."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Largest learning rate of AdamW; it rises over the first tenth of the training, and then falls."""
    ema_half_life: Annotated[int, Field(ge=1)] = 10_000
    """Half-life of the moving average of the weights, in codes; the average is stored."""
    width: Annotated[int, Field(ge=1, le=512)] = 64
    """Channels of the largest maps of the velocity field."""
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    """Residual blocks of the velocity field per size of maps and direction."""
    kind_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of codes whose kind is hidden in training, so that generated frames can be guided."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 16
    """Midpoint steps from noise to a code."""
    autoguidance: Annotated[float, Field(ge=0, le=10)] = 1.5
    """Weight of the velocity field against that of a Gaussian when frames are drawn; 1 takes the field as trained."""
    seed: int = 0
    """Seed of the weights and all random draws of the fit."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 takes all cores that other programs do not keep busy."""
