"""Measures one set of frames, generated or real, against the held-out real frames of a run.

They are compared on features of EfficientNet-Lite0, or of the run's own encoder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from pixelscope.data.disk_array import evenly_spaced
from pixelscope.endovae.checkpoints import Checkpoint
from pixelscope.endovae.data import FrameSubset, Splits, load_run_splits, to_images
from pixelscope.endovae.forward import encode
from pixelscope.endovae.generation.measures import (
    MIN_FRAMES,
    Nearest,
    fraction_nearer,
    frechet_distance,
    kernel_distance,
    manifolds,
    nearest,
)
from pixelscope.endovae.generation.results import ENCODER, LITE0, FeatureMeasures, FeaturesName, GeneratedSet
from pixelscope.endovae.lite0 import SIDE, Lite0Features, load_lite0
from pixelscope.endovae.metrics import fine_detail_kept, spectrum
from pixelscope.errors import InputError, not_one_of
from pixelscope.imaging.resize import resize_frames

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

MAX_FRAMES = 10_000
"""Most frames of a set: at 96 x 96 pixels they take 276 MB."""
REAL = "real: training frames"
COPY_SIDE = 32
"""Side in pixels at which frames are compared to find copies; finer detail differs between copies."""
SAME = 0.01
"""Difference below which two frames are the same; distances are exact to about 0.0001."""
COPIED = 0.1
"""A held-out frame is a copy of a training frame if it differs from it by less than this fraction of the median difference."""
_AT_ONCE = 256
"""Frames whose spectrum is computed at a time."""
BATCH = 32
"""Frames per forward pass of EfficientNet-Lite0, at 224 x 224 pixels."""
LAST_BLOCK = 15
"""The block of EfficientNet-Lite0 whose output is used, the last."""
_PURPOSE = "Comparing frames on features of EfficientNet-Lite0"


@dataclass(frozen=True)
class FeatureSpace:
    """A network's features of frames."""

    name: FeaturesName
    title: str
    extract: Callable[[Bytes], Floats]
    """Maps uint8 frames (N, S, S, 3) to features (N, D)."""


def feature_spaces(chosen: FeaturesName | None, checkpoint: Checkpoint) -> list[FeatureSpace]:
    """Return the chosen features, or both without a choice.

    Args:
        chosen: `lite0`, `encoder`, or None.
        checkpoint: whose encoder makes the features `encoder`.

    Raises:
        InputError: features of EfficientNet-Lite0 need the extra `pretrained`, which is not installed.
    """
    if chosen is not None and chosen not in get_args(FeaturesName):
        raise not_one_of("features", chosen, get_args(FeaturesName))
    found = []
    if chosen in (None, LITE0):
        found.append(
            FeatureSpace(LITE0, "features of EfficientNet-Lite0", partial(lite0_features, load_lite0(_PURPOSE, [LAST_BLOCK])))
        )
    if chosen in (None, ENCODER):
        title = f"features of the encoder of {checkpoint.folder.path.resolve().name}"
        found.append(FeatureSpace(ENCODER, title, partial(encoder_features, checkpoint)))
    return found


@torch.no_grad()
def lite0_features(network: Lite0Features, frames: Bytes) -> Floats:
    """Return the mean over all positions of the last block's output, (N, 320), of uint8 frames (N, S, S, 3).

    FID (Heusel et al. 2017) takes the same of Inception-v3, with 2,048 values, whose covariance a few hundred frames cannot
    give.
    """
    found = []
    for start in range(0, len(frames), BATCH):
        sized = torch.from_numpy(np.array(resize_frames(frames[start : start + BATCH], SIDE)))
        found.append(network(sized.permute(0, 3, 1, 2).float().div_(255))[-1].mean((2, 3)))
    return torch.cat(found).numpy()


def encoder_features(checkpoint: Checkpoint, frames: Bytes) -> Floats:
    """Return the posterior means of uint8 frames (N, S, S, 3).

    Of a spatial code, with thousands of values, the mean and standard deviation of each channel over all positions.
    """
    mean = encode(checkpoint, frames).mean
    if checkpoint.config.model.kind == "global":
        return mean.numpy()
    code = mean.reshape(len(mean), -1, checkpoint.config.model.latent)
    return torch.cat([code.mean(1), code.std(1)], 1).numpy()


@dataclass(frozen=True)
class RealFrames:
    """Training and held-out frames of a run, and what is measured of them once."""

    splits: Splits
    training: Bytes
    """(N, S, S, 3), at most `MAX_FRAMES`, evenly spaced; likewise `held_out`."""
    held_out: Bytes
    """The test frames of the kinds that the run was trained on."""
    spaces: Sequence[FeatureSpace]
    known: dict[FeaturesName, Floats]
    """Features of the training frames."""
    with_mirrors: dict[FeaturesName, Floats]
    """Features of the training frames and then of their mirror images, because models are trained on both, (2 N, D)."""
    references: dict[FeaturesName, Floats]
    """Features of the held-out frames."""
    to_training: dict[FeaturesName, Nearest]
    """The training frame or mirror image nearest to each held-out frame."""
    spectrum: NDArray[np.float64]
    """Mean spectrum of the held-out frames."""
    small: Floats
    """The training frames and then their mirror images at `COPY_SIDE`, (2 N, D)."""
    copy_error: float
    """The smallest difference of a held-out frame from any of these, without those that are copies themselves; see
    `differences`."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, spaces: Sequence[FeatureSpace], frames: str | None = None) -> "RealFrames":
        """Read and measure the frames of a run; `frames`: their new path, if they have moved.

        Raises:
            InputError: they are not those of its training, or too few.
        """
        splits = load_run_splits(checkpoint.folder, checkpoint.config, checkpoint.record, frames)
        training, held_out = splits.train.at_most(MAX_FRAMES).frames, _held_out(splits, checkpoint).frames
        both = np.concatenate([training, training[:, :, ::-1]])
        with_mirrors, references, small = _features(spaces, both), _features(spaces, held_out), _small(both)
        return cls(
            splits,
            training,
            held_out,
            spaces,
            {name: found[: len(training)] for name, found in with_mirrors.items()},
            with_mirrors,
            references,
            {name: nearest(references[name], found) for name, found in with_mirrors.items()},
            mean_spectrum(held_out),
            small,
            smallest_difference(nearest(_small(held_out), small).distance),
        )

    def differences(self, frames: Bytes) -> Nearest:
        """Return the nearest training frame or mirror image of each frame (N, S, S, 3), and how much it differs.

        The difference is the root of the mean squared difference of all values at `COPY_SIDE`, from 0 to 255.
        """
        found = nearest(_small(frames), self.small)
        return Nearest(found.distance, found.position % len(self.training))

    def copies(self, frames: Nearest) -> int:
        """Return how many frames differ less from a training frame or its mirror image than `copy_error`, or not at all."""
        return int((frames.distance < max(self.copy_error, SAME)).sum())

    def fine_energy(self, frames: Bytes) -> float:
        """Return the mean fine energy of frames as a fraction of that of the held-out frames."""
        return fine_detail_kept(self.spectrum, mean_spectrum(frames))


def smallest_difference(distances: NDArray[np.floating[Any]]) -> float:
    """Return the smallest of the held-out frames' distances to training frames, without those under `COPIED` of their median.

    A held-out frame may be the mirror image of a training frame, which splits do not see. It would let no frame be a copy.
    """
    apart = distances[distances >= COPIED * np.median(distances)]
    return float(apart.min())


def _held_out(splits: Splits, checkpoint: Checkpoint) -> FrameSubset:
    trained = checkpoint.config.split.train_on
    parts = [part.positions for kind, part in splits.test.items() if trained in (kind, "both")]
    positions = np.sort(np.concatenate([*parts, np.empty(0, np.int64)]))
    if len(positions) < MIN_FRAMES or len(splits.train) < MIN_FRAMES:
        raise InputError(
            f"{checkpoint.folder.path} has {len(splits.train)} training and {len(positions)} test frames of the kind that it "
            f"was trained on, and {MIN_FRAMES} of each are needed; train on more frames, or with a larger "
            "--split.test-fraction."
        )
    return FrameSubset(splits.store, positions).at_most(MAX_FRAMES)


def measure_real(real: RealFrames, count: int, seed: int) -> GeneratedSet:
    """Measure up to `count` training frames, evenly spaced, as if they were generated: the best to expect."""
    rows = evenly_spaced(np.arange(len(real.training)), count)
    return GeneratedSet(
        title=REAL,
        run="",
        count=len(rows),
        fine_energy=real.fine_energy(real.training[rows]),
        copies=0,
        features={
            name: _feature_measures(real.references[name], known[rows], real.to_training[name], None, seed)
            for name, known in real.known.items()
        },
    )


def measure_generated(
    checkpoint: Checkpoint, frames: Bytes, real: RealFrames, seed: int, prior: str = ""
) -> tuple[GeneratedSet, Nearest]:
    """Measure frames (N, S, S, 3) that a checkpoint generated; return, too, the training frame nearest to each.

    prior: method of the fitted prior that they were drawn from; empty without one.
    """
    measured: dict[FeaturesName, FeatureMeasures] = {}
    for name, features in _features(real.spaces, frames).items():
        near = nearest(features, real.with_mirrors[name])
        measured[name] = _feature_measures(real.references[name], features, near, real.to_training[name], seed)
    closest = real.differences(frames)
    row = GeneratedSet(
        title=checkpoint.folder.path.resolve().name + (f", {prior} prior" if prior else ""),
        run=str(checkpoint.folder.path),
        checkpoint=checkpoint.name,
        images=checkpoint.images,
        prior=prior,
        count=len(frames),
        fine_energy=real.fine_energy(frames),
        copies=real.copies(closest),
        features=measured,
    )
    return row, closest


def _features(spaces: Sequence[FeatureSpace], frames: Bytes) -> dict[FeaturesName, Floats]:
    return {space.name: space.extract(frames) for space in spaces}


def _feature_measures(
    real: Floats, generated: Floats, to_training: Nearest, held_out: Nearest | None, seed: int
) -> FeatureMeasures:
    kernel, found = kernel_distance(real, generated, seed), manifolds(real, generated)
    return FeatureMeasures(
        frechet=frechet_distance(real, generated),
        kernel=kernel.value,
        kernel_std=kernel.std,
        **found._asdict(),
        nearest=float(np.median(to_training.distance)),
        nearer=None if held_out is None else fraction_nearer(to_training.distance, held_out.distance),
    )


def mean_spectrum(frames: Bytes) -> NDArray[np.float64]:
    """Return the mean spectrum (S // 2 + 1,) of uint8 frames (N, S, S, 3); see `metrics.spectrum`."""
    sums = [spectrum(part).sum(0, dtype=torch.float64).numpy() for part in _images(frames)]
    return np.sum(sums, axis=0) / len(frames)


def _small(frames: Bytes) -> Floats:
    """Return frames (N, S, S, 3) at `COPY_SIDE`, so that distances are roots of mean squared differences, (N, D)."""
    values = resize_frames(np.ascontiguousarray(frames), COPY_SIDE).reshape(len(frames), -1).astype(np.float32)
    return values / np.float32(np.sqrt(values.shape[1]))


def _images(frames: Bytes) -> Iterator[torch.Tensor]:
    return (to_images(frames[start : start + _AT_ONCE]) for start in range(0, len(frames), _AT_ONCE))
