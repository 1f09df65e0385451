"""The commands of `pixelscope endovae`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

import pixelscope
from pixelscope.cli.output import Flag, show
from pixelscope.cli.settings import EndoVAESettings, Layers, Shorthands, given, given_names, resolve
from pixelscope.config import Config
from pixelscope.endovae import EndoVAEConfig, PrepareConfig
from pixelscope.errors import InputError

Rule = Literal["auto", "best-validation", "last", "ema-last"]
Score = Literal[
    "auto", "mse", "mse_no_overlay", "mse_tissue", "dssim_tissue", "mahalanobis", "mse_tissue+kl", "mse_no_overlay+mahalanobis"
]
Classes = Annotated[list[str] | None, Parameter(negative=())]

MAY_CHANGE = {"--resume", "--devices", "--training.epochs", "--frames"}
"""What may stand beside --resume: where it runs, where its frames lie, and how long it goes on."""

endovae = App(name="endovae", help="Learn what healthy endoscopy looks like; for research only.")


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Where a training writes, and whether it starts at all."""

    dry_run: Flag = False
    """Print the resolved settings and what they cost, and stop; frames are prepared where they are not yet."""
    resume: Path | None = None
    """Go on with this run from its last checkpoint; only --training.epochs may change, and --frames if they have moved."""
    out: Path | None = None
    """Run folder to make, which must not exist, in place of a numbered one in --runs."""
    runs: Path = Path("runs")
    """Folder in which numbered run folders are made."""


@Parameter(name="*")
@dataclass(frozen=True)
class EndoVAEShorthands(Shorthands):
    """Settings of EndoVAE that are often given, under shorter names."""

    train_on: Literal["normal", "abnormal", "both"] | None = None
    """Kind of frames to learn; short for --split.train-on."""

    def layer(self, model: type[Config]) -> dict[str, Any]:
        """Return what was given, as settings of the configuration `model`."""
        chosen = {} if self.train_on is None else {"split": {"train_on": self.train_on}}
        return {**super().layer(model), **chosen}


@endovae.command
def prepare(
    *folders: Path,
    normal: Classes = None,
    abnormal: Classes = None,
    out: Path | None = None,
    stores: Path = Path("stores"),
    settings: Annotated[PrepareConfig, Parameter(name="*")] = PrepareConfig(),
    json: Flag = False,
) -> None:
    """Prepare frames once: content area, insets, one size; print how many of which class and size there are.

    For example: pixelscope endovae prepare data/kvasir

    Parameters
    ----------
    folders
        Class folders of frames, or folders of class folders. Kvasir's names are known; masks lie in CLASS-masks.
    normal
        Name of a further class that is healthy; may be repeated.
    abnormal
        Name of a further class that is not; may be repeated.
    out
        Folder of the store, in place of a named one in --stores.
    stores
        Folder in which stores are made, and found again.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("preparing frames") as progress:
        store = pixelscope.endovae.prepare(
            folders, config=settings, out=out, stores=stores, normal=normal or (), abnormal=abnormal or (), progress=progress
        )
    figures = pixelscope.endovae.draw_frames(store)
    show(store.summary(), json)
    if not json:
        print("Figures: " + ", ".join(map(str, figures)))


@endovae.command
def train(
    *,
    layers: Layers = Layers(),
    short: EndoVAEShorthands = EndoVAEShorthands(),
    options: RunOptions = RunOptions(),
    settings: EndoVAESettings = EndoVAEConfig(),
) -> None:
    """Train encoder and decoder on frames of one kind, or both; then measure them and write the report.

    For example: pixelscope endovae train --frames data/kvasir
    """
    if options.resume is not None:
        run = _resume(options.resume, settings, layers, short, options)
    else:
        config = resolve(settings, "endovae", layers, short)
        if options.dry_run:
            print(pixelscope.endovae.plan(config).to_text())
            return
        run = _start(config, options)
    if pixelscope.is_first_process():
        print(pixelscope.evaluate(run).to_text())
        print(f"\nRun folder: {run}\nReport: {pixelscope.report(run)}")


@endovae.command
def evaluate(run: Path, /, *, frames: str | None = None, rule: Rule = "auto", json: Flag = False) -> None:
    """Measure a run: PSNR and SSIM of its reconstructions, and how anomaly scores tell abnormal frames, beside yardsticks.

    Parameters
    ----------
    run
        Run folder of `endovae train`.
    frames
        Store or folder of frames to measure on, all of them, in place of the run's own held-out ones.
    rule
        Which weights to measure; `auto` takes those of the lowest validation loss.
    json
        Print JSON.
    """
    show(pixelscope.evaluate(run, frames=frames, rule=rule), json)


@endovae.command
def score(
    model: Path,
    /,
    *paths: Path,
    out: Path,
    score: Score = "auto",
    false_positive_rate: float = 0.05,
    maps: Path | None = None,
    rule: Rule = "auto",
    devices: int = 1,
    resume: Flag = False,
    json: Flag = False,
) -> None:
    """Score frames, any number of them, into a table: how unusual each is beside healthy ones. For research only.

    For example: pixelscope endovae score runs/00001-endovae frames/ --out scores.csv --maps maps/

    Parameters
    ----------
    model
        Run folder of `endovae train`, evaluated, or a file made by `export`.
    paths
        Image files, or folders of them at any depth.
    out
        File to write, ending in .csv or .jsonl: name, score, p-value, flagged or not; it must not exist.
    score
        Which score; `auto` takes the one chosen on the run's validation frames.
    false_positive_rate
        Share of healthy frames that may be flagged.
    maps
        Folder to make, for a PNG a frame: where its reconstruction differs, laid over it at its own size.
    rule
        Which weights of a run; `auto` takes those of the lowest validation loss, and a finished run only.
    devices
        GPUs to use, or without one, threads that compute.
    resume
        Go on with a table that was left unfinished.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("scoring") as progress:
        found = pixelscope.endovae.score(
            model,
            paths,
            out,
            score=score,
            false_positive_rate=false_positive_rate,
            maps=maps,
            rule=rule,
            devices=devices,
            resume=resume,
            progress=progress,
        )
    show(found, json)


@endovae.command
def reconstruct(
    run: Path,
    /,
    *paths: Path,
    out: Path,
    sampled: Flag = False,
    seed: int = 0,
    rule: Rule = "auto",
    devices: int = 1,
    resume: Flag = False,
    json: Flag = False,
) -> None:
    """Reconstruct frames as the run has learnt to see them, and say how near they come.

    Parameters
    ----------
    run
        Run folder of `endovae train`.
    paths
        Image files, or folders of them at any depth.
    out
        File ending in .png for one grid, frames over reconstructions; else a folder to make: a PNG a frame, manifest.csv.
    sampled
        Reconstruct from a sample of the posterior in place of its mean.
    seed
        Seed of these samples.
    rule
        Which weights; `auto` takes those of the lowest validation loss.
    devices
        GPUs to use for a folder, or without one, threads that compute.
    resume
        Go on with a folder that was left unfinished.
    json
        Print JSON.
    """
    with pixelscope.ProgressBar("reconstructing") as progress:
        written = pixelscope.endovae.reconstruct(
            run, paths, out, sampled=sampled, seed=seed, rule=rule, devices=devices, resume=resume, progress=progress
        )
    show(written, json)


@endovae.command
def generate(
    run: Path,
    /,
    *,
    out: Path,
    count: int = 9,
    seed: int = 0,
    between: tuple[Path, Path] | None = None,
    dimension: int | None = None,
    rule: Rule = "auto",
    json: Flag = False,
) -> None:
    """Draw new frames: random ones, the way between two frames, or one latent dimension from -3 to 3.

    Parameters
    ----------
    run
        Run folder of `endovae train`.
    out
        File ending in .png for one grid; else a folder for a PNG a frame.
    count
        How many.
    seed
        Seed of the random latent vectors.
    between
        Two image files to go from and to.
    dimension
        Latent dimension to walk along, from 0.
    rule
        Which weights; `auto` takes those of the lowest validation loss.
    json
        Print JSON.
    """
    written = pixelscope.endovae.generate(run, out, count=count, seed=seed, between=between, dimension=dimension, rule=rule)
    show(written, json)


def _start(config: EndoVAEConfig, options: RunOptions) -> Path:
    with pixelscope.ProgressBar("preparing frames") as progress:
        return pixelscope.endovae.train(config, runs=options.runs, run=options.out, progress=progress)


def _resume(run: Path, flags: EndoVAEConfig, layers: Layers, short: Shorthands, options: RunOptions) -> Path:
    others = [name for name in given_names(flags, layers, short, options) if name not in MAY_CHANGE]
    if others:
        raise InputError(f"--resume goes on with the settings of its run; drop {', '.join(others)}, or start a new run.")
    changed = given(flags)
    epochs = changed.get("training", {}).get("epochs")
    return pixelscope.resume(run, devices=short.devices, epochs=epochs, frames=changed.get("frames"))
