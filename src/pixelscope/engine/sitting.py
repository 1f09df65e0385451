"""One sitting of a training: its folder made or found, everything checked, then the record, the training, and its end."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console

from pixelscope.config import Config
from pixelscope.engine import runtime
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.loop import Loop
from pixelscope.engine.run import RunFolder, command_line, git_revision, versions
from pixelscope.engine.task import Task


@dataclass(frozen=True)
class Place:
    """Where a training writes: a folder that is made once everything is ready, or the one of a run that is resumed."""

    system: str
    runs: Path
    """Where a numbered folder is made."""
    name: str
    """What the numbered folder is called after its number."""
    run: Path | None = None
    """A folder of the user's own choice, or the run to resume."""
    resumed: bool = False

    @classmethod
    def of(cls, folder: RunFolder, system: str) -> "Place":
        """Return the place of a run that is resumed."""
        return cls(system, folder.path.parent, folder.path.name, folder.path, resumed=True)


def enter(fabric: Fabric, place: Place, config: Config, fill: Callable[[RunFolder], None] | None = None) -> RunFolder:
    """Return the run folder on every process; the first one makes that of a new run, which until then leaves nothing on disk.

    fill: writes what a new run begins with besides its configuration.
    """

    def begin(folder: RunFolder) -> None:
        folder.update_record(system=place.system, state="running", command=command_line())
        config.save(folder.config)
        if fill is not None:
            fill(folder)

    made = None
    if place.resumed:
        made = place.run
    elif fabric.is_global_zero:
        made = RunFolder.create(place.runs, place.name, place.run, begin).path
    path = fabric.broadcast(made)
    assert path is not None
    return RunFolder(path)


def conduct(
    fabric: Fabric,
    loop: Loop[Any],
    place: Place,
    config: Config,
    machine: RuntimeConfig,
    *,
    forget_after: Callable[[int], None] = lambda images: None,
    **about: Any,
) -> Path:
    """Train to the end, or go on to it, and return the run folder's path; its record says in which state it is left.

    Of a resumed run nothing is changed before its newest checkpoint has been read and found to be of this configuration and
    these images.

    forget_after: drops what was drawn after the checkpoint that a resumed run starts from.
    about: what run.json says of system, seed and data.
    """
    folder, first = loop.run, fabric.is_global_zero
    with folder.held() if first else nullcontext():
        kept = loop.restore() if place.resumed else -1
        loop.peers.meet()
        if first:
            if place.resumed:
                config.save(folder.config)
            _record(fabric, folder, loop.task, machine, resumed=place.resumed, **about)
            if place.resumed:
                folder.forget_stats_after(kept)
                forget_after(kept)
        _train(loop, folder, first)
    return folder.path


def _train(loop: Loop[Any], folder: RunFolder, first: bool) -> None:
    state = "stopped"
    try:
        loop.train()
        state = "finished"
    finally:
        if first:
            folder.update_record(state=state)


def _record(fabric: Fabric, folder: RunFolder, task: Task[Any], config: RuntimeConfig, *, resumed: bool, **about: Any) -> None:
    """Write into run.json what runs, on what, and what `about` says, and print the notes on the data."""
    decided = runtime.decide(config)
    notes = [f"Note on the {role}: {note}" for role, data in about.get("data", {}).items() for note in data.get("notes", ())]
    for line in (f"Runs on {decided.describe()}.", *notes, *about.get("notes", ())):
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    sittings = folder.read_record().get("sittings", 0) if resumed else 0
    folder.update_record(
        state="running",
        name=folder.path.name,
        versions=versions(),
        git=git_revision(),
        hardware=runtime.hardware(fabric),
        runtime={**vars(decided), "compiled": False},
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in task.networks.items()},
        sittings=sittings + 1,
        **about,
    )
