"""Write every page of multi-page image files as a separate file, so that whatever reads folders reads them all."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pixelscope.data.formats.decode import (
    SUFFIXES,
    image_size,
    is_deep,
    map_files,
    open_image,
    pages_after_first,
    refuse_signed_bytes,
    reject_decompression_bombs,
    upright_turn,
    without_inversion,
)
from pixelscope.data.sources.folder import is_label_file, label_rows, normal_name
from pixelscope.data.sources.listing import scan
from pixelscope.errors import InputError, plural
from pixelscope.files import DISK_FULL, atomic_folder, csv_text, require_absent, write_text
from pixelscope.runs.progress import ProgressCallback

GROUP_BY = r"^(.+)-\d{4,}\."
"""Expression whose first group is the file that a page comes from."""
TOGETHER = f"note: Pages of one file are alike. In trainings, --data.group-by '{GROUP_BY}' keeps them on one side of a split."
AMBIGUOUS = (
    "note: Pages of one file are alike. In trainings, --data.group-by keeps them on one side of a split; choose an expression "
    "that does not match the other files, some of which have names like pages."
)


@dataclass(frozen=True)
class WrittenPages:
    """What was written."""

    out: str
    pages: int
    """Files made of the pages of others."""
    files: int
    """Files of several pages that they come from."""
    copied: int
    """Files of one page, copied as they are."""
    alike: int = 0
    """Those of them whose names look like names of pages."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the lines for a terminal."""
        pages = f"{plural(self.pages, 'page')} of {plural(self.files, 'file')}"
        written = f"{self.out}: {pages}, and {plural(self.copied, 'file')} of one page, copied"
        return f"{written}\n{AMBIGUOUS if self.alike else TOGETHER}" if self.pages else written


def write_pages(source: Path, out: Path, progress: ProgressCallback | None = None) -> WrittenPages:
    """Write every page of the TIFF, GIF, WebP and PNG files in `source` as a separate file, upright and with the same values.

    `a/scan.tif` of three pages becomes `a/scan-0001.tif` to `a/scan-0003.tif`; pages of GIF, WebP and PNG become PNG. Images of
    one page are copied. Class folders stay, and the lines of a labels.csv are repeated for each page.

    Args:
        source: a file, or a folder of images at any depth.
        out: folder to make; it must not exist.
        progress: called with the files done and all files.

    Raises:
        InputError: there is no image, a page cannot be read, two files would have one name, a labels.csv is malformed, or `out`
            exists.

    Example:
        >>> pixelscope.write_pages(Path("scans"), Path("pages"))
    """
    require_absent(out)
    images, tables = _found(source)
    made: dict[str, list[str]] = {}
    with reject_decompression_bombs(), atomic_folder(out) as folder:
        counts = map_files(pages_after_first, [path for path, _ in images])
        for done, ((path, name), more) in enumerate(zip(images, counts, strict=True), 1):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if more:
                made[name] = [page.relative_to(folder).as_posix() for page in _split(path, place)]
            else:
                _require_free(place, path)
                shutil.copyfile(path, place)
            if progress is not None:
                progress(done, len(images))
        for path, name in tables:
            write_text(folder / name, _labels(path, name, made))
    alike = sum(name not in made and re.search(GROUP_BY, name) is not None for _, name in images)
    return WrittenPages(str(out), sum(map(len, made.values())), len(made), len(images) - len(made), alike)


LOSSY = ("jpeg", "tiff_jpeg", "webp")
"""Compressions of a TIFF that change values, by Pillow's names."""

Named = tuple[Path, str]
"""A file, and its POSIX path in the new folder."""


def _found(source: Path) -> tuple[list[Named], list[Named]]:
    """Return the images and the label files to read."""
    if not source.exists():
        raise InputError(f"There is no {source}; give an image file, or a folder of images.")
    entries = list(scan(source)) if source.is_dir() else []
    is_image = source.is_file() and (source.suffix.lower() in SUFFIXES or image_size(source) is not None)
    images = [(source, source.name)] if is_image else [(entry.path, entry.name) for entry in entries if entry.kind == "image"]
    if not images:
        raise InputError(f"There are no images in {source}; give an image file, or a folder of images.")
    return images, [(entry.path, entry.name) for entry in entries if is_label_file(entry.name)]


def _labels(path: Path, name: str, made: Mapping[str, Sequence[str]]) -> str:
    """Return a label file with a line per page instead of the line of a file of several pages."""
    home = name.rpartition("/")[0]
    prefix = f"{home}/" if home else ""
    paged = {normal_name(image.removeprefix(prefix)): pages for image, pages in made.items() if image.startswith(prefix)}
    rows = []
    for _, (image, label) in label_rows(path):
        pages = paged.get(normal_name(image))
        rows += [[image, label]] if pages is None else [[page.removeprefix(prefix), label] for page in pages]
    return csv_text(rows)


def _require_free(place: Path, path: Path) -> None:
    """Raise InputError if another file has been written to `place` already."""
    if place.exists():
        raise InputError(f"{path} and another file would both become {place.name}; rename one of them.")


def _split(path: Path, place: Path) -> list[Path]:
    """Write the pages of a file next to each other; return their paths."""
    suffix = ".tif" if path.suffix.lower() in (".tif", ".tiff") else ".png"
    written: list[Path] = []
    try:
        for page in _pages(path):
            target = place.with_name(f"{place.stem}-{len(written) + 1:04d}{suffix}")
            _require_free(target, path)
            if isinstance(page, Image.Image):
                if page.info.get("compression") in LOSSY:  # Pillow would compress in the same way again
                    page.info["compression"] = "tiff_adobe_deflate"
                page.save(target, save_all=False)
            elif not cv2.imwrite(str(target), page):
                raise OSError(f"{target} cannot be written")
            written.append(target)
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        why = " ".join(str(error).split())
        raise InputError(f"Cannot read page {len(written) + 1} of {path}: {why}; repair or remove it.") from None
    return written


def _pages(path: Path) -> Iterator[Any]:
    """Yield the pages of a file, upright.

    They are Pillow images, or arrays in OpenCV's order where Pillow drops bits of 16-bit colours.
    """
    with open_image(path) as image:
        if is_deep(image) and image.mode in ("RGB", "RGBA"):
            read, found = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
            if not read:
                raise ValueError("its 16-bit colours cannot be decoded")
            yield from found  # OpenCV turns the pages of a TIFF upright
            return
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            refuse_signed_bytes(image)
            page = _black_at_0(image) if is_deep(image) else image.copy()
            turn = upright_turn(image)  # after reading, because newer versions of Pillow turn a TIFF upright then
            yield page if turn is None else page.transpose(turn)


def _black_at_0(image: Image.Image) -> Image.Image:
    """Return a copy of a deep grey page, in which 0 is black."""
    stored = np.asarray(image)
    values = without_inversion(image, stored)
    return image.copy() if values is stored else Image.fromarray(values)
