"""A grid from its first run to the page that says what came of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelscope.errors import InputError
from pixelscope.pixelda.ablation.collecting import collect
from pixelscope.pixelda.ablation.grid import Grid, read_grid
from pixelscope.pixelda.ablation.launching import Cluster, check_cluster
from pixelscope.pixelda.ablation.results import AblationResult
from pixelscope.pixelda.ablation.running import GridConfig, Launching, require_new, run_grid, store_samples
from pixelscope.pixelda.ablation.verdicts import judge
from pixelscope.pixelda.data import load_domains
from pixelscope.progress import ProgressCallback

SYSTEM, RESULT = "ablation", "ablation.json"


def ablate(
    grid: str,
    out: Path,
    *,
    changes: dict[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    cells: Sequence[str] | None = None,
    cluster: Cluster = "local",
    at_once: int = 1,
    slurm: Mapping[str, str] | None = None,
    resume: bool = False,
    data_root: Path | None = None,
    progress: ProgressCallback | None = None,
) -> AblationResult:
    """Run every cell of a grid for every seed, and put together what came of it.

    Each is a normal run folder in OUT/cells; a cell that fails does not keep the others from running. Cells are compared by
    accuracies on the target, so the target needs labels, which no training sees.

    Args:
        grid: a packaged grid by name (`claims`), or a YAML file of one.
        out: the folder to make.
        changes: settings laid over the grid's base, for example another source and target.
        seeds: in place of the grid's.
        cells: the cells to run, the reference among them in any case; all of them by default.
        cluster: `local` processes, or `slurm`.
        at_once: runs at a time.
        slurm: options of SLURM by name, for example `partition`.
        resume: go on with a folder that was begun: what is done is kept, what failed is tried again.
        data_root: see `evaluate`.
        progress: called with the runs ended and all of them.

    Raises:
        InputError: the grid has unknown keys or settings, `out` exists, it is of another grid, or a target has no labels.
        Interrupted: Ctrl-C.
    """
    chosen = _chosen(read_grid(grid, changes), seeds, cells)
    how = Launching(cluster, at_once, slurm or {}, data_root, progress)
    check_cluster(cluster, at_once)
    if not resume:
        require_new(out)
    _require_target_labels(chosen, data_root)
    folder, jobs = run_grid(GridConfig(grid=chosen, name=grid), SYSTEM, out, resume, how)
    found = collect(chosen, jobs)
    result = AblationResult(out=str(out), grid=grid, cells=found, verdicts=judge(chosen, found))
    result.save(folder.path / RESULT)
    store_samples(folder, {name: jobs[name, chosen.seeds[0]].run for name in chosen.cells})
    folder.update_record(state="stopped" if any(cell.missing for cell in found) else "finished")
    return result


def _require_target_labels(grid: Grid, data_root: Path | None) -> None:
    """Raise InputError where a target cannot be measured; images that cannot be read are left to their cell to report."""
    configs = [grid.config(name, grid.seeds[0]) for name in grid.cells]
    for config in {(one.source, one.target, one.data): one for one in configs}.values():
        try:
            domains = load_domains(config, data_root, training=False)
        except InputError:
            continue
        why = domains.target_unmeasured if domains.target else "No target is given."
        if why:
            raise InputError(
                f"An ablation compares accuracies on the target, so it needs target labels. {why} Label the target, or choose "
                "settings without labels with `pixelscope pixelda search`."
            )


def _chosen(grid: Grid, seeds: Sequence[int] | None, cells: Sequence[str] | None) -> Grid:
    if seeds:
        grid = grid.model_copy(update={"seeds": tuple(dict.fromkeys(seeds))})
    if cells:
        unknown = [name for name in cells if name not in grid.cells]
        if unknown:
            raise InputError(f"There is no cell {unknown[0]!r} in this grid; choose from {', '.join(grid.cells)}.")
        kept = {name: cell for name, cell in grid.cells.items() if name in cells or name == grid.reference}
        grid = grid.model_copy(update={"cells": kept})
    return grid
