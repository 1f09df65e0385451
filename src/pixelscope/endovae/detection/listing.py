"""List the folders that `endovae detect` wrote; imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelscope.endovae.detection.results import DetectionResult
from pixelscope.files import TEMPORARY
from pixelscope.runs.listing import folders_among

RESULT, MODEL = "detection.json", "detector.safetensors"
"""Files of such a folder: the cross-validation, and the selected detector."""


@dataclass(frozen=True)
class DetectorInfo:
    """One detector on disk."""

    path: Path
    """Its file, which `score` takes."""
    name: str
    changed: float
    """Time of the last change, in seconds since the epoch."""

    @property
    def folder(self) -> Path:
        """Return the folder that `detect` wrote."""
        return self.path.parent

    def result(self) -> DetectionResult:
        """Read its cross-validation.

        Raises:
            InputError: detection.json is missing, damaged or of another version.
        """
        return DetectionResult.load(self.folder / RESULT)


def find_detectors(places: Sequence[Path]) -> list[DetectorInfo]:
    """Return the detectors in the folders `places` and one level below, newest first; see `find_runs`.

    No detector is opened, so a damaged one is listed, too. Unfinished folders and files that are links are skipped.

    Example:
        >>> for detector in pixelscope.endovae.find_detectors([Path("detectors")]):
        ...     print(detector.name, detector.path)
    """
    found = [info for folder in folders_among(places) if (info := _read(folder)) is not None]
    return sorted(found, key=lambda info: -info.changed)


def _read(folder: Path) -> DetectorInfo | None:
    files = (folder / RESULT, folder / MODEL)
    if folder.name.startswith(TEMPORARY) or not all(file.is_file() and not file.is_symlink() for file in files):
        return None
    try:
        changed = max(file.stat().st_mtime for file in files)
    except OSError:  # removed meanwhile
        return None
    return DetectorInfo(files[1], folder.name, changed)
