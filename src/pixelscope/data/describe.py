"""Describe a source of images by numbers and a contact sheet; compare two sources."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelscope.data import load, parse
from pixelscope.data.disk_array import Bytes, Pixels, blocks, evenly_spaced, sampled
from pixelscope.data.formats.decode import image_size
from pixelscope.data.imageset import ImageSet, class_key, image_hashes
from pixelscope.data.sources.folder import find_images
from pixelscope.errors import InputError, MissingExtra, abridged, plural
from pixelscope.files import atomic_file
from pixelscope.imaging.convert import text_html
from pixelscope.imaging.framing import SAMPLE, Foreground, find_foreground, matching
from pixelscope.imaging.resize import resize

_COUNTED = 256
"""Images counted at a time; NumPy's copy takes eight bytes per value."""
_LARGEST = 64
"""Side in pixels to which the images of a folder are resized, unless all have one smaller size."""
_SIZES_SHOWN = 8
_TILE = 64
_GAP = 4
_MARGIN = 16
_COLUMNS = 10
_ROWS = 40
"""Maximum number of rows of a contact sheet; if there are more classes, a last line counts the omitted ones."""
_NAME_WIDTH = 220
_FONT_SIZE = 15


@dataclass(frozen=True)
class SourceDescription:
    """Description of a source of images."""

    source: str
    """As the user wrote it."""
    kind: str
    title: str
    count: int
    """Number of readable images."""
    classes: dict[str, int]
    """Number of images per class; empty if they are unlabelled."""
    sizes: dict[str, int]
    """Number of images per original size `width x height`, most frequent first."""
    channels: int
    minimum: int
    """Minimum pixel value, in 0 to 255."""
    maximum: int
    mean: float
    split: dict[str, int] | None
    """Number of images in the source's own training and test split; None if it has none."""
    licence: str
    citation: str
    notes: tuple[str, ...]
    images: ImageSet = field(repr=False, compare=False)

    def __repr__(self) -> str:
        images = f"{plural(self.count, 'image')} of {plural(len(self.classes), 'class')}"
        return f"<SourceDescription: {self.title}, {images}, {self.source}>"

    def _repr_html_(self) -> str:
        """Return the lines and a contact sheet."""
        return text_html(self.to_text()) + self.images._repr_html_()

    def to_text(self) -> str:
        """Return aligned lines for a terminal."""
        rows = [(name, text) for name, text in self._rows() if text]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the images."""
        names = ("source", "kind", "title", "count", "classes", "sizes", "channels", "minimum", "maximum", "mean", "split")
        return {name: getattr(self, name) for name in (*names, "licence", "citation")} | {"notes": list(self.notes)}

    def save_sheet(self, path: Path) -> Path:
        """Write a contact sheet as PNG; see `contact_sheet`."""
        return contact_sheet(self.images, Path(path))

    def _rows(self) -> list[tuple[str, str]]:
        split = "" if self.split is None else ", ".join(f"{count:,} {name}" for name, count in self.split.items())
        return [
            ("source", f"{self.source} ({self.kind})"),
            ("title", self.title),
            ("images", f"{self.count:,}, {'grey' if self.channels == 1 else 'colour'}"),
            *_indented("sizes", _shortened(self.sizes)),
            *_indented("classes", self.classes or {"none: unlabelled": None}),
            ("split", split or "none: a random one is drawn"),
            ("values", f"{self.minimum} to {self.maximum}, mean {self.mean:.1f}"),
            ("licence", self.licence),
            ("citation", self.citation),
            *[("note" if i == 0 else " ", note) for i, note in enumerate(self.notes)],
        ]


def describe_source(source: str, *, data_root: Path | None = None, strict: bool = False) -> SourceDescription:
    """Read and describe a source.

    Args:
        source: `KIND:PATH`, PATH or KIND, as for `pixelscope.data.load`.
        data_root: folder in which a KIND alone is looked up.
        strict: refuse a folder with an unreadable image instead of skipping it.

    Raises:
        InputError: the source is not found or cannot be read.

    Example:
        >>> print(pixelscope.describe_source("my/labelled").to_text())
    """
    kind, rest = parse(source)
    found = _folder_sizes(Path(rest)) if kind == "folder" and Path(rest).is_dir() else {}
    small = kind != "folder" or (len(set(found.values())) == 1 and max(_sides(next(iter(found.values())))) <= _LARGEST)
    images = load(source, size=None if small else _LARGEST, strict=strict, data_root=data_root)
    sizes = Counter(found[name] for name in images.names if name in found)
    pixels, origin = images.images, images.provenance
    return SourceDescription(
        source=source,
        kind=kind,
        title=origin.title,
        count=len(images),
        classes=dict(zip(images.classes, images.class_counts(), strict=True)) if images.labels is not None else {},
        sizes=dict(sizes.most_common()) or {f"{pixels.shape[3]} x {pixels.shape[2]}": len(images)},
        channels=pixels.shape[1],
        **_values(pixels),
        split=None if images.test is None else {"training": int((~images.test).sum()), "test": int(images.test.sum())},
        licence=origin.licence,
        citation=origin.citation,
        notes=origin.notes if small else (*origin.notes, f"Values are those at {_LARGEST} x {_LARGEST} pixels."),
        images=images,
    )


def _values(pixels: Pixels) -> dict[str, Any]:
    """Return minimum, maximum and mean of all values."""
    counts = np.zeros(256, np.int64)
    for block in blocks(pixels, _COUNTED):
        counts += np.bincount(block.reshape(-1), minlength=256)
    present, count = np.flatnonzero(counts), int(counts.sum())
    mean = float((counts * np.arange(256)).sum()) / count
    return {"minimum": int(present.min()), "maximum": int(present.max()), "mean": round(mean, 2)}


def contact_sheet(images: ImageSet, path: Path) -> Path:
    """Write a PNG with sample images: a row of ten per class, or ten rows of ten if they are unlabelled; return `path`.

    Images are evenly spaced over the set; small ones are enlarged without smoothing.

    Example:
        >>> images = pixelscope.load_images("my/labelled")
        >>> pixelscope.contact_sheet(images, Path("sheet.png"))
    """
    return stacked_sheets([images], path)


def stacked_sheets(sets: Sequence[ImageSet], path: Path) -> Path:
    """Write the contact sheets of several sets below one another as one PNG; return `path`.

    Raises:
        InputError: `path` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png, and a contact sheet is a PNG file; give a name ending in .png.")
    sheets = [_sheet(images) for images in sets]
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    with atomic_file(path) as temporary:
        whole.save(temporary, "PNG")
    return path


def _sheet(images: ImageSet) -> Image.Image:
    rows = _sheet_rows(images)
    font = ImageFont.truetype(_font_file(), _FONT_SIZE)
    names = [_fitted(name, font) for name, _ in rows]
    left = _MARGIN + (round(max(map(font.getlength, names))) + 12 if any(names) else 0)
    heading = f"{plural(len(images), 'image')}: {images.provenance.title}" + _left_out(images)
    columns = max(len(positions) for _, positions in rows)
    width = max(left + columns * (_TILE + _GAP) - _GAP, _MARGIN + round(font.getlength(heading))) + _MARGIN
    top = _MARGIN + 2 * _FONT_SIZE
    sheet = Image.new("RGB", (width, top + len(rows) * (_TILE + _GAP) - _GAP + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), heading, "black", font)
    for row, (name, (_, positions)) in enumerate(zip(names, rows, strict=True)):
        y = top + row * (_TILE + _GAP)
        draw.text((_MARGIN, y + _TILE // 2), name, "black", font, anchor="lm")
        for column, position in enumerate(positions):
            sheet.paste(_tile(images.images[position]), (left + column * (_TILE + _GAP), y))
    return sheet


def _folder_sizes(folder: Path) -> dict[str, str]:
    """Return the size of each image by its name in the folder."""
    layout = find_images(folder)
    sizes = zip(layout.names, map(image_size, layout.files), strict=True)
    return {name: f"{size[0]} x {size[1]}" for name, size in sizes if size is not None}


def _indented(title: str, counts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return one row per name, with the title before the first and the counts aligned."""
    width = max((len(name) for name in counts), default=0)
    digits = max((len(f"{count:,}") for count in counts.values() if count is not None), default=0)
    lines = [name if count is None else f"{name:<{width}}  {count:>{digits},}" for name, count in counts.items()]
    return [(title if i == 0 else " ", line) for i, line in enumerate(lines)]


def _shortened(sizes: dict[str, int]) -> dict[str, int]:
    shown = dict(list(sizes.items())[:_SIZES_SHOWN])
    rest = list(sizes.values())[_SIZES_SHOWN:]
    return shown | ({f"{len(rest)} other sizes": sum(rest)} if rest else {})


def _sheet_rows(images: ImageSet) -> list[tuple[str, list[int]]]:
    """Return the rows of a contact sheet: class name and positions of the images."""
    if images.labels is None:
        chosen = evenly_spaced(np.arange(len(images)), _COLUMNS * _COLUMNS).tolist()
        return [("", chosen[i : i + _COLUMNS]) for i in range(0, len(chosen), _COLUMNS)]
    members = [np.flatnonzero(images.labels == index) for index in range(len(images.classes))]
    chosen = [evenly_spaced(found, _COLUMNS).tolist() for found in members]
    return list(zip(images.classes, chosen, strict=True))[:_ROWS]


def _left_out(images: ImageSet) -> str:
    more = len(images.classes) - _ROWS
    return f" (the first {_ROWS} of {len(images.classes)} classes)" if images.labels is not None and more > 0 else ""


def _tile(image: Bytes) -> Image.Image:
    """Return one image (C, H, W) as a square tile."""
    square = resize(image[None], min(image.shape[-2:]) if min(image.shape[-2:]) <= _TILE else _TILE)[0]
    array = np.broadcast_to(square.transpose(1, 2, 0), (*square.shape[1:], 3))
    return Image.fromarray(np.ascontiguousarray(array)).resize((_TILE, _TILE), Image.Resampling.NEAREST)


def _fitted(name: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(name) <= _NAME_WIDTH:
        return name
    while font.getlength(f"{name}…") > _NAME_WIDTH:
        name = name[:-1]
    return f"{name}…"


def _font_file() -> Path:
    # matplotlib's font contains Greek, Cyrillic and more; Pillow's contains only Latin letters.
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("Contact sheets", "train") from None

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


_SIDE = 32
"""Side in pixels at which two sources are compared."""

_FEW = 500
"""Minimum number of target images; a discriminator soon memorizes fewer."""

_SMALL = 16
"""Side in pixels below which images are called small: the smallest size of the networks' input."""

_RARE = 10
"""Minimum number of source images per class; fewer teach little about the class."""


_COLOURED, _GREY = 10, 2
"""Minimum chroma of images in colour, and maximum chroma of grey images, in 0 to 255."""


@dataclass(frozen=True)
class Appearance:
    """Statistics of the images of a source, at one size."""

    colours: tuple[float, float, float]
    """Mean red, green and blue, 0 to 255."""
    contrast: float
    """Mean over images of the standard deviation of their values."""
    chroma: float
    """Mean over pixels of the difference between maximum and minimum of red, green and blue, 0 to 255."""
    foreground: Foreground | None
    """Position of the foreground; None if it is not distinct from the background."""


@dataclass(frozen=True)
class Comparison:
    """A labelled source and the target that it is to be adapted to."""

    source: SourceDescription
    target: SourceDescription
    appearances: tuple[Appearance, Appearance]
    """Of the source and of the target."""
    problems: tuple[str, ...]
    """Likely problems, each with its remedy."""

    def to_text(self) -> str:
        """Return columns for a terminal."""
        rows = [("", "source", "target"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"{name:<{widths[0]}}  {ours:<{widths[1]}}  {theirs}".rstrip() for name, ours, theirs in rows]
        notes = [f"{role}: {note}" for role, one in self._both() for note in one.notes]
        return "\n".join([*lines, "", *(self.problems or ("No problem was found.",)), *notes])

    def _repr_html_(self) -> str:
        """Return the columns and both contact sheets for a notebook."""
        return text_html(self.to_text()) + "".join(one.images._repr_html_() for _, one in self._both())

    def save_sheet(self, path: Path) -> Path:
        """Write both contact sheets below one another as PNG; see `contact_sheet`."""
        return stacked_sheets([self.source.images, self.target.images], Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the images."""
        pairs = zip(self._both(), self.appearances, strict=True)
        described = {role: one.to_dict() | asdict(appearance) for (role, one), appearance in pairs}
        return described | {"problems": list(self.problems)}

    def _both(self) -> tuple[tuple[str, SourceDescription], tuple[str, SourceDescription]]:
        return ("source", self.source), ("target", self.target)

    def _rows(self) -> list[tuple[str, str, str]]:
        both = (self.source, self.target)
        cells = {
            "from": [one.source for one in both],
            "images": [f"{one.count:,}, {'grey' if one.channels == 1 else 'colour'}" for one in both],
            "classes": [f"{len(one.classes)}" if one.classes else "none: unlabelled" for one in both],
            "images per class": [_span(one.classes) for one in both],
            "sizes": [_sizes(one.sizes) for one in both],
            "mean colour": [" ".join(f"{value:.0f}" for value in one.colours) for one in self.appearances],
            "contrast": [f"{one.contrast:.0f}" for one in self.appearances],
            "chroma": [f"{one.chroma:.0f}" for one in self.appearances],
            "foreground": [_framing(one.foreground) for one in self.appearances],
        }
        return [(name, ours, theirs) for name, (ours, theirs) in cells.items() if ours or theirs]


def compare_sources(source: str, target: str, *, data_root: Path | None = None, strict: bool = False) -> Comparison:
    """Compare a source with a target, and list likely problems of adaptation.

    Of the target's labels, only counts and names are used.

    Args:
        source: labelled images, `KIND:PATH`, PATH or KIND.
        target: images of the other domain.
        data_root: folder in which a KIND alone is looked up.
        strict: refuse a folder with an unreadable image instead of skipping it.

    Raises:
        InputError: one of them is not found or cannot be read.

    Example:
        >>> print(pixelscope.compare_sources("my/labelled", "my/unlabelled").to_text())
    """
    ours, theirs = (describe_source(one, data_root=data_root, strict=strict) for one in (source, target))
    appearances = _appearance(ours.images), _appearance(theirs.images)
    problems = (
        *_of_copies(_of_one_size(ours, theirs, strict, data_root)),
        *_of_classes(ours, theirs),
        *_of_numbers(ours, theirs),
        *_of_framing(*appearances),
        *_of_appearance(*appearances),
    )
    return Comparison(ours, theirs, appearances, problems)


def _appearance(images: ImageSet) -> Appearance:
    square = resize(sampled(images.images, SAMPLE), _SIDE).transpose(0, 2, 3, 1)
    means = square.reshape(-1, square.shape[3]).mean(axis=0).tolist()
    red, green, blue = means if len(means) == 3 else means * 3
    contrast = float(square.reshape(len(square), -1).std(axis=1).mean())
    chroma = float(np.ptp(square, axis=3).mean())
    foreground = find_foreground(square)
    return Appearance((round(red, 1), round(green, 1), round(blue, 1)), round(contrast, 1), round(chroma, 1), foreground)


def _of_one_size(
    source: SourceDescription, target: SourceDescription, strict: bool, data_root: Path | None
) -> tuple[Pixels, Pixels] | None:
    """Return the images of both; those of different sizes are read again, at one size, as training reads them.

    None if there is no such size, because a pack has one size only.
    """
    ours, theirs = source.images.images, target.images.images
    if ours.shape[-2:] == theirs.shape[-2:]:
        return ours, theirs
    for side in sorted(side for side in {*ours.shape[-2:], *theirs.shape[-2:]} if side <= _LARGEST):
        with suppress(InputError):
            both = [load(one.source, size=side, strict=strict, data_root=data_root).images for one in (source, target)]
            return both[0], both[1]
    return None


def _of_copies(both: tuple[Pixels, Pixels] | None) -> list[str]:
    if both is None:
        return [
            "Images of the source among the target's were not looked for: a pack has one size, and the other domain another."
        ]
    source, target = both
    copied = int(np.isin(image_hashes(target), image_hashes(source)).sum())
    if copied == len(target):
        return ["Every image of the target is also in the source; give images of the other domain as the target."]
    if copied:
        found = f"{copied:,} of {len(target):,} images of the target are also in the source"
        return [f"{found}, so training on one domain sees test images of the other; remove them from one of the two."]
    return []


def _of_classes(source: SourceDescription, target: SourceDescription) -> list[str]:
    if not source.classes:
        return ["The source has no labels, which training needs; give one folder per class, or a labels.csv."]
    found = []
    rare = [name for name, count in source.classes.items() if count < _RARE]
    if rare:
        found.append(f"Classes of the source with fewer than {_RARE} images, from which little is learned: {abridged(rare)}.")
    if not target.classes:
        return found
    ours, theirs = ({class_key(name) for name in one.classes} for one in (source, target))
    if not ours & theirs:
        both = f"the target has {abridged(target.classes)}; the source has {abridged(source.classes)}"
        remedy = "Rename the target's class folders or labels; otherwise the accuracy on it is not measured."
        return [*found, f"No class of the target is in the source: {both}. {remedy}"]
    if missing := [name for name in target.classes if class_key(name) not in ours]:
        found.append(
            f"Classes of the target that the source lacks: {abridged(missing)}; their images are classified as others. "
            "Leave them out with --data.classes source, or add images to the source."
        )
    if absent := [name for name in source.classes if class_key(name) not in theirs]:
        found.append(
            f"Classes of the source that the target's labels lack: {abridged(absent)}; if the target has none of their images, "
            "adaptation forces some of its images into them. Leave them out of the source."
        )
    return found


def _of_numbers(source: SourceDescription, target: SourceDescription) -> list[str]:
    found = []
    if target.count < _FEW:
        found.append(
            f"The target has {plural(target.count, 'image')}; the discriminator soon memorizes fewer than {_FEW}. Add more."
        )
    for role, one in (("source", source), ("target", target)):
        small = sum(count for size, count in one.sizes.items() if min(_sides(size)) < _SMALL)
        if small > one.count / 2:
            found.append(
                f"Most images of the {role} are smaller than {_SMALL} x {_SMALL} pixels, which show little once they are "
                "enlarged; give larger ones."
            )
        wide = sum(count for size, count in one.sizes.items() if max(_sides(size)) > 1.5 * min(_sides(size)))
        if wide > one.count / 2:
            found.append(
                f"Most images of the {role} are far from square, and only their centre square is used; crop them first."
            )
    return found


def _of_framing(source: Appearance, target: Appearance) -> list[str]:
    if source.foreground is None or target.foreground is None:
        return []
    framing = matching(target.foreground, source.foreground, _SIDE)
    if framing is None:
        return []
    ratio = source.foreground.side / target.foreground.side
    text = (
        f"Foregrounds fill {source.foreground.side:.0%} of the source's images and {target.foreground.side:.0%} of the "
        "target's, and PixelDA changes appearance, not geometry. Preset auto matches them: it scales the target by "
        f"{ratio:.2f} and shifts it. With another preset, give --data.framing match."
    )
    return [text]


def _of_appearance(source: Appearance, target: Appearance) -> list[str]:
    """Return problems of colour and background that only one domain has."""
    found = []
    if source.chroma >= _COLOURED and target.chroma < _GREY:
        found.append(
            "The source's images are coloured and the target's are grey: classes that differ in colour alone look the same in "
            "the target. Train on a grey copy of the source."
        )
    if source.foreground is None and target.foreground is not None:
        found.append(
            "The target shows things on a plain background and the source does not; if they are not the same things, "
            "adaptation does not help. Put both next to each other with --sheet, and compare them."
        )
    return found


def _sides(size: str) -> tuple[int, int]:
    """Return width and height of a size `width x height`."""
    width, height = map(int, size.split(" x "))
    return width, height


def _span(classes: dict[str, int]) -> str:
    counts = list(classes.values())
    if len(set(counts)) < 2:
        return f"{counts[0]:,}" if counts else ""
    return f"{min(counts):,} to {max(counts):,}"


def _sizes(sizes: dict[str, int]) -> str:
    first = next(iter(sizes))
    return first if len(sizes) == 1 else f"{len(sizes)} sizes, most often {first}"


def _framing(foreground: Foreground | None) -> str:
    if foreground is None:
        return "not distinct from the background"
    return f"{foreground.side:.0%} of the side, centre at {foreground.x:.2f}, {foreground.y:.2f}"
