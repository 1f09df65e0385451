"""Whether an exported file says the same as the run that it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pixelscope.errors import InputError

TOLERANCE = 1e-4
"""Largest difference allowed, absolute where values are under 1 and relative above."""
COMPARED = 1_000
"""Images compared at most."""


@dataclass(frozen=True)
class Parity:
    """What a comparison found."""

    images: int
    differences: dict[str, float]
    """By output, the largest |exported - run| / max(1, |run|)."""

    @property
    def largest(self) -> float:
        """Return the largest of all."""
        return max(self.differences.values())

    def require(self) -> None:
        """Raise InputError where the file does not say the same as the run."""
        if not self.largest <= TOLERANCE:
            listed = ", ".join(f"{name} {value:.2g}" for name, value in self.differences.items())
            raise InputError(
                f"The exported model disagrees with the run on {self.images:,} images (largest differences: {listed}; allowed "
                f"{TOLERANCE:g}), so nothing is written; please report it."
            )


def compare(run: Mapping[str, np.ndarray], exported: Mapping[str, np.ndarray]) -> Parity:
    """Compare outputs of the same images, by name; a value that is not finite is an infinite difference."""
    found = {}
    for name, expected in run.items():
        other = exported[name]
        apart = np.abs(other - expected) / np.maximum(1, np.abs(expected))
        same_shape = other.shape == expected.shape and np.isfinite(other).all()
        found[name] = float(apart.max(initial=0.0)) if same_shape else float("inf")
    return Parity(len(next(iter(run.values()))), found)
