"""A training of EndoVAE from configuration to run folder, started or resumed."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pixelscope.config import read_yaml
from pixelscope.data.frame_chunks import Report
from pixelscope.data.frame_store import FIGURES
from pixelscope.data.places import written
from pixelscope.endovae.batches import AugmentedBatches
from pixelscope.endovae.cohort import Cohort, load_cohort, load_own_cohort, settled
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.frame_samples import save_augmentation, save_frame_samples
from pixelscope.endovae.progress_samples import ProgressSamples
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine import runtime
from pixelscope.engine.launchers import await_tasks, require_main_guard
from pixelscope.engine.loop import Identity, Loop
from pixelscope.engine.run import RunFolder
from pixelscope.engine.sitting import Place, conduct, enter
from pixelscope.errors import InputError

SYSTEM = "endovae"


@dataclass(frozen=True)
class Job:
    """One training, ready to be launched: everything that could be refused has been looked at."""

    config: EndoVAEConfig
    cohort: Cohort
    place: Place


def train_endovae(
    config: EndoVAEConfig, *, runs: Path = Path("runs"), run: Path | None = None, report: Report | None = None
) -> Path:
    """Train encoder and decoder on frames of one kind, or both, and return the run folder.

    runs: where a numbered folder is made; run: a folder of the user's own choice, which must not exist.
    report: called with the frames done and all frames while a folder is prepared.
    Raises InputError for frames or settings that cannot be used, before the run folder is made.
    """
    require_main_guard()
    # Of processes that a launcher started, the first makes the folder while others may still be on their way here.
    if run is not None and runtime.is_first_process():
        RunFolder.refuse_existing(run)  # before minutes of preparing
    await_tasks(config.runtime.patience)
    cohort = load_cohort(config, report)
    config = settled(config, cohort)
    runtime.check_batch(config.training.batch_size, config.runtime)
    name = f"{SYSTEM}-{cohort.store.path.name.rsplit('-', 1)[0]}-seed{config.seed}"
    return _launch(Job(config, cohort, Place(SYSTEM, runs, name, run)))


def resume_endovae(run: Path, *, devices: int | None = None, epochs: int | None = None, frames: str | None = None) -> Path:
    """Go on with a stopped run to its end, from its newest checkpoint, and return its folder.

    devices: another number of devices than before; epochs: train to this many instead of the configured number.
    frames: where the run's own store, or the frames that it was made from, lie now, if they have moved.
    Raises InputError where the run or its frames cannot be used; the run is then left as it was.
    """
    require_main_guard()
    folder = RunFolder.open(run)
    config = read_config(folder)
    if epochs is not None:
        config = config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})
    if devices is not None:
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"devices": devices})})
    await_tasks(config.runtime.patience)
    cohort = load_own_cohort(folder, config, frames)
    if frames is not None:
        config = settled(config, cohort)
    runtime.check_batch(config.training.batch_size, config.runtime)
    return _launch(Job(config, cohort, Place.of(folder, SYSTEM)))


def read_config(folder: RunFolder) -> EndoVAEConfig:
    """Return the configuration of a run; raises InputError where it is not one of EndoVAE."""
    system = folder.read_record().get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not of endovae; give one of those.")
    return EndoVAEConfig.parse(read_yaml(folder.config), str(folder.config))


def _keep_preparation(cohort: Cohort, batches: AugmentedBatches, folder: RunFolder) -> None:
    """Keep in the run what its report shows of the frames, as the store may be gone by then."""
    folder.samples.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cohort.store.path / FIGURES, folder.samples / "preparation.npz")
    cohort.store.summary().save(folder.path / "frames.json")
    save_frame_samples(folder, cohort.store)
    save_augmentation(folder, batches)


def _launch(job: Job) -> Path:
    return runtime.launch(job.config.runtime, _run, job)


def _run(fabric: Fabric, job: Job) -> Path:
    """Train on one process of possibly several."""
    config, cohort = job.config, job.cohort
    batches = AugmentedBatches(cohort.train.rows, cohort.train.left_out_rows, config.augmentation, config.seed, fabric.device)
    durations = config.training.in_images(batches.epoch)
    validation = cohort.validation
    task = EndoVAETask(config, fabric, validation.rows, validation.left_out_rows, durations.ema_half_life)
    folder = enter(fabric, job.place, config, lambda folder: _keep_preparation(cohort, batches, folder))
    samples = ProgressSamples(folder, validation.rows, config.seed)
    identity = Identity(SYSTEM, _decisive(config), cohort.digests())
    loop = Loop(
        fabric, task, batches, folder, durations, identity, config.seed, sample=lambda images: samples.draw(task, images)
    )
    return conduct(
        fabric,
        loop,
        job.place,
        config,
        config.runtime,
        forget_after=samples.forget_after,
        system=SYSTEM,
        seed=config.seed,
        data=cohort.describe(config),
        paths=written({"frames": config.frames}, {"frames": str(cohort.store.path)}, folder.path),
        epoch=batches.epoch,
    )


def _decisive(config: EndoVAEConfig) -> dict[str, Any]:
    """Return the settings that decide the weights: not the machine, nor how long it runs, nor where data lies."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "frames": True})
    values["training"].pop("epochs")
    values["prepare"] = {name: value for name, value in values["prepare"].items() if value is not None}
    return values
