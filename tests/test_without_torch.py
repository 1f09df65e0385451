"""What needs no extra does not import one: images, frames, run folders and exported files are read without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

import pixelscope
from pixelscope.errors import PACKAGES as EXTRA_PACKAGES

SOURCE = Path(pixelscope.__file__).parent
WITH_TORCH = {
    "pixelscope.data.loader": "makes tensors of images",
    "pixelscope.endovae.inference.export_detector": "exports a network",
    "pixelscope.endovae.inference.torch_model": "is the model in torch",
    "pixelscope.pixelda.inference.torch_model": "is the model in torch",
    "pixelscope.exports.onnx_graph": "exports a network",
    "pixelscope.inference.replicas": "copies a network to each device",
    "pixelscope.exports.weights": "reads and writes the weights of a network",
}
"""Modules of these packages that import torch, and why."""
SINGLE = (
    "pixelscope",
    "pixelscope.config",
    "pixelscope.endovae.results",
    "pixelscope.errors",
    "pixelscope.files",
    "pixelscope.pixelda.ablation.results",
    "pixelscope.pixelda.refinement.results",
    "pixelscope.pixelda.results",
    "pixelscope.systems",
)
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRA_PACKAGES)}))"
"""Code after which no package of an extra can be imported."""
PACKAGES = ("data", "imaging", "endovae/inference", "pixelda/inference", "exports", "inference", "runs", "single")


def modules_of(package: str) -> list[str]:
    paths = sorted((SOURCE / package).rglob("*.py"))
    names = [".".join(("pixelscope", *path.relative_to(SOURCE).with_suffix("").parts)) for path in paths]
    return [name.removesuffix(".__init__") for name in names if name not in WITH_TORCH]


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_imported_where_torch_cannot_be(package: str) -> None:
    names = list(SINGLE) if package == "single" else modules_of(package)
    assert len(names) > 2
    code = f"{BLOCKED}; import importlib; [importlib.import_module(name) for name in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_source_is_split_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    """All the way from files to a split, so that what is imported inside functions is seen, too."""
    code = (
        BLOCKED
        + """
import numpy as np
from pixelscope.data import load
from pixelscope.data.split import own_test_mask, split
rng = np.random.default_rng(0)
np.savez("made.npz", images=rng.integers(0, 256, (20, 14, 14), np.uint8), labels=np.arange(20) % 2)
images = load("arrays:made.npz", size=16)
parts = split(images, own_test_mask(images, 0.2, 0), 0.2, 0)
assert (len(parts.train), len(parts.validation), len(parts.test)) == (13, 3, 4), parts
print(parts.train.digest())
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


def test_trained_models_are_measured_and_used_without_lightning() -> None:
    """Only trainings need it; importing it takes longer than most of what is done with a trained model."""
    modules = ("evaluation", "inference.torch_model", "inference.interactive", "report.page")
    names = [f"pixelscope.{system}.{module}" for system in ("endovae", "pixelda") for module in modules]
    names += [f"pixelscope.endovae.{module}" for module in ("detection.detect", "generation.evaluate", "latent_prior.fit")]
    names += [f"pixelscope.pixelda.refinement.{module}" for module in ("evaluation", "report")]
    code = "import importlib, sys; sys.modules['lightning_fabric'] = None; list(map(importlib.import_module, sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


COMMANDS = {
    "train": ("pixelda", "train", "--source", "demo:mnist", "--target", "demo:mnist-m"),
    "dicom": ("data", "info", "scans"),
    "serve": ("serve", "."),
    "demo": ("demo",),
}


@pytest.mark.parametrize(("extra", "command"), COMMANDS.items())
def test_a_command_whose_extra_is_missing_says_which(tmp_path: Path, extra: str, command: tuple[str, ...]) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / "scans" / name).write_bytes(bytes(128) + b"DICM" + bytes(100))
    missing = [name for name, of in EXTRA_PACKAGES.items() if of == extra]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}));"
        "from pixelscope.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f'pip install "pixelscope[{extra}]"' in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
