"""Write an exported model with a model card, as files or as a folder for model hubs, if its outputs agree with the run's."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from pixelscope.errors import InputError, not_one_of
from pixelscope.exports.metadata import ModelCard
from pixelscope.files import atomic_file, atomic_folder, require_absent, write_text

TOLERANCE = 1e-4
"""Maximum difference, absolute for values below 1 and relative above."""
MAX_COMPARED = 1_000
"""Maximum number of compared images."""


@dataclass(frozen=True)
class Parity:
    """Differences between the outputs of an exported file and of its run."""

    images: int
    differences: dict[str, float]
    """Per output, the maximum of |exported - run| / max(1, |run|)."""
    largest: float
    """Maximum over all outputs."""

    def require(self) -> None:
        """Raise InputError if a difference exceeds `TOLERANCE`."""
        if not self.largest <= TOLERANCE:
            listed = ", ".join(f"{name} {value:.2g}" for name, value in self.differences.items())
            raise InputError(
                f"The exported model disagrees with the run on {self.images:,} images (largest differences: {listed}; allowed "
                f"{TOLERANCE:g}), so nothing is written; please report it."
            )


def compare(run: Mapping[str, np.ndarray], exported: Mapping[str, np.ndarray]) -> Parity:
    """Compare outputs for the same images, by name; non-finite values give an infinite difference."""
    found = {}
    for name, expected in run.items():
        other = exported[name]
        difference = np.abs(other - expected) / np.maximum(1, np.abs(expected))
        same_shape = other.shape == expected.shape and np.isfinite(other).all()
        found[name] = float(difference.max(initial=0.0)) if same_shape else float("inf")
    return Parity(len(next(iter(run.values()))), found, max(found.values()))


Format = Literal["onnx", "safetensors"]


@dataclass(frozen=True)
class ExportResult:
    """Written files, and their agreement with the run."""

    files: list[str]
    """The model is the first."""
    format: str
    checkpoint: str
    parity: Parity
    compared_on: str
    """Images on which model and run were compared."""
    note: str
    choice: str = ""
    """Which classifier of its run the model is, and why; empty if the run has one model only."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return lines for a terminal."""
        agreed = f"agrees with the run on {self.parity.images:,} images ({self.compared_on}) to {self.parity.largest:.1g}"
        choice = [f"Exported: {self.choice}."] if self.choice else []
        return "\n".join([f"{self.files[0]}: {agreed}, checkpoint {self.checkpoint}", *self.files[1:], *choice, self.note])


def sidecar_files(out: Path) -> dict[str, Path]:
    """Return the paths of the files next to an exported model, by kind."""
    return {
        "card": out.with_name(f"{out.name}.card.md"),
        "card as data": out.with_name(f"{out.name}.card.json"),
    }


def require_new_export(out: Path, form: Format) -> None:
    """Raise InputError if the model file or a sidecar file exists, or the suffix does not match the format.

    Sidecar files of a killed export are removed.
    """
    if form not in get_args(Format):
        raise not_one_of("form", form, get_args(Format))
    if out.suffix.lower() != f".{form}":
        raise InputError(
            f"{out} does not end in .{form}; change the name or --format, or give a name without a suffix for a folder."
        )
    if _unfinished(out).exists():
        for path in () if out.exists() else sidecar_files(out).values():
            path.unlink(missing_ok=True)
        _unfinished(out).unlink()
    for path in (out, *sidecar_files(out).values()):
        require_absent(path)


def _unfinished(out: Path) -> Path:
    """Return the file that is next to an export from its first sidecar file until it is complete."""
    return out.with_name(f".{out.name}.unfinished")


def write_bundle(
    out: Path,
    write: Callable[[Path], None],
    compare: Callable[[Path], Parity],
    card: Callable[[Parity], ModelCard],
) -> tuple[list[str], Parity]:
    """Write a model file, verify it against the run, write the model card, then rename it to `out`.

    Args:
        out: the model file.
        write: writes the file.
        compare: reads the file as its users do, and compares it with the run.
        card: returns the model card.

    Raises:
        InputError: file and run differ; nothing is written.
    """
    texts: Mapping[Path, str] = {}
    with atomic_file(out) as temporary:
        write(temporary)
        parity = compare(temporary)
        parity.require()
        filled, paths = card(parity), sidecar_files(out)
        texts = {paths["card"]: filled.to_markdown(), paths["card as data"]: json.dumps(filled.to_dict(), indent=1) + "\n"}
        write_text(_unfinished(out), "")
        for path, text in texts.items():
            write_text(path, text)
    _unfinished(out).unlink(missing_ok=True)
    return [str(path) for path in (out, *texts)], parity


def write_model_folder(
    out: Path, task: str, tags: Sequence[str], form: Format, export: Callable[[Path], ExportResult]
) -> ExportResult:
    """Export a model into the new folder `out`: model.onnx or .safetensors, README.md and LICENSE.

    Args:
        out: the folder; it must not exist.
        task: what the model does, by the name that model hubs use.
        tags: of the model, for model hubs.
        form: the format.
        export: writes the model and its sidecar files to a path.

    Raises:
        InputError: `out` exists, or as `export` does; nothing is left.
    """
    require_absent(out)
    with atomic_folder(out) as folder:
        model = folder / f"model.{form}"
        result = export(model)
        sidecars = sidecar_files(model)
        card = json.loads(sidecars["card as data"].read_text(encoding="utf-8"))
        text = sidecars["card"].read_text(encoding="utf-8")
        for path in sidecars.values():
            path.unlink()
        write_text(folder / "README.md", f"---\n{_header(card, task, tags, form)}---\n\n{text}")
        write_text(folder / "LICENSE", _licence(card))
        names = [model.name, *sorted(path.name for path in folder.iterdir() if path != model)]
    return replace(result, files=[str(out / name) for name in names])


def _header(card: dict[str, Any], task: str, tags: Sequence[str], form: Format) -> str:
    values = {
        "license": "other",
        "license_name": "see-license-file",
        "license_link": "LICENSE",
        "library_name": form,
        "pipeline_tag": task,
        "tags": ["pixelscope", *tags],
        "model_name": card["title"],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _licence(card: dict[str, Any]) -> str:
    """Return the text of LICENSE: what is known of the terms of the weights."""
    data = [
        f"- {role}: {one['title'] or one['spec']}: {one['licence'] or 'not recorded'}" for role, one in card["data"].items()
    ]
    return "\n".join(
        (
            card["title"],
            "",
            "The weights in this folder were trained on the data below. Whoever publishes them chooses the terms, within those",
            "of the data, and writes them here instead of this text. Until then no right is granted.",
            "",
            "Licences of the data, as recorded by the run:",
            *data,
            "",
            "Pixelscope, which wrote the model, is licensed under Apache-2.0; that licence is not one of the weights.",
            "",
        )
    )
