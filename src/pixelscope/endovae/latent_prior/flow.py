"""Flow matching: the loss of a velocity field, and its integration from noise to codes."""

import torch
from torch import Tensor

from pixelscope.endovae.latent_prior.networks import VelocityField

NO_KIND = 0
"""Number of no kind in particular; kinds are numbered from 1."""


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
    """Return times (count,) in (0, 1), logit-normal: most of them amid the path (Esser et al. 2024, section 3.1)."""
    return torch.randn(count, generator=draw).sigmoid()


@torch.no_grad()
def integrate(
    field: VelocityField,
    noise: Tensor,
    steps: int,
    labels: Tensor,
    guidance: float = 1.0,
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
        middle = _with_known(points + half * _velocity(field, points, now, labels, guidance), noise, known, now + half)
        points = points + 2 * half * _velocity(field, middle, now + half, labels, guidance)
    return _with_known(points, noise, known, 1.0)


def _with_known(points: Tensor, noise: Tensor, known: tuple[Tensor, Tensor] | None, time: float) -> Tensor:
    return points if known is None else torch.where(known[1], torch.lerp(noise, known[0], time), points)


def _velocity(field: VelocityField, points: Tensor, time: float, labels: Tensor, guidance: float) -> Tensor:
    times = points.new_full((len(points),), time)
    if guidance == 1 or bool((labels[:, 0] == NO_KIND).all()):
        return field(points, times, labels)
    hidden = torch.stack([torch.full_like(labels[:, 0], NO_KIND), labels[:, 1]], 1)
    return torch.lerp(field(points, times, hidden), field(points, times, labels), guidance)
