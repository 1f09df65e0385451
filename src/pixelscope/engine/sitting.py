"""One sitting of a training, from its entry in the run record to the state it is left in."""

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console

from pixelscope.engine import runtime
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.loop import Loop
from pixelscope.engine.run import RunFolder, command_line, git_revision, versions
from pixelscope.engine.task import Task


def record_sitting(
    fabric: Fabric, folder: RunFolder, task: Task[Any], config: RuntimeConfig, *, resumed: bool, **about: Any
) -> None:
    """Write into run.json what runs, on what, and what `about` says of system, seed and data, and print the notes on the data.

    On the first process only.
    """
    if not fabric.is_global_zero:
        return
    decided = runtime.decide(config)
    notes = [f"Note on the {role}: {note}" for role, data in about.get("data", {}).items() for note in data.get("notes", ())]
    for line in (f"Runs on {decided.describe()}.", *notes):
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
    sittings = folder.read_record().get("sittings", 0) if resumed else 0
    folder.update_record(
        state="running",
        name=folder.path.name,
        versions=versions(),
        git=git_revision(),
        **({} if resumed else {"command": command_line()}),
        hardware=runtime.hardware(fabric),
        runtime={**vars(decided), "compiled": False},
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in task.networks.items()},
        sittings=sittings + 1,
        **about,
    )


def conduct(fabric: Fabric, loop: Loop[Any], folder: RunFolder) -> Path:
    """Train to the end, write down in which state the run is left, however it ends, and return its path."""
    state = "stopped"
    try:
        loop.train()
        state = "finished"
    finally:
        if fabric.is_global_zero:
            folder.update_record(state=state)
    return folder.path
