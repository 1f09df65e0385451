"""The training loop, for any task and any batches; durations are in images seen."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor

from pixelscope.config import merge
from pixelscope.engine import checkpoint
from pixelscope.engine.capture import Batches, CapturedSteps, EagerSteps
from pixelscope.engine.checkpoint import CheckpointHeader, Progress
from pixelscope.engine.config import TrainingConfig
from pixelscope.engine.distributed import Barrier, average, check_agreement, ranks
from pixelscope.engine.monitor import FiniteGuard, Meter, TensorBoardEvents
from pixelscope.engine.task import Task
from pixelscope.errors import InputError, Interrupted
from pixelscope.rng import StepContext
from pixelscope.runs.folder import RunFolder
from pixelscope.runs.progress import Display, Silent, training_display

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Batch = TypeVar("Batch")
KEPT = 2
"""Number of numbered checkpoints kept."""


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint and the run that resumes from it must share."""

    system: str
    config: dict[str, Any]
    data: dict[str, str]


class Loop(Generic[Batch]):
    """Trains one task and writes log, evaluations, samples and checkpoints to a run folder.

    snapshot(images): called on rank 0 at each evaluation; stores what later stages need.
    sample(images): called on rank 0 at each grid of samples.
    capture: capture the steps as CUDA graphs; on a CPU they run the same way without graphs.
    """

    def __init__(
        self,
        fabric: "Fabric",
        task: Task[Batch],
        batches: Batches[Batch],
        run: RunFolder,
        config: TrainingConfig,
        identity: RunIdentity,
        seed: int,
        snapshot: Callable[[int], None] = lambda images: None,
        sample: Callable[[int], None] = lambda images: None,
        capture: bool = False,
    ) -> None:
        self.fabric, self.task, self.run = fabric, task, run
        self.config, self.identity, self.seed = config, identity, seed
        self.snapshot, self.sample, self.barrier = snapshot, sample, Barrier()
        self.events: TensorBoardEvents | None = None
        self.progress, self.meter, self.guard = Progress(), Meter(), FiniteGuard(task.if_not_finite)
        self._display: Display = Silent()
        self._logged = self.progress
        self._stop: str | None = None
        self._warned = Counter[str]()
        say = partial(self._say_warning, "capture")
        self._take_step = CapturedSteps(task, batches, fabric.device, say) if capture else EagerSteps(task, batches)

    def restore(self) -> int:
        """Restore the newest checkpoint of the run folder, if there is one; the folder is only read.

        Returns the number of images up to which the recorded statistics remain valid; -1 without a checkpoint.
        """
        files = self.run.checkpoint_files()
        if files:
            tensors, header = checkpoint.load(files[-1])
            self._check_identity(header)
            self._check_length(header)
            checkpoint.restore(self.task, tensors, files[-1])
            self.progress = header.progress
        return self.progress.images if files else -1

    def train(self) -> Progress:
        """Train to the configured number of images and return the progress.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; everything is saved.
            TrainingStopped: a loss or gradient is not finite.
        """
        first = self.fabric.is_global_zero
        if first:
            self._display = training_display(self.config.images, self.progress.images, self.task.display_names)
        self._logged = self.progress
        try:
            with self._signals():
                if self.progress.images == 0:
                    self._evaluate()
                    self._sample()
                self.barrier.wait()  # until the first process has written the record
                while self._should_continue():
                    self._step()
                if not self.run.checkpoint_files() or not self._is_due(self.config.checkpoint_every):
                    self._save()
                elif first:
                    self._record_checkpoint()  # a session that was ended early may not have done so with its last one
                self._announce_stop()
        finally:
            self._display.close()
        return self.progress

    def _step(self) -> None:
        """Train on one batch, then log, evaluate, sample and save where due."""
        began, config, context = time.monotonic(), self.config, self._context()
        numbers = self._take_step(context)
        self.meter.add(numbers)
        self.guard.watch(numbers, context.step)
        # Checking is free on a CPU, but synchronizes a GPU; on a logged step, the clock must wait for the GPU anyway.
        if self.fabric.device.type == "cpu" or context.log_now:
            self.guard.check()
        seconds = self.progress.seconds + time.monotonic() - began
        after = context.after()
        self.progress = replace(self.progress, images=after.images, step=after.step, seconds=seconds)
        self._display.advance(after.images)
        last = after.images >= config.images
        if self._is_due(config.log_every):
            self._log()
        if self._is_due(config.evaluate_every) or last:
            self._evaluate()
        if self._is_due(config.sample_every) or last:
            self._sample()
        if self._is_due(config.checkpoint_every):
            self._save()
        if self._asked_to_stop():
            self._interrupt()

    def _should_continue(self) -> bool:
        return self.progress.images < self.config.images and self.task.stop_reason() is None

    def _is_due(self, every: int) -> bool:
        """Return whether the last step reached or crossed a multiple of `every` images."""
        size = self.config.batch_size
        return _crossed(self.progress.images - size, size, every)

    def _context(self) -> StepContext:
        size = self.config.batch_size
        return StepContext(
            images=self.progress.images,
            step=self.progress.step,
            batch_size=size,
            seed=self.seed,
            rank=self.fabric.global_rank,
            ranks=ranks(),
            device=self.fabric.device,
            log_now=_crossed(self.progress.images, size, self.config.log_every),
        )

    def _log(self) -> None:
        self.guard.check()
        before, self._logged = self._logged, self.progress
        seconds = self.progress.seconds - before.seconds
        speed = (self.progress.images - before.images) / max(seconds, 1e-9)
        numbers = {"images_per_second": speed, **self.meter.read()}
        self._write("train", numbers)
        left = (self.config.images - self.progress.images) / speed
        self._display.show(self.progress.images, {**numbers, "time_left": left})
        self._warn(numbers)

    def _evaluate(self) -> None:
        self.guard.check()
        numbers = self.task.evaluate()
        self._write("evaluation", numbers)
        self._display.show(self.progress.images, numbers)
        if self.fabric.is_global_zero:
            self.snapshot(self.progress.images)
        self._warn(numbers)
        self.task.on_evaluation(numbers)
        choice = self.task.monitor(numbers)
        if choice is not None and (self.progress.best is None or choice > self.progress.best):
            self.progress = replace(self.progress, best=choice)
            self._write_checkpoint("best", checkpoint.weights)
        self.barrier.wait()

    def _sample(self) -> None:
        if self.fabric.is_global_zero:
            self.run.require_lock()
            self.sample(self.progress.images)
        self.barrier.wait()

    def _warn(self, numbers: Mapping[str, float | list[float]]) -> None:
        for cause, text in self.task.warnings(numbers):
            self._say_warning(cause, text)

    def _say_warning(self, cause: str, text: str) -> None:
        """Record a warning; show it at its first time, and of those with one cause every time that their number has doubled."""
        self._write("warning", {"cause": cause, "text": text})
        self._warned[cause] += 1
        times = self._warned[cause]
        if times & (times - 1) == 0:
            self._display.say(f"warning: {text}" if times == 1 else f"warning ({times} times so far): {text}")

    def _save(self) -> None:
        self.guard.check()
        check_agreement(self.task.networks.values())
        self._write_checkpoint(f"images-{self.progress.images:012d}", checkpoint.state)
        if self.fabric.is_global_zero:
            self._record_checkpoint()

    def _write_checkpoint(self, name: str, tensors: Callable[[Task[Any]], dict[str, Tensor]]) -> None:
        if self.fabric.is_global_zero:
            header = CheckpointHeader(self.identity.system, self.identity.config, self.identity.data, self.progress)
            path = self.run.checkpoints / f"{name}.safetensors"
            checkpoint.save(path, tensors(self.task), header, check=self.run.require_lock)
        self.barrier.wait()

    def _record_checkpoint(self) -> None:
        """Remove older checkpoints than the newest ones, and record what the last one has."""
        for old in self.run.checkpoint_files()[:-KEPT]:
            old.unlink()
        done = self.progress
        speed = done.images / done.seconds if done.seconds else 0.0
        self.run.update_record(
            images=done.images, steps=done.step, seconds=round(done.seconds, 1), images_per_second=round(speed, 1)
        )

    def _write(self, kind: str, numbers: Any) -> None:
        if self.fabric.is_global_zero:
            place = {"kind": kind, "images": self.progress.images, "step": self.progress.step}
            self.run.append_stats({**place, "seconds": round(self.progress.seconds, 3), **numbers})
            if self.events is not None:
                self.events.log(kind, numbers, self.progress.images)

    def _asked_to_stop(self) -> bool:
        if ranks() == 1:
            return self._stop is not None
        # A signal may reach ranks in different steps; all must leave the loop together.
        return bool(average(torch.tensor(float(self._stop is not None), device=self.fabric.device)) > 0)

    def _announce_stop(self) -> None:
        why = self.task.stop_reason()
        if why is not None and self.fabric.is_global_zero:
            self.run.update_record(ended=why)
            self._display.say(why)

    def _interrupt(self) -> None:
        self._save()
        why = self._stop or "Stopped by another process"
        raise Interrupted(
            f"{why} at {self.progress.images:,} images; everything is saved; continue with --resume {self.run.path}."
        )

    def _check_identity(self, header: CheckpointHeader) -> None:
        # Settings newer than the checkpoint are missing from it; their defaults do not change the training.
        same = merge(self.identity.config, header.config) == self.identity.config
        if header.system != self.identity.system or not same:
            raise InputError(
                f"The checkpoint in {self.run.path} was made with another configuration than its config.yaml; "
                "restore that file, or start a new training."
            )
        if header.data != self.identity.data:
            kinds = sorted({*header.data, *self.identity.data})
            other = [kind for kind in kinds if header.data.get(kind) != self.identity.data.get(kind)]
            raise InputError(
                f"The images ({', '.join(other)}) are not those that the run {self.run.path} was trained on (their SHA-256 "
                "differs); give the same images, or start a new training."
            )

    def _check_length(self, header: CheckpointHeader) -> None:
        done, total = header.progress.images, self.config.images
        if done - self.config.batch_size >= total:
            raise InputError(
                f"{self.run.path} is trained on {done:,} images already, and cannot end at {total:,}; give a longer training,"
                " or leave the length out."
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """On Ctrl-C or SIGTERM finish the step, save and stop; a second Ctrl-C stops at once."""

        def ask(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = "Stopped by Ctrl-C" if number == signal.SIGINT else "Stopped by a signal"

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread, whose owner handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _crossed(start: int, size: int, every: int) -> bool:
    return start // every != (start + size) // every
