"""Two sources side by side: what they hold, and what will make trouble when one is adapted to the other."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.data.describe import SourceDescription, describe_source, stacked_sheets
from pixelscope.data.disk_array import spread
from pixelscope.data.imageset import ImageSet
from pixelscope.imaging.framing import SAMPLE, Foreground, find_foreground, matching
from pixelscope.imaging.resize import resize

_SIDE = 32
"""Side in pixels at which two sources are compared."""

_FEW = 500
"""Images of a target under which a discriminator soon knows them all."""

_RARE = 10
"""Images of a class of the source under which little can be learned of it."""


_COLOURED, _GREY = 10, 2
"""Least chroma of images in colour, and chroma under which images are grey, in levels of 255."""


@dataclass(frozen=True)
class Look:
    """What the images of a source look like, at one size."""

    colours: tuple[float, float, float]
    """Mean red, green and blue, 0 to 255."""
    contrast: float
    """Mean over images of the standard deviation of their values."""
    chroma: float
    """Mean over pixels of the difference between the largest and the smallest of red, green and blue, 0 to 255."""
    foreground: Foreground | None
    """Where the foreground lies; None where it cannot be told from the background."""


@dataclass(frozen=True)
class Comparison:
    """A labelled source beside the target that it is to be adapted to."""

    source: SourceDescription
    target: SourceDescription
    looks: tuple[Look, Look]
    """Of the source and of the target."""
    troubles: tuple[str, ...]
    """What will make trouble, and what to do about it, a sentence each; empty where nothing was found."""

    def to_text(self) -> str:
        """Return it as columns for a terminal."""
        rows = [("", "source", "target"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"{name:<{widths[0]}}  {ours:<{widths[1]}}  {theirs}".rstrip() for name, ours, theirs in rows]
        notes = [f"{role}: {note}" for role, one in self._both() for note in one.notes]
        return "\n".join([*lines, "", *(self.troubles or ("Nothing was found that will make trouble.",)), *notes])

    def save_sheet(self, path: Path) -> Path:
        """Write both contact sheets, one below the other, as PNG; see `pixelscope.data.describe.contact_sheet`."""
        return stacked_sheets([self.source.images, self.target.images], path)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, without the images."""
        described = {role: one.to_dict() | asdict(look) for (role, one), look in zip(self._both(), self.looks, strict=True)}
        return described | {"troubles": list(self.troubles)}

    def _both(self) -> tuple[tuple[str, SourceDescription], tuple[str, SourceDescription]]:
        return ("source", self.source), ("target", self.target)

    def _rows(self) -> list[tuple[str, str, str]]:
        both = (self.source, self.target)
        cells = {
            "from": [one.source for one in both],
            "images": [f"{one.count:,}, {'grey' if one.channels == 1 else 'colour'}" for one in both],
            "classes": [f"{len(one.classes)}" if one.classes else "none: unlabelled" for one in both],
            "images a class": [_span(one.classes) for one in both],
            "sizes": [_sizes(one.sizes) for one in both],
            "mean colour": [" ".join(f"{value:.0f}" for value in look.colours) for look in self.looks],
            "contrast": [f"{look.contrast:.0f}" for look in self.looks],
            "chroma": [f"{look.chroma:.0f}" for look in self.looks],
            "foreground": [_framing(look.foreground) for look in self.looks],
        }
        return [(name, ours, theirs) for name, (ours, theirs) in cells.items() if ours or theirs]


def compare_sources(source: str, target: str, *, data_root: Path | None = None, strict: bool = False) -> Comparison:
    """Read a source and a target and say what will make trouble when one is adapted to the other.

    Labels of the target are counted and compared by name; nothing else of them is used.

    Args:
        source: labelled images, `KIND:PATH`, PATH or KIND.
        target: images of the other domain.
        data_root: where a KIND alone is looked for.
        strict: refuse a folder with an unreadable image, rather than skip and count it.

    Raises:
        InputError: one of them cannot be found or read.
    """
    ours, theirs = (describe_source(one, data_root=data_root, strict=strict) for one in (source, target))
    looks = _look(ours.images), _look(theirs.images)
    troubles = (*_of_classes(ours, theirs), *_of_numbers(ours, theirs), *_of_framing(*looks), *_of_looks(*looks))
    return Comparison(ours, theirs, looks, troubles)


def _look(images: ImageSet) -> Look:
    square = resize(spread(images.images, SAMPLE), _SIDE).transpose(0, 2, 3, 1)
    means = square.reshape(-1, square.shape[3]).mean(axis=0).tolist()
    red, green, blue = means if len(means) == 3 else means * 3
    contrast = float(square.reshape(len(square), -1).std(axis=1).mean())
    chroma = float(np.ptp(square, axis=3).mean())
    foreground = find_foreground(square)
    return Look((round(red, 1), round(green, 1), round(blue, 1)), round(contrast, 1), round(chroma, 1), foreground)


def _of_classes(source: SourceDescription, target: SourceDescription) -> list[str]:
    if not source.classes:
        return ["The source has no labels, so nothing can be learned from it: give one folder a class, or a labels.csv."]
    found = []
    rare = [name for name, count in source.classes.items() if count < _RARE]
    if rare:
        found.append(f"Classes of the source with fewer than {_RARE} images, of which little can be learned: {_named(rare)}.")
    if not target.classes:
        return found
    ours, theirs = ({name.strip().casefold() for name in one.classes} for one in (source, target))
    if missing := [name for name in target.classes if name.strip().casefold() not in ours]:
        found.append(
            f"Classes of the target that the source lacks: {_named(missing)}; their images are read as one of the others. "
            "Leave them out with --data.classes source, or add images to the source."
        )
    if absent := [name for name in source.classes if name.strip().casefold() not in theirs]:
        found.append(
            f"Classes of the source that the target's labels lack: {_named(absent)}; if the target has none of their images, "
            "adaptation forces some of its images into them. Leave them out of the source."
        )
    return found


def _of_numbers(source: SourceDescription, target: SourceDescription) -> list[str]:
    found = []
    if target.count < _FEW:
        found.append(
            f"The target has {target.count:,} images; the discriminator soon knows fewer than {_FEW} by heart. Give more."
        )
    for role, one in (("source", source), ("target", target)):
        wide = sum(count for size, count in one.sizes.items() if _is_wide(size))
        if wide > one.count / 2:
            found.append(
                f"Most images of the {role} are far from square, and all but the square in their middle is cut off; crop them "
                "to what matters."
            )
    return found


def _of_framing(source: Look, target: Look) -> list[str]:
    if source.foreground is None or target.foreground is None:
        return []
    framing = matching(target.foreground, source.foreground, _SIDE)
    if framing is None:
        return []
    ratio = source.foreground.side / target.foreground.side
    text = (
        f"Foregrounds fill {source.foreground.side:.0%} of the source's images and {target.foreground.side:.0%} of the "
        "target's, and PixelDA changes looks, not geometry. Train with --data.framing match, which scales the target by "
        f"{ratio:.2f} and places it as the source."
    )
    return [text]


def _of_looks(source: Look, target: Look) -> list[str]:
    """Name what the source's images tell classes by and the target's images do not have."""
    found = []
    if source.chroma >= _COLOURED and target.chroma < _GREY:
        found.append(
            "The source's images are coloured and the target's are grey: classes that differ in colour cannot be told apart in "
            "the target. Train on a grey copy of the source."
        )
    if source.foreground is None and target.foreground is not None:
        found.append(
            "The target shows things on a plain background and the source does not; if they are not the same things, "
            "adaptation does not help. Put both next to each other with --sheet, and compare them."
        )
    return found


def _is_wide(size: str) -> bool:
    width, _, height = size.partition(" x ")
    return width.isdigit() and height.isdigit() and max(int(width), int(height)) > 1.5 * min(int(width), int(height))


def _span(classes: dict[str, int]) -> str:
    counts = list(classes.values())
    return f"{min(counts):,} to {max(counts):,}" if counts else ""


def _sizes(sizes: dict[str, int]) -> str:
    first = next(iter(sizes))
    return first if len(sizes) == 1 else f"{len(sizes)} sizes, most often {first}"


def _framing(foreground: Foreground | None) -> str:
    if foreground is None:
        return "cannot be told from the background"
    return f"{foreground.side:.0%} of the side, middle at {foreground.x:.2f}, {foreground.y:.2f}"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
