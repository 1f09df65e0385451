"""A prior of spatial codes by flow matching: the loss of a velocity field, its training, and drawing codes by integration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pixelscope.endovae.latent_prior.config import Kind, PriorConfig
from pixelscope.endovae.latent_prior.networks import VelocityField
from pixelscope.engine.checkpoint import has_shapes
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.ema import EMA
from pixelscope.engine.runtime import computing_device, leave_busy_cores, resolve_runtime
from pixelscope.errors import InputError
from pixelscope.rng import ShuffledOrder, derive, generator
from pixelscope.runs.progress import ProgressCallback

NO_KIND = 0
"""Number of no kind in particular; kinds are numbered from 1."""
WEIGHT_DECAY = 1e-2
CLIP_NORM = 1.0
WARM_UP = 0.1
"""Fraction of the training over which the learning rate rises."""
MIN_SCHEDULE = 11
"""Minimum steps of the learning-rate schedule: `OneCycleLR` divides by zero if the rate rises over one step exactly."""


def flow_matching_loss(field: VelocityField, codes: Tensor, noise: Tensor, time: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared error of the velocity (Lipman et al. 2023, equation 23; Liu et al. 2023, equation 1).

    Args:
        field: maps points, times and kinds to velocities.
        codes: normalised, (N, C, S, S).
        noise: of N(0, I), of the same shape.
        time: (N,) in [0, 1].
        labels: int64 (N, 2); see `VelocityField.forward`.
    """
    points = torch.lerp(noise, codes, time[:, None, None, None])
    return (field(points, time, labels).float() - (codes - noise)).square().mean()


def draw_times(count: int, draw: torch.Generator) -> Tensor:
    """Return times (count,) in (0, 1), logit-normal: most are near the middle of the path (Esser et al. 2024, section 3.1)."""
    return torch.randn(count, generator=draw).sigmoid()


@torch.no_grad()
def integrate(
    field: VelocityField,
    noise: Tensor,
    steps: int,
    labels: Tensor,
    guidance: float = 1.0,
    autoguidance: float = 1.0,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Follow the field from noise to codes, in midpoint steps, which are shorter at both ends.

    Args:
        field: the velocity field.
        noise: of N(0, I), (N, C, S, S).
        steps: number of steps; each evaluates the field twice.
        labels: int64 (N, 2); see `VelocityField.forward`.
        guidance: weight of the kind: 0 ignores it, 1 is the trained field, more exaggerates it (Ho, Salimans 2022, equation 6,
            with guidance = 1 + w).
        autoguidance: weight of the field against its Gaussian part, which knows less: 1 is the trained field, more leads away
            from what the Gaussian draws (Karras et al. 2024).
        known: codes (N, C, S, S), and the positions where they are known, bool (S, S). Before each evaluation, known positions
            are set to their point on the path from noise to code (Lugmayr et al. 2022, "RePaint", equation 8).

    Returns:
        Codes (N, C, S, S).
    """
    times = (1 - torch.cos(torch.pi * torch.linspace(0, 1, steps + 1, dtype=torch.float64))) / 2
    points = noise
    for now, later in zip(times.tolist(), times.tolist()[1:], strict=False):
        half = (later - now) / 2
        points = _with_known(points, noise, known, now)
        first = _velocity(field, points, now, labels, guidance, autoguidance)
        middle = _with_known(points + half * first, noise, known, now + half)
        points = points + 2 * half * _velocity(field, middle, now + half, labels, guidance, autoguidance)
    return _with_known(points, noise, known, 1.0)


def _with_known(points: Tensor, noise: Tensor, known: tuple[Tensor, Tensor] | None, time: float) -> Tensor:
    return points if known is None else torch.where(known[1], torch.lerp(noise, known[0], time), points)


def _velocity(
    field: VelocityField, points: Tensor, time: float, labels: Tensor, guidance: float, autoguidance: float
) -> Tensor:
    times = points.new_full((len(points),), time)
    found = field(points, times, labels)
    if guidance != 1 and bool((labels[:, 0] != NO_KIND).any()):
        hidden = torch.stack([torch.full_like(labels[:, 0], NO_KIND), labels[:, 1]], 1)
        found = torch.lerp(field(points, times, hidden), found, guidance)
    if autoguidance == 1:
        return found
    gaussian, _ = field.gaussian(points, times[:, None, None, None], labels[:, 1])
    return torch.lerp(gaussian, found, autoguidance)


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
        batch = _draw_batch(codes, labels, order.take(seen, config.batch_size), config, step)
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


def _draw_batch(
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


@dataclass(frozen=True)
class FlowPrior:
    """A velocity field of codes that are normalised per channel."""

    kinds: tuple[Kind, ...]
    """Kinds that were learned apart; empty if all frames were learned together."""
    field: VelocityField
    offset: Tensor
    scale: Tensor
    """Mean and standard deviation of each channel, (C, 1, 1)."""
    shares: Tensor
    """Fraction of each kind among the frames, (kinds,)."""
    config: PriorConfig
    """Settings of the fit, and of the draws."""

    @classmethod
    def fit(
        cls,
        codes: Tensor,
        shape: tuple[int, ...],
        labels: Tensor,
        kinds: Sequence[Kind],
        config: PriorConfig,
        progress: ProgressCallback | None,
    ) -> tuple[Self, float, float]:
        """Train the field.

        Args:
            codes: (N, latent), positions by row, the channels of one position next to each other.
            shape: height, width and channels of a code.
            labels: int64 (N, 2); see `VelocityField.forward`.
            kinds: names of the kinds.
            config: settings.
            progress: called with the codes seen and all codes.

        Returns:
            The prior, and the mean loss at the start and at the end.
        """
        maps = codes.view(-1, *shape).permute(0, 3, 1, 2).contiguous()
        scale, offset = torch.std_mean(maps, (0, 2, 3))
        scale = scale.clamp_min(1e-6)[:, None, None]
        found = train_field((maps - offset[:, None, None]) / scale, labels, len(kinds), config, progress)
        shares = torch.tensor([(labels[:, 0] == 1 + number).float().mean() for number in range(len(kinds))])
        return (
            cls(tuple(kinds), found.field, offset[:, None, None], scale, shares, config),
            found.start_loss,
            found.loss,
        )

    def draw(self, numbers: range, seed: int, kind: Kind | None, guidance: float) -> Tensor:
        """Return codes (n, latent).

        Args:
            numbers: numbers of the frames; a code is determined by its number and `seed`.
            seed: of the draws.
            kind: one of `kinds`, or None for all as often as in training.
            guidance: weight of the kind; see `integrate`.
        """
        noise, labels = self._noise_and_labels(numbers, seed, kind)
        return self._to_codes(integrate(self.field, noise, self.config.steps, labels, guidance, self.config.autoguidance))

    def complete(self, code: Tensor, known: Tensor, numbers: range, seed: int, kind: Kind | None, guidance: float) -> Tensor:
        """Return codes (n, latent) that have the values of a code where these are known; the field is taken as trained.

        Args:
            code: (latent,).
            known: positions whose values are kept, bool (S, S).
            numbers: see `draw`.
            seed: see `draw`.
            kind: see `draw`.
            guidance: see `draw`.
        """
        noise, labels = self._noise_and_labels(numbers, seed, kind)
        side = noise.shape[-1]
        maps = (code.view(side, side, -1).permute(2, 0, 1) - self.offset) / self.scale
        return self._to_codes(
            integrate(self.field, noise, self.config.steps, labels, guidance, known=(maps.expand_as(noise), known))
        )

    def _noise_and_labels(self, numbers: range, seed: int, kind: Kind | None) -> tuple[Tensor, Tensor]:
        """Return noise (n, C, S, S) and labels (n, 2)."""
        shape = self.field.gaussian.mean.shape[1:]
        noise, labels = torch.empty(len(numbers), *shape), torch.zeros(len(numbers), 2, dtype=torch.int64)
        for row, number in enumerate(numbers):
            draw = generator("cpu", seed, "generated", number)
            noise[row] = torch.randn(shape, generator=draw)
            if self.kinds:
                drawn = int(torch.multinomial(self.shares, 1, generator=draw))
                labels[row, 0] = 1 + (drawn if kind is None else self.kinds.index(kind))
        return noise, labels

    def _to_codes(self, maps: Tensor) -> Tensor:
        """Return codes (n, latent) of normalised maps (n, C, S, S)."""
        return (maps * self.scale + self.offset).permute(0, 2, 3, 1).flatten(1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store."""
        own = {"offset": self.offset, "scale": self.scale, "shares": self.shares}
        return own | {f"field.{name}": tensor for name, tensor in self.field.state_dict().items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], kinds: Sequence[Kind], shape: tuple[int, ...], config: PriorConfig
    ) -> Self | None:
        """Return the prior of stored tensors; None if names or shapes are wrong, or values do not fit."""
        side, _, channels = shape

        def build() -> VelocityField:
            return VelocityField(channels, side, config.width, config.blocks, len(kinds))

        weights = {name.removeprefix("field."): tensor for name, tensor in tensors.items() if name.startswith("field.")}
        own = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith("field.")}
        expected = {"offset": (channels, 1, 1), "scale": (channels, 1, 1), "shares": (len(kinds),)}
        if own != expected or not has_shapes(lambda: [build()], weights):
            return None
        if not tensors["shares"].is_floating_point() or not (tensors["shares"] > 0).all():
            return None
        with torch.random.fork_rng(devices=[]):  # The initial weights are replaced.
            field = build()
        field.load_state_dict(weights)
        field.eval().requires_grad_(False)
        return cls(tuple(kinds), field, tensors["offset"], tensors["scale"], tensors["shares"], config)
