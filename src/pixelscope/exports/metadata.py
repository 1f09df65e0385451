"""Metadata of exported model files."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pixelscope.config import Config
from pixelscope.errors import InputError

FORMAT = 4
"""Increased when files need another reader; files of other formats are refused."""
KEY = "pixelscope"
"""Key of the JSON entry in a file's metadata."""
COMMANDS = {"pixelda": "pixelda classify", "endovae": "endovae score", "endovae-detector": "endovae score"}
"""Command that reads a file, by the system in its metadata."""


class Metadata(Config):
    """Everything needed to use the weights."""

    format: int = FORMAT
    system: str
    """Package that reads the file."""
    config: dict[str, Any]
    """Configuration of the run."""
    checkpoint: str
    """Name of the exported checkpoint, for example `ema-last`."""
    images: int
    """Images seen at this checkpoint."""
    weights_sha256: str
    classes: tuple[str, ...] = ()
    """Class names of a classifier, in output order."""
    size: Annotated[int, Field(ge=1, le=4096)]
    """Side in pixels of the network's input."""
    mean: float
    scale: float
    """Network input is (bytes - mean) / scale."""
    calibration: dict[str, Any] | None = None
    """Calibration of anomaly scores; see `pixelscope.endovae.anomaly.calibration`."""
    false_positive_rate: float | None = None
    threshold: float | None = None
    """Score above which a frame is flagged, at that rate."""
    note: str = "For research only."
    versions: dict[str, str]


def parse_metadata(text: str, origin: str) -> Metadata:
    """Parse a file's metadata; raises InputError that names `origin` if it is damaged or of another format."""
    try:
        values = json.loads(text)
        found = values.get("format") if isinstance(values, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise InputError(_other_format(found, origin, values.get("versions")))
        return Metadata.model_validate(values)
    except (ValueError, RecursionError, ValidationError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{origin} has damaged metadata ({' '.join(str(error).split())[:160]}); export the run again."
        ) from None


def _other_format(found: int, origin: str, versions: Any) -> str:
    message = f"{origin} has format {found}, and this version of pixelscope reads format {FORMAT}"
    if found > FORMAT:
        return f"{message}; update it."
    writer = versions.get("pixelscope", "0.1") if isinstance(versions, dict) else "0.1"
    return f"{message}; use version {writer}, which wrote it, or train and export again."


def refuse_checkpoint(path: Path, checkpoint: str) -> None:
    """Raise InputError if a checkpoint is named for an exported file, which has the weights of one."""
    if checkpoint != "auto":
        raise InputError(
            f"{path} is a file, which has the weights of one checkpoint; drop --checkpoint {checkpoint}, or give the run "
            "folder."
        )


def require_system(about: Metadata, system: str, origin: str) -> None:
    """Raise InputError if a file is of another system."""
    if about.system != system:
        command = COMMANDS.get(about.system, about.system)
        raise InputError(f"{origin} is a model of {about.system}, not of {system}; give it to `pixelscope {command}`.")
