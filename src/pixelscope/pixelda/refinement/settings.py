"""The configuration that lies in a refinement's folder."""

from pathlib import Path

from pixelscope.config import read_yaml
from pixelscope.data.places import find
from pixelscope.errors import InputError
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.runs.folder import RunFolder

SYSTEM = "refined"


def located_runs(folder: RunFolder, config: RefineConfig, teacher: bool = True) -> RefineConfig:
    """Return the configuration of a refinement with the runs that it names where they lie now.

    teacher: whether the teacher is looked for, too; only a training needs it.
    Raises InputError where one is nowhere to be found.
    """
    names = {name: place for name, place in places_of(config).items() if teacher or name != "teacher"}
    record = folder.read_record()

    def digests(places: dict[str, str]) -> dict[str, str]:
        data = RunFolder.open(Path(places["run"])).read_record().get("data", {})
        return {name: domain.get("sha256", "") for name, domain in data.items()}

    return at_places(config, find(names, record, folder.path, digests))


def places_of(config: RefineConfig) -> dict[str, str]:
    """Return the runs that a refinement names."""
    return {"run": config.run, "teacher": config.self_training.teacher}


def at_places(config: RefineConfig, places: dict[str, str]) -> RefineConfig:
    """Return the configuration with its runs in other places."""
    taught = config.self_training.model_copy(update={"teacher": places.get("teacher", config.self_training.teacher)})
    return config.model_copy(update={"run": places.get("run", config.run), "self_training": taught})


def read_refine_config(folder: RunFolder) -> RefineConfig:
    """Return the configuration of a refinement; raises InputError where the folder is of something else."""
    system = folder.read_record().get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not a refinement; give one of `pixelscope pixelda refine`.")
    return RefineConfig.parse(read_yaml(folder.config), str(folder.config))
