"""A training session: starts a run or resumes one, on one process or several; a `Job` says what is trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lightning_fabric import Fabric
from rich.console import Console

from pixelscope.config import Config
from pixelscope.engine import runtime
from pixelscope.engine.capture import Batches, ImagesOfStep
from pixelscope.engine.config import TrainingConfig
from pixelscope.engine.cores import leave_busy_cores
from pixelscope.engine.distributed import await_tasks, require_main_guard
from pixelscope.engine.loop import Loop, RunIdentity
from pixelscope.engine.task import Task
from pixelscope.errors import InputError, TrainingStopped
from pixelscope.files import DISK_FULL
from pixelscope.runs.folder import RunFolder, command_line, git_revision, versions

C = TypeVar("C", bound=Config)


class Samples(Protocol):
    """The same images drawn again and again while a training runs."""

    def draw(self, task: Any, images: int) -> None:
        """Store what `task` draws after `images` images."""
        ...

    def forget_after(self, images: int) -> None:
        """Drop what was drawn after `images` images."""
        ...


class NoSamples:
    """The samples of a task that draws nothing."""

    def __init__(self, folder: RunFolder) -> None:
        pass

    def draw(self, task: Any, images: int) -> None:
        """Do nothing."""

    def forget_after(self, images: int) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Place:
    """Where a session writes: a run folder, made once everything is ready, or the run that it resumes."""

    runs: Path
    """Where a numbered folder is made."""
    run: Path | None = None
    """A folder of the user's own choice, or the run to resume."""
    resumed: bool = False
    take_over: bool = False
    """Whether the lock of another machine's process that has given no sign of life for ten minutes is taken."""


@dataclass(frozen=True)
class Training:
    """What one process trains, and what it keeps in the run folder besides checkpoints and statistics."""

    name: str
    """What a numbered run folder is called after its number."""
    task: Task[Any]
    batches: Batches[Any]
    durations: TrainingConfig
    settings: dict[str, Any]
    """Settings that decide the weights; a checkpoint made with others is refused."""
    digests: dict[str, str]
    """SHA-256 of everything that is trained on; a checkpoint made with other data is refused."""
    describe: Callable[[Path], dict[str, Any]]
    """Returns what run.json says of the data, given the run folder's path."""
    begin: Callable[[RunFolder], None] = lambda folder: None
    """Writes what a new run begins with besides its record and configuration."""
    snapshot: Callable[[RunFolder, int], None] = lambda folder, images: None
    """Stores, at each evaluation, what later stages need of the networks after so many images."""
    samples: Callable[[RunFolder], Samples] = NoSamples


@dataclass(frozen=True)
class Job(ABC):
    """One training that can be sent to every process: everything that could be refused has been looked at."""

    system: str
    config: Any
    """The system's configuration, with `seed` and `runtime`."""
    place: Place

    @abstractmethod
    def build(self, fabric: Fabric) -> Training:
        """Build networks and batches on one process; nothing is written yet."""

    def run(self) -> Path:
        """Train to the end on every process, and return the path of the run folder."""
        job = self if self.place.resumed else _leaving_busy_cores(self)
        return runtime.launch(job.config.runtime, _run_session, job)


def _leaving_busy_cores(job: Job) -> Job:
    """Return a job with fewer threads if cores are busy, and print why; config.yaml keeps the number for resuming."""
    settings, why = leave_busy_cores(job.config.runtime)
    if not why:
        return job
    Console(stderr=True).print(why, markup=False, highlight=False, soft_wrap=True)
    return replace(job, config=job.config.model_copy(update={"runtime": settings}))


def check_start(config: Any, run: Path | None) -> None:
    """Refuse, before minutes of reading, a run folder that exists and a batch that cannot be divided; meet the other tasks."""
    require_main_guard()
    # Of processes that a launcher started, the first makes the folder while others may still be on their way here.
    if run is not None and runtime.is_first_process():
        RunFolder.refuse_existing(run)
    _check_runtime(config)


def check_resume(
    run: Path, read: Callable[[RunFolder], C], changes: dict[str, Any], take_over: bool = False
) -> tuple[RunFolder, C, Place]:
    """Find a run to resume, and return it with its configuration, `changes` laid over it, and its place.

    read: reads the configuration, and raises InputError where the run is of another system.
    changes: nested settings; None leaves one as it is.
    take_over: see `RunFolder.locked`.
    """
    require_main_guard()
    folder = RunFolder.open(run)
    # Of processes that a launcher started, the first takes the lock while others may still be on their way here.
    if runtime.is_first_process():
        folder.require_free(take_over)
    config = read(folder).with_settings(changes)
    _check_runtime(config)
    return folder, config, Place(folder.path.parent, folder.path, resumed=True, take_over=take_over)


def _check_runtime(config: Any) -> None:
    runtime.check_batch(config.training.batch_size, config.runtime)
    await_tasks(config.runtime.collective_timeout)


def _run_session(fabric: Fabric, job: Job) -> Path:
    """Train on one process, and return the run folder's path; its record says in which state it is left.

    Of a resumed run nothing is changed before its newest checkpoint has been read and found to be of this configuration and
    these images.
    """
    training = job.build(fabric)
    resolved = runtime.resolve_runtime(job.config.runtime)
    if resolved.compile:
        training.task.compile()
    with ExitStack() as stack:
        folder = _folder(fabric, job, training, stack)
        samples = training.samples(folder)
        loop = Loop(
            fabric,
            training.task,
            training.batches,
            folder,
            training.durations,
            RunIdentity(job.system, training.settings, training.digests),
            job.config.seed,
            snapshot=lambda images: training.snapshot(folder, images),
            sample=lambda images: samples.draw(training.task, images),
            capture=resolved.capture,
        )
        stack.enter_context(_full_disk(folder))
        kept = loop.restore() if job.place.resumed else -1
        loop.barrier.wait()
        first = fabric.is_global_zero
        if first and job.place.resumed:
            job.config.save(folder.config)
            folder.forget_stats_after(kept)
            samples.forget_after(kept)
        if first:
            _record_session(fabric, folder, job, training)
        _train(loop, folder, first)
    return folder.path


def _folder(fabric: Fabric, job: Job, training: Training, stack: ExitStack) -> RunFolder:
    """Return the run folder on every process; the first process makes that of a new run, and locks it until `stack` ends.

    A new run has left nothing on disk before.
    """

    def begin(folder: RunFolder) -> None:
        folder.update_record(system=job.system, state="running", command=command_line())
        training.begin(folder)
        job.config.save(folder.config)  # at last: without it, what a killed start leaves is no run that could be resumed

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
    state = "stopped"
    try:
        loop.train()
        state = "finished"
    finally:
        if first and not folder.is_lost():
            with suppress(OSError) if state == "stopped" else nullcontext():  # what stopped it is the error to report
                folder.update_record(state=state)


@contextmanager
def _full_disk(folder: RunFolder) -> Iterator[None]:
    """Say, where the disk is full, what the run folder keeps and how to continue."""
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
    """Return a line for each set that is too large for the memory of the GPU."""
    return [
        f"Note on the {name}: {images.nbytes / 1e9:.1f} GB are too much for the GPU's memory; each step sends its own images."
        for name, images in sets.items()
        if images.device.type != "cpu" and not images.resident
    ]


def _record_session(fabric: Fabric, folder: RunFolder, job: Job, training: Training) -> None:
    """Write into run.json what runs, on what and with which data, and print the notes on the data."""
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
        hardware=runtime.hardware(fabric),
        runtime=vars(resolved),
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in training.task.networks.items()},
        sessions=before + 1,
        goal=training.durations.images,
        system=job.system,
        seed=job.config.seed,
        **about,
    )
