"""What lies in a refinement's folder, and where the runs that it names lie now; importing this imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelscope.config import read_yaml
from pixelscope.data.sources.relocate import find
from pixelscope.errors import InputError
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.runs.folder import RunFolder

SYSTEM = "refined"


@dataclass(frozen=True)
class StoredRefinement:
    """A refinement, as its folder describes it; read once and handed on."""

    folder: RunFolder
    record: Mapping[str, Any]
    """The content of run.json."""
    config: RefineConfig

    def located(self, teacher: bool = True) -> RefineConfig:
        """Return the configuration with the runs that it names where they lie now.

        teacher: whether the teacher is looked for, too; only a training needs it.
        Raises InputError where one is nowhere to be found.
        """
        names = {name: place for name, place in places_of(self.config).items() if teacher or name != "teacher"}
        return at_places(self.config, find(names, self.record, self.folder.path, _digests))


def read_refinement(folder: RunFolder, record: Mapping[str, Any] | None = None) -> StoredRefinement:
    """Return what the folder of a refinement says; `record`: its run.json, where it was read already.

    Raises InputError where the folder is of something else, or damaged.
    """
    record = folder.read_record() if record is None else record
    system = record.get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not a refinement; give one of `pixelscope pixelda refine`.")
    return StoredRefinement(folder, record, RefineConfig.parse(read_yaml(folder.config), str(folder.config)))


def places_of(config: RefineConfig) -> dict[str, str]:
    """Return the runs that a refinement names."""
    return {"run": config.run, "teacher": config.self_training.teacher}


def at_places(config: RefineConfig, places: dict[str, str]) -> RefineConfig:
    """Return the configuration with its runs in other places."""
    taught = config.self_training.model_copy(update={"teacher": places.get("teacher", config.self_training.teacher)})
    return config.model_copy(update={"run": places.get("run", config.run), "self_training": taught})


def _digests(places: dict[str, str]) -> dict[str, str]:
    data = RunFolder.open(Path(places["run"])).read_record().get("data", {})
    return {name: domain.get("sha256", "") for name, domain in data.items()}
