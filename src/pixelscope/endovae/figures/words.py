"""What sets, methods and numbers are called on the page."""

import re

from pixelscope.endovae.figures.material import Material

KINDS = ("normal", "abnormal")


def set_name(material: Material, kind: str) -> str:
    """Return what a reader calls the measured frames of a kind."""
    trained = material.config.split.train_on in (kind, "both")
    return f"held-out {kind} frames" if trained else f"{kind} frames"


def trained_kind(material: Material) -> str:
    """Return what kind of frames the run learns."""
    return {"both": "normal and abnormal"}.get(material.config.split.train_on, material.config.split.train_on)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 frame, 1,370 frames."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: list[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign, a minus as typeset; no sign where it rounds to nothing."""
    text = f"{value:+.{decimals}f}"
    return re.sub(r"^[+-](0\.0+)$", r"\1", text).replace("-", "−")


def epochs_at(material: Material, images: int) -> str:
    """Return a moment in images seen and, where the length of an epoch is known, in epochs."""
    epoch = material.record.epoch
    return f"{images:,} images" + (f" (epoch {images / epoch:,.0f})" if epoch else "")
