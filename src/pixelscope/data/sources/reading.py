"""Notes on how image files are read: pages that are left out, and windows of DICOM files."""

from collections.abc import Mapping
from pathlib import Path

from pixelscope.data.decode import further_pages
from pixelscope.data.dicom import windows
from pixelscope.data.sources.listing import note


def reading_notes(files: Mapping[Path, str]) -> tuple[str, ...]:
    """Return notes on files of several pages, and on DICOM files.

    files: the name to print of each file.
    """
    paged = further_pages(list(files))
    text = (
        f"Read only the first page of {{count}} files, of {sum(paged.values()):,} further pages: {{names}}; "
        "`pixelscope data pages` writes every page as a file."
    )
    return (
        *note(text, [files[path] for path in paged]),
        *window_notes({files[path]: how for path, how in windows(list(files)).items()}),
    )


def window_notes(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return notes on DICOM files: by name, the window that was applied, or "" if there is none."""
    windowed = [f"{name} ({window})" for name, window in found.items() if window]
    return (
        *note("DICOM files, shown through the window that they store: {count}: {names}.", windowed),
        *note(
            "DICOM files without a window, shown from their minimum to their maximum: {count}: {names}.",
            [name for name, window in found.items() if not window],
        ),
    )
