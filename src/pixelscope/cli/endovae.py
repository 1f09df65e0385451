"""The commands of `pixelscope endovae`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

import pixelscope
from pixelscope.cli.options import (
    RUNTIME_MAY_CHANGE,
    SETTINGS,
    CommonOptions,
    ConfigSources,
    Devices,
    EndoVAECheckpoint,
    Files,
    Json,
    PipedFiles,
    Resume,
    RunOptions,
    TableFile,
    TakeOver,
    changed_settings,
    explicit_settings,
    resolve_config,
)
from pixelscope.cli.streams import evaluate_and_report, input_paths, show
from pixelscope.config import Config
from pixelscope.endovae import DetectConfig, EndoVAEConfig, PrepareConfig, PriorConfig
from pixelscope.errors import InputError, missing_extra
from pixelscope.files import require_absent

app = App(name="endovae")

Score = Literal[
    "auto", "mse", "mse_no_overlay", "mse_tissue", "dssim_tissue", "mahalanobis", "mse_tissue+kl", "mse_no_overlay+mahalanobis"
]
View = Literal["centre", "full"]
Classes = Annotated[list[str] | None, Parameter(negative=())]
EndoVAESettings = Annotated[EndoVAEConfig, Parameter(name="*", group=SETTINGS)]

MAY_CHANGE = {*RUNTIME_MAY_CHANGE, "--take-over", "--training.epochs", "--frames"}
"""Flags that may be given together with --resume."""


@Parameter(name="*")
@dataclass(frozen=True)
class EndoVAESources(ConfigSources):
    """Sources of a configuration of EndoVAE."""

    preset: Annotated[
        Literal["paper", "demo", "spatial", "spatial-small"] | None,
        Parameter(
            help="Packaged settings to start from. paper: the published protocol; demo: a few minutes on packaged images; "
            "spatial and spatial-small: sharp reconstructions from a code of 24 x 24 x 8 or 12 x 12 x 4. By default paper."
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class EndoVAEOptions(CommonOptions):
    """Short names of frequent settings of EndoVAE."""

    train_on: Literal["normal", "abnormal", "both"] | None = None
    """Kind of frames to train on; same as --split.train-on."""

    def settings(self, model: type[Config]) -> dict[str, Any]:
        """Return the given options as settings of the configuration `model`."""
        split = {} if self.train_on is None else {"split": {"train_on": self.train_on}}
        return {**super().settings(model), **split}


@app.command
def prepare(
    *folders: Path,
    normal: Classes = None,
    abnormal: Classes = None,
    masks: Annotated[list[str] | None, Parameter(negative=())] = None,
    out: Path | None = None,
    stores: Path = Path("stores"),
    settings: Annotated[PrepareConfig, Parameter(name="*")] = PrepareConfig(),
    json: Json = False,
) -> None:
    """Prepare frames once: crop to the content area, treat insets, resize; then print counts per class and size.

    For example: `pixelscope endovae prepare data/kvasir`

    Args:
        folders: Class folders of frames, or folders of class folders. The names of Kvasir are known; masks are read from
            CLASS-masks, and from files named as a frame and `_mask`.
        normal: Name of a further healthy class; may be repeated.
        abnormal: Name of a further abnormal class; may be repeated.
        masks: CLASS=DIR: a folder of masks with another name, for example polyps=annotations/; may be repeated.
        out: Folder of the store, instead of a named one in --stores.
        stores: Folder in which stores are made and found again.
    """
    with pixelscope.ProgressBar("preparing frames") as progress:
        store = pixelscope.endovae.prepare(
            folders,
            config=settings,
            out=out,
            stores=stores,
            normal=normal or (),
            abnormal=abnormal or (),
            masks=_mask_folders(masks or ()),
            progress=progress,
        )
    show(store.summary(), json)
    try:
        figures = pixelscope.endovae.draw_frames(store)
    except ImportError as error:
        print(missing_extra(error, "Figures of the frames") or error, file=sys.stderr)
    else:
        print("Figures: " + ", ".join(map(str, figures)), file=sys.stderr if json else sys.stdout)


def _mask_folders(given: Sequence[str]) -> dict[str, Path]:
    """Return the folder of masks of each class, from CLASS=DIR."""
    pairs = [text.partition("=") for text in given]
    for text, (name, _, folder) in zip(given, pairs, strict=True):
        if not name or not folder:
            raise InputError(f"--masks {text} is not CLASS=DIR; give for example --masks polyps=annotations/polyps.")
        if [other for other, _, _ in pairs].count(name) > 1:
            raise InputError(f"--masks names the class {name} twice; give one folder for it.")
    return {name: Path(folder) for name, _, folder in pairs}


@app.command
def train(
    *,
    sources: EndoVAESources = EndoVAESources(),
    common: EndoVAEOptions = EndoVAEOptions(),
    options: RunOptions = RunOptions(),
    settings: EndoVAESettings = EndoVAEConfig(),
) -> None:
    """Train encoder and decoder on normal frames, abnormal frames or both; then evaluate them and write the report.

    For example: `pixelscope endovae train --frames data/kvasir`
    """
    if options.resume is not None:
        changed = changed_settings(MAY_CHANGE, settings, sources, common, options)
        run = pixelscope.resume(
            options.resume,
            system="endovae",
            epochs=changed.get("training", {}).get("epochs"),
            frames=changed.get("frames"),
            take_over=options.take_over,
            **changed.get("runtime", {}),
        )
    else:
        config = resolve_config(settings, "endovae", sources, common)
        _require_settings_of_store(settings, Path(config.frames))
        if options.dry_run:
            print(pixelscope.endovae.plan(config).to_text())
            return
        with pixelscope.ProgressBar("preparing frames") as progress:
            run = pixelscope.endovae.train(config, runs=options.runs, run=options.out, progress=progress)
    evaluate_and_report(run)


def _require_settings_of_store(flags: Config, frames: Path) -> None:
    """Raise InputError if the flags `--prepare.*` given differ from how a store was prepared."""
    given = explicit_settings(flags).get("prepare", {})
    if not given or not pixelscope.endovae.FrameStore.is_store(frames):
        return
    used = pixelscope.endovae.FrameStore.open(frames).settings.model_dump()
    for name in (name for name, value in given.items() if value != used[name]):
        raise InputError(
            f"The frames in {frames} were prepared with {name} {used[name]}, not {given[name]}; leave out --prepare.{name}, or "
            f"prepare them again with --{name}."
        )


@app.command
def evaluate(
    run: Path,
    /,
    *,
    frames: str | None = None,
    checkpoint: EndoVAECheckpoint = "auto",
    view: View | None = None,
    take_over: TakeOver = False,
    json: Json = False,
) -> None:
    """Evaluate a run: PSNR and SSIM of reconstructions, AUROC of the anomaly scores, compared with trivial baselines.

    Args:
        run: Run folder of `endovae train`.
        frames: Store or folder of frames to evaluate on instead of the run's own test frames; those that the run has seen are
            left out.
        view: Print the anomaly scores of one view alone: `centre`, a square without border and insets, or `full`. Both are
            measured and stored.
    """
    if view is not None and pixelscope.run_info(run).system != "endovae":
        raise InputError(f"{run} is no run of EndoVAE, so it has no views; leave out --view.")
    found = pixelscope.evaluate(run, frames=frames, checkpoint=checkpoint, take_over=take_over)
    chosen = found.only(view) if view is not None and isinstance(found, pixelscope.endovae.Evaluation) else found
    show(chosen, json)


@app.command
def evaluate_generated(
    run: Path,
    /,
    *,
    against: Annotated[list[Path] | None, Parameter(negative=())] = None,
    count: int | None = None,
    checkpoint: EndoVAECheckpoint = "auto",
    features: Literal["lite0", "encoder"] | None = None,
    prior: Literal["auto", "none"] = "auto",
    frames: str | None = None,
    seed: int = 0,
    take_over: TakeOver = False,
    json: Json = False,
) -> None:
    """Measure the frames that runs generate: how real, how varied, how sharp, and whether they are copies.

    They are compared with the test frames of the kind that the run was trained on. So are the training frames, whose values
    are the best to expect. Writes generation.json and generation.png into the run folder.

    For example: `pixelscope endovae evaluate-generated runs/00001-endovae --against runs/00000-endovae`

    Args:
        run: Run folder of `endovae train`.
        against: Run folder of another model, trained on the same frames; may be repeated.
        count: Generated frames per run, from 6 to 10,000; by default as many as there are training frames, at most 1,000.
        features: Compare on one network's features: `lite0`, of EfficientNet-Lite0 (extra `pretrained`), or `encoder`, of this
            run. By default both.
        prior: `auto` draws from a run's prior where `endovae prior` has fitted one; `none` never.
        frames: Store or folder of the run's frames, if it has moved.
        seed: Seed of the random latent vectors.
    """
    with pixelscope.ProgressBar("measuring runs") as progress:
        found = pixelscope.endovae.evaluate_generated(
            run,
            against=against or (),
            count=count,
            checkpoint=checkpoint,
            features=features,
            prior=prior,
            frames=frames,
            seed=seed,
            take_over=take_over,
            progress=progress,
        )
    show(found, json)


@app.command
def detect(
    frames: Path,
    /,
    *,
    out: Path,
    settings: Annotated[DetectConfig, Parameter(name="*")] = DetectConfig(),
    json: Json = False,
) -> None:
    """Measure anomaly detectors on healthy and abnormal frames, and write the best one to a file. For research only.

    Every frame is tested once, by detectors fitted to other clusters of near-duplicates. `score` takes the file.

    For example: `pixelscope endovae detect stores/kvasir --out detector`

    Args:
        frames: Frame store made by `endovae prepare`, or a folder of frames, which is prepared first, into the folder `stores`.
            To name classes or masks, use `prepare`.
        out: Folder to make: detection.json, detector.safetensors, scores.png and maps.png.
    """
    # Checked here, too, because the libraries of `detect` take seconds to import.
    require_absent(out)
    _require_settings_of_store(settings, frames)
    with pixelscope.ProgressBar("preparing frames, then measuring folds") as progress:
        result = pixelscope.endovae.detect(frames, out, config=settings, progress=progress)
    show(result, json)


@app.command
def score(
    model: Path,
    /,
    *paths: PipedFiles,
    out: TableFile,
    score: Score = "auto",
    view: View | None = None,
    false_positive_rate: float | None = None,
    maps: Path | None = None,
    checkpoint: EndoVAECheckpoint = "auto",
    devices: Devices = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Score any number of frames by how much they differ from healthy ones, and write a table. For research only.

    For example: `pixelscope endovae score runs/00001-endovae frames/ --out scores.csv --maps maps/`

    Args:
        model: Evaluated run folder of `endovae train`, folder or file made by `endovae detect`, or a file made by `export`.
        out: File to write, ending in .csv or .jsonl: name, score, p-value, flagged or not; it must not exist. `-` prints JSON
            lines.
        view: `centre` scores a square of each frame without border and insets, the default for a run; `full` scores all of
            it. A detector has one view.
        score: Anomaly score; `auto` takes the one selected on the run's validation frames.
        false_positive_rate: Fraction of healthy frames that may be flagged. By default 0.05; with too few calibration frames
            for it, no frame is flagged or cleared.
        maps: Folder to make, with one PNG per frame: its reconstruction error as a heatmap over it, at its own size.
    """
    with pixelscope.ProgressBar("scoring") as progress:
        written = pixelscope.endovae.score(
            model,
            input_paths(paths),
            out,
            score=score,
            view=view,
            false_positive_rate=false_positive_rate,
            maps=maps,
            checkpoint=checkpoint,
            devices=devices,
            resume=resume,
            progress=progress,
        )
    show(written, json, out)


@app.command
def reconstruct(
    run: Path,
    /,
    *paths: Files,
    out: Path,
    sampled: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    seed: int = 0,
    checkpoint: EndoVAECheckpoint = "auto",
    devices: Devices = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Reconstruct frames and print the reconstruction error.

    Args:
        run: Run folder of `endovae train`.
        out: File ending in .png: one grid, frames above reconstructions. Else a folder to make: one PNG per frame,
            manifest.csv.
        sampled: Reconstruct from a sample of the posterior instead of its mean.
        seed: Seed of the samples.
    """
    with pixelscope.ProgressBar("reconstructing") as progress:
        written = pixelscope.endovae.reconstruct(
            run,
            paths,
            out,
            sampled=sampled,
            seed=seed,
            checkpoint=checkpoint,
            devices=devices,
            resume=resume,
            progress=progress,
        )
    show(written, json)


@app.command
def prior(
    run: Path,
    /,
    *,
    checkpoint: EndoVAECheckpoint = "auto",
    frames: str | None = None,
    settings: Annotated[PriorConfig, Parameter(name="*")] = PriorConfig(),
    take_over: TakeOver = False,
    json: Json = False,
) -> None:
    """Fit a prior to the latent codes of a run's training frames, from which `generate` then draws.

    It is written to RUN/prior. Of a spatial code, this takes minutes.

    For example: `pixelscope endovae prior runs/00001-endovae`

    Args:
        run: Run folder of `endovae train`.
        frames: Store or folder of the run's frames, if it has moved.
    """
    with pixelscope.ProgressBar("training the prior") as progress:
        result = pixelscope.endovae.prior(
            run, config=settings, checkpoint=checkpoint, frames=frames, take_over=take_over, progress=progress
        )
    show(result, json)


FRAME_KINDS: dict[str, Literal["normal", "abnormal"]] = {"normal": "normal", "abnormal": "abnormal", "polyp": "abnormal"}
"""Kind of frames by the names of --class."""


@app.command
def generate(
    run: Path,
    /,
    *,
    out: Path,
    count: int = 9,
    seed: int = 0,
    prior: Literal["auto", "none"] = "auto",
    kind: Annotated[Literal["normal", "abnormal", "polyp"] | None, Parameter(name="--class")] = None,
    guidance: float | None = None,
    between: tuple[Path, Path] | None = None,
    dimension: int | None = None,
    inpaint: Path | None = None,
    mask: Path | None = None,
    checkpoint: EndoVAECheckpoint = "auto",
    json: Json = False,
) -> None:
    """Generate frames: random ones, versions of a part of a frame, an interpolation, or a traversal of a latent dimension.

    For example: `pixelscope endovae generate runs/00001-endovae --inpaint healthy.jpg --mask polyp.png --out polyps.png`

    Args:
        run: Run folder of `endovae train`.
        out: File ending in .png: one grid. Else a folder to make: one PNG per frame, manifest.csv.
        count: Number of frames, at most 1,000,000, and in one grid 10,000.
        seed: Seed of the random latent vectors.
        prior: `auto` draws from the prior in RUN/prior where `endovae prior` has fitted one; `none` never.
        kind: Class of the frames, if the prior was fitted to both; `polyp` is the same as `abnormal`. With --inpaint, abnormal
            by default.
        guidance: Weight of the class, of a spatial code, from 0 to 100: 1 by default; larger ones exaggerate the class.
        between: Two image files to interpolate between.
        dimension: Latent dimension to traverse from -3 to 3, counted from 0; of a spatial code, a principal component.
        inpaint: Image file of which a part is redrawn, with a spatial code; the rest stays as it is.
        mask: Image file of the same size: white where the frame is redrawn, black elsewhere.
    """
    written = pixelscope.endovae.generate(
        run,
        out,
        count=count,
        seed=seed,
        prior=prior,
        kind=None if kind is None else FRAME_KINDS[kind],
        guidance=guidance,
        between=between,
        dimension=dimension,
        inpaint=inpaint,
        mask=mask,
        checkpoint=checkpoint,
    )
    show(written, json)
