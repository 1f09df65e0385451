"""Where the images of a run lie: its record says so in several ways, so that they are found from any folder."""

import os
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pixelscope.data import SOURCES, split_settings
from pixelscope.errors import InputError

NAMED = ("source", "target", "frames")
"""What --resume takes a new place of."""
Digests = Callable[[dict[str, str]], Mapping[str, str]]
"""Returns the SHA-256 of the training images in each of some places; raises InputError where they cannot be read."""


def written(given: Mapping[str, str], current: Mapping[str, str], run: Path) -> dict[str, dict[str, str]]:
    """Return what the record of the run folder `run` says of places: each as given, absolute, and relative to the folder.

    given: sources (`KIND:PATH`, PATH or KIND) or paths by name, as the user gave them; empty ones are left out.
    current: the same, as they were found; relative to the working directory.
    """
    return {name: {"given": spec, **_both(current[name], run)} for name, spec in given.items() if spec}


def find(given: Mapping[str, str], record: Mapping[str, Any], run: Path, digests: Digests) -> dict[str, str]:
    """Return where the places that a run was given lie now.

    Each is tried relative to the run folder, then where it was, then relative to the working directory. Of several that exist,
    those are taken whose images are those that the record tells of.

    given: sources or paths by name, as the configuration has them.
    record: the content of run.json.
    Raises InputError with everything that was tried where one of them is in none of these.
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
    """Return where a place is, the likeliest first; a configuration that was edited since has its own word."""
    kind, path = _divided(spec)
    if path is None or place.get("given") != spec or "absolute" not in place:
        return [spec]
    beside_run = os.path.normpath(run.resolve() / place["relative"])
    tried = list(dict.fromkeys([beside_run, place["absolute"], str(Path(path).absolute())]))
    found: dict[Path, str] = {}
    for one in tried:
        if _exists(one):
            found.setdefault(Path(one).resolve(), f"{kind}{one}")
    if not found:
        named = f", or name its new place with --resume {run} --{name} PLACE" if name in NAMED else ""
        raise InputError(f"The {name} of {run}, {spec}, has moved: there is no {', no '.join(tried)}; put it back{named}.")
    return list(found.values())


def _exists(path: str) -> bool:
    file, settings = split_settings(path)
    return Path(path).exists() or (settings is not None and Path(file).is_file())


def _both(spec: str, run: Path) -> dict[str, str]:
    _, path = _divided(spec)
    if path is None:
        return {}
    absolute = Path(path).absolute()
    # A link that is itself the place stays one: what it points to may be elsewhere on another machine.
    beside_run = os.path.relpath(absolute.parent.resolve() / absolute.name, run.resolve())
    return {"absolute": os.path.normpath(absolute), "relative": beside_run}


def _divided(spec: str) -> tuple[str, str | None]:
    """Return what stands before the path of a source, and the path; none where it has no path."""
    kind, colon, rest = spec.partition(":")
    if spec in SOURCES or (colon and kind == "demo"):
        return spec, None
    if colon and kind in SOURCES:
        return f"{kind}:", str(Path(rest).expanduser())
    return "", spec
