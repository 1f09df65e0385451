"""A short trial of a few settings for two new sources; which to go on with is chosen without target labels."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pixelscope.config import Config, merge
from pixelscope.engine.run import RunFolder, read_json, read_stats
from pixelscope.errors import InputError
from pixelscope.files import write_text
from pixelscope.pixelda.ablation.cells import Job
from pixelscope.pixelda.ablation.grid import Cell, Grid, read_grid
from pixelscope.pixelda.ablation.launching import Cluster, Report, has_submitit
from pixelscope.pixelda.ablation.running import GridConfig, Launching, require_new, run_grid, store_samples
from pixelscope.pixelda.config import preset
from pixelscope.pixelda.domains import load_domains
from pixelscope.pixelda.verdict import DECIDES, Verdict

SYSTEM, RESULT, SETTINGS = "search", "search.json", "settings.yaml"


class Trial(Config):
    """One setting, tried."""

    name: str
    about: str
    """What it is, a sentence."""
    settings: dict[str, Any]
    """What tells it apart from the other trials; everything is in its run's config.yaml."""
    run: str
    verdict: Verdict | None = None
    """T of the source alone next to the adapted T, without target labels; None where the trial failed."""
    content_warnings: int = 0
    """Warnings that G changes what images show."""
    with_target_labels: tuple[float, float] | None = None
    """True accuracies of both on the target's test split, where its labels are known. They choose nothing."""
    failed: str = ""
    """Why it failed; empty where it did not."""

    @property
    def information(self) -> tuple[float, float]:
        """Return what the choice goes by, of T of the source alone and of the adapted T; a failed trial has none."""
        return (0.0, 0.0) if self.verdict is None else self.verdict.rules[DECIDES]


class SearchResult(Config):
    """What a search came to; the content of search.json."""

    out: str
    grid: str
    trials: list[Trial]
    chosen: str | None
    """Name of the trial to go on with; None where no trial is likely better than T of the source alone."""
    why: str
    command: str | None
    """The command that trains the chosen settings in full size."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return self.model_dump(mode="json")

    def to_text(self) -> str:
        """Return a table, the choice and how to go on for a terminal."""
        rows = [HEADER, *([*row(trial, self.chosen)] for trial in self.trials)]
        widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADER))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]
        lines += ["", *(f"{trial.name} failed: {trial.failed}" for trial in self.trials if trial.failed), self.why]
        return "\n".join([*lines, *([] if self.command is None else ["Go on in full size:", f"  {self.command}"])])


HEADER = ("trial", "likely better", "information", "same classes", "content warnings", "accuracy with target labels")
"""Columns of the table; information and accuracy are those of T of the source alone and of the adapted T."""


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
    report: Report | None = None,
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
        report: called with the trials ended and all of them.

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
    how = Launching(cluster, _at_once(tried, cluster) if at_once is None else at_once, slurm or {}, data_root, report)
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


def row(trial: Trial, chosen: str | None) -> tuple[str, ...]:
    """Return the cells of a trial's row under `HEADER`."""
    name = f"{trial.name} (chosen)" if trial.name == chosen else trial.name
    if trial.verdict is None:
        return (name, "failed", *[""] * (len(HEADER) - 2))
    before, after = trial.information
    known = trial.with_target_labels
    return (
        name,
        trial.verdict.better,
        f"{before:.3f} -> {after:.3f}",
        f"{trial.verdict.same_classes:.0%}",
        str(trial.content_warnings),
        "not known" if known is None else f"{known[0]:.2%} -> {known[1]:.2%}",
    )


def read_result(path: Path) -> SearchResult:
    """Read search.json; raises InputError where it is damaged."""
    return SearchResult.parse(read_json(path), str(path))


def _one_seed(grid: Grid, given: Mapping[str, Any]) -> Grid:
    """Return the grid with one seed: the one among the settings, else its first."""
    return grid.model_copy(update={"seeds": (given.get("seed", grid.seeds[0]),)})


def _at_once(grid: Grid, cluster: Cluster) -> int:
    count = len(grid.cells)
    if cluster == "slurm":
        return count
    return min(count, os.cpu_count() or 1) if has_submitit() else 1


def _trial(name: str, cell: Cell, job: Job) -> Trial:
    about = {"name": name, "about": cell.claim, "settings": cell.settings, "run": str(job.run)}
    if job.state() != "done":
        return Trial.parse(about | {"failed": job.why()}, name)
    found = read_json(job.run / "evaluation.json")
    if found["verdict"] is None:
        return Trial.parse(about | {"failed": "It has no judge to compare with; leave judge on."}, name)
    lost = [line for line in read_stats(job.run / "stats.jsonl") if line.get("cause") == "content lost"]
    known = found["sets"].get("target_test")
    truth = None if known is None else (found["source_only"]["target_test"], known["accuracy"])
    measured = {"verdict": found["verdict"], "content_warnings": len(lost), "with_target_labels": truth}
    return Trial.parse(about | measured, name)


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
    write_text(folder.path / RESULT, json.dumps(result.to_dict(), indent=1) + "\n")
    return result


def _full_size(grid: Grid, chosen: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings to go on with: the preset's, those given but for the length of trials, and what the trial tried."""
    kept = {name: value for name, value in given.items() if name not in ("source", "target", "training")}
    return merge(preset("pixelda", grid.preset), kept, grid.cells[chosen].settings)
