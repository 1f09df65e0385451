"""Starts and resumes trainings of EndoVAE."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelscope.data.frames.store import FIGURES
from pixelscope.data.sources.relocate import written
from pixelscope.endovae.checkpoints import SYSTEM, read_config
from pixelscope.endovae.config import PRETRAINED, EndoVAEConfig
from pixelscope.endovae.cost import summarize_endovae
from pixelscope.endovae.data import AugmentedBatches, Splits, load_run_splits, load_splits, with_store_settings
from pixelscope.endovae.samples import ProgressSamples, save_augmentation, save_frame_samples
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine.session import Job, Place, Training, check_resume, check_start
from pixelscope.errors import require_extra
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.progress import ProgressCallback

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class FramesJob(Job):
    """A training of EndoVAE."""

    config: EndoVAEConfig
    splits: Splits

    def build(self, fabric: "Fabric") -> Training:
        """Build the task and the batches."""
        config, train, validation = self.config, self.splits.train, self.splits.validation
        batches = AugmentedBatches(train.rows, train.ignore_mask, config.augmentation, config.seed, fabric.device)
        durations = config.training.in_images(batches.epoch)
        return Training(
            f"{SYSTEM}-{self.splits.store.path.name.rsplit('-', 1)[0]}-seed{config.seed}",
            EndoVAETask(
                config,
                fabric,
                validation.rows,
                validation.ignore_mask,
                durations.ema_half_life,
                config.losses.adversarial_from * batches.epoch,
            ),
            batches,
            durations,
            settings=_identity(config),
            digests=self.splits.digests(),
            describe=lambda run: {**self.describe(run), "epoch": batches.epoch},
            begin=lambda folder: _save_frame_figures(self.splits, batches, folder),
            samples=lambda folder: ProgressSamples(folder, validation.rows, config.seed),
        )

    def describe(self, run: Path) -> dict[str, Any]:
        """Return the entries of run.json about the frames."""
        paths = written({"frames": self.config.frames}, {"frames": str(self.splits.store.path)}, run)
        return {"data": self.splits.describe(self.config), "paths": paths}


def train_endovae(
    config: EndoVAEConfig, *, runs: Path = Path("runs"), run: Path | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Train an EndoVAE.

    Args:
        config: all settings; `frames` names the frame store or folder.
        runs: folder in which a numbered run folder is created.
        run: run folder instead of a numbered one; it must not exist.
        progress: called with the number of prepared frames and of all frames while a folder is prepared.

    Returns:
        The run folder.

    Raises:
        InputError: frames or settings cannot be used; no run folder is created.

    Example:
        >>> config = pixelscope.endovae.EndoVAEConfig(frames="stores/kvasir")
        >>> run = pixelscope.endovae.train(config, run=Path("runs/healthy"))
    """
    check_start(config, run)
    config = config.with_settings({})  # Refuses settings that have no effect next to the defaults of others.
    if config.losses.perceptual:
        require_extra(PRETRAINED, "A perceptual loss")
    splits = load_splits(config, progress)
    config = with_store_settings(config, splits)
    # Refused before a run folder is made.
    config.model.code_shape(config.prepare.size)
    config.training.require_average(config.augmentation.images_per_epoch(len(splits.train)))
    summarize_endovae(config).require_memory()
    return FramesJob(SYSTEM, config, Place(runs, run), splits).run()


def resume_endovae(
    run: Path,
    *,
    devices: int | None = None,
    threads: int | None = None,
    epochs: int | None = None,
    frames: str | None = None,
    take_over: bool = False,
) -> Path:
    """Resume a stopped run from its newest checkpoint.

    Args:
        run: the run folder.
        devices: number of devices, if it changes.
        threads: CPU threads per process, if it changes; 0 takes the free cores.
        epochs: number of epochs, if it changes.
        frames: new path of the frame store, or of the folder that it was prepared from, if it has moved.
        take_over: take the run's lock from another machine that has been silent for ten minutes.

    Returns:
        The run folder.

    Raises:
        InputError: the run or its frames cannot be used, or another process trains it; the run is left unchanged.
    """
    changes = {"training": {"epochs": epochs}, "runtime": {"devices": devices, "threads": threads}}
    folder, config, place = check_resume(run, read_config, changes, take_over)
    splits = load_run_splits(folder, config, folder.read_record(), frames)
    return FramesJob(SYSTEM, config if frames is None else with_store_settings(config, splits), place, splits).run()


def _save_frame_figures(splits: Splits, batches: AugmentedBatches, folder: RunFolder) -> None:
    """Store the frames shown in the report in the run, because the frame store may be deleted later."""
    folder.samples.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(splits.store.path / FIGURES, folder.samples / "preparation.npz")
    splits.store.summary().save(folder.path / "frames.json")
    save_frame_samples(folder, splits.store)
    save_augmentation(folder, batches)


def _identity(config: EndoVAEConfig) -> dict[str, Any]:
    """Return the settings that determine the weights: without runtime, number of epochs and paths."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "frames": True})
    for name in ("epochs", "tensorboard"):
        values["training"].pop(name)
    values["prepare"] = {name: value for name, value in values["prepare"].items() if value is not None}
    return values
