"""What an exported EndoVAE says of itself."""

from typing import Any

from pixelscope.endovae.anomaly.calibration import Calibration
from pixelscope.exports.metadata import About, require_system
from pixelscope.imaging.config import PrepareConfig


def read_metadata(about: About, origin: str) -> tuple[PrepareConfig, Calibration]:
    """Return how frames are prepared for an exported model, and its calibration; raises InputError where either is missing."""
    require_system(about, "endovae", origin)
    prepare: dict[str, Any] = about.config.get("prepare", {})
    return PrepareConfig.parse(prepare, origin), Calibration.parse(about.calibration or {}, origin)
