"""Trains the velocity field of a prior."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelscope.endovae.latent_prior.config import PriorConfig
from pixelscope.endovae.latent_prior.flow import NO_KIND, draw_times, flow_matching_loss
from pixelscope.endovae.latent_prior.networks import VelocityField
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.ema import EMA
from pixelscope.engine.runtime import computing_device, leave_busy_cores, resolve_runtime
from pixelscope.errors import InputError
from pixelscope.rng import ShuffledOrder, derive, generator
from pixelscope.runs.progress import ProgressCallback

WEIGHT_DECAY = 1e-2
CLIP_NORM = 1.0
WARM_UP = 0.1
"""Fraction of the training over which the learning rate rises."""
MIN_SCHEDULE = 11
"""Minimum steps of the learning-rate schedule: `OneCycleLR` divides by zero if the rate rises over one step exactly."""


@dataclass(frozen=True)
class TrainedField:
    """A trained velocity field."""

    field: VelocityField
    """The moving average, in evaluation mode, on the CPU."""
    start_loss: float
    loss: float
    """Mean over the first and the last tenth of the steps."""


def train_field(
    codes: Tensor, labels: Tensor, kinds: int, config: PriorConfig, progress: ProgressCallback | None = None
) -> TrainedField:
    """Train a velocity field by flow matching.

    Args:
        codes: normalised per channel, (N, C, S, S).
        labels: int64 (N, 2); see `VelocityField.forward`.
        kinds: number of kinds.
        config: size of the network, and length of the training.
        progress: called with the codes seen and all codes.

    Raises:
        InputError: the loss becomes infinite.
    """
    runtime = resolve_runtime(leave_busy_cores(RuntimeConfig(threads=config.threads))[0])
    before = torch.get_num_threads()
    torch.set_num_threads(runtime.threads)
    try:
        return _train(codes, labels, kinds, config, runtime.precision == "bf16-mixed", progress)
    finally:
        torch.set_num_threads(before)


def _train(
    codes: Tensor, labels: Tensor, kinds: int, config: PriorConfig, bf16: bool, progress: ProgressCallback | None
) -> TrainedField:
    device = computing_device()
    field = new_field(codes, labels, kinds, config).to(device)
    average = EMA(field, config.ema_half_life)
    steps = math.ceil(config.images / config.batch_size)
    optimizer = torch.optim.AdamW(field.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(steps + 1, MIN_SCHEDULE), pct_start=WARM_UP, cycle_momentum=False
    )
    order = ShuffledOrder(len(codes), config.seed, "prior")
    losses = torch.zeros(steps)
    for step in range(steps):
        seen = step * config.batch_size
        batch = _draw(codes, labels, order.take(seen, config.batch_size), config, step)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = flow_matching_loss(field, *(one.to(device) for one in batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(field.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        seen += config.batch_size
        average.update(field, average.kept(config.batch_size, seen))
        losses[step] = loss.detach()
        _require_finite(losses[step], seen)
        if progress is not None:
            progress(min(seen, config.images), config.images)
    part = math.ceil(steps / 10)
    field.load_state_dict(average.network.state_dict())
    return TrainedField(field.cpu().eval().requires_grad_(False), losses[:part].mean().item(), losses[-part:].mean().item())


def new_field(codes: Tensor, labels: Tensor, kinds: int, config: PriorConfig) -> VelocityField:
    """Return an untrained field, which draws codes with mean and power spectrum of `codes`, (N, C, S, S)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "weights of the prior"))
        field = VelocityField(codes.shape[1], codes.shape[2], config.width, config.blocks, kinds)
    field.gaussian.fit(codes, labels[:, 1])
    return field


def _draw(
    codes: Tensor, labels: Tensor, items: Tensor, config: PriorConfig, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return codes, noise, times and labels of one step, each a function of seed and step."""
    draw = generator("cpu", config.seed, "prior", step)
    some = codes[items]
    noise = torch.randn(some.shape, generator=draw)
    hidden = torch.rand(len(items), generator=draw) < config.kind_dropout
    kind, mirrored = labels[items].unbind(1)
    return some, noise, draw_times(len(items), draw), torch.stack([torch.where(hidden, NO_KIND, kind), mirrored], 1)


def _require_finite(loss: Tensor, seen: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"The prior's loss is {loss.item()} after {seen:,} codes; lower --learning-rate, or raise --batch-size."
        )
