"""`pixelscope pixelda refine`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

import pixelscope
from pixelscope.cli.output import Flag, show
from pixelscope.cli.settings import SETTINGS, given, given_names, read_settings
from pixelscope.config import merge
from pixelscope.errors import InputError
from pixelscope.pixelda import RefineConfig

RefineSettings = Annotated[RefineConfig, Parameter(name="*", group=SETTINGS)]


@Parameter(name="*")
@dataclass(frozen=True)
class RefineLayers:
    """What lies under the flags."""

    preset: Literal["full", "generated", "self-training", "paper-classifier", "demo"] = "full"
    """Both stages; the first alone; the second alone; both with the paper's T; both, in two to four minutes."""
    config: Path | None = None
    """YAML file of settings, laid over the preset."""


def refine(
    origin: Path | None = None,
    /,
    *,
    layers: RefineLayers = RefineLayers(),
    resume: Path | None = None,
    out: Path | None = None,
    runs: Path = Path("runs"),
    data_root: Path | None = None,
    json: Flag = False,
    settings: RefineSettings = RefineConfig(),
) -> None:
    """Train a better classifier from a finished run and unlabelled target images; then measure it and write the report.

    For example: pixelscope pixelda refine runs/adapted --out runs/refined

    Parameters
    ----------
    origin
        Run folder of `pixelda train`, finished.
    resume
        Go on with this refinement from its last checkpoint; give its run and --self-training.teacher where they have moved.
    out
        Run folder to make, which must not exist, in place of a numbered one in --runs.
    runs
        Folder in which numbered run folders are made.
    data_root
        Where a source given as a KIND alone is looked for; else $PIXELSCOPE_DATA, else a cache folder.
    json
        Print JSON.
    """
    if resume is not None:
        run = _resume(resume, origin, settings, data_root)
    else:
        if origin is None:
            raise InputError("No run is given; name a finished run of `pixelscope pixelda train`.")
        file = {} if layers.config is None else read_settings(layers.config, RefineConfig)
        values = merge(pixelscope.pixelda.refine_preset(layers.preset), file, given(settings), {"run": str(origin)})
        run = pixelscope.pixelda.refine(RefineConfig.parse(values, "settings"), runs=runs, run=out, data_root=data_root)
    if pixelscope.is_first_process():
        show(pixelscope.evaluate(run, data_root=data_root), json)
        report = pixelscope.report(run)
        if not json:
            print(f"\nRun folder: {run}\nReport: {report}")


def _resume(run: Path, origin: Path | None, settings: RefineConfig, data_root: Path | None) -> Path:
    teacher = given(settings).get("self_training", {}).get("teacher")
    if any(name != "--self-training.teacher" for name in given_names(settings)):
        raise InputError("--resume goes on with the settings of its refinement; drop the others.")
    teacher = None if teacher is None else Path(teacher)
    return pixelscope.resume(run, origin=origin, teacher=teacher, data_root=data_root)
