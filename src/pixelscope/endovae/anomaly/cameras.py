"""Which cameras frames come from, as far as their original sizes tell, and whether a calibration has frames of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Size = tuple[int, int]
"""Width and height in pixels."""

TOLERANCE = 0.1
"""Sizes that differ by less than this fraction along both sides count as one camera: crops differ by some pixels."""
MIN_SHARE = 0.1
"""Minimum share of scored frames from one camera for a warning, and share of calibration frames from which there is none."""


def group_sizes(sizes: Iterable[Size]) -> dict[Size, Size]:
    """Return the group of each size: the most frequent size that it differs from by less than `TOLERANCE`.

    sizes: of all frames, with repetitions.
    """
    groups: dict[Size, Size] = {}
    leaders: list[Size] = []
    for size, _ in Counter(sizes).most_common():
        leader = _leader(size, leaders)
        if leader is None:
            leaders.append(size)
        groups[size] = leader or size
    return groups


def cameras(sizes: Sequence[Size], classes: Sequence[str], groups: Mapping[Size, Size]) -> list[str]:
    """Return the camera of each frame: its class and the group of its size, `normal-cecum, 720 x 576`."""
    return [f"{name}, {title(groups[size])}" for size, name in zip(sizes, classes, strict=True)]


def title(size: Size) -> str:
    """Return `720 x 576`."""
    return f"{size[0]} x {size[1]}"


def camera_warnings(known: Mapping[str, int], scored: Mapping[str, int], what: str) -> tuple[str, ...]:
    """Return a warning for each camera that many scored frames come from, and few or no calibration frames.

    Args:
        known: number of calibration frames per camera.
        scored: number of scored frames per camera.
        what: the scored frames, for the sentence.
    """
    total, calibrated, found = sum(scored.values()), sum(known.values()), []
    for camera, count in scored.items():
        share, theirs = count / total, known.get(camera, 0) / max(1, calibrated)
        if share >= MIN_SHARE and theirs < min(MIN_SHARE, share / 2):
            found.append(
                f"Warning: {share:.0%} of the {total:,} {what} are {camera}, and {theirs:.0%} of the {calibrated:,} "
                "calibration frames: p-values do not hold for this camera. Train on healthy frames of it, too."
            )
    return tuple(found)


def known_cameras(sizes: Iterable[Size], known: Mapping[Size, int]) -> dict[str, int]:
    """Return the number of frames per camera, by original size: one of `known` where it is near, else a new one."""
    leaders = list(known)
    found: Counter[str] = Counter()
    for size, count in Counter(sizes).most_common():
        leader = _leader(size, leaders)
        if leader is None:
            leaders.append(size)
        found[title(leader or size)] += count
    return dict(found)


def _leader(size: Size, leaders: Iterable[Size]) -> Size | None:
    """Return the first of `leaders` that a size is near."""
    return next((one for one in leaders if all(abs(a - b) < TOLERANCE * b for a, b in zip(size, one, strict=True))), None)
