"""A training session: starts or resumes a run, on one process or several; a `Job` defines what is trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rich.console import Console

from pixelscope.config import Config
from pixelscope.engine import runtime
from pixelscope.engine.capture import Batches, ImagesOfStep
from pixelscope.engine.config import TrainingConfig
from pixelscope.engine.distributed import is_first_process
from pixelscope.engine.launch import await_tasks, hardware, launch, require_main_guard
from pixelscope.engine.loop import Loop, RunIdentity
from pixelscope.engine.monitor import TensorBoardEvents
from pixelscope.engine.runtime import leave_busy_cores
from pixelscope.engine.task import Task
from pixelscope.errors import InputError, Interrupted, TrainingStopped, require_extra
from pixelscope.files import DISK_FULL
from pixelscope.runs.folder import RunFolder, command_line, git_revision, versions
from pixelscope.runs.listing import newest_samples

if TYPE_CHECKING:
    from lightning_fabric import Fabric

C = TypeVar("C", bound=Config)


class Samples(Protocol):
    """Images drawn at intervals during a training, always from the same inputs."""

    def draw(self, task: Any, images: int) -> None:
        """Store the images of `task` after `images` images."""
        ...

    def forget_after(self, images: int) -> None:
        """Drop the images of later points."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a session writes: a new run folder, created once everything is ready, or the run that it resumes."""

    runs: Path
    """Parent of a numbered run folder."""
    run: Path | None = None
    """Folder chosen by the user, or the run to resume."""
    resumed: bool = False
    take_over: bool = False
    """Whether to take the lock of another machine's process that has been silent for ten minutes."""


@dataclass(frozen=True)
class Training:
    """What one process trains, and what it writes to the run folder besides checkpoints and statistics."""

    name: str
    """Name of a numbered run folder, after its number."""
    task: Task[Any]
    batches: Batches[Any]
    durations: TrainingConfig
    settings: dict[str, Any]
    """Settings that determine the weights; a checkpoint with others is refused."""
    digests: dict[str, str]
    """SHA-256 of all training data; a checkpoint with others is refused."""
    describe: Callable[[Path], dict[str, Any]]
    """Returns the entries of run.json about the data, given the path of the run folder."""
    begin: Callable[[RunFolder], None] = lambda folder: None
    """Writes the first files of a new run besides record and configuration."""
    snapshot: Callable[[RunFolder, int], None] = lambda folder, images: None
    """Called at each evaluation with the number of images seen; stores the networks that later stages need."""
    samples: Callable[[RunFolder], Samples] | None = None
    """Returns the writer of samples; None if the task draws none."""


@dataclass(frozen=True)
class Job(ABC):
    """A checked training, ready to be sent to every process."""

    system: str
    config: Any
    """The system's configuration, with `seed` and `runtime`."""
    place: Place

    @abstractmethod
    def build(self, fabric: "Fabric") -> Training:
        """Build networks and batches on one process, without writing anything."""

    def run(self) -> Path:
        """Train to the end on every process, and return the path of the run folder."""
        job = self if self.place.resumed else _leaving_busy_cores(self)
        return launch(job.config.runtime, _run_session, job)


def _leaving_busy_cores(job: Job) -> Job:
    """Return a job with fewer threads if cores are busy, and print why; config.yaml records the number for resuming."""
    settings, why = leave_busy_cores(job.config.runtime)
    if not why:
        return job
    Console(stderr=True).print(why, markup=False, highlight=False, soft_wrap=True)
    return replace(job, config=job.config.model_copy(update={"runtime": settings}))


def check_start(config: Any, run: Path | None) -> None:
    """Check, before data are read, that the run folder is new and the batch divisible; then wait for the other tasks."""
    require_main_guard()
    # Only the first process checks, because it may have created the folder before the others get here.
    if run is not None and is_first_process():
        RunFolder.refuse_existing(run)
    _check_runtime(config)


def check_resume(
    run: Path, read: Callable[[RunFolder], C], changes: dict[str, Any], take_over: bool = False
) -> tuple[RunFolder, C, Place]:
    """Open a run to resume; return it, its configuration with `changes`, and its place.

    read: reads the configuration; raises InputError if the run is of another system.
    changes: nested settings; None leaves a setting unchanged.
    take_over: see `RunFolder.locked`.
    """
    require_main_guard()
    folder = RunFolder.open(run)
    # Only the first process checks, because it may have taken the lock before the others get here.
    if is_first_process():
        folder.require_free(take_over)
    config = read(folder).with_settings(changes)
    _check_runtime(config)
    return folder, config, Place(folder.path.parent, folder.path, resumed=True, take_over=take_over)


def _check_runtime(config: Any) -> None:
    if config.training.tensorboard:
        require_extra("tensorboard", "--training.tensorboard")
    runtime.check_batch(config.training.batch_size, config.runtime)
    await_tasks(config.runtime.collective_timeout)


def _run_session(fabric: "Fabric", job: Job) -> Path:
    """Train on one process, and return the path of the run folder; run.json records the final state.

    A resumed run is changed only after its newest checkpoint has been read and matches configuration and images.
    """
    training = job.build(fabric)
    resolved = runtime.resolve_runtime(job.config.runtime)
    if resolved.compile:
        training.task.compile()
    with ExitStack() as stack:
        folder = _folder(fabric, job, training, stack)
        samples = None if training.samples is None else training.samples(folder)
        loop = Loop(
            fabric,
            training.task,
            training.batches,
            folder,
            training.durations,
            RunIdentity(job.system, training.settings, training.digests),
            job.config.seed,
            snapshot=lambda images: training.snapshot(folder, images),
            sample=lambda images: _sample(loop, samples, training.task, images),
            capture=resolved.capture,
        )
        stack.enter_context(_full_disk(folder))
        kept = loop.restore() if job.place.resumed else -1
        loop.barrier.wait()
        first = fabric.is_global_zero
        if first and job.place.resumed:
            job.config.save(folder.config)
            folder.forget_stats_after(kept)
            if samples is not None:
                samples.forget_after(kept)
        if first:
            _record_session(fabric, folder, job, training)
        if first and training.durations.tensorboard:
            events = TensorBoardEvents(folder.path, kept if job.place.resumed else None)
            stack.callback(events.close)
            loop.events = events
        _train(loop, folder, first)
    return folder.path


def _sample(loop: Loop[Any], samples: Samples | None, task: Task[Any], images: int) -> None:
    if samples is None:
        return
    samples.draw(task, images)
    if loop.events is not None:
        loop.events.samples(newest_samples(loop.run.path), images)


def _folder(fabric: "Fabric", job: Job, training: Training, stack: ExitStack) -> RunFolder:
    """Return the run folder on every process; the first process creates it for a new run, and locks it until `stack` ends.

    A new run writes nothing to disk before this.
    """

    def begin(folder: RunFolder) -> None:
        folder.update_record(system=job.system, state="running", command=command_line())
        training.begin(folder)
        job.config.save(folder.config)  # last, so that a folder with it can be resumed

    place = job.place
    if not fabric.is_global_zero:
        path = fabric.broadcast(place.run)
        assert path is not None
        return RunFolder(path)
    if place.run is not None and place.resumed:
        folder = RunFolder(place.run)
        stack.enter_context(folder.locked("trained", place.take_over))
    else:
        try:
            folder = stack.enter_context(RunFolder.create(place.runs, training.name, place.run, begin))
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise InputError(
                f"The disk is full ({error.filename}); no run was started; free some space, then start it again."
            ) from None
    fabric.broadcast(folder.path)
    return folder


def _train(loop: Loop[Any], folder: RunFolder, first: bool) -> None:
    state, together = "stopped", False
    try:
        loop.train()
        state = "finished"
    except Interrupted:
        together = True
        raise
    finally:
        if first and not folder.is_lost():
            # The error that stopped the training is the one to report.
            with suppress(OSError) if state == "stopped" else nullcontext():
                folder.update_record(state=state)
        if together:
            # Torch kills all processes as soon as one has raised; the first must have written the record by then.
            with suppress(RuntimeError):
                loop.barrier.wait()


@contextmanager
def _full_disk(folder: RunFolder) -> Iterator[None]:
    """Turn the error of a full disk into one that names the newest checkpoint and how to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        files = folder.checkpoint_files()
        newest = [f"its checkpoint after {int(path.stem.removeprefix('images-')):,} images" for path in files[-1:]]
        kept = next(iter(newest), "no checkpoint yet")
        raise TrainingStopped(
            f"The disk is full ({error.filename}); {folder.path} has {kept}; free some space, then continue with --resume "
            f"{folder.path}."
        ) from None


def streamed(sets: Mapping[str, ImagesOfStep]) -> list[str]:
    """Return a note per set that does not fit into the memory of the GPU."""
    return [
        f"Note on the {name}: {images.nbytes / 1e9:.1f} GB do not fit into the GPU's memory; each step copies its images."
        for name, images in sets.items()
        if images.device.type != "cpu" and not images.resident
    ]


def _record_session(fabric: "Fabric", folder: RunFolder, job: Job, training: Training) -> None:
    """Write versions, hardware, settings and data to run.json, and print the notes on the data."""
    about, resolved = training.describe(folder.path), runtime.resolve_runtime(job.config.runtime)
    notes = [f"Note on the {role}: {note}" for role, data in about["data"].items() for note in data.get("notes", ())]
    notes += streamed(training.batches.sets())
    for line in (f"Runs on {resolved.describe()}.", *notes, *about.get("notes", ())):
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    before = folder.read_record().get("sessions", 0) if job.place.resumed else 0
    folder.update_record(
        state="running",
        name=folder.path.name,
        versions=versions(),
        git=git_revision(),
        hardware=hardware(fabric),
        runtime=vars(resolved),
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in training.task.networks.items()},
        sessions=before + 1,
        goal=training.durations.images,
        system=job.system,
        seed=job.config.seed,
        **about,
    )
