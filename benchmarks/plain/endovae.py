"""EndoVAE as a straightforward script: the report's network, float32, nothing done about speed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import device


class PlainEndoVAE(nn.Module):
    """Encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b, s in ((3, 16, 1), (16, 32, 1), (32, 32, 2), (32, 64, 2), (64, 128, 1), (128, 256, 2)):
            layers += [nn.Conv2d(a, b, 3, stride=s, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36_864, 256), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(256, 6), nn.Linear(256, 6)
        self.start = nn.Sequential(nn.Linear(6, 36_864), nn.ReLU(), nn.Unflatten(1, (256, 12, 12)))
        layers = []
        for a, up, b in ((256, 256, 128), (128, 64, 64), (64, 32, 32)):
            layers += [nn.ConvTranspose2d(a, up, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]
            layers += [nn.Conv2d(up, b, 3, padding=1), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(32, 3, 3, padding=1), nn.Sigmoid())
        self.to(device())
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, eps=1e-7, foreach=False, fused=False)

    def loss(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return cross-entropy, mean over channels and sum over pixels, plus divergence; the mean over images."""
        features = self.encoder(images)
        mean, log_variance = self.mean(features), self.log_variance(features)
        z = mean + noise * torch.exp(0.5 * log_variance)
        decoded = self.decoder(self.start(z))
        reconstruction = F.binary_cross_entropy(decoded, images, reduction="none").mean(1).sum((1, 2)).mean()
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        return reconstruction + kl

    def step(self, images: Tensor) -> None:
        """Train on one batch."""
        loss = self.loss(images.to(device()), torch.randn(len(images), 6, device=device()))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
