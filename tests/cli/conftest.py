"""Running the command line: in this process, and once for real to have a run folder to look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelscope.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs one command in this process."""

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts one command in a process of its own."""

    def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pixelscope", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        # Buffered as for a user, so that what a late flush meets is met here too.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUNBUFFERED": ""}
        return subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]

    return start


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two domains, `source` and `target`: three classes of ten 16x16 images, told apart by brightness."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for domain, channels in (("source", 1), ("target", 3)):
        for position, name in enumerate(("dark", "grey", "light")):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = random.integers(80 * position, 80 * position + 60, (16, 16, channels), dtype=np.uint8)
                Image.fromarray(pixels.squeeze()).save(folder / f"{index}.png")
    return root


TINY = (
    *("--data.size", "16", "--training.batch-size", "4", "--training.log-every", "4", "--runtime.threads", "1"),
    *("--training.evaluate-every", "8", "--training.sample-every", "8", "--training.checkpoint-every", "8"),
)
TINY_NETWORKS = ("--generator.blocks", "1", "--generator.width", "4", "--discriminator.width", "4")


@pytest.fixture(scope="session")
def tiny_training(images: Path) -> tuple[str, ...]:
    """Return the arguments of a PixelDA training of a few seconds; --training.images is left to give."""
    domains = ("--source", f"folder:{images / 'source'}", "--target", f"folder:{images / 'target'}")
    return ("pixelda", "train", *domains, *TINY, *TINY_NETWORKS)


@pytest.fixture(scope="session")
def trained(tiny_training: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of four steps of PixelDA, made by the command."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert main([*tiny_training, "--training.images", "16", "--out", str(run)]) == 0
    return run
