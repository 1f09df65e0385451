"""The built wheel with the packages of the base install alone, in an interpreter that sees nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

import pixelscope
from fixtures import tiny

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 400e6
"""Bytes of the base install, its packages included."""

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of packages: the wheel's content, and links to what its metadata needs without an extra."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    (info,) = folder.glob("*.dist-info")
    waiting = metadata.PathDistribution(info).requires or []
    seen: set[str] = set()
    for line in waiting:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name.lower() not in seen:
            seen.add(requirement.name.lower())
            found = metadata.distribution(requirement.name)
            _link(found, folder)
            waiting += found.requires or []
    return folder


def _link(distribution: metadata.Distribution, folder: Path) -> None:
    """Link the packages and modules of an installed distribution."""
    for name in {Path(file).parts[0] for file in distribution.files or () if Path(file).parts[0] not in ("..", "__pycache__")}:
        place = Path(str(distribution.locate_file(name)))
        if place.exists() and not (folder / name).exists():
            (folder / name).symlink_to(place.resolve())


def run(installed: Path, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command line where nothing but the standard library and `installed` can be imported."""
    return run_python(installed, "-m", "pixelscope", *arguments, cwd=cwd)


def run_python(installed: Path, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python likewise."""
    command = [sys.executable, "-S", "-s", *map(str, arguments)]
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def tiny_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    for number, image in enumerate(tiny.pictures(12, seed=5, coloured=True)[0]):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def tiny_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_frames(tmp_path_factory.mktemp("wheel") / "frames")


@pytest.fixture(scope="module")
def exported(tiny_frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with digits.onnx and frames.onnx, of tiny trainings."""
    folder = tmp_path_factory.mktemp("exported")
    source, target = tiny.write_domains(folder)
    adapted = pixelscope.pixelda.train(tiny.pixelda(source=source, target=target), run=folder / "adapted")
    pixelscope.export(adapted, folder / "digits.onnx")
    config = tiny.endovae(frames=str(tiny_frames), split={"validation_fraction": 0.4}, training={"epochs": 2})
    healthy = pixelscope.endovae.train(config, run=folder / "healthy")
    pixelscope.evaluate(healthy)
    pixelscope.export(healthy, folder / "frames.onnx")
    return folder


def test_the_sdist_has_what_is_needed_to_build_and_test(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "Makefile",
        "constraints.txt",
        "src/pixelscope/__init__.py",
        "tests/test_wheel.py",
    } <= names
    assert not any(name.startswith((".venv", "runs/")) for name in names)


def test_the_base_install_is_small(installed: Path) -> None:
    size = sum(
        path.stat().st_size
        for entry in installed.iterdir()
        for path in ([entry] if entry.is_file() else entry.resolve().rglob("*"))
        if path.is_file()
    )
    assert 50e6 < size < LARGEST
    assert not {"torch", "scipy", "matplotlib"} & {path.name for path in installed.iterdir()}


def test_it_prints_its_version_and_names_a_missing_extra(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "--version", cwd=tmp_path)
    about = metadata.PathDistribution(next(installed.glob("pixelscope-*.dist-info")))
    assert (done.returncode, done.stdout.strip()) == (0, about.version)
    done = run(installed, "pixelda", "train", "--source", "demo:mnist", "--target", "demo:mnist-m", cwd=tmp_path)
    assert done.returncode == 2 and 'pip install "pixelscope[' in done.stderr and done.stderr.count("\n") == 1


def test_exported_files_classify_digits_and_score_frames(
    installed: Path, tmp_path: Path, exported: Path, tiny_digits: Path, tiny_frames: Path
) -> None:
    done = run(installed, "pixelda", "classify", exported / "digits.onnx", tiny_digits, "--out", "labels.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert len(lines) == 12 and all('"error": null' in line for line in lines)
    done = run(
        installed,
        "endovae",
        "score",
        exported / "frames.onnx",
        tiny_frames,
        "--out",
        "scores.csv",
        "--maps",
        "maps",
        "--false-positive-rate",
        "0.2",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores.csv").read_text().count("\n") == 27
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 26


USE = """
import sys
from pathlib import Path
import numpy as np
import pixelscope
from PIL import Image
exported, digits, frames = map(Path, sys.argv[1:])
read = lambda folder: [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.png"))]
classifier = pixelscope.pixelda.load_classifier(exported / "digits.onnx")
probabilities = classifier(np.stack(read(digits)))
assert probabilities.shape == (12, len(classifier.classes)) and np.allclose(probabilities.sum(1), 1, atol=1e-5)
pixelscope.pixelda.classify(exported / "digits.onnx", [digits], Path("labels.csv"))
found = pixelscope.endovae.score_frames(exported / "frames.onnx", read(frames), false_positive_rate=0.2)
assert len(found) == 26 and all(one.error is None and 0 < one.p <= 1 for one in found)
print(pixelscope.endovae.score(exported / "frames.onnx", [frames], Path("s.csv"), false_positive_rate=0.2).to_text())
assert "torch" not in sys.modules
"""


def test_the_same_in_python(installed: Path, tmp_path: Path, exported: Path, tiny_digits: Path, tiny_frames: Path) -> None:
    done = run_python(installed, "-c", USE, exported, tiny_digits, tiny_frames, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.csv").read_text().count("\n") == 13 and (tmp_path / "s.csv").read_text().count("\n") == 27


def test_frames_are_prepared(installed: Path, tmp_path: Path, tiny_frames: Path) -> None:
    done = run(installed, "endovae", "prepare", tiny_frames, "--size", "16", "--out", "store", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "store" / "frames.npy").is_file()
    assert "Figures of the frames cannot be used without the extra train" in done.stderr
