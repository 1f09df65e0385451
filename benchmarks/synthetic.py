"""What generated frames are good for: classifiers of polyps trained on real frames, on generated ones, and on both.

python -m benchmarks.synthetic --frames STORE --out DIR [--models paper spatial spatial-small] [--folds 3] [--epochs N]
                               [--prior-images N] [--images N] [--seed 0] [--threads N] [--table]

In each fold a third of the clusters of near-duplicates is tested. Of the others, generators are trained, one per model and
kind of frame, and they generate as many frames as there are real ones of this kind. Classifiers are then trained equally long
on each set, on the views `full` and `centre`, and tested on the real frames of the fold. What is finished is kept and what was
stopped continues, so the same command may be given again. --table trains nothing.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.polyp_classifier import log_odds, seen, train_classifier
from pixelscope.data.frames.preprocess import VIEWS, ViewName, write_stages
from pixelscope.data.frames.store import FIGURES, INDEX, FrameStore, array_shapes
from pixelscope.endovae.checkpoints import load_checkpoint
from pixelscope.endovae.config import EndoVAEConfig, endovae_preset
from pixelscope.endovae.detection.crossvalidation import make_folds
from pixelscope.endovae.latent_prior.sample import FrameSampler
from pixelscope.endovae.metrics import ClusterBootstrap, auroc, auroc_lead, auroc_with_ci
from pixelscope.endovae.results import Interval
from pixelscope.files import atomic_folder, write_text
from pixelscope.rng import derive
from pixelscope.runs.folder import read_arrays, save_arrays

Kind = Literal["normal", "abnormal"]
KINDS: tuple[Kind, ...] = ("normal", "abnormal")
Positions = NDArray[np.int64]
Values = NDArray[np.float64]

MODELS: dict[str, bool] = {"paper": False, "spatial": True, "spatial-small": True}
"""By preset, whether frames are drawn from a fitted prior; the paper draws from N(0, I)."""
REAL = "real"
DISTANCE = 8
"""Maximum Hamming distance of near-duplicates."""


@dataclass(frozen=True)
class Fold:
    """One fold: what is tested, and the store of everything else."""

    number: int
    store: FrameStore
    """All frames."""
    test: Positions
    out: Path
    seed: int

    @property
    def path(self) -> Path:
        """Return the folder of the fold."""
        return self.out / f"fold{self.number}"

    @cached_property
    def train(self) -> Positions:
        """Return the frames that are not tested."""
        return np.setdiff1d(np.arange(len(self.store)), self.test)

    def of_kind(self, kind: Kind) -> Positions:
        """Return the training frames of a kind."""
        return self.train[self.store.abnormal[self.train] == (kind == "abnormal")]


def folds(store: FrameStore, out: Path, count: int, seed: int) -> list[Fold]:
    """Divide a store by cluster of near-duplicates, as `endovae detect` does."""
    made = make_folds(store, np.ones(len(store), bool), count, DISTANCE, seed)
    return [Fold(number, store, one.test, out, seed) for number, one in enumerate(made)]


def write_part(store: FrameStore, positions: Positions, out: Path) -> None:
    """Write a store of some frames of another one, unless it is there."""
    if (out / INDEX).is_file():
        return
    index = store.index
    name = hashlib.sha256(f"{index.key} {positions.tolist()}".encode()).hexdigest()
    part = index.model_copy(update={"key": name, "frames": tuple(index.frames[i] for i in positions)})
    with atomic_folder(out) as work:
        for array in array_shapes(len(positions), store.settings.size):
            np.save(work / f"{array}.npy", getattr(store, array)[positions])
        write_stages(work / FIGURES, [])
        write_text(work / INDEX, part.model_dump_json())


def generator_run(fold: Fold, model: str, kind: Kind, chosen: argparse.Namespace) -> Path:
    """Train a model on the training frames of a kind, and fit its prior, unless that is done; continue where it was begun."""
    run = fold.path / f"{model}-{kind}"
    if not (run / "evaluation.json").is_file():
        write_part(fold.store, fold.train, fold.path / "store")
        begun = any((run / "checkpoints").glob("images-*"))
        length = shortened(model, chosen.epochs) if chosen.epochs else ()
        # All that the run does not train on is lost to it; its own test frames are not needed here.
        split = ("--split.train-on", kind, "--split.test-fraction", "0.02")
        options = ("--preset", model, *split, "--seed", str(fold.seed), "--runtime.threads", str(chosen.threads), *length)
        new = ("--frames", str(fold.path / "store"), "--out", str(run), *options)
        _pixelscope(run, "endovae", "train", *(("--resume", str(run)) if begun else new))
    if MODELS[model] and not (run / "prior" / "prior.json").is_file():
        drawn = ("--images", str(chosen.prior_images)) if chosen.prior_images else ()
        _pixelscope(run, "endovae", "prior", str(run), "--seed", str(fold.seed), "--threads", str(chosen.threads), *drawn)
    return run


def shortened(model: str, epochs: int) -> tuple[str, ...]:
    """Return the flags that give a preset another number of epochs; an adversarial loss starts at the same share of them."""
    preset = EndoVAEConfig.parse(endovae_preset(model))
    start = preset.losses.adversarial_from * epochs // preset.training.epochs
    loss = ("--losses.adversarial-from", str(start)) if start else ("--losses.adversarial", "0")
    return ("--training.epochs", str(epochs), *loss)


def _pixelscope(run: Path, *arguments: str) -> None:
    """Run a command, and write what it prints next to a run."""
    print(" ".join(arguments), file=sys.stderr, flush=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".log").open("a", encoding="utf-8") as log:
        done = subprocess.run([sys.executable, "-m", "pixelscope", *arguments], stdout=log, stderr=log, check=False)
    if done.returncode:
        raise SystemExit(f"{run} ended with exit code {done.returncode}; see {log.name}")


def synthetic(fold: Fold, model: str, kind: Kind, chosen: argparse.Namespace) -> NDArray[np.uint8]:
    """Return as many generated frames of a kind as the fold trains on real ones; they are stored."""
    path = fold.path / f"{model}-{kind}.npz"
    stored = read_arrays(path, {"frames": 4})
    if stored is None:
        run = generator_run(fold, model, kind, chosen)
        count, seed = len(fold.of_kind(kind)), derive(fold.seed, "synthetic", kind)
        sampler = FrameSampler.open(load_checkpoint(run), "auto" if MODELS[model] else "none")
        stored = {"frames": np.concatenate(list(sampler.frames(count, seed)))}
        save_arrays(path, **stored)
    return stored["frames"]


def showing(store: FrameStore, positions: Positions, view: ViewName) -> Positions:
    """Return the frames without those whose lesion a view does not show."""
    return positions[~store.hides_lesion(view)[positions]]


def train_sets(models: Sequence[str]) -> list[str]:
    """Return the names of what classifiers are trained on."""
    return [REAL, *models, *(f"{REAL}+{model}" for model in models)]


def measure(fold: Fold, name: str, view: ViewName, chosen: argparse.Namespace) -> None:
    """Train and test the classifier of one fold, training set and view, unless it is measured."""
    path = fold.path / f"{name}-{view}.json"
    if path.is_file():
        return
    frames, abnormal = [], []
    for part in name.split("+"):
        for kind in KINDS:
            if part == REAL:
                found = fold.store.frames[showing(fold.store, fold.of_kind(kind), view)]
            else:
                found = synthetic(fold, part, kind, chosen)
            frames.append(seen(found, view))
            abnormal.append(np.full(len(found), kind == "abnormal"))
    print(f"fold {fold.number}, {view}: a classifier trained on {name}", file=sys.stderr, flush=True)
    network = train_classifier(np.concatenate(frames), np.concatenate(abnormal), chosen.images, derive(fold.seed, fold.number))
    test = showing(fold.store, fold.test, view)
    found = log_odds(network, seen(fold.store.frames[test], view))
    about = {"trained_on": name, "view": view, "count": sum(map(len, frames))}
    write_text(path, json.dumps({**about, "positions": test.tolist(), "log_odds": found.tolist()}) + "\n")


@dataclass(frozen=True)
class Tested:
    """All test frames of the folds, on one view."""

    abnormal: NDArray[np.bool_]
    groups: Positions
    log_odds: Values
    ranks: Values
    """The rank of each frame within its fold, in (0, 1]: classifiers of two folds have no common scale."""
    count: float
    """Training frames per fold."""

    @property
    def kinds(self) -> tuple[Values, Values]:
        """Return the ranks of normal and of abnormal frames."""
        return self.ranks[~self.abnormal], self.ranks[self.abnormal]

    @property
    def bootstrap(self) -> ClusterBootstrap:
        """Return the resamples of whole clusters."""
        return ClusterBootstrap.of(self.groups[~self.abnormal], self.groups[self.abnormal])

    def accuracy(self) -> Interval:
        """Return the fraction of frames whose more likely kind is theirs, with a 95% bootstrap interval over clusters."""
        right = ((self.log_odds > 0) == self.abnormal).astype(float)
        ordered = np.concatenate([right[~self.abnormal], right[self.abnormal]])
        drawn = np.concatenate([weights @ ordered / weights.sum(1) for weights in self.bootstrap.weights()])
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Interval(value=float(right.mean()), low=float(low), high=float(high))


def tested(made: Sequence[Fold], name: str, view: ViewName) -> Tested | None:
    """Return the test frames of all folds; None unless all folds are measured."""
    paths = [fold.path / f"{name}-{view}.json" for fold in made]
    if not all(path.is_file() for path in paths):
        return None
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    positions = np.concatenate([np.array(cell["positions"], np.int64) for cell in cells])
    store, scores = made[0].store, [np.array(cell["log_odds"]) for cell in cells]
    ranks = [np.searchsorted(np.sort(one), one, "right") / len(one) for one in scores]
    return Tested(
        store.abnormal[positions],
        store.clusters(positions, DISTANCE),
        np.concatenate(scores),
        np.concatenate(ranks),
        float(np.mean([cell["count"] for cell in cells])),
    )


def table(made: Sequence[Fold], models: Sequence[str]) -> str:
    """Return Markdown: AUC and accuracy by view and training set, with intervals, next to those of real frames."""
    rows = []
    for view in VIEWS:
        rows += [f"View `{view}`:", "", "| trained on | frames | AUC | of real's | minus real's | accuracy |"]
        rows.append("|---|---|---|---|---|---|")
        real = tested(made, REAL, view)
        for name in train_sets(models):
            found = tested(made, name, view)
            rows.append(
                f"| {name} | " + ("| | | | |" if found is None else f"{_cells(found, None if name == REAL else real)} |")
            )
        rows.append("")
    return "\n".join(rows)


def _cells(found: Tested, real: Tested | None) -> str:
    compared = ["", ""]
    if real is not None:
        share = auroc(*found.kinds) / auroc(*real.kinds)
        compared = [f"{share:.3f}", str(auroc_lead(found.kinds, real.kinds, found.bootstrap))]
    area = auroc_with_ci(*found.kinds, found.bootstrap).auroc
    return " | ".join([f"{found.count:,.0f}", str(area), *compared, str(found.accuracy())])


def _require_same_settings(out: Path, store: FrameStore, chosen: argparse.Namespace) -> None:
    """Exit if cells in `out` were measured with other settings; a table needs only those that say which frames are tested."""
    names = ("folds", "epochs", "prior_images", "images", "seed")
    settings = {"store": store.key, **{name: getattr(chosen, name) for name in names}}
    path = out / "settings.json"
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        needed = ("store", "folds", "seed") if chosen.table else tuple(settings)
        other = [name for name in needed if known.get(name) != settings[name]]
        if other:
            raise SystemExit(f"{path} has other settings ({', '.join(other)}); give those, or another --out")
    if not chosen.table:
        write_text(path, json.dumps(settings) + "\n")


def _cells_in_order(made: Sequence[Fold], models: Sequence[str]) -> Iterator[tuple[Fold, str, ViewName]]:
    return ((fold, name, view) for fold in made for name in train_sets(models) for view in VIEWS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--frames", type=Path, required=True, help="frame store of normal and abnormal frames")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="epochs of each generator; by default those of its preset")
    parser.add_argument("--prior-images", type=int, help="codes that each prior is trained on; by default those of `prior`")
    parser.add_argument("--images", type=int, default=24_000, help="images that each classifier sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, and train nothing")
    chosen = parser.parse_args(arguments)
    store = FrameStore.open(chosen.frames)
    made = folds(store, chosen.out, chosen.folds, chosen.seed)
    _require_same_settings(chosen.out, store, chosen)
    if not chosen.table:
        torch.set_num_threads(chosen.threads)
        for fold, name, view in _cells_in_order(made, chosen.models):
            measure(fold, name, view, chosen)
    print(table(made, chosen.models))
    return 0


if __name__ == "__main__":
    sys.exit(main())
