"""Part `train`: whole trainings of PixelDA with preset `paper`, evaluated; three seeds at once where the memory suffices."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.machine import device
from pixelscope.engine.checkpoint import load
from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder

SEED_GB = 8
"""Free memory of the GPU, in GB, for each training that runs at the same time."""
KEPT = ("run.json", "config.yaml", "stats.jsonl", "evaluation.json")
"""Files of a run that are kept beside the weights of G and T."""


@dataclass(frozen=True)
class Trainings:
    """What is trained, and where."""

    source: str
    target: str
    options: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    """Folder for the files that are kept."""
    mps: bool = False
    """Whether a server of NVIDIA's MPS is started, through which the trainings share the GPU."""


def check_data(data: Path) -> tuple[str, str]:
    """Return source and target in the folder `data`; raises InputError where one is missing."""
    target = data / "mnist-m-aligned.npz"
    for path in (data / "mnist", target):
        if not path.exists():
            raise InputError(
                f"There is no {path}; --data names a folder with mnist/ and mnist-m-aligned.npz (docs/full-scale.md says how "
                "the second is made)."
            )
    return f"mnist:{data / 'mnist'}", str(target)


def train(trainings: Trainings) -> dict[str, Any]:
    """Train and evaluate every seed, keep the weights of G and T, and return times and accuracies."""
    at_once = len(trainings.seeds) if _fits(len(trainings.seeds)) else 1
    with tempfile.TemporaryDirectory() as place, _mps(trainings.mps and at_once > 1) as environment:
        runs, began = {seed: Path(place) / f"seed{seed}" for seed in trainings.seeds}, time.monotonic()
        rows = {str(seed): {} for seed in trainings.seeds}
        for start in range(0, len(trainings.seeds), at_once):
            seeds = trainings.seeds[start : start + at_once]
            commands = {seed: ["train", *_options(trainings, seed), "--out", str(runs[seed])] for seed in seeds}
            for seed, seconds in _run(commands, trainings.out, environment).items():
                rows[str(seed)]["train_seconds"] = seconds
            for seed, seconds in _run(
                {seed: ["evaluate", str(runs[seed])] for seed in seeds}, trainings.out, environment
            ).items():
                rows[str(seed)] |= {"evaluate_seconds": seconds, **_kept(runs[seed], trainings.out / f"seed{seed}")}
        seconds = time.monotonic() - began
    return {"at_once": at_once, "mps": trainings.mps and at_once > 1, "seconds": seconds, "seeds": rows}


def _options(trainings: Trainings, seed: int) -> list[str]:
    return ["--source", trainings.source, "--target", trainings.target, "--seed", str(seed), *trainings.options]


def _run(commands: Mapping[int, Sequence[str]], logs: Path, environment: dict[str, str]) -> dict[int, float]:
    """Run one command per seed at the same time; returns the seconds of each, and raises RuntimeError if one fails."""
    logs.mkdir(parents=True, exist_ok=True)
    began, seconds = time.monotonic(), {}
    with contextlib.ExitStack() as stack:
        running = {}
        for seed, command in commands.items():
            log = stack.enter_context((logs / f"seed{seed}.log").open("a", encoding="utf-8"))
            words = [sys.executable, "-m", "pixelscope", "pixelda", *command]
            running[seed] = stack.enter_context(subprocess.Popen(words, stdout=log, stderr=log, env=environment))
        while len(seconds) < len(running):
            for seed in running.keys() - seconds.keys():
                if running[seed].poll() is not None:
                    seconds[seed] = time.monotonic() - began
            time.sleep(0.05)
    failed = [seed for seed, process in running.items() if process.returncode]
    if failed:
        raise RuntimeError(f"`{commands[failed[0]][0]}` of seed {failed[0]} failed; see {logs / f'seed{failed[0]}.log'}.")
    return seconds


def _kept(run: Path, folder: Path) -> dict[str, Any]:
    """Copy the record, and the weights of G and T with their averages, and return what was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(run / name, folder / name)
    tensors, header = load(RunFolder(run).checkpoint_files()[-1])
    wanted = tuple(f"{kind}.{network}." for kind in ("network", "average") for network in ("generator", "classifier"))
    save_file({name: tensor for name, tensor in tensors.items() if name.startswith(wanted)}, folder / "weights.safetensors")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return {
        "steps": header.progress.step,
        "images_per_second": record["images_per_second"],
        "runtime": record["runtime"],
        "accuracy": {name: one["accuracy"] for name, one in evaluation["sets"].items()},
    }


def _fits(count: int) -> bool:
    if device().type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info()
    return free >= count * SEED_GB * 1e9


@contextlib.contextmanager
def _mps(wanted: bool) -> Iterator[dict[str, str]]:
    """Start a server of MPS with folders of its own, yield the environment that leads to it, and end it."""
    control = shutil.which("nvidia-cuda-mps-control") if wanted else None
    if wanted and control is None:
        raise InputError("--mps needs nvidia-cuda-mps-control, which this machine lacks; leave --mps out.")
    if control is None:
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"CUDA_MPS_PIPE_DIRECTORY": f"{place}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{place}/log"}
        for folder in ("pipe", "log"):
            (Path(place) / folder).mkdir()
        subprocess.run([control, "-d"], env=environment, check=True)
        try:
            yield environment
        finally:
            subprocess.run([control], input="quit\n", text=True, env=environment, check=False)
