"""Adaptation on several pairs of domains: every run of results/pairs.md, and its tables.

python -m benchmarks.pairs --data DIR --out DIR [--pairs usps signs ...] [--seeds 0 1 2] [--small] [--images N]
                           [--refine-images N] [--threads N] [--table] [--figures DIR]

docs/full-scale.md says what --data holds. What is finished is kept and what was stopped continues, so the same command may be
given again. --table trains nothing. --figures writes one picture per pair, from its first seed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelscope.config import dotted, read_yaml
from pixelscope.pixelda.results import paired_error

SMALL = {"generator.blocks": 3, "generator.width": 32, "discriminator.width": 32}
HALF = ("--data.test-fraction", "0.5")
TRACK = ("--data.group-by", r"^(\d+/\d+)_")


@dataclass(frozen=True)
class Pair:
    """Two domains, and how their images are read."""

    title: str
    source: str
    target: str
    options: tuple[str, ...] = ()
    labelled: str = ""
    """The target as the source of a classifier trained with its labels; by default the target itself."""
    presets: tuple[str, ...] = ("auto",)
    splits: bool = False
    """Whether each seed has a split of its own."""
    refined: bool = True
    """Whether it is refined, and compared with a classifier trained with target labels."""


PAIRS = {
    "usps": Pair("MNIST -> USPS", "mnist:{data}/mnist", "arrays:{data}/usps_sample.npz", HALF, splits=True),
    "from-usps": Pair("USPS (1,000) -> MNIST", "arrays:{data}/usps_sample.npz", "mnist:{data}/mnist", HALF, splits=True),
    "signs": Pair(
        "signs -> photos",
        "{data}/signs/rendered",
        "{data}/signs/photos",
        (*TRACK, "--data.classes", "source"),
        "{data}/signs/photos36",
    ),
    "impossible": Pair("ten signs -> USPS", "{data}/signs/ten", "arrays:{data}/usps_sample.npz", HALF, refined=False),
    "patches": Pair(
        "Kvasir -> CVC, 64 x 64",
        "{data}/patches/kvasir",
        "{data}/patches/cvc",
        ("--data.size", "64", "--data.group-by", "/([^/_]+)_", "--classifier.kind", "residual"),
    ),
    "mnist-m": Pair("MNIST -> MNIST-M", "mnist:{data}/mnist", "arrays:{data}/mnist-m-aligned.npz", presets=("auto", "paper")),
}


@dataclass(frozen=True)
class Cell:
    """One run: its folder's name and the command that makes it."""

    name: str
    command: tuple[str, ...]


def cells(pair: str, seed: int, chosen: argparse.Namespace) -> Iterator[Cell]:
    """Give the runs of a pair for one seed, each after those that it needs."""
    about = PAIRS[pair]
    source, target, labelled = (
        text.format(data=chosen.data) for text in (about.source, about.target, about.labelled or about.target)
    )
    seeds = ("--seed", str(seed), *(("--data.seed", str(seed)) if about.splits else ()))
    options = (*about.options, *seeds, "--runtime.threads", str(chosen.threads))
    networks = tuple(word for name, value in SMALL.items() for word in (f"--{name}", str(value))) if chosen.small else ()
    length = ("--training.images", str(chosen.images)) if chosen.images else ()
    for preset in about.presets:
        yield Cell(
            f"{pair}-{preset}-s{seed}",
            ("train", "--source", source, "--target", target, "--preset", preset, *networks, *length, *options),
        )
    if not about.refined:
        return
    without = tuple(option for option in options if option not in ("--data.classes", "source"))
    yield Cell(f"{pair}-labels-s{seed}", ("baseline", "--source", labelled, "--preset", "auto", *without, *length))
    short = ("--training.images", str(chosen.refine_images)) if chosen.refine_images else ()
    run = str(Path(chosen.out) / f"{pair}-auto-s{seed}")
    threads = ("--runtime.threads", str(chosen.threads))
    yield Cell(f"{pair}-refined-s{seed}", ("refine", run, "--seed", str(seed), *short, *threads))


def require_size(folder: Path, small: bool) -> None:
    """Raise SystemExit if a run has small networks and full ones are asked for, or the other way round."""
    found = _networks(folder)
    if found and (found == SMALL) != small:
        kind, option = ("full", "leave out") if small else ("small", "give")
        raise SystemExit(f"{folder} has {kind} networks; {option} --small, or give another --out.")


def _networks(folder: Path) -> dict[str, Any]:
    """Return the settings of a run's networks that --small sets; none if there is no run, or it has neither G nor D."""
    file = folder / "config.yaml"
    settings = dict(dotted(read_yaml(file))) if file.is_file() else {}
    return {name: settings[name] for name in SMALL if name in settings}


def run(cell: Cell, out: Path) -> None:
    """Train and evaluate one run, unless it is finished; continue it where it was begun."""
    folder = out / cell.name
    if (folder / "evaluation.json").is_file() and _is_finished(folder):
        return
    begun = any((folder / "checkpoints").glob("images-*"))
    arguments = (cell.command[0], "--resume", str(folder)) if begun else (*cell.command, "--out", str(folder))
    print(" ".join(arguments), file=sys.stderr, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{cell.name}.log").open("a", encoding="utf-8") as log:
        done = subprocess.run([sys.executable, "-m", "pixelscope", "pixelda", *arguments], stdout=log, stderr=log, check=False)
    if done.returncode:
        print(f"{cell.name} ended with exit code {done.returncode}; see {log.name}", file=sys.stderr, flush=True)


def _is_finished(folder: Path) -> bool:
    return json.loads((folder / "run.json").read_text(encoding="utf-8")).get("state") == "finished"


def table(out: Path, pairs: Sequence[str]) -> str:
    """Return Markdown: accuracy on the target's test split by pair, means and standard deviations over the seeds.

    A mean over another number of seeds than the row's has that number after it. Refined: the new classifier alone. Used: what
    `classify` uses, which is this classifier, its mean with T, or T alone.
    """
    rows = [
        "| pair | seeds | source only | preset `auto` | refined | used | preset `paper` | target labels |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        require_comparable(out, pair)
        found = {what: list(_evaluations(out, f"{pair}-{what}-s*")) for what in ("auto", "refined", "paper", "labels")}
        columns = [
            [one["source_only"]["target_test"] for one in found["auto"]],
            *([_target(one) for one in found[what]] for what in ("auto", "refined")),
            [_used(one) for one in found["refined"]],
            [_target(one) for one in found["paper"]],
            [one["sets"]["source_test"]["accuracy"] for one in found["labels"]],
        ]
        seeds = len(found["auto"])
        rows.append(f"| {PAIRS[pair].title} | {seeds} | {' | '.join(_mean(values, seeds) for values in columns)} |")
        if pair == "signs":
            balanced = [[_balanced(one["sets"]["target_test"]) for one in found[what]] for what in ("auto", "refined")]
            labels = [_balanced(one["sets"]["source_test"]) for one in found["labels"]]
            means = [_mean(values, seeds) for values in (*balanced, labels)]
            rows.append(f"| ... balanced | | | {means[0]} | {means[1]} | | | {means[2]} |")
    return "\n".join(rows)


def require_comparable(out: Path, pair: str) -> None:
    """Raise SystemExit if evaluated runs of one row have different networks, test images or lengths of training.

    A pair with one split per seed is compared within each seed.
    """
    first: dict[tuple[str, ...], tuple[object, Path]] = {}

    def require_equal(key: tuple[str, ...], value: object, path: Path, what: str) -> None:
        known, other = first.setdefault(key, (value, path))
        if value != known:
            raise SystemExit(f"{other} and {path} {what}; move one of them away, or delete it and train it again.")

    for path in sorted(out.glob(f"{pair}-*-s*")):
        if not (path / "evaluation.json").is_file():
            continue
        kind, seed = path.name.removeprefix(f"{pair}-").rsplit("-s", 1)
        images = json.loads((path / "run.json").read_text(encoding="utf-8"))["images"]
        require_equal((kind, "length"), images, path, "were trained on different numbers of images")
        if networks := _networks(path):
            require_equal(("networks",), networks, path, "have networks of different sizes (--small)")
        # A refinement has the images of its run of preset auto; other presets frame them in another way.
        kind = "auto" if kind == "refined" else kind
        for domain, about in json.loads((path / "run.json").read_text(encoding="utf-8"))["data"].items():
            key = (kind, domain, seed if PAIRS[pair].splits else "")
            require_equal(key, about["sha256_test"], path, "are of different test images")


def verdicts(out: Path) -> str:
    """Return Markdown: what each run's verdict says, next to the true difference, and how many are right.

    A verdict is right where it names the better side; "neither" where the difference is within two standard errors of paired
    accuracies (McNemar's test). A run that has not learned the source has no verdict.
    """
    rows = ["| run | verdict | source only | adapted | right |", "|---|---|---|---|---|"]
    right = []
    for one in _evaluations(out, "*"):
        if one.get("verdict") is None or "target_test" not in one["sets"]:
            continue
        before, after = one["source_only"]["target_test"], _target(one)
        error = 2 * paired_error(before, after, one["sets"]["target_test"]["count"], one.get("discordant"))
        truth = {"adapted": after > before, "source only": after < before, "neither": abs(after - before) <= error}
        if one["verdict"]["better"] not in truth:
            rows.append(f"| {one['run']} | none | {before:.2%} | {after:.2%} | |")
            continue
        right.append(truth[one["verdict"]["better"]])
        rows.append(
            f"| {one['run']} | {one['verdict']['better']} | {before:.2%} | {after:.2%} | {'yes' if right[-1] else '**no**'} |"
        )
    return "\n".join([*rows, "", f"{sum(right)} of {len(right)} are right."])


def figure(run: Path) -> Image.Image:
    """Return 16 columns of a run's test images: source, the same redrawn, and target images that are not related to them."""
    with np.load(run / "samples" / "gallery.npz", allow_pickle=False) as stored:
        rows = [stored[name] for name in ("source", "generated", "target")]
    side, scale = rows[0].shape[1], 2
    sheet = Image.new("RGB", (len(rows[0]) * (scale * side + 2), len(rows) * (scale * side + 2)), "white")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            pixels = Image.fromarray(image.squeeze()).convert("RGB").resize((scale * side,) * 2, Image.Resampling.NEAREST)
            sheet.paste(pixels, (column * (scale * side + 2), row * (scale * side + 2)))
    return sheet


def _evaluations(out: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in filter(lambda found: _is_finished(found.parent), sorted(out.glob(f"{pattern}/evaluation.json"))):
        yield {"run": path.parent.name, **json.loads(path.read_text(encoding="utf-8"))}


def _target(one: dict[str, Any]) -> float:
    return one["sets"]["target_test"]["accuracy"]


def _used(one: dict[str, Any]) -> float:
    """Return the target accuracy of what `classify` uses of a refinement."""
    kept = one["guard"]["kept"]
    return _target(one) if kept == "refined" else one["before" if kept == "start" else kept]["target_test"]


def _balanced(one: dict[str, Any]) -> float:
    return float(np.mean([entry["accuracy"] for entry in one["per_class"] if entry["count"]]))


def _mean(values: Sequence[float], seeds: int) -> str:
    if not values:
        return ""
    spread = f" +- {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}{'' if len(values) == seeds else f' (of {len(values)})'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, seed by seed, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--small", action="store_true", help="smaller G and D, for two CPU cores")
    parser.add_argument("--images", type=int, help="images of each training")
    parser.add_argument("--refine-images", type=int, help="images of each refinement")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, and train nothing")
    parser.add_argument("--figures", type=Path, help="folder for one picture per pair: source, redrawn, target")
    chosen = parser.parse_args(arguments)
    seeds = () if chosen.table else chosen.seeds
    planned = [cell for seed in seeds for pair in chosen.pairs for cell in cells(pair, seed, chosen)]
    for cell in planned:
        require_size(chosen.out / cell.name, chosen.small)
    for cell in planned:
        run(cell, chosen.out)
    for pair in chosen.pairs if chosen.figures else ():
        chosen.figures.mkdir(parents=True, exist_ok=True)
        for found in sorted(chosen.out.glob(f"{pair}-auto-s*/samples/gallery.npz"))[:1]:
            figure(found.parents[1]).save(chosen.figures / f"pair-{pair}.png", optimize=True)
    print(f"{table(chosen.out, chosen.pairs)}\n\n{verdicts(chosen.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
