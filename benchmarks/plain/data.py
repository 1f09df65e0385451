"""Data sets as the report's code reads them: each image through Pillow and NumPy, one call an image."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Bytes = NDArray[np.uint8]


class Digits(Dataset[tuple[Tensor, int]]):
    """Images with labels: resized, three channels, to [-1, 1]."""

    def __init__(self, images: Bytes, labels: Bytes, size: int = 32) -> None:
        self.images, self.labels, self.size = images, labels, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index]).resize((self.size, self.size), Image.Resampling.BILINEAR).convert("RGB")
        values = np.asarray(image, np.float32) / 255
        return torch.from_numpy((values - 0.5) / 0.5).permute(2, 0, 1).contiguous(), int(self.labels[index])


class Frames(Dataset[Tensor]):
    """Frames in [0, 1], each beside two altered copies, drawn anew whenever they are read."""

    def __init__(self, frames: Bytes, copies: int = 2) -> None:
        self.frames, self.copies = frames, copies
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.frames) * (1 + self.copies)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.fromarray(self.frames[index % len(self.frames)])
        if index >= len(self.frames):
            image = self.altered(image)
        return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1).contiguous()

    def altered(self, image: Image.Image) -> Image.Image:
        """Flip, turn, zoom and change the contrast, one Pillow call each."""
        if self.random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.rotate(self.random.uniform(-18, 18), Image.Resampling.BILINEAR)
        width, height = (image.width * self.random.uniform(0.9, 1.1) / 2 for _ in range(2))
        middle = image.width / 2
        box = (round(middle - width), round(middle - height), round(middle + width), round(middle + height))
        image = image.transform(image.size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        return ImageEnhance.Contrast(image).enhance(self.random.uniform(0.9, 1.1))


def endless(data: Dataset[Any], batch_size: int) -> Iterator[Any]:
    """Yield shuffled batches for ever."""
    loader = DataLoader(data, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=0)
    while True:
        yield from loader
