"""All runs of a grid in one folder: made or found again, run, and their samples kept next to each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelscope.config import Config
from pixelscope.engine.runtime import cpu_name
from pixelscope.errors import InputError
from pixelscope.pixelda.ablation.cells import Job
from pixelscope.pixelda.ablation.grid import Grid
from pixelscope.pixelda.ablation.launching import Cluster, check_cluster, launch
from pixelscope.pixelda.report.generated import named_rows
from pixelscope.progress import ProgressCallback
from pixelscope.report.document import Illustration, Section
from pixelscope.runs.arrays import read_arrays, save_arrays
from pixelscope.runs.folder import RunFolder, command_line, git_revision, versions

CELLS, LOGS, SAMPLES = "cells", "logs", "samples.npz"
PROGRESS = {"images": 1, "source": 4, "generated": 5}


class GridConfig(Config):
    """What config.yaml of a folder of runs says: its grid, resolved."""

    grid: Grid
    name: str


@dataclass(frozen=True)
class Launching:
    """How the runs of a grid are run."""

    cluster: Cluster
    at_once: int
    slurm: Mapping[str, str]
    data_root: Path | None
    progress: ProgressCallback | None


def run_grid(
    config: GridConfig, system: str, out: Path, resume: bool, how: Launching
) -> tuple[RunFolder, dict[tuple[str, int], Job]]:
    """Run every cell of a grid for every seed, and return the folder and the jobs by cell and seed.

    What is done is kept; what failed is tried again.
    Raises InputError where `out` exists and `resume` is off, or it is of another system, grid or settings.
    """
    check_cluster(how.cluster, how.at_once)
    folder = _folder(out, config, system, resume)
    jobs = _jobs(config.grid, folder.path, how.data_root)
    left = [job for job in jobs.values() if job.state() != "done"]
    for job in left:
        job.failure.unlink(missing_ok=True)
    launch(left, folder.path / LOGS, how.cluster, how.at_once, how.slurm, how.progress)
    return folder, jobs


def require_new(out: Path) -> None:
    """Raise InputError where `out` exists and is more than a folder that nothing was begun in."""
    if out.exists() and not RunFolder(out).is_unbegun():
        raise InputError(f"{out} exists already; name another folder, or go on with --resume.")


def _folder(out: Path, config: GridConfig, system: str, resume: bool) -> RunFolder:
    if not resume:
        require_new(out)
    if not resume or RunFolder(out).is_unbegun() or not out.exists():

        def begin(folder: RunFolder) -> None:
            about = {"versions": versions(), "git": git_revision(), "command": command_line(), "hardware": {"cpu": cpu_name()}}
            folder.update_record(system=system, state="running", **about)
            config.save(folder.config)

        return RunFolder.create(out.parent, out.name, out, begin)
    folder = RunFolder.open(out)
    begun = folder.read_record().get("system")
    if begun != system:
        raise InputError(f"{out} was begun as {begun!r}, not as {system!r}; name another folder.")
    if folder.config.read_text(encoding="utf-8") != config.to_yaml():
        raise InputError(f"{out} was begun with another grid, seeds or settings; give the same, or name another folder.")
    return folder


def _jobs(grid: Grid, out: Path, data_root: Path | None) -> dict[tuple[str, int], Job]:
    return {
        (name, seed): Job(
            (out / CELLS / f"{name}-seed{seed}").resolve(),
            grid.cells[name].system,
            grid.config(name, seed).model_dump(mode="json"),
            data_root,
        )
        for name in grid.cells
        for seed in grid.seeds
    }


def store_samples(folder: RunFolder, runs: Mapping[str, Path]) -> None:
    """Keep what each run's G draws at the end, below the source images that all of them redraw and above target images.

    runs: the run folder of each cell.
    """
    drawn: dict[str, np.ndarray] = {}
    for name, run in runs.items():
        arrays = read_arrays(run / "samples" / "progress.npz", PROGRESS)
        if arrays is not None:
            drawn = {"source": arrays["source"], **drawn, name: arrays["generated"][-1]}
    galleries = [read_arrays(run / "samples" / "gallery.npz", {"target": 4}) for run in runs.values()]
    for arrays in filter(None, galleries):
        drawn["target"] = arrays["target"]
    if drawn:
        count = min(len(images) for images in drawn.values())
        stacked = np.stack([images[:count] for images in drawn.values()])
        save_arrays(folder.path / SAMPLES, names=np.array(list(drawn)), drawn=stacked)


def samples_section(folder: RunFolder, caption: str) -> Section:
    """Return the section of the page that shows them; it has no part where there are none."""
    arrays = read_arrays(folder.path / SAMPLES, {"names": 1, "drawn": 5})
    if arrays is None:
        return Section("Samples", "samples")
    rows = [(str(name), drawn) for name, drawn in zip(arrays["names"], arrays["drawn"], strict=True)]
    return Section("Samples", "samples", parts=(Illustration("samples", named_rows(rows), caption, caption),))
