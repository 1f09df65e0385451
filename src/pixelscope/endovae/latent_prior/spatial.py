"""A prior of spatial codes by flow matching."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pixelscope.endovae.latent_prior.config import Kind, PriorConfig
from pixelscope.endovae.latent_prior.flow import integrate
from pixelscope.endovae.latent_prior.networks import VelocityField
from pixelscope.endovae.latent_prior.training import train_field
from pixelscope.engine.checkpoint import has_shapes
from pixelscope.rng import generator
from pixelscope.runs.progress import ProgressCallback


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
    steps: int

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
        return cls(tuple(kinds), found.field, offset[:, None, None], scale, shares, config.steps), found.start_loss, found.loss

    def draw(self, numbers: range, seed: int, kind: Kind | None, guidance: float) -> Tensor:
        """Return codes (n, latent).

        Args:
            numbers: numbers of the frames; a code is determined by its number and `seed`.
            seed: of the draws.
            kind: one of `kinds`, or None for all as often as in training.
            guidance: weight of the kind; see `integrate`.
        """
        noise, labels = self._noise(numbers, seed, kind)
        return self._flat(integrate(self.field, noise, self.steps, labels, guidance))

    def complete(self, code: Tensor, known: Tensor, numbers: range, seed: int, kind: Kind | None, guidance: float) -> Tensor:
        """Return codes (n, latent) that have the values of a code where these are known.

        Args:
            code: (latent,).
            known: positions whose values are kept, bool (S, S).
            numbers: see `draw`.
            seed: see `draw`.
            kind: see `draw`.
            guidance: see `draw`.
        """
        noise, labels = self._noise(numbers, seed, kind)
        side = noise.shape[-1]
        maps = (code.view(side, side, -1).permute(2, 0, 1) - self.offset) / self.scale
        return self._flat(integrate(self.field, noise, self.steps, labels, guidance, (maps.expand_as(noise), known)))

    def _noise(self, numbers: range, seed: int, kind: Kind | None) -> tuple[Tensor, Tensor]:
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

    def _flat(self, maps: Tensor) -> Tensor:
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
        return cls(tuple(kinds), field, tensors["offset"], tensors["scale"], tensors["shares"], config.steps)
