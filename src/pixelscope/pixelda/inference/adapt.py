"""Translate a labelled folder of source images to the target domain; importing this imports no torch."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pixelscope.data.sources.folder import Layout, find_images
from pixelscope.errors import InputError
from pixelscope.files import atomic_file, csv_text
from pixelscope.inference.files import COLUMNS, MANIFEST, InputFile, iterate_files, label_of, require_files, text_of
from pixelscope.inference.pipeline import ERROR, BatchResult, Steps, decode_rgb, run_pipeline, unwritable
from pixelscope.inference.table import ResumableTable, Row
from pixelscope.runs.progress import ProgressCallback

METADATA = "metadata.csv"
"""Table of generated images, as the image folders of the `datasets` library have it."""
METADATA_COLUMNS = ("file_name", "label", "source", "style")


def adapt(
    run: Path,
    folder: Path,
    out: Path,
    *,
    styles: int = 1,
    seed: int = 0,
    checkpoint: str = "auto",
    devices: int | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> BatchResult:
    """Translate every image of `folder` to the target domain with `styles` noise samples each, as PNG files of the run's size.

    `cats/1.jpg` becomes `cats/1.jpg-0.png`, `cats/1.jpg-1.png` and so on; labels of a labels.csv become class folders. Labels
    are those that a training on `folder` reads. metadata.csv names files and labels as the image folders of the `datasets`
    library do. Each z is a function of `seed`, the image's path in the folder and the number of the sample, so that other files
    do not change it.

    Args:
        run: a finished run of PixelDA.
        folder: images, usually in class folders.
        out: folder to make; it must not exist. Its manifest.csv has one row per file: source, file, label (the class folder,
            or that of labels.csv), style. An image that cannot be read, or a file that cannot be written, has a row with its
            error. Its metadata.csv has file_name, label, source and style of the others.
        styles: number of noise samples per image.
        seed: seed of the noise samples.
        checkpoint: see `classify`.
        devices: see `classify`.
        resume: see `classify`.
        progress: see `classify`.

    Raises:
        InputError, Interrupted: as in `classify`.

    Example:
        >>> pixelscope.pixelda.adapt(Path("runs/adapted"), Path("my/labelled"), Path("adapted"), styles=4)
    """
    require_files([folder])
    if styles < 1:
        raise InputError(f"--styles {styles} makes no image; give 1 or more.")
    if out.exists() and not resume:
        raise InputError(f"{out} exists already; choose another --out, or continue with --resume.")
    from pixelscope.pixelda.checkpoints import load_checkpoint
    from pixelscope.pixelda.inference.torch_model import TorchGenerator

    redraw = TorchGenerator(load_checkpoint(run, checkpoint), devices)
    layout = find_images(folder) if folder.is_dir() else Layout([], [])
    identity, labels = {**redraw.identity, "seed": str(seed), "styles": str(styles)}, layout.class_of()
    if not layout.by_folders and labels:
        _require_distinct_places(folder, labels)
        identity["label file"] = hashlib.sha256(json.dumps(labels).encode()).hexdigest()
    table = _Manifest(out / MANIFEST, [*COLUMNS, ERROR], identity, resume, several=styles > 1)

    def compute(items: Sequence[InputFile], images: Sequence[np.ndarray]) -> Sequence[Sequence[Row]]:
        z = [redraw.noise(seed, "adapt", item.inner.as_posix(), k) for item in items for k in range(styles)]
        drawn = redraw(np.repeat(np.stack(images), styles, axis=0), z)
        by_item = drawn.reshape(len(items), styles, *drawn.shape[1:])
        return [
            [_row(out, item, k, one[k], labels.get(item.inner.as_posix(), ""), layout.by_folders) for k in range(styles)]
            for item, one in zip(items, by_item, strict=True)
        ]

    size, values = redraw.config.data.size, redraw.config.data.source_values
    stages = Steps(lambda item: decode_rgb(item, size, values), compute, redraw.devices, value_range=values)
    written = run_pipeline(table, [folder], stages, progress)
    return written if labels else replace(written, notes=(*layout.why_unlabelled(), *written.notes))


class _Manifest(ResumableTable):
    """manifest.csv, complete only when metadata.csv is written."""

    def finish(self) -> None:
        """Write metadata.csv from the rows that have a file, and complete the manifest."""
        _write_metadata(self.part, self.out.with_name(METADATA))
        super().finish()


def _row(out: Path, item: InputFile, style: int, image: np.ndarray, label: str, in_place: bool) -> Row:
    """Write one generated image, `in_place` in the folder of its image alone, and return its row."""
    place = _place(item, label, in_place)
    name = place.with_name(f"{place.name}-{style}.png")
    error = unwritable(out / name, lambda: _save(out / name, image))
    return {"file": None if error else text_of(name), "label": label, "style": style, ERROR: error}


def _place(item: InputFile, label: str, in_place: bool) -> Path:
    """Return the path of an image among the generated ones, without the ending that tells the style."""
    return item.inner if in_place else _class_folder(item, label) / item.inner


def _require_distinct_places(folder: Path, labels: Mapping[str, str]) -> None:
    """Raise InputError if two labels of a file would have one folder, or images generated from two files one name."""
    folders: dict[Path, str] = {}
    for label in sorted(set(labels.values()) - {""}):
        other_label = folders.setdefault(_folder_of(label), label)
        if other_label != label:
            raise InputError(
                f"The labels {other_label} and {label} would have one folder, {_folder_of(label)}, because labels become "
                "folders; rename one of them."
            )
    known: dict[Path, InputFile] = {}
    for item in filter(lambda item: item.is_image, iterate_files([folder])):
        other = known.setdefault(_place(item, labels.get(item.inner.as_posix(), ""), False), item)
        if other is not item:
            raise InputError(
                f"The images made from {other.name} and {item.name} would have one name, because labels become folders; "
                "rename one of the two files."
            )


def _class_folder(item: InputFile, label: str) -> Path:
    """Return the folder to add around an image whose label is not that of its folder."""
    return Path() if not label or label == label_of(item) else _folder_of(label)


def _folder_of(label: str) -> Path:
    """Return the folder of a label: its text, without what a folder's name cannot have."""
    plain = label.replace("/", "_").replace("\0", "_")
    return Path("_" if plain in (".", "..") else plain)


def _write_metadata(manifest: Path, out: Path) -> None:
    """Write metadata.csv from the rows of the manifest that have a file."""
    with ExitStack() as stack:
        rows = csv.DictReader(stack.enter_context(manifest.open(encoding="utf-8", newline="")))
        temporary = stack.enter_context(atomic_file(out))
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(csv_text([METADATA_COLUMNS]))
            file.writelines(csv_text([[row["file"], row["label"], row["source"], row["style"]]]) for row in rows if row["file"])


def _save(path: Path, image: np.ndarray) -> None:
    with atomic_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
