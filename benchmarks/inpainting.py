"""Polyps that a model draws into healthy frames: does a classifier that was trained on real frames see them?

python -m benchmarks.inpainting RUN [--frames STORE] [--images 24000] [--seed 0] [--threads N] [--sheet FILE.png]

RUN is a run of EndoVAE with a spatial code, trained on both kinds of frames, with a fitted prior. A classifier of polyps is
trained on the run's training frames, all real, on each of the views `full` and `centre`. It reads the healthy frames of the
run's test split as they are, decoded from their code, and with a part redrawn, once as healthy tissue and once as a polyp. The
parts have the outlines of lesions of the training split. Real polyps of the test split are read as well. No frame that is read
was trained on, by the model or by the classifier.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.polyp_classifier import Bytes, Mask, log_odds, seen, train_classifier
from pixelscope.data.frames.preprocess import VIEWS, ViewName, centre_box
from pixelscope.endovae.checkpoints import Checkpoint, load_checkpoint
from pixelscope.endovae.data import FrameSubset, Splits, load_run_splits
from pixelscope.endovae.forward import decode, encode
from pixelscope.endovae.latent_prior.config import Kind
from pixelscope.endovae.latent_prior.sample import FrameInpainter, FrameSampler
from pixelscope.endovae.metrics import ClusterBootstrap, auroc_with_ci
from pixelscope.endovae.report.plotting import rows_gallery
from pixelscope.files import atomic_file
from pixelscope.imaging.content_area import Box
from pixelscope.rng import derive

SMALLEST, LARGEST = 0.03, 0.15
"""Fraction of a frame that the outline of a lesion covers to be used."""
SHOWN = 0.7
"""Minimum fraction of an outline that the view `centre` shows."""
COLUMNS = 8
"""Frames of the sheet."""


@dataclass(frozen=True)
class Redrawn:
    """Healthy test frames, as they are and redrawn; all arrays uint8 (N, S, S, 3)."""

    untouched: Bytes
    decoded: Bytes
    """Encoded and decoded, nothing redrawn."""
    normal: Bytes
    """With a part redrawn as healthy tissue."""
    polyp: Bytes
    """With the same part redrawn as a polyp."""

    @property
    def sets(self) -> dict[str, Bytes]:
        """Return what was made of the frames, by the name of the table's row."""
        return {
            "... encoded and decoded": self.decoded,
            "... a part redrawn as healthy": self.normal,
            "... a part redrawn as a polyp": self.polyp,
        }


def outlines(train: FrameSubset) -> Mask:
    """Return the lesions of training frames, bool (N, S, S), of a size and in a place that both views show."""
    marked = train.store.has_lesion[train.positions]
    lesions = train.store.lesions[train.positions[marked]] > 0
    side = lesions.shape[1]
    middle = np.zeros((side, side), bool)
    middle[centre_box(Box(0, 0, side, side)).slices] = True
    covered, inside = lesions.mean((1, 2)), (lesions & middle).mean((1, 2))
    return lesions[(covered >= SMALLEST) & (covered <= LARGEST) & (inside >= SHOWN * covered)]


def redraw(checkpoint: Checkpoint, frames: Bytes, masks: Mask, seed: int) -> Redrawn:
    """Redraw a part of each frame, uint8 (N, S, S, 3), given by a mask, bool (N, S, S), as healthy and as a polyp."""

    def drawn(kind: Kind) -> Bytes:
        inpainter = FrameInpainter(FrameSampler.open(checkpoint, kind=kind))
        pairs = enumerate(zip(frames, masks, strict=True))
        return np.concatenate(
            [next(inpainter(frame, mask, 1, derive(seed, "inpainting", number))) for number, (frame, mask) in pairs]
        )

    decoded = decode(checkpoint.decoder, encode(checkpoint, frames).mean).numpy()
    return Redrawn(frames, decoded, drawn("normal"), drawn("abnormal"))


def chosen_masks(train: FrameSubset, count: int, seed: int) -> Mask:
    """Return `count` outlines of lesions, bool (count, S, S), drawn without replacement as long as there are enough."""
    found = outlines(train)
    if not len(found):
        raise SystemExit("No training frame has the outline of a lesion of the needed size; masks are found as by `prepare`.")
    draw = np.random.default_rng(derive(seed, "outlines"))
    order = np.concatenate([draw.permutation(len(found)) for _ in range(-(-count // len(found)))])
    return found[order[:count]]


def rows(splits: Splits, redrawn: Redrawn, view: ViewName, images: int, seed: int) -> list[str]:
    """Return lines of Markdown: how many frames of each set are read as polyps, and the AUC against untouched healthy frames.

    The classifier is trained here, on `images` images of one view of the training frames.
    """
    train, healthy, polyps = splits.train, splits.test["normal"], splits.test["abnormal"]
    network = train_classifier(seen(train.frames, view), train.store.abnormal[train.positions], images, seed)
    untouched = log_odds(network, seen(redrawn.untouched, view))
    own, others = (splits.store.clusters(part.positions) for part in (healthy, polyps))
    lines = [_row(view, "healthy frames", untouched, "")]
    sets = [(name, frames, own) for name, frames in redrawn.sets.items()] + [("real polyps", polyps.frames, others)]
    for name, frames, groups in sets:
        found = log_odds(network, seen(frames, view))
        area = auroc_with_ci(untouched, found, ClusterBootstrap.of(own, groups)).auroc
        lines.append(_row(view, name, found, str(area)))
    return lines


def _row(view: ViewName, name: str, found: NDArray[np.float64], area: str) -> str:
    return f"| `{view}` | {name} | {len(found)} | {np.mean(found > 0):.1%} | {area} |"


def sheet(redrawn: Redrawn, masks: Mask, path: Path) -> None:
    """Write a picture: frames, the outlines, and the frames redrawn."""
    marked = redrawn.untouched.copy()
    marked[masks] = marked[masks] // 2 + np.array([0, 96, 0], np.uint8)
    named = [("healthy", redrawn.untouched), ("where", marked), ("as healthy", redrawn.normal), ("as a polyp", redrawn.polyp)]
    with atomic_file(path) as temporary:
        rows_gallery([(name, frames[:COLUMNS]) for name, frames in named]).savefig(temporary, format="png", dpi=144)


def main(arguments: Sequence[str] | None = None) -> int:
    """Redraw the frames, train both classifiers, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inpainting", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="a spatial run, trained on both kinds, with a fitted prior")
    parser.add_argument("--frames", help="new path of the run's frames")
    parser.add_argument("--images", type=int, default=24_000, help="images that each classifier sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="picture of some of the frames, .png")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    checkpoint = load_checkpoint(chosen.run)
    splits = load_run_splits(checkpoint.folder, checkpoint.config, checkpoint.record, chosen.frames)
    healthy = splits.test["normal"].frames
    masks = chosen_masks(splits.train, len(healthy), chosen.seed)
    redrawn = redraw(checkpoint, healthy, masks, chosen.seed)
    if chosen.sheet:
        sheet(redrawn, masks, chosen.sheet)
    print("| view | frames | number | read as polyps | AUC against healthy frames |", "|---|---|---|---|---|", sep="\n")
    for view in VIEWS:
        print(*rows(splits, redrawn, view, chosen.images, derive(chosen.seed, "classifier", view)), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
