"""Every command of `pixelscope`: each parses, calls the function of the public API with its name, and prints the result."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cyclopts import App, Parameter

import pixelscope
from pixelscope import RenderConfig
from pixelscope.cli.endovae import endovae
from pixelscope.cli.output import Flag, show
from pixelscope.cli.refinement import refine
from pixelscope.cli.settings import (
    BaselineSettings,
    EndoVAESettings,
    Layers,
    PixelDALayers,
    PixelDASettings,
    Shorthands,
    given,
    given_names,
    read_settings,
    resolve,
)
from pixelscope.endovae import EndoVAEConfig
from pixelscope.errors import InputError
from pixelscope.pixelda import BaselineConfig, PixelDAConfig

C = TypeVar("C", bound=BaselineConfig)
Trained = Literal["pixelda", "baseline"]
MAY_CHANGE = {"--resume", "--devices", "--data-root", "--training.images", "--source", "--target"}
"""What may stand beside --resume: where it runs, where its data lies, and how long it goes on."""

app = App(
    name="pixelscope",
    help="Learn from images that nobody labelled.",
    version=lambda: version("pixelscope"),
    help_format="plaintext",
    # Ctrl-C is answered in main(), which knows how to go on.
    suppress_keyboard_interrupt=False,
)
data = App(name="data", help="Look at images, and make labelled ones.")
pixelda = App(name="pixelda", help="Adapt a classifier from labelled images of one domain to unlabelled ones of another.")
summary = App(name="summary", help="Layers, output shapes and parameters of a system's networks.")
for group in (pixelda, endovae, data, summary):
    app.command(group)
pixelda.command(refine)


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Where a training writes, and whether it starts at all."""

    dry_run: Flag = False
    """Print the resolved settings and what they cost, and stop."""
    resume: Path | None = None
    """Go on with this run from its last checkpoint; only --training.images may change, and --source and --target if moved."""
    out: Path | None = None
    """Run folder to make, which must not exist, in place of a numbered one in --runs."""
    runs: Path = Path("runs")
    """Folder in which numbered run folders are made."""
    data_root: Path | None = None
    """Where a source given as a KIND alone is looked for, and downloaded to; else $PIXELSCOPE_DATA, else a cache folder."""


@data.command
def info(
    source: str,
    target: str | None = None,
    /,
    *,
    json: Flag = False,
    sheet: Path | None = None,
    strict: Flag = False,
    data_root: Path | None = None,
) -> None:
    """Say what a source of images holds: counts, classes, sizes, value range, licence; of two, what tells them apart.

    Parameters
    ----------
    source
        PATH, KIND:PATH, or a KIND alone: mnist, mnist-m, arrays, folder, pack, demo (demo:mnist, demo:mnist-m).
    target
        Images that the source is to be adapted to: both are shown side by side, and what will make trouble.
    json
        Print JSON.
    sheet
        PNG file to write a contact sheet to.
    strict
        Refuse a folder with an unreadable image, rather than skip and count it.
    data_root
        Where a KIND alone is looked for, and downloaded to; else $PIXELSCOPE_DATA, else a cache folder.
    """
    if target is None:
        description = pixelscope.describe_source(source, data_root=data_root, strict=strict)
    else:
        description = pixelscope.compare_sources(source, target, data_root=data_root, strict=strict)
    if sheet is not None:
        description.save_sheet(sheet)
    show(description, json)


@data.command(name="mnist-m")
def mnist_m(
    *,
    mnist: Path,
    photos: Path,
    out: Path,
    seed: int = 0,
    form: Literal["aligned", "distributed"] = "aligned",
    test_fraction: float | None = None,
) -> None:
    """Generate MNIST-M: for each MNIST digit a crop of a photo, inverted where the digit is above 0; in the order of MNIST.

    Where the photos have a folder `train` beside others, training digits get their backgrounds from it and test digits from
    the others.

    Parameters
    ----------
    mnist
        Folder of the four idx files of MNIST, plain or .gz.
    photos
        Folder of photos, at any depth; the original used BSDS500.
    out
        File to write, ending in .npz; it must not exist.
    seed
        Seed of the choice of photos, crops and test split.
    form
        aligned: 28 x 28 pixels, with a random test split. distributed: as originally distributed, the 28 x 28 mask in the
        middle of 32 x 32 pixels, with MNIST's own split of 60,000 and 10,000.
    test_fraction
        Share of the digits in the test split of the form aligned; 0.2 by default.
    """
    print(pixelscope.generate_mnist_m(mnist, photos, out, seed=seed, form=form, test_fraction=test_fraction))


@data.command
def render(
    *,
    pictograms: Path,
    photos: Path,
    out: Path,
    settings: Annotated[RenderConfig, Parameter(name="*", negative_iterable=())] = RenderConfig(),
    json: Flag = False,
) -> None:
    """Render labelled images: pictograms over crops of photos, turned, sheared, scaled, shifted, dimmed and blurred.

    For example: pixelscope data render --pictograms signs/ --photos photos/ --out rendered/

    Parameters
    ----------
    pictograms
        Folder of drawings on transparent ground: CLASS.png, or CLASS/name.png where a class has several.
    photos
        Folder of photos for the backgrounds, at any depth.
    out
        Folder to make, with PNG files in class folders and a record of how they were made; it must not exist.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("rendering") as progress:
        made = pixelscope.render_pictograms(pictograms, photos, out, settings, progress)
    show(made, json)


@data.command
def pack(
    source: str,
    /,
    *,
    out: Path,
    size: int = 32,
    strict: Flag = False,
    data_root: Path | None = None,
    range: tuple[float, float] | None = None,
) -> None:
    """Write a source as rows on disk, from which trainings read sets that do not fit into memory.

    Give the folder made in place of the source, for example --source packed/photos.

    Parameters
    ----------
    source
        PATH, KIND:PATH, or a KIND alone. A folder may hold any number of images.
    out
        Folder to make; it must not exist.
    size
        Side in pixels to which images are resized; trainings on it need the same --data.size.
    strict
        Refuse a folder with an unreadable image, rather than skip and count it.
    data_root
        Where a KIND alone is looked for, and downloaded to; else $PIXELSCOPE_DATA, else a cache folder.
    range
        LOW HIGH: values that become black and white in images deeper than 8 bits; found where it is not given.
    """
    BaselineConfig.parse({"data": {"size": size}}, "--size")  # a pack of another size could not be trained on
    with pixelscope.ProgressBar("packing images") as progress:
        packed = pixelscope.pack(
            source, out, size=size, strict=strict, data_root=data_root, progress=progress, value_range=range
        )
    for note in packed.provenance.notes:
        print(note)
    print(f"{out}: {len(packed):,} images of {size} x {size} pixels")


@pixelda.command
def baseline(
    *,
    layers: PixelDALayers = PixelDALayers(),
    short: Shorthands = Shorthands(),
    options: RunOptions = RunOptions(),
    settings: BaselineSettings = BaselineConfig(),
) -> None:
    """Train the classifier on the source alone: what the domain gap is measured with.

    For example: pixelscope pixelda baseline --source mnist:data/mnist --target mnist-m:data/mnist_m.npz
    """

    def start(config: BaselineConfig) -> Path:
        return pixelscope.pixelda.baseline(config, runs=options.runs, run=options.out, data_root=options.data_root)

    _run("baseline", settings, layers, short, options, start)


@pixelda.command
def train(
    *,
    baseline: Path | None = None,
    layers: PixelDALayers = PixelDALayers(),
    short: Shorthands = Shorthands(),
    options: RunOptions = RunOptions(),
    settings: PixelDASettings = PixelDAConfig(),
) -> None:
    """Train on a labelled source and an unlabelled target, for a classifier that reads the target.

    For example: pixelscope pixelda train --source mnist:data/mnist --target mnist-m:data/mnist_m.npz

    Parameters
    ----------
    baseline
        Run folder of an evaluated baseline, kept in the new run as what it is compared with.
    """
    if options.resume is not None and baseline is not None:
        raise InputError("--resume goes on with the baseline of its run; drop --baseline.")

    def start(config: PixelDAConfig) -> Path:
        return pixelscope.pixelda.train(
            config, runs=options.runs, run=options.out, baseline=baseline, data_root=options.data_root
        )

    _run("pixelda", settings, layers, short, options, start)


@pixelda.command
def evaluate(
    run: Path,
    /,
    *,
    source: str | None = None,
    target: str | None = None,
    rule: Literal["auto", "last", "ema-last", "best-source"] = "auto",
    data_root: Path | None = None,
    json: Flag = False,
) -> None:
    """Measure a run: accuracy, per class and over all, and confusion matrices.

    Named images are measured without those that the run trained on, or whose digits it trained on; their whole test split
    is then shown as target_test_partly_seen.

    Parameters
    ----------
    run
        Run folder of `pixelda train` or `pixelda baseline`.
    source
        Labelled images to measure on, in place of the run's own source.
    target
        Labelled images to measure on, in place of the run's own target.
    rule
        Which weights to measure; `auto` takes the run's headline rule. None of them looks at target labels.
    data_root
        Where a source given as a KIND alone is looked for; else $PIXELSCOPE_DATA, else a cache folder.
    json
        Print JSON.
    """
    show(pixelscope.evaluate(run, source=source, target=target, rule=rule, data_root=data_root), json)


@pixelda.command
def classify(
    model: Path,
    /,
    *paths: Path,
    out: Path,
    baseline: Path | None = None,
    rule: Literal["auto", "last", "ema-last", "best-source"] = "auto",
    devices: int = 1,
    resume: Flag = False,
    json: Flag = False,
) -> None:
    """Classify images of the target domain, any number of them, into a table.

    For example: pixelscope pixelda classify runs/00001-pixelda photos/ --out labels.csv

    Parameters
    ----------
    model
        Run folder of `pixelda train` or `pixelda baseline`, or a file made by `export`.
    paths
        Image files, or folders of them at any depth.
    out
        File to write, ending in .csv or .jsonl: name, label, probability, runner-up; it must not exist.
    baseline
        Run folder or exported file of a baseline, whose answer stands beside.
    rule
        Which weights of a run; `auto` takes its headline rule, and a finished run only.
    devices
        GPUs to use, or without one, threads that compute.
    resume
        Go on with a table that was left unfinished.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("classifying") as progress:
        written = pixelscope.pixelda.classify(
            model, paths, out, baseline=baseline, rule=rule, devices=devices, resume=resume, progress=progress
        )
    show(written, json)


@pixelda.command
def adapt(
    run: Path,
    folder: Path,
    /,
    *,
    out: Path,
    styles: int = 1,
    seed: int = 0,
    rule: Literal["auto", "last", "ema-last"] = "auto",
    devices: int = 1,
    resume: Flag = False,
    json: Flag = False,
) -> None:
    """Redraw a labelled folder in the target's style: a labelled data set for the unlabelled domain.

    For example: pixelscope pixelda adapt runs/00001-pixelda renders/ --out adapted/ --styles 4

    Parameters
    ----------
    run
        Run folder of `pixelda train`.
    folder
        Images of the source in class folders; the folders are kept.
    out
        Folder to make, with a PNG an image and style, and manifest.csv; it must not exist.
    styles
        Versions of each image.
    seed
        Seed of the styles.
    rule
        Which weights; `auto` takes the run's headline rule, and a finished run only.
    devices
        GPUs to use, or without one, threads that compute.
    resume
        Go on with a folder that was left unfinished.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("redrawing") as progress:
        written = pixelscope.pixelda.adapt(
            run, folder, out, styles=styles, seed=seed, rule=rule, devices=devices, resume=resume, progress=progress
        )
    show(written, json)


@pixelda.command
def ablate(
    grid: str = "claims",
    /,
    *,
    out: Path,
    seeds: Annotated[list[int] | None, Parameter(negative=())] = None,
    cells: Annotated[list[str] | None, Parameter(negative=())] = None,
    config: Path | None = None,
    cluster: Literal["local", "slurm"] = "local",
    at_once: int = 1,
    slurm: Annotated[dict[str, str] | None, Parameter(negative=())] = None,
    resume: Flag = False,
    data_root: Path | None = None,
    json: Flag = False,
) -> None:
    """Run a grid of settings over seeds, and write one page on what their numbers say of each claim.

    For example: pixelscope pixelda ablate claims --out runs/claims

    Parameters
    ----------
    grid
        `claims`, or a YAML file: preset, base, seeds, reference, cells.
    out
        Folder to make, with a run folder a cell and seed, and report.html; it must not exist.
    seeds
        In place of the grid's; may be repeated.
    cells
        Name of a cell to run, beside the reference; may be repeated. All by default.
    config
        YAML file of settings laid over the grid's base, for example another source and target.
    cluster
        Local processes, or SLURM.
    at_once
        Runs at a time; local ones share the cores.
    slurm
        Options of SLURM, for example --slurm.partition gpu --slurm.gpus_per_node 1.
    resume
        Go on with a folder that was begun; what failed is tried again.
    data_root
        Where a source given as a KIND alone is looked for; else $PIXELSCOPE_DATA, else a cache folder.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("running cells") as progress:
        result = pixelscope.pixelda.ablate(
            grid,
            out,
            changes=None if config is None else read_settings(config, PixelDAConfig),
            seeds=seeds,
            conditions=cells,
            cluster=cluster,
            max_parallel=at_once,
            slurm=slurm,
            resume=resume,
            data_root=data_root,
            progress=progress,
        )
    show(result, json)
    if not json:
        print(f"\nReport: {pixelscope.report(out)}")


@pixelda.command
def search(
    *,
    source: str,
    target: str,
    out: Path,
    grid: str = "search",
    config: Path | None = None,
    cluster: Literal["local", "slurm"] = "local",
    at_once: int | None = None,
    slurm: Annotated[dict[str, str] | None, Parameter(negative=())] = None,
    resume: Flag = False,
    data_root: Path | None = None,
    json: Flag = False,
) -> None:
    """Try four settings on two new sources for a short time, and choose one without target labels.

    For example: pixelscope pixelda search --source renders/ --target photos/ --out runs/search

    Parameters
    ----------
    source
        Labelled images: PATH, or KIND:PATH.
    target
        Images of the other domain; their labels, if any, choose nothing.
    out
        Folder to make, with a run folder a trial, settings.yaml to go on with, and report.html; it must not exist.
    grid
        `search`, or a YAML file: preset, base, reference, cells.
    config
        YAML file of settings laid over those of all trials, for example data.test_fraction.
    cluster
        Local processes, or SLURM.
    at_once
        Trials at a time; as many as there are cores by default, and one without submitit.
    slurm
        Options of SLURM, for example --slurm.partition gpu --slurm.gpus_per_node 1.
    resume
        Go on with a folder that was begun; what failed is tried again.
    data_root
        Where a source given as a KIND alone is looked for; else $PIXELSCOPE_DATA, else a cache folder.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("running trials") as progress:
        result = pixelscope.pixelda.search(
            source,
            target,
            out,
            changes=None if config is None else read_settings(config, PixelDAConfig),
            grid=grid,
            cluster=cluster,
            max_parallel=at_once,
            slurm=slurm,
            resume=resume,
            data_root=data_root,
            progress=progress,
        )
    show(result, json)
    page = pixelscope.report(out)
    if not json:
        print(f"\nReport: {page}")


@app.command
def report(run: Path, /) -> None:
    """Write a run's figures and numbers into one page, report.html in its folder, and print where it is.

    Parameters
    ----------
    run
        Run folder.
    """
    print(pixelscope.report(run))


@app.command
def export(
    run: Path,
    /,
    *,
    out: Path,
    format: Literal["onnx", "safetensors"] = "onnx",
    images: str | None = None,
    rule: Literal["auto", "last", "ema-last", "best-source", "best-validation"] = "auto",
    choose: Literal["adapted", "auto"] = "adapted",
    data_root: Path | None = None,
    json: Flag = False,
) -> None:
    """Write a run's model to one file for other programs, with a model card; `classify` and `score` take it, too.

    For example: pixelscope export runs/00001-pixelda --out digits.onnx

    Parameters
    ----------
    run
        Run folder, finished; of EndoVAE evaluated, too.
    out
        File to write, ending as its format does; it must not exist.
    format
        onnx: a graph from uint8 RGB images of any size, for onnxruntime. safetensors: the weights alone.
    images
        Images, or a store or folder of frames, to compare file and run on; by default the run's own.
    rule
        Which weights; `auto` takes the run's headline rule, and a finished run only.
    choose
        Of a run of PixelDA: the adapted classifier, or with `auto` whichever likely reads the target better, as its
        evaluation says without target labels.
    data_root
        Where a source given as a KIND alone is looked for; else $PIXELSCOPE_DATA, else a cache folder.
    json
        Print JSON.
    """
    show(pixelscope.export(run, out, form=format, images=images, rule=rule, choose=choose, data_root=data_root), json)


@app.command
def serve(
    *runs: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_host: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    root_path: str = "",
) -> None:
    """Serve runs in the browser: watch a training, draw a digit, steer a latent space, look at a frame.

    For example: pixelscope serve runs

    Parameters
    ----------
    runs
        Run folders, or folders of them; `runs` by default.
    host
        Address to listen on. The default is this machine alone; 0.0.0.0 lets the network in, and there is no password.
    port
        Port to listen on.
    allowed_host
        Another name by which it is answered, beside this machine's own, for example that of a proxy. May be given again.
    root_path
        What a proxy puts before every path, for example /pixelscope.
    """
    places = list(runs) or [Path("runs")]
    pixelscope.serve_runs(places, host=host, port=port, allowed_hosts=allowed_host, root_path=root_path)


@summary.command(name="pixelda")
def summary_pixelda(
    *,
    json: Flag = False,
    layers: PixelDALayers = PixelDALayers(),
    settings: PixelDASettings = PixelDAConfig(),
) -> None:
    """Layers, output shapes and parameters of the generator, the discriminator and the classifier.

    Parameters
    ----------
    json
        Print JSON.
    """
    show(pixelscope.pixelda.summarize("pixelda", resolve(settings, "pixelda", layers)), json)


@summary.command(name="baseline")
def summary_baseline(
    *,
    json: Flag = False,
    layers: PixelDALayers = PixelDALayers(),
    settings: BaselineSettings = BaselineConfig(),
) -> None:
    """Layers, output shapes and parameters of the baseline's classifier.

    Parameters
    ----------
    json
        Print JSON.
    """
    show(pixelscope.pixelda.summarize("baseline", resolve(settings, "baseline", layers)), json)


@summary.command(name="endovae")
def summary_endovae(
    *,
    json: Flag = False,
    layers: Layers = Layers(),
    settings: EndoVAESettings = EndoVAEConfig(),
) -> None:
    """Layers, output shapes and parameters of the encoder and the decoder.

    Parameters
    ----------
    json
        Print JSON.
    """
    show(pixelscope.endovae.summarize(resolve(settings, "endovae", layers)), json)


@app.command
def demo(*, runs: Path = Path("runs"), seed: int = 0) -> None:
    """Show the domain gap and close it; learn drawn endoscopy frames; print the numbers of both and write one report.

    Takes some minutes on two CPU cores and downloads nothing. Needs the extra: pip install "pixelscope[demo]".

    Parameters
    ----------
    runs
        Folder in which the run folders are made.
    seed
        Seed of weights, order of data and every random draw.
    """
    print(pixelscope.run_demo(runs=runs, seed=seed).to_text())


def _run(
    system: Trained, flags: C, layers: PixelDALayers, short: Shorthands, options: RunOptions, start: Callable[[C], Path]
) -> None:
    """Start or resume a training, then measure it and write its report; or tell what it would cost."""
    if options.resume is not None:
        run = _resume(options.resume, flags, layers, short, options)
    else:
        config = resolve(flags, system, layers, short)
        if (
            layers.preset is None
            and pixelscope.pixelda.default_preset(config.source, config.target) == "auto"
            and pixelscope.is_first_process()
        ):
            print("Preset auto, for any two sources; --preset paper has the published settings.", file=sys.stderr)
        if options.dry_run:
            print(pixelscope.pixelda.plan(config, system).to_text())
            return
        run = start(config)
    if pixelscope.is_first_process():
        print(pixelscope.evaluate(run, data_root=options.data_root).to_text())
        print(f"\nRun folder: {run}\nReport: {pixelscope.report(run)}")


def _resume(run: Path, flags: BaselineConfig, layers: PixelDALayers, short: Shorthands, options: RunOptions) -> Path:
    others = [name for name in given_names(flags, layers, short, options) if name not in MAY_CHANGE]
    if others:
        raise InputError(f"--resume goes on with the settings of its run; drop {', '.join(others)}, or start a new run.")
    changed = given(flags)
    return pixelscope.resume(
        run,
        devices=short.devices,
        images=changed.get("training", {}).get("images"),
        source=changed.get("source"),
        target=changed.get("target"),
        data_root=options.data_root,
    )
