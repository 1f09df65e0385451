"""Where the domains of a run of PixelDA lie now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pixelscope.data.places import find, written
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.runs.folder import RunFolder

System = Literal["baseline", "pixelda"]


@dataclass(frozen=True)
class StoredRun:
    """A run of PixelDA or its baseline, as its folder describes it; read once and handed on."""

    folder: RunFolder
    record: Mapping[str, Any]
    """The content of run.json."""
    system: System
    config: BaselineConfig


def located(run: StoredRun, digests: Callable[[BaselineConfig], Mapping[str, str]]) -> BaselineConfig:
    """Return the configuration of a run with its sources where they lie now; see `pixelscope.data.places.find`.

    digests: returns the SHA-256 of each domain's training images, by the configuration that names them.
    Raises InputError where one is nowhere to be found.
    """
    found = find(_places(run.config), run.record, run.folder.path, lambda places: digests(_at(run.config, places)))
    return _at(run.config, found)


def paths(config: BaselineConfig, lying: BaselineConfig, run: Path) -> dict[str, dict[str, str]]:
    """Return what the record of the run folder `run` says of them; `lying` is the configuration as they were found."""
    return written(_places(config), _places(lying), run)


def _places(config: BaselineConfig) -> dict[str, str]:
    masks = config.losses.content_mask if isinstance(config, PixelDAConfig) and config.losses.content else "pixels"
    return {"source": config.source, "target": config.target, "masks": "" if masks == "pixels" else masks}


def _at(config: BaselineConfig, places: dict[str, str]) -> BaselineConfig:
    changes: dict[str, Any] = {name: places[name] for name in ("source", "target") if name in places}
    if "masks" in places:
        assert isinstance(config, PixelDAConfig)
        changes["losses"] = config.losses.model_copy(update={"content_mask": places["masks"]})
    return config.model_copy(update=changes)
