"""python -m benchmarks.gpu --part measure|train [--data DIR] [--seeds 0 1 2] [--compile] [--mps] [--out DIR] [--tiny]."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.__main__ import about
from benchmarks.gpu.measure import measure
from benchmarks.gpu.page import page
from benchmarks.gpu.train import Trainings, check_data, train
from benchmarks.machine import device
from pixelscope.engine.runtime import choose_compile
from pixelscope.errors import InputError
from pixelscope.files import write_text

BUDGET = 240
"""Seconds after which part `measure` begins no other row; the same command measures the rest."""
PAPER = ("--preset", "paper", "--runtime.capture", "on")
TINY = (
    *(
        "--preset",
        "paper",
        "--data.size",
        "16",
        "--generator.blocks",
        "1",
        "--generator.width",
        "4",
        "--discriminator.width",
        "4",
    ),
    *("--training.batch-size", "4", "--training.images", "16", "--training.checkpoint-every", "16", "--runtime.threads", "1"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one part, unless its results are there, and write gpu.json and README.md."""
    chosen = _parser().parse_args(arguments)
    try:
        if device().type != "cuda" and not chosen.tiny:
            raise InputError("benchmarks.gpu needs a GPU, and torch finds none; --tiny tries its code on any machine.")
        file = chosen.out / "gpu.json"
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        words = sys.argv[1:] if arguments is None else arguments
        passed = (_measure if chosen.part == "measure" else _train)(result, chosen, words)
    except (InputError, RuntimeError) as error:
        print(str(error), file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(page(result))
    return 0 if passed else 1


def _measure(result: dict[str, Any], chosen: argparse.Namespace, words: Sequence[str]) -> bool:
    part = result.setdefault("measure", {"about": _about(words)})
    measure(part, lambda _: _store(result, chosen.out), chosen.tiny, time.monotonic() + BUDGET)
    return part["tests"].get("passed", chosen.tiny)


def _train(result: dict[str, Any], chosen: argparse.Namespace, words: Sequence[str]) -> bool:
    if "train" in result:
        print(f"{chosen.out / 'gpu.json'} has this part already; remove its entry `train` to do it again.", file=sys.stderr)
        return True
    if chosen.compile:
        choose_compile("on", device().type)
    options = (*(TINY if chosen.tiny else PAPER), *(("--runtime.compile", "on") if chosen.compile else ()))
    with tempfile.TemporaryDirectory() as place:
        source, target = _tiny_domains(Path(place)) if chosen.tiny else check_data(chosen.data)
        trainings = Trainings(source, target, options, tuple(chosen.seeds), chosen.out, chosen.mps)
        result["train"] = {"about": _about(words), **train(trainings)}
    _store(result, chosen.out)
    return True


def _tiny_domains(folder: Path) -> tuple[str, str]:
    random = np.random.default_rng(0)
    for name in ("source", "target"):
        images = random.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", images=images, labels=np.arange(40) % 2)
    return f"arrays:{folder / 'source.npz'}", f"arrays:{folder / 'target.npz'}"


def _about(words: Sequence[str]) -> dict[str, Any]:
    card = torch.cuda.get_device_name() if device().type == "cuda" else "no GPU"
    return {**about(torch.get_num_threads(), []), "command": " ".join(["python -m benchmarks.gpu", *words]), "card": card}


def _store(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "gpu.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / "README.md", page(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure training on one GPU.")
    parser.add_argument("--part", choices=("measure", "train"), required=True, help="steps in every form, or whole trainings")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with mnist/ and mnist-m-aligned.npz, for train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the trainings")
    parser.add_argument("--compile", action="store_true", help="train with --runtime.compile on")
    parser.add_argument("--mps", action="store_true", help="let trainings share the GPU through a server of NVIDIA's MPS")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu"), help="folder for gpu.json and README.md")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on any device: tries the code, and measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
