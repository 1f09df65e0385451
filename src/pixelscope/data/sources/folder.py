"""Images in a folder, labelled by class folders or by labels.csv."""

import csv
import json
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from pixelscope.data.formats.decode import depth_of, is_flat, read_readable
from pixelscope.data.imageset import ImageSet, Provenance
from pixelscope.data.sources.listing import (
    Contents,
    Part,
    by_ending,
    contents,
    is_render_record,
    note,
    part_of,
    parts_among,
    reading_notes,
)
from pixelscope.errors import InputError, abridged, plural

_FLAT = "A single flat colour: {{count}} of {} images: {{names}}. Transparency becomes white, which hides white drawings."

_UNLABELLED = "Unlabelled, because"
"""Begin of the note on folders that could be classes and are none."""


@dataclass(frozen=True)
class Layout:
    """Structure of a folder, by names alone."""

    files: list[Path]
    """Image files, sorted by their POSIX names relative to the folder."""
    names: list[str]
    """Names of the files, relative to the folder."""
    classes: tuple[str, ...] = ()
    """Names of the classes, sorted; empty if the folder is unlabelled."""
    labels: list[int] | None = None
    """Class of each image; None if the folder is unlabelled."""
    test: list[bool] | None = None
    """Whether each image is in the test split; None if the folder is not split."""
    by_folders: bool = False
    """Whether the labels are class folders, not lines of label files."""
    notes: tuple[str, ...] = ()
    """Notes on how the folder was interpreted, and on other files."""

    def class_of(self) -> dict[str, str]:
        """Return the class of each image by its name; empty if the folder is unlabelled."""
        labels = zip(self.names, self.labels or (), strict=False)
        return {name: self.classes[label] for name, label in labels}

    def why_unlabelled(self) -> tuple[str, ...]:
        """Return the note on why folders are no classes, if there is one."""
        return tuple(text for text in self.notes if text.startswith(_UNLABELLED))

    def read_notes(self, errors: Collection[int], flat: Sequence[int] = ()) -> tuple[str, ...]:
        """Return the notes on the images after reading.

        errors: positions of unreadable files; flat: positions of images of a single colour.
        """
        unreadable = [self.names[position] for position in sorted(errors)]
        pairs = enumerate(zip(self.files, self.names, strict=True))
        files = {file: name for position, (file, name) in pairs if position not in errors}
        return (
            *note(f"Skipped {{count}} unreadable of {len(self.files):,} images: {{names}}.", unreadable),
            *reading_notes(files),
            *note(_FLAT.format(f"{len(self.files):,}"), [self.names[position] for position in flat]),
            *self._mixture(),
            *self.notes,
        )

    def _mixture(self) -> tuple[str, ...]:
        """Return a note if files have several suffixes: compression may differ between classes."""
        several = len({path.suffix.lower() for path in self.files}) > 1
        return (f"The {len(self.files):,} images are files of several kinds: {by_ending(self.names)}.",) if several else ()


def load_folder(
    folder: Path, size: int | None = 32, strict: bool = False, value_range: tuple[float, float] | None = None
) -> ImageSet:
    """Read the images of a folder.

    A `labels.csv` in the folder labels its images. Without one, two or more sub-folders without an image next to them are
    classes, whose images may be at any depth. Otherwise images, at any depth, are unlabelled.

    Sub-folders named train, val and test (or Training, valid, validation, Testing, ..., see `part_of`) are a split. Each part
    is labelled by class folders without an image next to them, or by its own `labels.csv`. Validation counts as training;
    without a test folder it is the test part. Notes in the provenance say how folders were interpreted and which files were
    not read.

    Args:
        folder: folder of images.
        size: side in pixels: the shorter side is resized to it, antialiased, and the centre of the longer one is cropped. None
            keeps the images' size, which must be the same for all.
        strict: refuse an unreadable image instead of skipping it.
        value_range: values mapped to black and white in images deeper than 8 bits. None takes the smallest range of 8, 10, 12
            and 16 bits that contains all of them; for floats 0 to 1 or -1 to 1, else their minimum and maximum.

    Returns:
        Grey images (N, 1, H, W) if all files are grey, else colour (N, 3, H, W).

    Raises:
        InputError: fewer than two images can be read, a class has none, or `strict` and an image cannot be read.
    """
    layout = find_images(folder)
    depth = depth_of(layout.files, value_range)
    images, errors = read_readable(layout.files, size, depth.low_high)
    if errors and strict:
        raise errors[min(errors)]
    kept = [position for position in range(len(layout.files)) if position not in errors]
    _check_enough(folder, kept, errors, layout)
    return ImageSet(
        images=np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        provenance=Provenance(
            f"folder:{folder}",
            _title(folder, layout),
            notes=(*layout.read_notes(errors, [kept[i] for i, image in enumerate(images) if is_flat(image)]), *depth.note()),
            value_range=depth.low_high,
        ),
        labels=None if layout.labels is None else np.array([layout.labels[i] for i in kept], np.int64),
        classes=layout.classes,
        names=[layout.names[i] for i in kept],
        test=None if layout.test is None else np.array([layout.test[i] for i in kept], np.bool_),
    )


def find_images(folder: Path) -> Layout:
    """Return the structure of `folder`.

    Raises:
        InputError: it has no images, a class folder is empty, or it could be a split as well as classes.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give a folder of images.")
    found = contents(folder)
    if not found.images:
        why = " ".join(found.notes())
        raise InputError(
            f"There are no images in {folder}; put .png or .jpg files there, in folders per class if labelled. {why}".rstrip()
        )
    halves, about = _halves(folder, found)
    tables = _tables(found, halves)
    layout = _by_tables(folder, found, tables) if tables else _by_folders(folder, found, halves)
    test, split_notes = (
        _test([name.split("/")[0] for name in layout.names], halves) if halves or tables else _test_inside(layout)
    )
    about = (*about, *layout.notes, *_alike(layout.classes), *_rendered(folder, found))
    return replace(layout, test=test, notes=(*split_notes, *about, *found.notes(tables)))


def _rendered(folder: Path, found: Contents) -> tuple[str, ...]:
    """Return a note on how the images were made, if `pixelscope data render` made them."""
    notes = []
    for name in filter(is_render_record, found.own):
        try:
            made = json.loads((folder / name).read_text(encoding="utf-8"))
            drawn = f"{len(made['pictograms']):,} pictograms over {made['photos']:,} photos, seed {made['seed']:d}"
            notes.append(f"Rendered from {drawn}, according to {name}.")
        except (OSError, ValueError, KeyError, TypeError):
            notes.append(f"{name} is damaged, so the origin of the rendered images is unknown.")
    return tuple(notes)


def _halves(folder: Path, found: Contents) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Return the sub-folders that are parts of a split, and a note on those with such a name that are not."""
    children = found.children()
    _refuse_two_domains(folder, children)
    parts = parts_among(children)
    others = [child for child in children if child not in parts and found.holds_images(child)]
    if not parts or any("/" not in name for name in found.names):
        return {}, ()
    if others and "train" in parts.values() and len(set(parts.values())) > 1:
        raise InputError(
            f"{folder} has the parts of a split, {abridged(parts)}, and also {abridged(others)}; move these away, "
            f"or, if all are classes, rename {next(iter(parts))}."
        )
    if others:
        return {}, (
            f"Read as a class, because {abridged(others)} are next to it and no other part of a split: {abridged(parts)}.",
        )
    for half in parts:
        if not found.holds_images(half):
            raise InputError(f"The folder {folder / half} has no images; add some, or remove the folder.")
    return parts, ()


def _refuse_two_domains(folder: Path, children: Sequence[str]) -> None:
    """Raise InputError if a folder has two domains, trainA and trainB, as data sets for unpaired translation have."""
    first, second = (next((child for child in children if child.lower() == f"train{end}"), None) for end in "ab")
    if first and second:
        raise InputError(f"{folder} has two domains; give them separately, {folder / first} and {folder / second}.")


def _test_inside(layout: Layout) -> tuple[list[bool] | None, tuple[str, ...]]:
    """Return which images are in the test part if each class has its own split, CLASS/train and CLASS/test."""
    inner = [name.split("/")[1] if name.count("/") > 1 else "" for name in layout.names] if layout.classes else []
    parts: dict[str, Part] = {child: part for child in dict.fromkeys(inner) if (part := part_of(child)) is not None}
    if not parts:
        return None, ()
    if len(parts) < len(set(inner)):
        return None, (f"Not read as a split, because some images of the classes are not in its parts: {abridged(parts)}.",)
    test, notes = _test(inner, parts)
    return test, tuple(f"In each class. {text}" for text in notes)


def _alike(classes: Sequence[str]) -> tuple[str, ...]:
    """Return a note on classes whose names differ only in case."""
    names = sorted(classes, key=str.casefold)
    both = [f"{one} and {other}" for one, other in pairwise(names) if one.casefold() == other.casefold()]
    return note("Classes whose names differ in case alone are several classes here: {names}.", both)


def _test(homes: Sequence[str], halves: dict[str, Part]) -> tuple[list[bool] | None, tuple[str, ...]]:
    """Return which images are in the test part, and a note; validation is the test part if there is no test.

    homes: the folder of `halves` that contains each image.
    """
    by_part = {part: [half for half, of in halves.items() if of == part] for part in ("train", "validation", "test")}
    held = next((part for part in ("test", "validation") if by_part[part]), None)
    training = [half for half, part in halves.items() if part != held]
    if held is None or not training:
        text = f"Read as a part of a split, not as a class: {abridged(halves)}; a random test split is drawn."
        return None, (text,) if halves else ()
    text = f"Taken for a split, not for classes: {abridged(training)} for training, {abridged(by_part[held])} for the test."
    return [halves[home] == held for home in homes], (text,)


def _tables(found: Contents, halves: dict[str, Part]) -> list[str]:
    """Return the label files in use: the folder's own, or one per part of a split."""
    tables = [name for name in found.others if is_label_file(name)]
    top = [name for name in tables if "/" not in name][:1]
    inner = {name.partition("/")[0]: name for name in tables if name.count("/") == 1}
    return top or ([inner[half] for half in halves] if halves and halves.keys() <= inner.keys() else [])


def _by_tables(folder: Path, found: Contents, tables: Sequence[str]) -> Layout:
    labels: dict[str, str] = {}
    notes: list[str] = []
    for table in tables:
        home = table.rpartition("/")[0]
        prefix = f"{home}/" if home else ""
        names = [name.removeprefix(prefix) for name in found.names if name.startswith(prefix)]
        read, about = read_labels(folder / table, names)
        labels |= {f"{prefix}{name}": label for name, label in read.items()}
        notes += [f"{home}: {text}" if home else text for text in about]
    kept = [(path, name) for path, name in zip(found.images, found.names, strict=True) if name in labels]
    files, names = [path for path, _ in kept], [name for _, name in kept]
    classes = class_names(labels)
    place = {name: index for index, name in enumerate(classes)}
    return Layout(files, names, classes, [place[labels[name]] for name in names], notes=tuple(notes))


def _by_folders(folder: Path, found: Contents, halves: dict[str, Part]) -> Layout:
    homes = list(halves) or [""]
    depth = 1 if halves else 0
    loose = [name for name in found.names if name.count("/") == depth]
    children = {home: found.children(home) for home in homes}
    if loose or (not halves and len(children[""]) < 2) or not any(children.values()):
        return Layout(found.images, found.names, notes=_unlabelled(folder, loose, children))
    for home, inside in children.items():
        for child in inside:
            within = f"{home}/{child}" if home else child
            if not found.holds_images(within):
                raise InputError(f"The class folder {folder / within} has no images; add some, or remove the folder.")
    classes = tuple(sorted({child for inside in children.values() for child in inside}))
    place = {name: index for index, name in enumerate(classes)}
    labels = [place[name.split("/")[depth]] for name in found.names]
    return Layout(found.images, found.names, classes, labels, by_folders=True)


def _unlabelled(folder: Path, loose: Sequence[str], children: dict[str, list[str]]) -> tuple[str, ...]:
    """Return a note if folders that could be classes are not used as classes."""
    inside = [f"{home}/{child}" if home else child for home, children_of in children.items() for child in children_of]
    if loose and inside:
        return note(f"{_UNLABELLED} of {{count:image}} next to the folders {abridged(inside)}: {{names}}.", loose)
    if len(inside) == 1:
        one = inside[0]
        why = f"all images are in one folder, {one}: labels need two or more class folders, {folder.name}/CLASS/name.jpg"
        return (f"{_UNLABELLED} {why}. If the folders in {one} are the classes, give {folder / one}.",)
    return ()


def _check_enough(folder: Path, kept: list[int], errors: dict[int, InputError], layout: Layout) -> None:
    if not kept:
        raise InputError(f"None of the {len(errors)} images in {folder} can be read; the first: {errors[min(errors)]}")
    if len(kept) == 1:
        raise InputError(f"{folder} has one readable image only, {layout.names[kept[0]]}; a set needs at least two.")
    if layout.labels is not None:
        left = {layout.labels[i] for i in kept}
        for index, name in enumerate(layout.classes):
            if index not in left:
                raise InputError(f"No image of the class {name!r} in {folder} can be read; repair some, or remove the folder.")


def _title(folder: Path, layout: Layout) -> str:
    name = folder.resolve().name
    return f"Images of {name}, {len(layout.classes)} classes" if layout.classes else f"Images of {name}, unlabelled"


NAME = "labels.csv"
"""Name of the label file, in any case."""


def is_label_file(name: str) -> bool:
    """Return whether this POSIX path names a label file."""
    return name.rpartition("/")[2].lower() == NAME


def read_labels(path: Path, names: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read a label file.

    Args:
        path: CSV (RFC 4180) in UTF-8 with two values per line: the path of an image relative to the file's folder, with `/`,
            and its label. The first line may be a header, such as `name,label`: neither
            of its values is an image, and the first has no suffix.
        names: the images in the file's folder, as relative POSIX paths.

    Returns:
        The label of each listed image by its name; and notes on lines without an image and images without a line.

    Raises:
        InputError: the CSV is malformed, lists an image twice, gives one no label, has the labels first, or lists no existing
            image.
    """
    rows = label_rows(path)
    known = {normal_name(name): name for name in names}
    if rows and _is_header(rows[0][1], known):
        rows = rows[1:]
    labels, missing = _matched(path, rows, known)
    if not labels and any(normal_name(label) in known for _, (_, label) in rows):
        raise InputError(f"{path} has the labels first; write name,label in each line.")
    if not labels:
        example = f", for example {missing[0]}" if missing else ""
        raise InputError(f"{path} lists no image of {path.parent}{example}; give their paths from that folder, one per line.")
    unlisted = [name for name in names if name not in labels]
    notes = (
        f"Labels are from {path.name}, for {len(labels):,} images.",
        *note(f"{{count}} of {len(rows):,} lines of {path.name} name no image that is there: {{names}}.", missing),
        *note(f"Left out {{count}} of {len(names):,} images, which {path.name} does not list: {{names}}.", unlisted),
    )
    return labels, notes


def class_names(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sorted classes among labels; by value if all are integers."""
    found = set(labels.values())
    numbers = all(label.isascii() and label.isdigit() for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))


def label_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the two values of each non-empty line of a label file, with its number; raises InputError if it is malformed."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as CSV in UTF-8: {reason}; save it as CSV UTF-8, or remove it.") from None
    for line, row in rows:
        if len(row) == 2 and row[0].strip() and not row[1].strip():
            raise InputError(f"{path} has no label for {row[0]} in line {line}; write one, or remove the line.")
        if len(row) != 2 or not row[0].strip() or not row[1].strip():
            found = plural(sum(bool(value.strip()) for value in row), "value")
            raise InputError(
                f"{path} has {found} in line {line}, not 2; write name,label with a comma between them, no semicolon or tab, "
                "and put values that contain a comma in double quotes."
            )
    return rows


def _is_header(row: Sequence[str], known: Mapping[str, str]) -> bool:
    name, label = map(normal_name, row)
    return name not in known and label not in known and not Path(name).suffix


def _matched(path: Path, rows: Sequence[tuple[int, list[str]]], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    labels: dict[str, str] = {}
    missing = []
    for line, (written, label) in rows:
        name = known.get(normal_name(written))
        if name is None:
            missing.append(written)
            continue
        if name in labels:
            raise InputError(f"{path} lists {name} twice, the second time in line {line}; keep one of the lines.")
        labels[name] = label.strip()
    return labels, missing


def normal_name(name: str) -> str:
    """Return a name in composed Unicode form: macOS file systems store accents decomposed."""
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))
