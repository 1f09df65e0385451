"""Which detectors there are, and the networks whose features they are fitted to."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.detection.config import DETECTORS, LITE0, DetectorName
from pixelscope.endovae.detection.detectors import Mahalanobis, PaDiM, PatchCore, PseudoLesions
from pixelscope.endovae.detection.features import LearnedExtractor, PretrainedExtractor
from pixelscope.endovae.detection.pretrained import EXTRA, load_pretrained
from pixelscope.endovae.detection.segmentation import train_lesion_net
from pixelscope.errors import has_extra, require_extra
from pixelscope.rng import derive

FITS: dict[DetectorName, type[Mahalanobis] | type[PaDiM] | type[PatchCore] | type[PseudoLesions]] = {
    "lite0-mahalanobis": Mahalanobis,
    "lite0-padim": PaDiM,
    "lite0-patchcore": PatchCore,
    "learned-mahalanobis": Mahalanobis,
    "learned-padim": PaDiM,
    "learned-patchcore": PatchCore,
    "pseudo-lesions": PseudoLesions,
}


def chosen_detectors(names: Sequence[DetectorName]) -> tuple[DetectorName, ...]:
    """Return the named detectors; without a name, all for which the packages are installed.

    Raises:
        InputError: a named one needs the extra `pretrained`, which is not installed.
    """
    if not names:
        return tuple(name for name in DETECTORS if name not in LITE0 or has_extra(EXTRA))
    if set(names) & set(LITE0):
        require_extra(EXTRA, "A detector on features of EfficientNet-Lite0")
    return tuple(dict.fromkeys(names))


def pretrained_extractor() -> PretrainedExtractor:
    """Return the extractor of pretrained features."""
    return PretrainedExtractor(load_pretrained())


def learned_extractor(frames: NDArray[np.uint8], images: int, seed: int, fold: int) -> LearnedExtractor:
    """Train a network on healthy frames, uint8 (N, S, S, 3), and return the extractor of its features."""
    return LearnedExtractor(train_lesion_net(frames, images, derive(seed, "fold", fold)))
