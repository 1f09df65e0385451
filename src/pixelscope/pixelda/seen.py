"""Which images a run has trained on, stored in its folder, so that it is never measured on them unawares."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pixelscope.data.imageset import ImageSet, image_hashes
from pixelscope.errors import InputError
from pixelscope.files import written_whole
from pixelscope.pixelda.domains import Domains
from pixelscope.runs.folder import RunFolder

FILE = "seen.safetensors"
_HASHES = "hashes"
_ITEMS = "items."


@dataclass(frozen=True)
class SeenImages:
    """Images that a training may have seen in either domain: those trained on and those that chose a checkpoint."""

    hashes: NDArray[np.int64]
    """`image_hashes` of them, sorted."""
    items: dict[str, NDArray[np.int64]]
    """By collection, the items that they show, sorted."""

    @classmethod
    def of(cls, domains: Domains) -> "SeenImages":
        """Return what a training on `domains` sees: both training splits and the source's validation split."""
        parts = [domains.source.train, domains.source.validation]
        parts += [] if domains.target is None else [domains.target.train]
        items: dict[str, list[NDArray[np.int64]]] = {}
        for part in parts:
            if part.collection is not None and part.items is not None:
                items.setdefault(part.collection, []).append(part.items)
        return cls(_sorted(image_hashes(part.images) for part in parts), {name: _sorted(of) for name, of in items.items()})

    def save(self, folder: RunFolder) -> None:
        """Write them into a run folder."""
        tensors = {_HASHES: self.hashes} | {f"{_ITEMS}{name}": values for name, values in self.items.items()}
        with written_whole(folder.path / FILE) as temporary:
            save_file(tensors, temporary)

    @classmethod
    def load(cls, folder: RunFolder) -> "SeenImages | None":
        """Read what `save` wrote; None where a run of an earlier version stored nothing."""
        path = folder.path / FILE
        if not path.is_file():
            return None
        try:
            found = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged ({error}); restore it, or train again.") from None
        if _HASHES not in found:
            raise InputError(f"{path} is damaged (it has no hashes); restore it, or train again.")
        items = {name.removeprefix(_ITEMS): values for name, values in found.items() if name.startswith(_ITEMS)}
        return cls(found[_HASHES], items)

    def holds(self, images: ImageSet) -> NDArray[np.bool_]:
        """Return a bool mask (N,), True for each image that was seen, or whose item (digit) was seen in another image."""
        seen = np.isin(image_hashes(images.images), self.hashes)
        if images.items is not None and images.collection in self.items:
            seen |= np.isin(images.items, self.items[images.collection])
        return seen


def _sorted(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([*parts, np.empty(0, np.int64)]))
