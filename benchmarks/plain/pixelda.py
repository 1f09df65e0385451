"""PixelDA as a straightforward script: the report's networks and losses, nothing done about speed.

G runs again in its own step, D and T compute gradients there that nobody uses, and noise and dropout are torch's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import device


class Noise(nn.Module):
    """Adds N(0, 0.2^2) in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with noise."""
        return x + 0.2 * torch.randn_like(x) if self.training else x


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x + self.layers(x)


class Generator(nn.Module):
    """G."""

    def __init__(self, blocks: int = 6, width: int = 64) -> None:
        super().__init__()
        self.project = nn.Linear(10, 32 * 32)
        body = [Block(width) for _ in range(blocks)]
        enter, leave = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.layers = nn.Sequential(enter, nn.ReLU(), *body, leave, nn.Tanh())

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Redraw `x` (N, 3, 32, 32) with noise `z` (N, 10)."""
        return self.layers(torch.cat([x, self.project(z).view(-1, 1, 32, 32)], 1))


def discriminator(width: int = 64) -> nn.Sequential:
    """Return D."""
    layers: list[nn.Module] = []
    widths = [3, width, 2 * width, 4 * width, 8 * width]
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [nn.Conv2d(a, b, 3, stride=2 if i else 1, padding=1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        layers += [Noise(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width * 16, 1))


def classifier() -> nn.Sequential:
    """Return T."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 48, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(48 * 64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


class PlainPixelDA:
    """G, D and T with their optimizers."""

    def __init__(self, blocks: int = 6, width: int = 64, d_width: int = 64) -> None:
        self.g, self.d, self.t = (n.to(device()) for n in (Generator(blocks, width), discriminator(d_width), classifier()))
        for module in (m for network in (self.g, self.d, self.t) for m in network.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, 0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.dt_optimizer = plain_adam([*self.d.parameters(), *self.t.parameters()])
        self.g_optimizer = plain_adam(self.g.parameters())

    def step(self, source: Tensor, labels: Tensor, target: Tensor) -> None:
        """Train D and T, then G."""
        source, labels, target = source.to(device()), labels.to(device()), target.to(device())
        fake = self.g(source, torch.rand(len(source), 10, device=device()) * 2 - 1).detach()
        real_logits, fake_logits = self.d(target), self.d(fake)
        d_loss = _binary(real_logits, 1) + _binary(fake_logits, 0)
        t_loss = F.cross_entropy(self.t(source), labels) + F.cross_entropy(self.t(fake), labels)
        self.dt_optimizer.zero_grad()
        (0.13 * d_loss + t_loss).backward()
        self.dt_optimizer.step()
        fake = self.g(source, torch.rand(len(source), 10, device=device()) * 2 - 1)
        g_loss = 0.011 * _binary(self.d(fake), 1) + 0.01 * F.cross_entropy(self.t(fake), labels)
        self.g_optimizer.zero_grad()
        g_loss.backward()
        self.g_optimizer.step()


class PlainBaseline:
    """T alone, on the source."""

    def __init__(self) -> None:
        self.t = classifier().to(device())
        self.optimizer = plain_adam(self.t.parameters())

    def step(self, source: Tensor, labels: Tensor) -> None:
        """Train T."""
        loss = F.cross_entropy(self.t(source.to(device())), labels.to(device()))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def plain_adam(parameters: object) -> torch.optim.Adam:
    """Return Adam with one loop over the parameters in Python, as it was before its faster forms."""
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.999), weight_decay=1e-5, foreach=False, fused=False)  # type: ignore[arg-type]


def _binary(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
