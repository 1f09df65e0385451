"""A short trial of a few settings for two new sources; which to go on with is chosen without target labels."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pixelscope.config import merge
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.pixelda.ablation.cells import Job
from pixelscope.pixelda.ablation.grid import Cell, Grid, read_grid
from pixelscope.pixelda.ablation.launching import Cluster, has_submitit
from pixelscope.pixelda.ablation.results import SearchResult, Trial
from pixelscope.pixelda.ablation.running import GridConfig, Launching, require_new, run_grid, store_samples
from pixelscope.pixelda.config import preset
from pixelscope.pixelda.data import load_domains
from pixelscope.pixelda.results import Evaluation
from pixelscope.progress import ProgressCallback
from pixelscope.runs.folder import RunFolder, read_stats

SYSTEM, RESULT, SETTINGS = "search", "search.json", "settings.yaml"


def search(
    source: str,
    target: str,
    out: Path,
    *,
    changes: dict[str, Any] | None = None,
    grid: str = "search",
    cluster: Cluster = "local",
    at_once: int | None = None,
    slurm: Mapping[str, str] | None = None,
    resume: bool = False,
    data_root: Path | None = None,
    progress: ProgressCallback | None = None,
) -> SearchResult:
    """Train a few settings for a short time on two sources, and choose one without target labels.

    Each trial is a normal run folder in OUT/cells; one that fails does not keep the others from running. OUT/search.json holds
    the result. Where a trial is chosen, OUT/settings.yaml holds its settings in full size.

    Args:
        source: labelled images.
        target: images of the other domain; their labels, if any, choose nothing.
        out: the folder to make.
        changes: settings laid over those of all trials, but not over what a trial tries.
        grid: a packaged grid by name, or a YAML file of one; its first seed is used.
        cluster: `local` processes, or `slurm`.
        at_once: trials at a time; by default as many as there are cores, and without submitit one after the other.
        slurm: options of SLURM by name, for example `partition`.
        resume: go on with a folder that was begun: what is done is kept, what failed is tried again.
        data_root: see `evaluate`.
        progress: called with the trials ended and all of them.

    Returns:
        Every trial and the chosen one; none is chosen where no setting is likely better than T of the source alone.

    Raises:
        InputError: sources or settings cannot be used, `out` exists, or all trials failed.
        Interrupted: Ctrl-C.

    Example:
        >>> found = search("renders", "photos", Path("runs/search"))
        >>> found.chosen
    """
    given = merge(changes or {}, {"source": source, "target": target})
    tried = _one_seed(read_grid(grid, given), given)
    if not resume:
        require_new(out)
        load_domains(tried.config(tried.reference, tried.seeds[0]), data_root)  # what cannot be read is refused once
    how = Launching(cluster, _at_once(tried, cluster) if at_once is None else at_once, slurm or {}, data_root, progress)
    folder, jobs = run_grid(GridConfig(grid=tried, name=grid), SYSTEM, out, resume, how)
    found = [_trial(name, cell, jobs[name, tried.seeds[0]]) for name, cell in tried.cells.items()]
    folder.update_record(state="stopped" if any(trial.failed for trial in found) else "finished")
    if all(trial.failed for trial in found):
        raise InputError(f"All {len(found)} trials failed, the first as follows: {found[0].failed}")
    result = _result(folder, grid, tried, given, found, data_root)
    store_samples(folder, {trial.name: Path(trial.run) for trial in found})
    return result


def choose(trials: Sequence[Trial]) -> tuple[str | None, str]:
    """Return the name of the trial to go on with, and why; None where no trial is likely better than T of the source alone.

    It goes by verdicts alone, which no target label enters.
    """
    better = [trial for trial in trials if trial.verdict is not None and trial.verdict.better == "adapted"]
    if not better:
        return None, (
            "Nothing better than T of the source alone was found, told without target labels. Use the baseline "
            "(`pixelscope pixelda baseline`), or bring the two sources closer (`pixelscope data info SOURCE TARGET`)."
        )
    best = max(better, key=lambda trial: trial.information[1])
    before, after = best.information
    return best.name, (
        f"Chosen: {best.name}. Of the trials that are likely better than T of the source alone, its answers on the target "
        f"carry the most information ({after:.3f} nats; source only {before:.3f}), told without target labels."
    )


def _one_seed(grid: Grid, given: Mapping[str, Any]) -> Grid:
    """Return the grid with one seed: the one among the settings, else its first."""
    return grid.model_copy(update={"seeds": (given.get("seed", grid.seeds[0]),)})


def _at_once(grid: Grid, cluster: Cluster) -> int:
    count = len(grid.cells)
    if cluster == "slurm":
        return count
    return min(count, os.cpu_count() or 1) if has_submitit() else 1


def _trial(name: str, cell: Cell, job: Job) -> Trial:
    def trial(**measured: Any) -> Trial:
        return Trial(name=name, about=cell.claim, settings=cell.settings, run=str(job.run), **measured)

    folder = RunFolder(job.run)
    if job.state() != "done":
        return trial(failed=job.why())
    found = Evaluation.load(folder.evaluation)
    if found.verdict is None or found.source_only is None:
        return trial(failed="It has no judge to compare with; leave judge on.")
    lost = [line for line in read_stats(folder.stats) if line.get("cause") == "content lost"]
    known = found.sets.get("target_test")
    truth = None if known is None else (found.source_only["target_test"], known.accuracy)
    return trial(verdict=found.verdict, content_warnings=len(lost), with_target_labels=truth)


def _result(
    folder: RunFolder, name: str, grid: Grid, given: dict[str, Any], trials: list[Trial], data_root: Path | None
) -> SearchResult:
    """Choose, and write search.json and settings.yaml."""
    chosen, why = choose(trials)
    settings, command = folder.path / SETTINGS, None
    if chosen is None:
        settings.unlink(missing_ok=True)
    else:
        write_text(settings, yaml.safe_dump(_full_size(grid, chosen, given), sort_keys=False, allow_unicode=True))
        sources = ["--source", given["source"], "--target", given["target"], "--config", str(settings)]
        root = [] if data_root is None else ["--data-root", str(data_root)]
        command = shlex.join(["pixelscope", "pixelda", "train", *sources, *root])
    result = SearchResult(out=str(folder.path), grid=name, trials=trials, chosen=chosen, why=why, command=command)
    result.save(folder.path / RESULT)
    return result


def _full_size(grid: Grid, chosen: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings to go on with: the preset's, those given but for the length of trials, and what the trial tried."""
    kept = {name: value for name, value in given.items() if name not in ("source", "target", "training")}
    return merge(preset("pixelda", grid.preset), kept, grid.cells[chosen].settings)
