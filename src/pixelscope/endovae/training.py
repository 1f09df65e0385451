"""A training of EndoVAE from configuration to run folder, started or resumed."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pixelscope.config import read_yaml
from pixelscope.data.frame_chunks import Report
from pixelscope.data.frame_store import FIGURES
from pixelscope.endovae.batches import AugmentedBatches
from pixelscope.endovae.cohort import Cohort, load_cohort, settled
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.frame_samples import save_augmentation, save_frame_samples
from pixelscope.endovae.progress_samples import ProgressSamples
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine import runtime
from pixelscope.engine.loop import Identity, Loop
from pixelscope.engine.run import RunFolder
from pixelscope.engine.sitting import conduct, record_sitting
from pixelscope.errors import InputError
from pixelscope.files import write_text

SYSTEM = "endovae"


@dataclass(frozen=True)
class Job:
    """One training, ready to be launched: everything that could be refused has been looked at."""

    config: EndoVAEConfig
    cohort: Cohort
    run: Path | None
    """The run folder; None on processes other than the first."""
    resumed: bool


def train_endovae(
    config: EndoVAEConfig, *, runs: Path = Path("runs"), run: Path | None = None, report: Report | None = None
) -> Path:
    """Train encoder and decoder on frames of one kind, or both, and return the run folder.

    runs: where a numbered folder is made; run: a folder of the user's own choice, which must not exist.
    report: called with the frames done and all frames while a folder is prepared.
    Raises InputError for frames or settings that cannot be used, before the run folder is made.
    """
    # Of processes that a launcher started, the first makes the folder while others may still be on their way here.
    if run is not None and runtime.is_first_process():
        RunFolder.refuse_existing(run)  # before minutes of preparing
    cohort = load_cohort(config, report)
    config = settled(config, cohort)
    runtime.check_batch(config.training.batch_size, config.runtime)
    if not runtime.is_first_process():
        return _launch(Job(config, cohort, None, resumed=False))
    folder = RunFolder.create(runs, f"{SYSTEM}-{cohort.store.path.name.rsplit('-', 1)[0]}-seed{config.seed}", run)
    config.save(folder.config)
    _keep_preparation(cohort, folder)
    return _launch(Job(config, cohort, folder.path, resumed=False))


def resume_endovae(run: Path, *, devices: int | None = None, epochs: int | None = None) -> Path:
    """Go on with a stopped run to its end, from its newest checkpoint, and return its folder.

    devices: another number of devices than before; epochs: train to this many instead of the configured number.
    """
    folder = RunFolder.open(run)
    config = read_config(folder)
    if epochs is not None:
        config = config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})
    if devices is not None:
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"devices": devices})})
    cohort = load_cohort(config)
    runtime.check_batch(config.training.batch_size, config.runtime)
    config.save(folder.config)
    return _launch(Job(config, cohort, folder.path, resumed=True))


def read_config(folder: RunFolder) -> EndoVAEConfig:
    """Return the configuration of a run; raises InputError where it is not one of EndoVAE."""
    system = folder.read_record().get("system")
    if system != SYSTEM:
        raise InputError(f"{folder.path} is a run of {system!r}, not of endovae; give one of those.")
    return EndoVAEConfig.parse(read_yaml(folder.config), str(folder.config))


def _keep_preparation(cohort: Cohort, folder: RunFolder) -> None:
    """Keep in the run what its report shows of the frames, as the store may be gone by then."""
    folder.samples.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cohort.store.path / FIGURES, folder.samples / "preparation.npz")
    write_text(folder.path / "frames.json", json.dumps(cohort.store.summary().to_dict(), indent=1) + "\n")
    save_frame_samples(folder, cohort.store)


def _launch(job: Job) -> Path:
    return runtime.launch(job.config.runtime, _run, job)


def _run(fabric: Fabric, job: Job) -> Path:
    """Train on one process of possibly several."""
    path = fabric.broadcast(job.run)
    assert path is not None
    folder, config, cohort = RunFolder(path), job.config, job.cohort
    batches = AugmentedBatches(cohort.train.rows, cohort.train.left_out_rows, config.augmentation, config.seed, fabric.device)
    durations = config.training.in_images(batches.epoch)
    validation = cohort.validation
    task = EndoVAETask(config, fabric, validation.rows, validation.left_out_rows, durations.ema_half_life)
    samples = ProgressSamples(folder, validation.rows, config.seed)
    identity = Identity(SYSTEM, _decisive(config), cohort.digests())
    loop = Loop(
        fabric, task, batches, folder, durations, identity, config.seed, sample=lambda images: samples.draw(task, images)
    )
    data, about = cohort.describe(config), {"epoch": batches.epoch}
    record_sitting(
        fabric, folder, task, config.runtime, resumed=job.resumed, system=SYSTEM, seed=config.seed, data=data, **about
    )
    if fabric.is_global_zero and not job.resumed:
        save_augmentation(folder, batches)
    if job.resumed:
        kept = loop.restore()
        if fabric.is_global_zero:
            samples.forget_after(kept)
    return conduct(fabric, loop, folder)


def _decisive(config: EndoVAEConfig) -> dict[str, Any]:
    """Return the settings that decide the weights: not the machine, nor how long it runs, nor where data lies."""
    values = config.model_dump(mode="json", exclude={"runtime": True, "frames": True})
    values["training"].pop("epochs")
    return values
