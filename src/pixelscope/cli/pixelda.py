"""The commands of `pixelscope pixelda`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter

import pixelscope
from pixelscope.cli.options import (
    REFINE_SETTINGS,
    RUNTIME_MAY_CHANGE,
    SETTINGS,
    Choose,
    CommonOptions,
    ConfigSources,
    DataRoot,
    Devices,
    GeneratorCheckpoint,
    JobOptions,
    Json,
    PipedFiles,
    PixelDACheckpoint,
    Resume,
    RunFolder,
    RunOptions,
    Runs,
    TableFile,
    TakeOver,
    changed_settings,
    read_settings,
    resolve_config,
)
from pixelscope.cli.streams import evaluate_and_report, input_paths, show
from pixelscope.errors import InputError
from pixelscope.pixelda import BaselineConfig, PixelDAConfig, RefineConfig

C = TypeVar("C", bound=BaselineConfig)

app = App(name="pixelda")

PixelDASettings = Annotated[PixelDAConfig, Parameter(name="*", group=SETTINGS)]
BaselineSettings = Annotated[BaselineConfig, Parameter(name="*", group=SETTINGS)]
RefineSettings = Annotated[RefineConfig, Parameter(name="*", group=REFINE_SETTINGS)]

MAY_CHANGE = {*RUNTIME_MAY_CHANGE, "--take-over", "--data-root", "--training.images", "--source", "--target"}
"""Flags that may be given together with --resume."""


@Parameter(name="*")
@dataclass(frozen=True)
class PixelDASources(ConfigSources):
    """Sources of a configuration of PixelDA or its baseline."""

    preset: Annotated[
        Literal["auto", "paper", "usps", "demo"] | None,
        Parameter(
            help="Packaged settings to start from. auto: any two sources; paper: the published protocol; usps: the paper's for "
            "MNIST to USPS; demo: a few minutes on packaged images. By default paper for MNIST and MNIST-M, else auto."
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class RefineSources(ConfigSources):
    """Sources of a configuration of a refinement."""

    preset: Annotated[
        Literal["full", "generated", "self-training", "paper-classifier", "demo"],
        Parameter(
            help="Packaged settings to start from. full: both stages; generated: the first; self-training: the second; "
            "paper-classifier: both with the paper's T; demo: both, in a few minutes."
        ),
    ] = "full"


@Parameter(name="*")
@dataclass(frozen=True)
class PixelDARunOptions(RunOptions):
    """Where a training of PixelDA writes its run and finds its data."""

    data_root: DataRoot = None


@app.command
def baseline(
    *,
    sources: PixelDASources = PixelDASources(),
    common: CommonOptions = CommonOptions(),
    options: PixelDARunOptions = PixelDARunOptions(),
    settings: BaselineSettings = BaselineConfig(),
) -> None:
    """Train the classifier on the source only, to measure the domain gap; then evaluate it and write the report.

    For example: `pixelscope pixelda baseline --source mnist:data/mnist --target mnist-m:data/mnist_m.npz`
    """

    def start(config: BaselineConfig) -> Path:
        return pixelscope.pixelda.baseline(config, runs=options.runs, run=options.out, data_root=options.data_root)

    _train("baseline", settings, sources, common, options, start)


@app.command
def train(
    *,
    baseline: Path | None = None,
    sources: PixelDASources = PixelDASources(),
    common: CommonOptions = CommonOptions(),
    options: PixelDARunOptions = PixelDARunOptions(),
    settings: PixelDASettings = PixelDAConfig(),
) -> None:
    """Train PixelDA on a labelled source and an unlabelled target; then evaluate it and write the report.

    For example: `pixelscope pixelda train --source mnist:data/mnist --target mnist-m:data/mnist_m.npz`

    Args:
        baseline: Evaluated baseline run to compare against; its results are copied into the new run.
    """
    if options.resume is not None and baseline is not None:
        raise InputError("--resume continues with the baseline of its run; drop --baseline.")

    def start(config: PixelDAConfig) -> Path:
        return pixelscope.pixelda.train(
            config, runs=options.runs, run=options.out, baseline=baseline, data_root=options.data_root
        )

    _train("pixelda", settings, sources, common, options, start)


def _train(
    system: Literal["pixelda", "baseline"],
    flags: C,
    sources: PixelDASources,
    common: CommonOptions,
    options: PixelDARunOptions,
    start: Callable[[C], Path],
) -> None:
    """Start or resume a training, then evaluate it and write its report; with --dry-run only print its cost."""
    if options.resume is not None:
        changed = changed_settings(MAY_CHANGE, flags, sources, common, options)
        run = pixelscope.resume(
            options.resume,
            system=system,
            images=changed.get("training", {}).get("images"),
            source=changed.get("source"),
            target=changed.get("target"),
            data_root=options.data_root,
            take_over=options.take_over,
            **changed.get("runtime", {}),
        )
    else:
        config = resolve_config(flags, system, sources, common)
        is_auto = sources.preset is None and pixelscope.pixelda.default_preset(config.source, config.target) == "auto"
        if is_auto and pixelscope.is_first_process():
            print("Preset auto, for any two sources; --preset paper has the published settings.", file=sys.stderr)
        if options.dry_run:
            print(pixelscope.pixelda.plan(config, system).to_text())
            return
        run = start(config)
    evaluate_and_report(run, data_root=options.data_root)


@app.command
def evaluate(
    run: Path,
    /,
    *,
    source: str | None = None,
    target: str | None = None,
    checkpoint: PixelDACheckpoint = "auto",
    data_root: DataRoot = None,
    take_over: TakeOver = False,
    json: Json = False,
) -> None:
    """Evaluate a run: accuracy, overall and per class, and confusion matrices.

    With --source or --target, images that the run's training splits have, or whose digits they have, are left out; the whole
    test split is then shown as target_test_partly_seen.

    Args:
        run: Run folder of `pixelda train`, `pixelda baseline` or `pixelda refine`.
        source: Labelled images to evaluate on instead of the run's source.
        target: Labelled images to evaluate on instead of the run's target.
    """
    found = pixelscope.evaluate(
        run, source=source, target=target, checkpoint=checkpoint, data_root=data_root, take_over=take_over
    )
    show(found, json)


@app.command
def classify(
    model: Path,
    /,
    *paths: PipedFiles,
    out: TableFile,
    baseline: Path | None = None,
    checkpoint: PixelDACheckpoint = "auto",
    choose: Choose = "adapted",
    devices: Devices = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Classify any number of images of the target domain and write a table.

    For example: `pixelscope pixelda classify runs/00001-pixelda photos/ --out labels.csv`

    Args:
        model: Run folder of `pixelda train`, `pixelda baseline` or `pixelda refine`, or a file made by `export`.
        out: File to write, ending in .csv or .jsonl: name, label, probability, runner-up; it must not exist. `-` prints JSON
            lines.
        baseline: Run folder or exported file of a baseline, whose predictions are added.
    """
    with pixelscope.ProgressBar("classifying") as progress:
        written = pixelscope.pixelda.classify(
            model,
            input_paths(paths),
            out,
            baseline=baseline,
            checkpoint=checkpoint,
            choose=choose,
            devices=devices,
            resume=resume,
            progress=progress,
        )
    show(written, json, out)


@app.command
def adapt(
    run: Path,
    folder: Path,
    /,
    *,
    out: Path,
    styles: int = 1,
    seed: int = 0,
    checkpoint: GeneratorCheckpoint = "auto",
    devices: Devices = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Translate a labelled folder into the target's style: a labelled data set for the unlabelled domain.

    For example: `pixelscope pixelda adapt runs/00001-pixelda renders/ --out adapted/ --styles 4`

    Args:
        run: Run folder of `pixelda train`.
        folder: Images of the source in class folders, which are kept, or with a labels.csv.
        out: Folder to make: class folders with one PNG per image and style, manifest.csv, and metadata.csv, as the `datasets`
            library reads it; it must not exist.
        styles: Number of noise samples, each another version of an image.
        seed: Seed of the noise samples.
    """
    with pixelscope.ProgressBar("adapting") as progress:
        written = pixelscope.pixelda.adapt(
            run, folder, out, styles=styles, seed=seed, checkpoint=checkpoint, devices=devices, resume=resume, progress=progress
        )
    show(written, json)


@app.command
def ablate(
    grid: str = "claims",
    /,
    *,
    out: Path,
    seeds: Annotated[list[int] | None, Parameter(negative=())] = None,
    conditions: Annotated[list[str] | None, Parameter(negative=())] = None,
    options: JobOptions = JobOptions(),
    json: Json = False,
) -> None:
    """Train every condition of a grid with several seeds, and report which claims the results support.

    For example: `pixelscope pixelda ablate claims --out runs/claims`

    Args:
        grid: `claims`, or a YAML file: preset, base, seeds, reference, conditions.
        out: Folder to make, with one run folder per condition and seed, and report.html; it must not exist.
        seeds: Seeds instead of the grid's; may be repeated.
        conditions: Condition to run in addition to the reference; may be repeated. By default all.
    """
    with pixelscope.ProgressBar("training conditions") as progress:
        result = pixelscope.pixelda.ablate(
            grid, out, seeds=seeds, conditions=conditions, **_job_arguments(options, 1), progress=progress
        )
    _show_jobs(result, out, json)


@app.command
def search(
    *,
    source: str,
    target: str,
    out: Path,
    grid: str = "search",
    options: JobOptions = JobOptions(),
    json: Json = False,
) -> None:
    """Try four settings on two new sources for a short time, and select one without target labels.

    For example: `pixelscope pixelda search --source renders/ --target photos/ --out runs/search`

    Args:
        source: Labelled images: PATH, or KIND:PATH.
        target: Images of the other domain; their labels, if any, select nothing.
        out: Folder to make, with one run folder per trial, settings.yaml for the training, and report.html; it must not exist.
        grid: `search`, or a YAML file: preset, base, trial, reference, conditions.
    """
    with pixelscope.ProgressBar("training trials") as progress:
        result = pixelscope.pixelda.search(source, target, out, grid=grid, **_job_arguments(options, None), progress=progress)
    _show_jobs(result, out, json)


def _job_arguments(options: JobOptions, max_parallel: int | None) -> dict[str, Any]:
    return {
        "changes": None if options.config is None else read_settings(options.config, PixelDAConfig),
        "cluster": options.cluster,
        "max_parallel": max_parallel if options.max_parallel is None else options.max_parallel,
        "slurm": options.slurm,
        "resume": options.resume,
        "take_over": options.take_over,
        "data_root": options.data_root,
    }


def _show_jobs(result: Any, out: Path, json: bool) -> None:
    show(result, json)
    report = pixelscope.report(out)
    if not json:
        print(f"\nReport: {report}")


@app.command
def refine(
    origin: Path | None = None,
    /,
    *,
    sources: RefineSources = RefineSources(),
    resume: Path | None = None,
    take_over: TakeOver = False,
    out: RunFolder = None,
    runs: Runs = Path("runs"),
    data_root: DataRoot = None,
    json: Json = False,
    settings: RefineSettings = RefineConfig(),
) -> None:
    """Train a better classifier from a finished run and unlabelled target images; then evaluate it and write the report.

    For example: `pixelscope pixelda refine runs/adapted --out runs/refined`

    Args:
        origin: Finished run folder of `pixelda train`.
        resume: Refinement to resume from its last checkpoint, with its settings. Only the paths of moved runs, ORIGIN and
            --self-training.teacher, and the devices and their threads may change.
    """
    if resume is not None:
        changed = changed_settings({*RUNTIME_MAY_CHANGE, "--self-training.teacher"}, settings, sources)
        if out is not None:
            raise InputError("--resume continues in the folder of its run; drop --out, or start a new run.")
        teacher = changed.get("self_training", {}).get("teacher")
        teacher = None if teacher is None else Path(teacher)
        run = pixelscope.resume(
            resume,
            system="refined",
            origin=origin,
            teacher=teacher,
            data_root=data_root,
            take_over=take_over,
            **changed.get("runtime", {}),
        )
    elif origin is None:
        raise InputError("No run is given; give a finished run of `pixelscope pixelda train`.")
    else:
        config = resolve_config(settings, "refined", sources).with_settings({"run": str(origin)})
        run = pixelscope.pixelda.refine(config, runs=runs, run=out, data_root=data_root)
    evaluate_and_report(run, data_root=data_root, json=json)
