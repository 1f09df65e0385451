"""The data type of all images: `ImageSet`."""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pixelscope.data.disk_array import Bytes, DiskArray, Pixels, Positions, blocks, evenly_spaced, frame, select
from pixelscope.errors import InputError, plural
from pixelscope.imaging.convert import sheet_html
from pixelscope.imaging.framing import Framing

Mask = NDArray[np.bool_]

PREVIEW = 10
"""Maximum number of images per class, and of classes, on the contact sheet of a notebook."""
SHOWN_CLASSES = 5
"""Maximum number of classes named in one line."""


@dataclass(frozen=True)
class Provenance:
    """Origin of images, for the run record and the report."""

    source: str
    """Specification that loads them again, for example `mnist:/data/mnist`."""
    title: str
    """Short description."""
    licence: str = "unknown"
    citation: str = ""
    notes: tuple[str, ...] = ()
    """Facts to know: skipped files, how images were made."""
    value_range: tuple[float, float] | None = None
    """Values mapped to 0 and 255, measured in images deeper than 8 bits or given; None if all have 8 bits."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, with or without labels.

    images: uint8, shape (N, C, H, W) with C 1 or 3, values 0 to 255; in memory, or a `DiskArray` for large sets.
    labels: int64, shape (N,), indices into `classes`; None for unlabelled images.
    names: one unique name per image, stable between loads.
    test: bool, shape (N,), True for images of the source's own test split; None if it has no split.
    collection: SHA-256 of a collection (such as MNIST's digits) of which each image shows one item; None if unknown.
    items: int64, shape (N,), the item of the collection that each image shows; None if there is no collection.
    groups: int64, shape (N,), equal numbers for images that a random split keeps together; None if each is its own group.
    """

    images: Pixels
    provenance: Provenance
    labels: Positions | None = None
    classes: tuple[str, ...] = ()
    names: Sequence[str] = field(default=())
    test: Mask | None = None
    collection: str | None = None
    items: Positions | None = None
    groups: Positions | None = None

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise InputError(
                f"{self.provenance.source}: images must be uint8 of shape (N, 1 or 3, H, W), "
                f"not {self.images.dtype} of shape {tuple(self.images.shape)}."
            )
        for what, values in (
            ("labels", self.labels),
            ("names", self.names or None),
            ("test flags", self.test),
            ("items", self.items),
            ("groups", self.groups),
        ):
            if values is not None and len(values) != count:
                raise InputError(f"{self.provenance.source}: {plural(count, 'image')} but {len(values)} {what}.")
        if self.labels is not None and count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(f"{self.provenance.source}: labels must be between 0 and {len(self.classes) - 1}.")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        sides = " x ".join(map(str, self.images.shape[1:]))
        images = f"{plural(len(self), 'image')} of {sides} (C, H, W)"
        return f"<ImageSet: {images}, {self._describe_classes()}, {self.provenance.source}>"

    def _repr_html_(self) -> str:
        """Return a contact sheet: up to ten images per class, of the first ten classes."""
        names = self.classes[:PREVIEW] if self.labels is not None else ("",)
        members = [np.arange(len(self)) if self.labels is None else np.flatnonzero(self.labels == i) for i in range(len(names))]
        rows = [(name, self._preview(positions)) for name, positions in zip(names, members, strict=True)]
        return sheet_html(f"{plural(len(self), 'image')}, {self._describe_classes()}: {self.provenance.title}", rows)

    def _preview(self, positions: Positions) -> Bytes:
        """Return up to ten of the images at `positions`, evenly spaced, as uint8 (N, H, W, 3)."""
        shown = np.moveaxis(self.images[evenly_spaced(positions, PREVIEW)], 1, -1)
        return np.broadcast_to(shown, (*shown.shape[:3], 3))

    def _describe_classes(self) -> str:
        if self.labels is None:
            return "without labels"
        more = ", ..." if len(self.classes) > SHOWN_CLASSES else ""
        return f"{plural(len(self.classes), 'class')} ({', '.join(name[:24] for name in self.classes[:SHOWN_CLASSES])}{more})"

    def in_memory(self) -> Bytes:
        """Return all images as one array in memory."""
        return self.images[:]

    def select(self, indices: Positions | Mask) -> "ImageSet":
        """Return the images at `indices`, in that order; those on disk are not read.

        indices: positions (K,), whole numbers from 0 to N - 1, or a bool mask (N,).

        Raises InputError if they are neither.
        """
        positions = self._positions(np.asarray(indices))
        return replace(
            self,
            images=select(self.images, positions),
            labels=None if self.labels is None else self.labels[positions],
            names=[self.names[i] for i in positions.tolist()] if self.names else (),
            test=None if self.test is None else self.test[positions],
            items=None if self.items is None else self.items[positions],
            groups=None if self.groups is None else self.groups[positions],
        )

    def _positions(self, indices: np.ndarray) -> Positions:
        if indices.dtype == np.bool_ and indices.shape == (len(self),):
            return np.flatnonzero(indices)
        whole = indices.ndim == 1 and (np.issubdtype(indices.dtype, np.integer) or not indices.size)
        if whole and (not indices.size or (indices.min() >= 0 and indices.max() < len(self))):
            return indices.astype(np.int64, copy=False)
        raise InputError(
            f"These images cannot be selected by {indices.dtype} of shape {indices.shape}; give positions from 0 to "
            f"{len(self) - 1}, or a bool mask of shape ({len(self)},)."
        )

    def is_aligned_with(self, other: "ImageSet") -> bool:
        """Return whether image i of both sets shows the same item of the same collection."""
        if self.items is None or other.items is None or self.collection != other.collection:
            return False
        return np.array_equal(self.items, other.items)

    def without_labels(self) -> "ImageSet":
        """Return the images without anything that reveals their class; training sees the target this way.

        Names and groups are dropped, because a folder's names contain the class; items, because a collection's order may.
        """
        return replace(self, labels=None, classes=(), names=(), collection=None, items=None, groups=None)

    def framed(self, framing: Framing) -> "ImageSet":
        """Return the images scaled and shifted by `framing`, with a note; those on disk are framed when read."""
        images = self.images.framed(framing) if isinstance(self.images, DiskArray) else frame(self.images, framing)
        text = f"Scaled and shifted to match the source: {framing.describe(images.shape[-1])}."
        return replace(self, images=images, provenance=replace(self.provenance, notes=(*self.provenance.notes, text)))

    def relabelled(self, positions: Sequence[int], classes: tuple[str, ...]) -> "ImageSet":
        """Return the images with label i replaced by `positions[i]`, an index into `classes`."""
        assert self.labels is not None
        return replace(self, labels=np.array(positions, np.int64)[self.labels], classes=classes)

    def class_counts(self) -> list[int]:
        """Return the number of images per class."""
        if self.labels is None:
            return []
        return np.bincount(self.labels, minlength=len(self.classes)).tolist()

    def digest(self) -> str:
        """Return a SHA-256 of size, pixels and labels; it does not depend on where images were loaded from."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for block in blocks(self.images):
            digest.update(np.ascontiguousarray(block).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def class_key(name: str) -> str:
    """Return a class name by which domains are compared: without case, surrounding blanks and forms of Unicode."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def image_hashes(images: Pixels) -> NDArray[np.int64]:
    """Return a hash of the pixels of each image.

    Args:
        images: uint8, shape (N, C, H, W) or (N, H, W, 3); a grey image (C = 1) has the hash of its copy in colour.

    Returns:
        int64, shape (N,); equal for equal images, for others with a probability of about 2^-64.
    """
    hashes = [np.empty(0, np.int64)]
    for block in blocks(images):
        values = np.repeat(block, 3, axis=1) if block.shape[1] == 1 else np.ascontiguousarray(block)
        digests = b"".join(hashlib.blake2b(one.data, digest_size=8).digest() for one in values)
        hashes.append(np.frombuffer(digests, "<i8").astype(np.int64))
    return np.concatenate(hashes)
