"""The table in a folder of drawn images: a row per drawn file, with what it was drawn from."""

from collections.abc import Mapping
from pathlib import Path

from pixelscope.data.listing import contents, part_of
from pixelscope.data.sources.folder import is_label_file, read_labels
from pixelscope.stream.walk import Item

MANIFEST = "manifest.csv"
COLUMNS = ("source", "file", "label", "style")
"""The image that a file was drawn from, the file in the folder, the class of the image, and the number of the style.

What is not there is empty.
"""


def labels_in(folder: Path) -> dict[str, str]:
    """Return the labels in the labels.csv of a folder by POSIX path from there; none where there is no such file.

    Raises InputError where the file cannot be read as one.
    """
    if not folder.is_dir() or not any(is_label_file(path.name) for path in folder.iterdir()):
        return {}
    found = contents(folder)
    file = next((name for name in found.others if "/" not in name and is_label_file(name)), None)
    return {} if file is None else read_labels(folder / file, found.names)[0]


def label_of(item: Item, labels: Mapping[str, str] | None = None) -> str:
    """Return the class of an image: its label in `labels`, else the topmost folder that is no part of a split, else ""."""
    folders = [name for name in item.inner.parts[:-1] if part_of(name) is None]
    return (labels or {}).get(item.inner.as_posix()) or (text_of(Path(folders[0])) if folders else "")


def text_of(path: Path) -> str:
    """Return a path as a table has it: what is no text in it is escaped."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
