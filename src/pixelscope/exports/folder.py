"""Export into a folder as model hubs expect it: the model, README.md with a YAML header, and LICENSE."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pixelscope.errors import InputError
from pixelscope.exports.bundle import ExportResult, Format, sidecar_files
from pixelscope.files import atomic_folder, write_text


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
    if out.exists():
        raise InputError(f"{out} exists already; choose another --out, or remove it.")
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
