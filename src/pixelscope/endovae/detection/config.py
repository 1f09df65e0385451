"""Settings of anomaly detectors that are fitted to a view of healthy frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pixelscope.config import Config
from pixelscope.endovae.config import PRETRAINED
from pixelscope.errors import InputError, has_extra, require_extra
from pixelscope.imaging.config import MIN_LESION, PrepareConfig

SYSTEM = "endovae-detector"
"""Name of the system in the metadata of a detector's file."""
DetectorName = Literal[
    "lite0-matched-filters",
    "lite0-mahalanobis",
    "lite0-padim",
    "lite0-patchcore",
    "lite0-pseudo-lesions",
    "learned-matched-filters",
    "learned-mahalanobis",
    "learned-padim",
    "learned-patchcore",
    "pseudo-lesions",
]
LITE0: tuple[DetectorName, ...] = (
    "lite0-matched-filters",
    "lite0-mahalanobis",
    "lite0-padim",
    "lite0-patchcore",
    "lite0-pseudo-lesions",
)
PRETRAINED_SIDE, LEARNED_SIDE = 320, 112
"""Side in pixels of the frames that features are made of: of EfficientNet-Lite0, and of the network of pseudo-lesions."""
DETECTORS: dict[DetectorName, str] = {
    "lite0-matched-filters": "response of filters matched to pseudo-lesions, to the features of lite0-mahalanobis; its maps",
    "lite0-mahalanobis": "Mahalanobis distance of pooled features, summed over maps of EfficientNet-Lite0; lesion maps",
    "lite0-padim": "PaDiM on features of EfficientNet-Lite0: distance of each position from its Gaussian",
    "lite0-patchcore": "PatchCore on features of EfficientNet-Lite0: distance of each patch from the nearest healthy one",
    "lite0-pseudo-lesions": "map of layers trained on those features to find pseudo-lesions; mean of the highest tenth",
    "learned-matched-filters": "response of matched filters, to features of the network of pseudo-lesions; its maps",
    "learned-mahalanobis": "Mahalanobis distance on features of the network of pseudo-lesions; its maps",
    "learned-padim": "PaDiM on features of that network",
    "learned-patchcore": "PatchCore on features of that network",
    "pseudo-lesions": "map of a network trained to find pseudo-lesions; mean of the highest tenth",
}
"""Definition of every detector; those on features of EfficientNet-Lite0 need the extra `pretrained`."""


def detector_name(text: str) -> DetectorName:
    """Return a name as one of `DETECTORS`.

    Raises:
        InputError: there is no such detector.
    """
    for name in DETECTORS:
        if name == text:
            return name
    raise InputError(f"There is no detector {text!r}; update pixelscope, or choose one of {', '.join(DETECTORS)}.")


def require_side(name: DetectorName, side: int, path: Path) -> None:
    """Raise InputError if a detector in the file `path` sees frames of another side than in this version."""
    expected = PRETRAINED_SIDE if name in LITE0 else LEARNED_SIDE
    if side != expected:
        raise InputError(
            f"{path} has a detector for features of {side} x {side} pixels, and this version makes them of {expected} x "
            f"{expected}; make it again with `pixelscope endovae detect`."
        )


def chosen_detectors(names: Sequence[DetectorName]) -> tuple[DetectorName, ...]:
    """Return the named detectors; without a name, all whose packages are installed.

    Raises:
        InputError: a named one needs the extra `pretrained`, which is not installed.
    """
    if not names:
        return tuple(name for name in DETECTORS if name not in LITE0 or has_extra(PRETRAINED))
    if set(names) & set(LITE0):
        require_extra(PRETRAINED, "A detector on features of EfficientNet-Lite0")
    return tuple(dict.fromkeys(names))


UNRECORDED = {"mirrored": False}
"""Values of settings that a detector was made with before they existed."""


class DetectConfig(Config):
    """Detectors, and how they are measured."""

    view: Literal["full", "centre"] = "centre"
    """Part of the frames that detectors see; `centre` shows no border and no inset, by which data sets differ."""
    detectors: tuple[DetectorName, ...] = ()
    """Detectors to measure; may be repeated. By default all whose packages are installed."""
    folds: Annotated[int, Field(ge=3, le=20)] = 5
    """Folds of the healthy frames; each is tested once."""
    images: Annotated[int, Field(ge=32)] = 9600
    """Number of examples with pseudo-lesions that a network is trained on, in each fold and for the model file; layers on
    pretrained features see each drawn example six times."""
    mirrored: bool = True
    """Pooled features of `lite0-matched-filters` and `lite0-mahalanobis` are means over a frame and its mirror image: more
    accurate, and slower, because each frame passes the network twice."""
    min_lesion: Annotated[float, Field(ge=0, lt=1)] = MIN_LESION
    """Fraction of the view that a lesion must cover; abnormal frames whose mask shows less are left out."""
    duplicate_distance: Annotated[int, Field(ge=0, le=64)] = 8
    """Maximum Hamming distance of two 64-bit perceptual hashes that count as near-duplicates."""
    seed: int = 0
    """Seed of the folds, the networks and all random draws."""
    prepare: PrepareConfig = PrepareConfig()
