"""What an exported model says of itself, inside its file."""

import json
from typing import Any

from pydantic import ValidationError

from pixelscope.config import Config
from pixelscope.errors import InputError

FORMAT = 2
"""Raised when a file needs another reader; a file of another format is refused."""
KEY = "pixelscope"
"""The entry of a file's metadata that holds it, as JSON."""


class Metadata(Config):
    """Everything besides the weights that it takes to use them."""

    format: int = FORMAT
    system: str
    """The package that reads the file."""
    config: dict[str, Any]
    """The run's whole configuration."""
    rule: str
    """The rule that chose the weights."""
    images: int
    """Images that they had seen in training."""
    fingerprint: str
    """SHA-256 of the weights."""
    classes: tuple[str, ...] = ()
    """Of a classifier, in the order of its outputs."""
    size: int
    """Side in pixels of the images that the networks see."""
    mean: float
    scale: float
    """Values that the networks see: (bytes - mean) / scale."""
    calibration: dict[str, Any] | None = None
    """Of anomaly scores; see `pixelscope.endovae.anomaly.calibration`."""
    false_positive_rate: float | None = None
    threshold: float | None = None
    """The chosen score above which a frame is flagged at that rate."""
    note: str = "For research only."
    versions: dict[str, str]


def parse_metadata(text: str, origin: str) -> Metadata:
    """Read what a file says of itself; `origin` is named in errors. Raises InputError for another format or damage."""
    try:
        values = json.loads(text)
        found = values.get("format") if isinstance(values, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise InputError(_other_format(found, origin, values.get("versions")))
        return Metadata.model_validate(values)
    except (ValueError, ValidationError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{origin} does not say what it is ({' '.join(str(error).split())[:160]}); export the run again."
        ) from None


def _other_format(found: int, origin: str, versions: Any) -> str:
    told = f"{origin} has format {found}, and this version of pixelscope reads format {FORMAT}"
    if found > FORMAT:
        return f"{told}; update it."
    writer = versions.get("pixelscope", "0.1") if isinstance(versions, dict) else "0.1"
    return f"{told}; use version {writer}, which wrote it, or train and export again."


def require_system(about: Metadata, system: str, origin: str) -> None:
    """Raise InputError where a file is of the other system."""
    if about.system != system:
        raise InputError(f"{origin} is a model of {about.system}, not of {system}; give it to `pixelscope {about.system}`.")
