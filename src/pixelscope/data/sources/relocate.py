"""Find the images of a run again: its record has several forms of their paths, so that a run may be moved."""

import os
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pixelscope.data import SOURCES, split_settings
from pixelscope.errors import InputError

NAMED = ("source", "target", "frames")
"""Names whose new place --resume accepts."""


class MovedError(InputError):
    """Images of a run are in none of the places where they were."""


Digests = Callable[[dict[str, str]], Mapping[str, str]]
"""Returns the SHA-256 of the training images in given places; raises InputError if they cannot be read."""


def written(given: Mapping[str, str], current: Mapping[str, str], run: Path) -> dict[str, dict[str, str]]:
    """Return the entry of run.json on places: each as given, absolute, and relative to the run folder `run`.

    Args:
        given: sources (`KIND:PATH`, PATH or KIND) or paths by name, as the user gave them; empty ones are omitted.
        current: their current places, relative to the working directory.
        run: the run folder.
    """
    return {name: {"given": spec, **_both(current[name], run)} for name, spec in given.items() if spec}


def find(given: Mapping[str, str], record: Mapping[str, Any], run: Path, digests: Digests) -> dict[str, str]:
    """Return the current places of what a run was given.

    Each is tried relative to the run folder, then at its absolute path, then relative to the working directory. If several
    exist, those whose images have the recorded digests are taken.

    Args:
        given: sources or paths by name, as in the configuration.
        record: content of run.json.
        run: the run folder.
        digests: returns the digests of the images in given places.

    Raises:
        MovedError: a place is in none of these; the message lists all.
    """
    known = record.get("paths", {})
    options = {name: _existing(name, spec, known.get(name, {}), run) for name, spec in given.items() if spec}
    every = [dict(zip(options, chosen, strict=True)) for chosen in product(*options.values())]
    if len(every) == 1:
        return every[0]
    wanted = {name: data.get("sha256") for name, data in record.get("data", {}).items()}
    return next((some for some in every if _fits(some, wanted, digests)), every[0])


def _fits(places: dict[str, str], wanted: Mapping[str, str], digests: Digests) -> bool:
    try:
        return all(wanted.get(name, digest) == digest for name, digest in digests(places).items())
    except InputError:
        return False


def _existing(name: str, spec: str, place: Mapping[str, str], run: Path) -> list[str]:
    """Return where a place exists, the likeliest first; an edited configuration takes precedence over the record."""
    kind, path = _divided(spec)
    if path is None or place.get("given") != spec or not {"absolute", "relative"} <= place.keys():
        return [spec]
    beside_run = os.path.normpath(run.resolve() / place["relative"])
    tried = list(dict.fromkeys([beside_run, place["absolute"], str(Path(path).absolute())]))
    found: dict[Path, str] = {}
    for one in tried:
        if _exists(one):
            found.setdefault(Path(one).resolve(), f"{kind}{one}")
    if not found:
        named = f", or resume the training with its new path, --resume {run} --{name} PLACE" if name in NAMED else ""
        there = f"there is no {', no '.join(tried)}"
        raise MovedError(f"The {name} of {run}, {spec}, has moved: {there}; restore it{named}.")
    return list(found.values())


def _exists(path: str) -> bool:
    file, settings = split_settings(path)
    try:
        return Path(path).exists() or (settings is not None and Path(file).is_file())
    except OSError:  # such as a name that is too long
        return False


def _both(spec: str, run: Path) -> dict[str, str]:
    _, path = _divided(spec)
    if path is None:
        return {}
    absolute = Path(path).absolute()
    # A link that is itself the place stays one: what it points to may be elsewhere on another machine.
    beside_run = os.path.relpath(absolute.parent.resolve() / absolute.name, run.resolve())
    return {"absolute": os.path.normpath(absolute), "relative": beside_run}


def _divided(spec: str) -> tuple[str, str | None]:
    """Return the prefix of a source, and its path; None if it has no path."""
    kind, colon, rest = spec.partition(":")
    if spec in SOURCES or (colon and kind == "demo"):
        return spec, None
    if colon and kind in SOURCES:
        return f"{kind}:", str(Path(rest).expanduser())
    return "", spec
