"""Ablation and search: every run of a grid in one folder, made or resumed, then compared."""

import logging
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelscope.config import dotted, merge, read_yaml
from pixelscope.engine.distributed import share_of_cores
from pixelscope.engine.runtime import cpu_name
from pixelscope.errors import InputError, has_extra, plural
from pixelscope.imaging.resize import resize
from pixelscope.pixelda.ablation.analysis import choose_trial, collect, compare_to_reference, read_trial, require_same_images
from pixelscope.pixelda.ablation.grid import CHANGES, Grid, GridConfig, read_grid
from pixelscope.pixelda.ablation.jobs import Cluster, Job, LaunchOptions, check_options, launch
from pixelscope.pixelda.ablation.results import ABLATION, RUNS, SAMPLES, SEARCH, AblationResult, SearchResult, Trial
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.data import load_domains
from pixelscope.runs.folder import RunFolder, command_line, git_revision, read_arrays, save_arrays, versions
from pixelscope.runs.progress import ProgressCallback

LOGS, SETTINGS = "logs", "settings.yaml"
UNSET = object()
"""Value of a setting that a grid does not have."""

Jobs = dict[tuple[str, int], Job]


@dataclass(frozen=True)
class Start:
    """The folder of a grid, and how to start in it."""

    out: Path
    resume: bool
    """Whether to keep finished jobs and retry failed ones."""
    take_over: bool
    """See `RunFolder.locked`."""

    def continues(self) -> bool:
        """Return whether there is something to continue; otherwise the folder is made."""
        return self.resume and self.out.exists() and not RunFolder(self.out).is_abandoned_start()


def ablate(
    grid: str,
    out: Path,
    *,
    changes: dict[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    conditions: Sequence[str] | None = None,
    cluster: Cluster = "local",
    max_parallel: int = 1,
    slurm: Mapping[str, str | int] | None = None,
    resume: bool = False,
    take_over: bool = False,
    data_root: Path | None = None,
    progress: ProgressCallback | None = None,
) -> AblationResult:
    """Run every condition of a grid for every seed, and compare the conditions with the reference.

    Each run is a normal run folder in OUT/conditions. A run that fails does not stop the others. Conditions are compared by
    target accuracy, so the target needs labels; training never sees them.

    Args:
        grid: a packaged grid by name (`claims`), or a YAML file.
        out: the folder to make.
        changes: settings that override the grid's base, for example another source and target; no `seed`.
        seeds: seeds to use instead of the grid's.
        conditions: names of the conditions to run; the reference is always included. All of them by default.
        cluster: `local` processes, or `slurm`.
        max_parallel: runs at a time.
        slurm: options of SLURM by name, for example `partition`.
        resume: continue an unfinished folder: finished runs are kept, failed ones repeated.
        take_over: take the lock of `out` from another machine that has been silent for ten minutes.
        data_root: see `evaluate`.
        progress: called with the number of runs that have ended, and of all runs.

    Returns:
        Results per condition and comparison; also written to OUT/ablation.json.

    Raises:
        InputError: the grid has unknown keys or settings, `out` exists or is of another grid, or a target has no labels.
        Interrupted: Ctrl-C.

    Example:
        >>> found = pixelscope.pixelda.ablate("claims", Path("runs/claims"), seeds=[0, 1, 2])
        >>> print(found.to_text())
    """
    if changes and "seed" in changes:
        raise InputError(
            f"{CHANGES} has seed {changes['seed']}, and an ablation takes its seeds from the grid or --seeds; remove it, and "
            f"give --seeds {changes['seed']} if you mean it."
        )
    chosen = _select(read_grid(grid, changes), seeds, conditions)
    _warn_of_few_seeds(chosen)
    options = LaunchOptions(cluster, max_parallel, slurm, progress)
    config = GridConfig(grid=chosen, name=grid)
    start = Start(out, resume, take_over)
    with _run_grid(config, "ablation", start, options, data_root, lambda: _require_target_labels(chosen, start, data_root)) as (
        folder,
        jobs,
    ):
        found = collect(chosen, jobs)
        comparisons = compare_to_reference(chosen, found)
        result = AblationResult(out=str(out), grid=grid, reference=chosen.reference, conditions=found, comparisons=comparisons)
        result.save(folder.path / ABLATION)
        _store_samples(folder, {name: jobs[name, chosen.seeds[0]].run for name in chosen.conditions})
        folder.update_record(state="stopped" if result.missing else "finished")
    if len(result.missing) == len(jobs):
        raise InputError(f"All {plural(len(jobs), 'run')} failed; the first: {result.missing[0]}")
    return result


def search(
    source: str,
    target: str,
    out: Path,
    *,
    changes: dict[str, Any] | None = None,
    grid: str = "search",
    cluster: Cluster = "local",
    max_parallel: int | None = None,
    slurm: Mapping[str, str | int] | None = None,
    resume: bool = False,
    take_over: bool = False,
    data_root: Path | None = None,
    progress: ProgressCallback | None = None,
) -> SearchResult:
    """Train a few settings for a short time on two sources, and choose one without target labels.

    Each trial is a normal run folder in OUT/conditions. A trial that fails does not stop the others. If a trial is chosen,
    OUT/settings.yaml has all settings to train it at full size: the preset's, those of the grid's base and of `changes` except
    for `training.images`, `training.*_every` and `training.ema_half_life`, those of the trial, and the seed. The grid's
    `trial`, which makes networks and training small, is left out.

    Args:
        source: labelled images.
        target: images of the other domain; their labels, if any, choose nothing.
        out: the folder to make.
        changes: settings of all trials, also over the grid's `trial`; what a condition sets overrides them. A `seed` here is
            used instead of the grid's.
        grid: a packaged grid by name, or a YAML file; its first seed is used.
        cluster: `local` processes, or `slurm`.
        max_parallel: trials at a time; by default all of them on SLURM, else one per core, and without submitit one.
        slurm: options of SLURM by name, for example `partition`.
        resume: continue an unfinished folder: finished runs are kept, failed ones repeated.
        take_over: take the lock of `out` from another machine that has been silent for ten minutes.
        data_root: see `evaluate`.
        progress: called with the number of trials that have ended, and of all trials.

    Returns:
        Every trial and the chosen one; none is chosen where no setting is likely better than T of the source alone. The result
        is also written to OUT/search.json.

    Raises:
        InputError: sources or settings cannot be used, `out` exists, or all trials failed.
        Interrupted: Ctrl-C.

    Example:
        >>> found = pixelscope.pixelda.search("renders", "photos", Path("runs/search"))
        >>> found.chosen
    """
    domains = {"source": source, "target": target}
    PixelDAConfig.check_file(changes or {}, domains, CHANGES)
    given = merge(changes or {}, domains)
    tried = read_grid(grid, given)
    seed = given.get("seed", tried.seeds[0])
    tried = tried.model_copy(update={"seeds": (seed,)})
    options = LaunchOptions(
        cluster, _default_parallel(tried, cluster) if max_parallel is None else max_parallel, slurm, progress
    )

    config, start = GridConfig(grid=tried, name=grid), Start(out, resume, take_over)

    def check() -> None:
        for name in tried.conditions:
            tried.full_config(name, seed)
        if not start.continues():
            # An unreadable source is one error, not one per trial.
            load_domains(tried.config(tried.reference, seed), data_root)

    with _run_grid(config, "search", start, options, data_root, check) as (folder, jobs):
        found = [read_trial(name, condition, jobs[name, seed]) for name, condition in tried.conditions.items()]
        folder.update_record(state="stopped" if any(trial.failed for trial in found) else "finished")
        if all(trial.failed for trial in found):
            raise InputError(f"All {len(found)} trials failed; the first: {found[0].failed}")
        result = _search_result(folder, grid, tried, found, data_root)
        _store_samples(folder, {trial.name: Path(trial.run) for trial in found})
    return result


UNCOMPARED = ("runtime.", "data.target_framing")
"""Settings of a run that change no result, or that a training fills in."""


def _select(grid: Grid, seeds: Sequence[int] | None, conditions: Sequence[str] | None) -> Grid:
    for name, given in (("seed", seeds), ("condition", conditions)):
        if given is not None and not given:
            raise InputError(f"No {name} is given; give one or more, or leave {name}s out for those of the grid.")
    if seeds is not None:
        grid = grid.model_copy(update={"seeds": tuple(dict.fromkeys(seeds))})
    if conditions is not None:
        unknown = [name for name in conditions if name not in grid.conditions]
        if unknown:
            raise InputError(f"There is no condition {unknown[0]!r} in this grid; choose from {', '.join(grid.conditions)}.")
        kept = {name: one for name, one in grid.conditions.items() if name in conditions or name == grid.reference}
        grid = grid.model_copy(update={"conditions": kept})
    return grid


def _warn_of_few_seeds(grid: Grid) -> None:
    """Warn of claims on the deviation over seeds that so few seeds cannot decide: with three, p is at least 0.18."""
    measures = {expect.measure for condition in grid.conditions.values() for expect in condition.expect}
    if "accuracy_deviation" in measures and len(grid.seeds) < 4:
        message = "The deviation over seeds decides no claim with %s; give at least four, better eight, with --seeds."
        logging.getLogger(__name__).warning(message, plural(len(grid.seeds), "seed"))


def _require_target_labels(grid: Grid, start: Start, data_root: Path | None) -> None:
    """Raise InputError if a target cannot be measured, or at the start no condition has images; a single one says so itself."""
    configs = [grid.config(name, grid.seeds[0]) for name in grid.conditions]
    distinct = {(one.source, one.target, one.data): one for one in configs}.values()
    unreadable: list[InputError] = []
    for config in distinct:
        try:
            domains = load_domains(config, data_root, training=False)
        except InputError as error:
            unreadable.append(error)
            continue
        reason = domains.target_unmeasured if domains.target else "No target is given."
        if reason:
            raise InputError(
                f"An ablation compares accuracies on the target, so it needs target labels. {reason} Label the target, or "
                "choose settings without labels with `pixelscope pixelda search`."
            )
    if len(unreadable) == len(distinct) and not start.continues():
        given = all(config.source and config.target for config in configs)
        how = "" if given else " In a grid they are `source` and `target` of its `base`, or of --config."
        raise InputError(f"No run of the grid can start: {unreadable[0]}{how}")


@contextmanager
def _run_grid(
    config: GridConfig,
    system: str,
    start: Start,
    options: LaunchOptions,
    data_root: Path | None,
    check: Callable[[], None],
) -> Iterator[tuple[RunFolder, Jobs]]:
    """Run every condition of a grid for every seed; yields the locked folder, and the jobs by condition and seed.

    Args:
        config: the grid.
        system: `ablation` or `search`.
        start: the folder, and whether it is resumed.
        options: how the jobs are run.
        data_root: see `evaluate`.
        check: raises InputError for a grid that cannot be run; called before anything is written.

    Raises:
        InputError: the folder exists and is not to be resumed, it is of another system, grid or settings, or another process
            works in it.
    """
    check_options(options)
    out = start.out
    if not start.resume and out.exists() and not RunFolder(out).is_abandoned_start():
        raise InputError(f"{out} exists already; choose another --out, or continue it with --resume.")
    check()
    with _open_folder(start, config, system) if start.continues() else _create_folder(out, config, system) as folder:
        jobs = _jobs(config.grid, folder.path, data_root)
        _require_same_settings(jobs)
        require_same_images(jobs.values())
        left = [job for job in jobs.values() if job.state() != "done"]
        for job in left:
            job.failure.unlink(missing_ok=True)
        # A new folder, because submitit unpickles files in it, and files of an earlier one may be somebody else's.
        launch(left, folder.path / LOGS / secrets.token_hex(4), options)
        require_same_images(jobs.values())
        yield folder, jobs


def _create_folder(out: Path, config: GridConfig, system: str) -> AbstractContextManager[RunFolder]:
    """Make the folder of a grid; a context in which it is locked."""

    def begin(folder: RunFolder) -> None:
        about = {"versions": versions(), "git": git_revision(), "command": command_line(), "hardware": {"cpu": cpu_name()}}
        folder.update_record(system=system, state="running", **about)
        config.save(folder.config)

    return RunFolder.create(out.parent, out.name, out, begin, task="worked on")


@contextmanager
def _open_folder(start: Start, config: GridConfig, system: str) -> Iterator[RunFolder]:
    """Open and lock a folder to resume."""
    out = start.out
    folder = RunFolder.open(out)
    started = folder.read_record().get("system")
    if started != system:
        raise InputError(f"{out} was started as {started!r}, not as {system!r}; choose another --out.")
    before = GridConfig.parse(read_yaml(folder.config), str(folder.config))
    if before != config:
        raise InputError(f"{out} was started with {_difference(before, config)}; give the same, or choose another --out.")
    with folder.locked("worked on", start.take_over):
        folder.update_record(state="running")
        yield folder


def _difference(before: GridConfig, now: GridConfig) -> str:
    """Return the first setting that differs between two grids, with both values."""
    old, new = (dict(dotted(one.model_dump(mode="json"))) for one in (before, now))
    name = next((name for name in old | new if old.get(name, UNSET) != new.get(name, UNSET)), None)
    if name is None:
        return "another grid"
    values = ["unset" if value is UNSET else repr(value) for value in (old.get(name, UNSET), new.get(name, UNSET))]
    return f"{name.removeprefix('grid.').removeprefix('base.')} {values[0]}, not {values[1]}"


def _require_same_settings(jobs: Jobs) -> None:
    """Raise InputError if a run was trained with other settings than those of its job, for example those of an older preset."""
    for job in jobs.values():
        file = RunFolder(job.run).config
        if not file.is_file():
            continue
        parse = (BaselineConfig if job.system == "baseline" else PixelDAConfig).parse
        was, now = (
            {name: value for name, value in dotted(one.model_dump(mode="json")) if not name.startswith(UNCOMPARED)}
            for one in (parse(read_yaml(file), str(file)), parse(job.config))
        )
        name = next((name for name in now if was.get(name) != now[name]), None)
        if name is not None:
            raise InputError(
                f"{job.run} was trained with {name} {was.get(name)!r}, and the grid has {now[name]!r} with this version of "
                "Pixelscope. Delete its folder, or choose another --out to train all runs alike."
            )


def _jobs(grid: Grid, out: Path, data_root: Path | None) -> Jobs:
    return {
        (name, seed): Job(
            (out / RUNS / f"{name}-seed{seed}").resolve(),
            condition.system,
            grid.config(name, seed).model_dump(mode="json"),
            data_root,
        )
        for name, condition in grid.conditions.items()
        for seed in grid.seeds
    }


def _store_samples(folder: RunFolder, runs: Mapping[str, Path]) -> None:
    """Store what each run's G generates at the end, with the shared source images and some target images.

    Args:
        folder: where samples.npz is written.
        runs: the run folder of each condition.
    """
    read = {
        name: read_arrays(run / "samples" / "progress.npz", {"images": 1, "source": 4, "generated": 5})
        for name, run in runs.items()
    }
    known = {name: arrays for name, arrays in read.items() if arrays is not None}
    galleries = [read_arrays(run / "samples" / "gallery.npz", {"target": 4}) for run in runs.values()]
    rows = [("source", arrays["source"]) for arrays in known.values()][:1]
    rows += [(name, arrays["generated"][-1]) for name, arrays in known.items()]
    rows += [("target", arrays["target"]) for arrays in galleries if arrays is not None][-1:]
    if rows:
        names, images = zip(*rows, strict=True)
        save_arrays(folder.path / SAMPLES, names=np.array(names), drawn=_stacked(images))


def _stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return rows of uint8 images (N, S, S, 3) as one array; conditions may differ in N and S, the largest S is kept."""
    count, side = min(len(row) for row in rows), max(row.shape[1] for row in rows)
    return np.stack([resize(row[:count].transpose(0, 3, 1, 2), side).transpose(0, 2, 3, 1) for row in rows])


def _default_parallel(grid: Grid, cluster: Cluster) -> int:
    count = len(grid.conditions)
    if cluster == "slurm":
        return count
    return min(count, share_of_cores(1)) if has_extra("ablate") else 1


def _search_result(folder: RunFolder, name: str, grid: Grid, trials: list[Trial], data_root: Path | None) -> SearchResult:
    """Choose a trial, and write search.json and settings.yaml."""
    chosen, reason = choose_trial(trials)
    settings, command = folder.path / SETTINGS, None
    if chosen is None:
        settings.unlink(missing_ok=True)
    else:
        grid.full_config(chosen, grid.seeds[0]).save(settings)
        root = [] if data_root is None else ["--data-root", str(data_root)]
        command = shlex.join(["pixelscope", "pixelda", "train", "--config", str(settings), *root])
    result = SearchResult(
        out=str(folder.path),
        grid=name,
        trials=trials,
        chosen=chosen,
        reason=reason,
        command=command,
        kept=() if chosen is None else tuple(dict.fromkeys((*grid.kept(), "seed"))),
        left_out=() if chosen is None else tuple(grid.left_out()),
    )
    result.save(folder.path / SEARCH)
    return result
