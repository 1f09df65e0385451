"""A refinement as a straightforward script: FixMatch with a moving average as teacher, nothing done about speed."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.machine import device


class Views(Dataset[tuple[Tensor, Tensor, int]]):
    """A weak and a strong view of each image, both drawn anew whenever it is read, and its label."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        self.images, self.labels, self.random = images, labels, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image = Image.fromarray(self.images[index])
        return _tensor(self.weak(image)), self.strong(image), int(self.labels[index])

    def weak(self, image: Image.Image) -> Image.Image:
        """Shift."""
        across, down = self.random.uniform(-0.06, 0.06, 2) * image.width
        return image.transform(image.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down), Image.Resampling.BILINEAR)

    def strong(self, image: Image.Image) -> Tensor:
        """Turn, zoom, shear and shift; change the colours, invert half of the images, and erase a square."""
        turn, shear = self.random.uniform(-18, 18), self.random.uniform(-0.2, 0.2)
        zoom = self.random.uniform(0.8, 1.2, 2)
        moved = self.weak(image.rotate(turn, Image.Resampling.BILINEAR))
        matrix = (1 / zoom[0], shear, 0, 0, 1 / zoom[1], 0)
        values = _tensor(moved.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
        gain, bias = (torch.from_numpy(self.random.uniform(-0.6, 0.6, (3, 1, 1)).astype(np.float32)) for _ in range(2))
        sign = -1 if self.random.random() < 0.5 else 1
        values = (values * (1 + gain) * sign + bias).clamp(-1, 1)
        side = round(self.random.uniform(0, 0.3) * image.width)
        top, left = self.random.integers(0, image.width - side + 1, 2)
        values[:, top : top + side, left : left + side] = self.random.uniform(-1, 1)
        return values


def _tensor(image: Image.Image) -> Tensor:
    values = np.asarray(image.convert("RGB"), np.float32) / 127.5 - 1
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def classifier(classes: int, width: int) -> nn.Sequential:
    """Return the six convolutions with batch norm, and the last layer."""
    layers: list[nn.Module] = []
    before = 3
    for stage, after in enumerate((width, 2 * width, 4 * width)):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(2):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, classes))


class PlainRefinement:
    """The classifier, its optimizer and its moving average."""

    def __init__(self, classes: int = 10, width: int = 96) -> None:
        self.t = classifier(classes, width).to(device())
        self.teacher = copy.deepcopy(self.t).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.t.parameters(), lr=2e-3, weight_decay=1e-4, foreach=False, fused=False)

    def step(self, source: list[Tensor], generated: list[Tensor], target: list[Tensor]) -> None:
        """Train on one batch of each kind: weak views, strong views and labels; the target's labels are not used."""
        loss = sum(
            F.cross_entropy(self.t(strong.to(device())), labels.to(device())) for _, strong, labels in (source, generated)
        )
        with torch.no_grad():
            confidence, label = self.teacher(target[0].to(device())).softmax(1).max(1)
        own = F.cross_entropy(self.t(target[1].to(device())), label, reduction="none")
        loss = loss + (own * (confidence >= 0.95)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), self.t.parameters(), strict=True):
                mine.lerp_(theirs, 0.003)
