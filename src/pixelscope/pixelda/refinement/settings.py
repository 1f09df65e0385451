"""The configuration that lies in a refinement's folder."""

from pixelscope.config import read_yaml
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.pixelda.refinement.config import RefineConfig

SYSTEM = "refined"


def read_refine_config(folder: RunFolder) -> RefineConfig:
    """Return the configuration of a refinement; raises InputError where the folder is of something else."""
    system = folder.read_record().get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not a refinement; give one of `pixelscope pixelda refine`.")
    return RefineConfig.parse(read_yaml(folder.config), str(folder.config))
