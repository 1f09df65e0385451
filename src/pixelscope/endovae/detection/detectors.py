"""Detectors: models fitted to the features of healthy frames, which score other frames by their distance from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from pixelscope.endovae.detection.config import DetectorName
from pixelscope.endovae.detection.features import Extractor, FrameFeatures, ImageFeatures
from pixelscope.endovae.detection.results import Detection
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


class Detector(nn.Module, ABC):
    """A fitted detector; its parameters are buffers."""

    uses_lesion_maps: ClassVar[bool] = False
    """Whether it needs features with lesion maps."""
    uses_pooled: ClassVar[bool] = False
    """Whether it needs pooled features."""
    uses_drawn: ClassVar[bool] = False
    """Whether it is fitted to the pooled features of frames with pseudo-lesions, too."""
    fitted: ClassVar[tuple[str, ...]] = ()
    """Names of its parameters, in the order of `__init__`."""

    @classmethod
    @abstractmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "Detector":
        """Fit to the features of healthy frames.

        seed: seed of random draws.
        """

    @abstractmethod
    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Return scores, float64 (N,), and the maps that they summarise, float32 (N, h, w)."""

    @torch.no_grad()
    def detect(self, features: FrameFeatures) -> Detection:
        """Score frames."""
        scores, maps = zip(*map(self, features.batches()), strict=True)
        return Detection(torch.cat(scores).numpy(), torch.cat(maps).numpy())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the detector with these parameters; raises KeyError if one is missing."""
        return cls(*(tensors[name] for name in cls.fitted))


class PaDiM(Detector):
    """Distance of each position's features from the Gaussian of that position (Defard et al., ICPR 2021).

    A frame's score is the mean over its positions, where the paper takes the maximum: lesions fill a third of a view.
    """

    fitted = ("mean", "precision")

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        """Take the mean, float64 (G, G, C), and the precision, float32 (G, G, C, C)."""
        super().__init__()
        self.mean, self.precision = nn.Buffer(mean), nn.Buffer(precision)

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "PaDiM":
        """Fit to the features of healthy frames; `seed` is not used."""
        mean = features.patches.mean(0, dtype=np.float64)
        centred = features.patches - mean
        covariance = np.einsum("nhwi,nhwj->hwij", centred, centred, optimize=True) / max(1, len(features) - 1)
        precision = np.linalg.inv(covariance + RIDGE * np.eye(mean.shape[-1]))
        return cls(torch.from_numpy(mean), torch.from_numpy(precision).float())

    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Return the mean over a frame, (N,), of the distance of each position, (N, G, G)."""
        centred = (features.patches - self.mean).float().permute(1, 2, 0, 3)
        squares = ((centred @ self.precision) * centred).sum(-1).permute(2, 0, 1)
        maps = squares.clamp(min=0).sqrt()
        return maps.double().mean((1, 2)), maps


class Gaussian(nn.Module):
    """A normal distribution of the pooled features of one map."""

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        """Take the mean, float64 (D,), and the precision, float64 (D, D)."""
        super().__init__()
        self.mean, self.precision = nn.Buffer(mean), nn.Buffer(precision)

    @classmethod
    def fit(cls, pooled: Floats) -> "Gaussian":
        """Fit to pooled features (N, D), with the shrinkage of Ledoit and Wolf (2004)."""
        known = LedoitWolf().fit(pooled.astype(np.float64))
        return cls(torch.from_numpy(known.location_), torch.from_numpy(np.asarray(known.precision_)))

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the distance of each row of pooled features (N, D), float64 (N,)."""
        centred = pooled - self.mean
        return ((centred @ self.precision) * centred).sum(-1).clamp(min=0).sqrt()


class Mahalanobis(Detector):
    """Sum over maps of the distance of a frame's pooled features from one Gaussian (Rippel et al., ICPR 2020).

    Pooled are means and standard deviations, where the paper has means alone. A pooled distance has no position. The maps are
    the lesion maps of the features.
    """

    uses_lesion_maps = True
    uses_pooled = True

    def __init__(self, levels: Sequence[Gaussian]) -> None:
        """Take the Gaussian of each map."""
        super().__init__()
        self.levels = nn.ModuleList(levels)

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "Mahalanobis":
        """Fit to the features of healthy frames; `seed` is not used."""
        return cls([Gaussian.fit(pooled) for pooled in features.pooled])

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the detector with these parameters; raises KeyError if one is missing."""
        count = max(1, sum(name.endswith(".mean") for name in tensors))
        return cls([Gaussian(tensors[f"levels.{k}.mean"], tensors[f"levels.{k}.precision"]) for k in range(count)])

    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Return the distance of each frame, (N,), and its lesion map, (N, h, w) in [0, 1]."""
        distances = [level(pooled) for level, pooled in zip(self.levels, features.pooled, strict=True)]
        return torch.stack(distances).sum(0), features.lesion_maps()


class MatchedFilters(Mahalanobis):
    """Sum over maps of the response of filters matched to pseudo-lesions (Scharf and Friedlander 1994; Kay 1998, chapter 4).

    A pseudo-lesion drawn into a healthy frame changes its pooled features by d. With mean m and precision P of the healthy
    frames, the filter matched to it responds to features x by d' P (x - m). The response of a map is the root of the sum of
    squares over all filters, divided by the sum of d' P d. So directions count as far as lesions move features along them,
    where the Mahalanobis distance counts all of them alike.
    """

    uses_drawn = True

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "MatchedFilters":
        """Fit to the features of healthy frames, with and without a pseudo-lesion in each; `seed` is not used."""
        if features.with_lesion is None:
            raise ValueError("these features have no frames with pseudo-lesions")
        pairs = zip(features.pooled, features.with_lesion, strict=True)
        return cls([_matched(Gaussian.fit(plain), drawn - plain) for plain, drawn in pairs])


def _matched(healthy: Gaussian, changes: Floats) -> Gaussian:
    """Return the response of filters matched to changes (N, D) of features; its form is that of a distance."""
    moved = torch.from_numpy(changes).double()
    filters = moved @ healthy.precision
    energy = (filters * moved).sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Gaussian(healthy.mean, filters.T @ filters / energy)


class PatchCore(Detector):
    """Distance of each patch from the nearest one in a memory bank (Roth et al., CVPR 2022)."""

    fitted = ("bank",)

    def __init__(self, bank: Tensor) -> None:
        """Take the bank, float32 (M, C)."""
        super().__init__()
        self.bank = nn.Buffer(bank)

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "PatchCore":
        """Choose the bank from the patches of healthy frames: repeatedly add the patch that is furthest from the bank."""
        patches = features.fine.reshape(-1, features.fine.shape[-1])
        rng = np.random.default_rng(derive(seed, "patches of the memory bank"))
        some = patches[np.sort(rng.permutation(len(patches))[:CANDIDATES])]
        projected = some @ rng.standard_normal((some.shape[1], PROJECTED), np.float32)
        return cls(torch.from_numpy(some[_furthest(projected, BANK)]))

    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Return the mean of a frame's highest tenth, (N,), of the distance of each patch, (N, H, W)."""
        # In float64: the square of a distance is a small difference of large sums.
        patches, bank = features.fine.flatten(0, 2).double(), self.bank.double()
        products = torch.addmm(bank.square().sum(1)[None], patches, bank.T, alpha=-2)
        nearest = products.min(1).values + patches.square().sum(1)
        maps = nearest.clamp(min=0).sqrt().float().view(features.fine.shape[:3])
        return highest(maps), maps


class PseudoLesions(Detector):
    """The lesion map of a network trained on pseudo-lesions; nothing is fitted."""

    uses_lesion_maps = True

    @classmethod
    def fit(cls, features: FrameFeatures, seed: int) -> "PseudoLesions":
        """Return the detector; neither argument is used."""
        return cls()

    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Return the mean of the highest tenth, (N,), of the map of each frame, (N, h, w) in [0, 1]."""
        maps = features.lesion_maps()
        return highest(maps), maps


def highest(maps: Tensor) -> Tensor:
    """Return the mean of the highest tenth of the positions of maps (N, h, w), float64 (N,)."""
    flat = maps.flatten(1)
    count = max(1, round(HIGHEST * flat.shape[1]))
    return flat.topk(count, 1, sorted=False).values.double().mean(1)


def _furthest(points: Floats, count: int) -> NDArray[np.int64]:
    """Return the indices of up to `count` points (N, D); each is the point furthest from those before it."""
    chosen = [0]
    nearest = np.square(points - points[0]).sum(1)
    for _ in range(min(count, len(points)) - 1):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(1))
    return np.array(chosen, np.int64)


FITS: dict[DetectorName, type[Detector]] = {
    "lite0-matched-filters": MatchedFilters,
    "lite0-mahalanobis": Mahalanobis,
    "lite0-padim": PaDiM,
    "lite0-patchcore": PatchCore,
    "lite0-pseudo-lesions": PseudoLesions,
    "learned-matched-filters": MatchedFilters,
    "learned-mahalanobis": Mahalanobis,
    "learned-padim": PaDiM,
    "learned-patchcore": PatchCore,
    "pseudo-lesions": PseudoLesions,
}
"""The class that each detector is fitted as."""


def features_to_fit(
    names: Sequence[DetectorName], extractor: Extractor, features: FrameFeatures, frames: NDArray[np.uint8], seed: int
) -> FrameFeatures:
    """Return the features of healthy frames, uint8 (N, S, S, 3), with all that the named detectors are fitted to.

    features: the frames' features by `extractor`.
    seed: seed of the pseudo-lesions.
    """
    drawn = any(FITS[name].uses_drawn for name in names)
    return extractor.with_pseudo_lesions(features, frames, seed) if drawn else features
