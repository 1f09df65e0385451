"""Detectors: models fitted to the features of healthy frames, which score other frames by their distance from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.metrics import pairwise_distances_argmin_min

from pixelscope.endovae.detection.config import DetectorName
from pixelscope.endovae.detection.features import FrameFeatures
from pixelscope.rng import derive

RIDGE = 0.01
"""Added to the diagonal of each covariance of PaDiM (Defard et al. 2021, section III.A)."""
BANK = 2_000
"""Patches in the memory bank of PatchCore."""
CANDIDATES = 20_000
"""Number of random patches from which the bank is chosen."""
PROJECTED = 64
"""Dimensions of the random projection in which the bank is chosen (Roth et al. 2022, section 3.2)."""
HIGHEST = 0.1
"""A frame's score is the mean of this fraction of its map, the highest positions."""

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray]


@dataclass(frozen=True)
class Detection:
    """Scores of N frames, and the maps that they summarise."""

    scores: NDArray[np.float64]
    """(N,); higher is less like the healthy frames."""
    maps: Floats
    """(N, h, w): the score of each position."""


class Detector(Protocol):
    """A fitted detector."""

    uses_lesion_maps: ClassVar[bool]
    """Whether it needs features with lesion maps."""

    def __call__(self, features: FrameFeatures) -> Detection:
        """Score frames."""
        ...

    def tensors(self) -> Tensors:
        """Return the fitted parameters by name, for `from_tensors`."""
        ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray]) -> Self:
        """Return the detector with these parameters."""
        ...


@dataclass(frozen=True)
class PaDiM:
    """Distance of each position's features from the Gaussian of that position (Defard et al., ICPR 2021).

    A frame's score is the mean over its positions, where the paper takes the maximum: lesions fill a third of a view.
    """

    uses_lesion_maps: ClassVar[bool] = False
    mean: NDArray[np.float64]
    """(G, G, C)."""
    precision: Floats
    """(G, G, C, C)."""

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "PaDiM":
        """Fit to the features of healthy frames; `seed` is not used."""
        mean = features.patches.mean(0, dtype=np.float64)
        centred = features.patches - mean
        covariance = np.einsum("nhwi,nhwj->hwij", centred, centred, optimize=True) / max(1, len(features) - 1)
        ridge = RIDGE * np.eye(mean.shape[-1])
        return cls(mean, np.linalg.inv(covariance + ridge).astype(np.float32))

    def __call__(self, features: FrameFeatures) -> Detection:
        """Return the distance of each position, (N, G, G), and its mean over a frame."""
        centred = (features.patches - self.mean).astype(np.float32)
        products = np.matmul(centred.transpose(1, 2, 0, 3), self.precision)
        squares = (products * centred.transpose(1, 2, 0, 3)).sum(-1).transpose(2, 0, 1)
        maps = np.sqrt(np.maximum(squares, 0))
        return Detection(maps.mean((1, 2), dtype=np.float64), maps)

    def tensors(self) -> Tensors:
        """Return mean (G, G, C) and precision (G, G, C, C)."""
        return {"mean": self.mean, "precision": self.precision}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray]) -> "PaDiM":
        """Return the detector with these parameters."""
        return cls(tensors["mean"], tensors["precision"])


@dataclass(frozen=True)
class Mahalanobis:
    """Distance of a frame's pooled features from one Gaussian, with the shrinkage of Ledoit and Wolf (2004).

    A pooled distance has no position. The maps are the lesion maps of the features.
    """

    uses_lesion_maps: ClassVar[bool] = True
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "Mahalanobis":
        """Fit to the features of healthy frames; `seed` is not used."""
        fitted = LedoitWolf().fit(features.pooled.astype(np.float64))
        return cls(fitted.location_, np.asarray(fitted.precision_))

    def __call__(self, features: FrameFeatures) -> Detection:
        """Return the distance of each frame, and its lesion map, (N, h, w) in [0, 1]."""
        centred = features.pooled - self.mean
        squares = np.einsum("ni,ij,nj->n", centred, self.precision, centred, optimize=True)
        return Detection(np.sqrt(np.maximum(squares, 0)), features.lesion_maps())

    def tensors(self) -> Tensors:
        """Return mean (D,) and precision (D, D)."""
        return {"mean": self.mean, "precision": self.precision}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray]) -> "Mahalanobis":
        """Return the detector with these parameters."""
        return cls(tensors["mean"], tensors["precision"])


@dataclass(frozen=True)
class PatchCore:
    """Distance of each patch from the nearest one in a memory bank (Roth et al., CVPR 2022)."""

    uses_lesion_maps: ClassVar[bool] = False
    bank: Floats
    """(M, C)."""

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "PatchCore":
        """Choose the bank from the patches of healthy frames: repeatedly add the patch that is furthest from the bank."""
        patches = features.fine.reshape(-1, features.fine.shape[-1])
        rng = np.random.default_rng(derive(seed, "patches of the memory bank"))
        some = patches[np.sort(rng.permutation(len(patches))[:CANDIDATES])]
        projected = some @ rng.standard_normal((some.shape[1], PROJECTED), np.float32)
        return cls(some[_furthest(projected, BANK)])

    def __call__(self, features: FrameFeatures) -> Detection:
        """Return the distance of each patch, (N, H, W); a frame's score is the mean of its highest tenth."""
        patches = features.fine.reshape(-1, features.fine.shape[-1])
        _, distances = pairwise_distances_argmin_min(patches, self.bank)
        maps = distances.reshape(features.fine.shape[:3]).astype(np.float32)
        return Detection(highest(maps), maps)

    def tensors(self) -> Tensors:
        """Return the bank (M, C)."""
        return {"bank": self.bank}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray]) -> "PatchCore":
        """Return the detector with these parameters."""
        return cls(tensors["bank"])


@dataclass(frozen=True)
class PseudoLesions:
    """The lesion map of a network trained on pseudo-lesions; nothing is fitted."""

    uses_lesion_maps: ClassVar[bool] = True

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "PseudoLesions":
        """Return the detector; neither argument is used."""
        return cls()

    def __call__(self, features: FrameFeatures) -> Detection:
        """Return the map of each frame, (N, h, w) in [0, 1]; its score is the mean of the highest tenth."""
        maps = features.lesion_maps()
        return Detection(highest(maps), maps)

    def tensors(self) -> Tensors:
        """Return nothing."""
        return {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray]) -> "PseudoLesions":
        """Return the detector; `tensors` is not used."""
        return cls()


def highest(maps: Floats) -> NDArray[np.float64]:
    """Return the mean of the highest tenth of the positions of maps (N, h, w), shape (N,)."""
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(HIGHEST * flat.shape[1]))
    return np.partition(flat, -count, 1)[:, -count:].mean(1, dtype=np.float64)


def _furthest(points: Floats, count: int) -> NDArray[np.int64]:
    """Return the indices of up to `count` points (N, D); each is the point furthest from those before it."""
    chosen = [0]
    nearest = np.square(points - points[0]).sum(1)
    for _ in range(min(count, len(points)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(1))
    return np.array(chosen, np.int64)


FITS: dict[DetectorName, type[Mahalanobis] | type[PaDiM] | type[PatchCore] | type[PseudoLesions]] = {
    "lite0-mahalanobis": Mahalanobis,
    "lite0-padim": PaDiM,
    "lite0-patchcore": PatchCore,
    "lite0-pseudo-lesions": PseudoLesions,
    "learned-mahalanobis": Mahalanobis,
    "learned-padim": PaDiM,
    "learned-patchcore": PatchCore,
    "pseudo-lesions": PseudoLesions,
}
"""The class that each detector is fitted as."""
