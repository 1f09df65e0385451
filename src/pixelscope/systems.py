"""Which system made a run folder: an explicit table, the only place that knows them all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelscope.endovae.figures import sections as endovae_sections
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.page import Section
from pixelscope.pixelda.figures import sections as pixelda_sections

SECTIONS: dict[str, Callable[[Path], list[Section]]] = {
    "pixelda": pixelda_sections,
    "baseline": pixelda_sections,
    "endovae": endovae_sections,
}


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on `run`, made by its own system; raises InputError for an unknown one."""
    system: Any = RunFolder.open(run).read_record().get("system")
    if system not in SECTIONS:
        raise InputError(f"{run} is a run of {system!r}, which this version does not know; update pixelscope.")
    return SECTIONS[system](run)
