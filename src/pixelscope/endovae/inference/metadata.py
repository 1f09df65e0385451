"""Reads the metadata of an exported file; importing this imports no torch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.exports.metadata import Metadata, require_system
from pixelscope.imaging.config import PrepareConfig

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def read_metadata(about: Metadata, origin: str) -> tuple[PrepareConfig, Calibration]:
    """Return the preparation settings and the calibration of an exported model; raises InputError if either is missing."""
    require_system(about, "endovae", origin)
    prepare: dict[str, Any] = about.config.get("prepare", {})
    return PrepareConfig.parse(prepare, origin), Calibration.parse(about.calibration or {}, origin)
