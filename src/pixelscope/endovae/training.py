"""A training of EndoVAE from configuration to run folder, started or resumed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pixelscope.data.frames.store import FIGURES
from pixelscope.data.sources.relocate import written
from pixelscope.endovae.checkpoints import SYSTEM, read_config
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import AugmentedBatches, Splits, load_run_splits, load_splits, with_store_settings
from pixelscope.endovae.samples import ProgressSamples, save_augmentation, save_frame_samples
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine.session import Job, Place, Training, check_resume, check_start
from pixelscope.progress import ProgressCallback
from pixelscope.runs.folder import RunFolder


@dataclass(frozen=True)
class FramesJob(Job):
    """A training of EndoVAE."""

    config: EndoVAEConfig
    splits: Splits

    def build(self, fabric: Fabric) -> Training:
        """Build encoder and decoder, and batches of frames with their altered copies."""
        config, train, validation = self.config, self.splits.train, self.splits.validation
        batches = AugmentedBatches(train.rows, train.ignore_mask_array, config.augmentation, config.seed, fabric.device)
        durations = config.training.in_images(batches.epoch)
        return Training(
            f"{SYSTEM}-{self.splits.store.path.name.rsplit('-', 1)[0]}-seed{config.seed}",
            EndoVAETask(config, fabric, validation.rows, validation.ignore_mask_array, durations.ema_half_life),
            batches,
            durations,
            settings=_decisive(config),
            digests=self.splits.digests(),
            describe=lambda run: {**self.describe(run), "epoch": batches.epoch},
            begin=lambda folder: _keep_preparation(self.splits, batches, folder),
            samples=lambda folder: ProgressSamples(folder, validation.rows, config.seed),
        )

    def describe(self, run: Path) -> dict[str, Any]:
        """Return what run.json says of the frames."""
        paths = written({"frames": self.config.frames}, {"frames": str(self.splits.store.path)}, run)
        return {"data": self.splits.describe(self.config), "paths": paths}


def train_endovae(
    config: EndoVAEConfig, *, runs: Path = Path("runs"), run: Path | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Train encoder and decoder on frames of one kind, or both, and return the run folder.

    runs: where a numbered folder is made; run: a folder of the user's own choice, which must not exist.
    progress: called with the frames done and all frames while a folder is prepared.
    Raises InputError for frames or settings that cannot be used, before the run folder is made.
    """
    check_start(config, run)
    splits = load_splits(config, progress)
    return FramesJob(SYSTEM, with_store_settings(config, splits), Place(runs, run), splits).run()


def resume_endovae(run: Path, *, devices: int | None = None, epochs: int | None = None, frames: str | None = None) -> Path:
    """Go on with a stopped run to its end, from its newest checkpoint, and return its folder.

    devices: another number of devices than before; epochs: train to this many instead of the configured number.
    frames: where the run's own store, or the frames that it was made from, lie now, if they have moved.
    Raises InputError where the run or its frames cannot be used; the run is then left as it was.
    """
    changes = {"training": {"epochs": epochs}, "runtime": {"devices": devices}}
    folder, config, place = check_resume(run, read_config, changes)
    splits = load_run_splits(folder, config, folder.read_record(), frames)
    return FramesJob(SYSTEM, config if frames is None else with_store_settings(config, splits), place, splits).run()


def _keep_preparation(splits: Splits, batches: AugmentedBatches, folder: RunFolder) -> None:
    """Keep in the run what its report shows of the frames, as the store may be gone by then."""
    folder.samples.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(splits.store.path / FIGURES, folder.samples / "preparation.npz")
    splits.store.summary().save(folder.path / "frames.json")
    save_frame_samples(folder, splits.store)
    save_augmentation(folder, batches)


def _decisive(config: EndoVAEConfig) -> dict[str, Any]:
    """Return the settings that decide the weights: not the machine, nor how long it runs, nor where data lies."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "frames": True})
    values["training"].pop("epochs")
    values["prepare"] = {name: value for name, value in values["prepare"].items() if value is not None}
    return values
