"""labels.csv beside the images of a folder: one name and one label per line."""

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelscope.data.listing import note
from pixelscope.errors import InputError

NAME = "labels.csv"
"""In any case of its letters."""

_NAMES = frozenset(("name", "names", "file", "files", "filename", "file_name", "image", "images", "image_name", "path", "id"))
_LABELS = frozenset(("label", "labels", "class", "class_name", "category", "target"))
"""What the two columns of a header may be called."""


def is_label_file(name: str) -> bool:
    """Say whether a file of this POSIX path is a label file by its name."""
    return name.rpartition("/")[2].lower() == NAME


def read_labels(path: Path, names: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read a label file.

    Args:
        path: CSV as RFC 4180 has it, in UTF-8, two values per line: an image's path from the file's folder, with `/`, and its
            label. The first line may be a header, such as `name,label`.
        names: the images in the file's folder, as POSIX paths from it.

    Returns:
        The label of each image that is listed, by its name; and notes on lines without an image and images without a line.

    Raises:
        InputError: it is no such CSV, lists an image twice, gives one no label, or lists no image that is there.
    """
    rows = _rows(path)
    known = {_normal(name): name for name in names}
    if rows and _is_header(rows[0][1], known):
        rows = rows[1:]
    labels, missing = _matched(path, rows, known)
    if not labels:
        example = f", for example {missing[0]}" if missing else ""
        raise InputError(f"{path} lists no image of {path.parent}{example}; give their paths from that folder, one per line.")
    unlisted = [name for name in names if name not in labels]
    notes = (
        f"Labels are those of {path.name}, for {len(labels):,} images.",
        *note(f"{{count}} of {len(rows):,} lines of {path.name} name no image that is there: {{names}}.", missing),
        *note(f"Left out {{count}} of {len(names):,} images, which {path.name} does not list: {{names}}.", unlisted),
    )
    return labels, notes


def class_names(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes among labels, sorted; by value where all are whole numbers."""
    found = set(labels.values())
    numbers = all(label.isascii() and label.isdigit() for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the values of each line that is not empty, with its number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as CSV in UTF-8: {reason}; write it anew, or remove it.") from None
    for line, row in rows:
        if len(row) != 2 or not row[0].strip() or not row[1].strip():
            raise InputError(
                f"{path} has {len([value for value in row if value.strip()])} values in line {line}, not 2; write name,label, "
                "and put values that hold a comma in double quotes."
            )
    return rows


def _is_header(row: Sequence[str], known: Mapping[str, str]) -> bool:
    name, label = (value.strip().lower() for value in row)
    return name in _NAMES and label in _LABELS and _normal(row[0]) not in known


def _matched(path: Path, rows: Sequence[tuple[int, list[str]]], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    labels: dict[str, str] = {}
    missing = []
    for line, (written, label) in rows:
        name = known.get(_normal(written))
        if name is None:
            missing.append(written)
            continue
        if name in labels:
            raise InputError(f"{path} lists {name} twice, the second time in line {line}; keep one of the lines.")
        labels[name] = label.strip()
    return labels, missing


def _normal(name: str) -> str:
    """Return a name as it is compared: file systems of macOS hold letters with accents in two parts."""
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))
