"""What README and examples say is so."""

import ast
import doctest
import importlib.util
import inspect
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelscope
from fixtures import tiny

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "results").rglob("*.md")),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("my")
    for name, seed, coloured in (("labelled", 0, False), ("unlabelled", 1, True)):
        images, labels = tiny.pictures(60, seed, coloured)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / name / (tiny.CLASSES[label] if name == "labelled" else ".")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.kron(image, np.ones((2, 2, 1), np.uint8))).save(folder / f"{i}.png")
    return root / "labelled", root / "unlabelled"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^) ]+)\)", page.read_text())
    own = [link for link in links if "://" not in link and not link.startswith(("NNNN", "mailto:"))]
    assert [link for link in own if not _leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_have_rows_alone(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    # A line of text directly below a row is another row, of one cell.
    assert re.findall(r"^\|.*\|\n(?!\|)(.+)$", text, re.MULTILINE) == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    there = page.parent / path if path else page
    return there.exists() and (not anchor or anchor in _anchors(there))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_readmes_python_runs(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code) == 1
    given = 'PixelDAConfig.parse(settings | {"source": "my/labelled", "target": "my/unlabelled"})'
    assert given in code[0]
    monkeypatch.chdir(tmp_path)
    config = tiny.pixelda(source=str(folders[0]), target=str(folders[1]), training={"images": 32})
    exec(code[0].replace(given, "config"), {"config": config})
    assert (tmp_path / "runs" / "adapted" / "report.html").is_file()


def test_the_example_in_python_runs(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("adapt_folders", ROOT / "examples" / "adapt_folders.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    config = tiny.pixelda(source=str(folders[0]), target=str(folders[1]), training={"images": 32})
    assert example.adapt(config, tmp_path).is_file()
    assert "images per class" in capsys.readouterr().out


def test_the_example_for_the_shell_runs_over_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Two folders of images, named on a command line: the way most users come in."""
    settings = tmp_path / "tiny.yaml"
    tiny.pixelda(training={"images": 32}).save(settings)
    kept = [line for line in settings.read_text().splitlines() if not line.startswith(("source:", "target:"))]
    settings.write_text("\n".join(kept))
    command = [ROOT / "examples" / "adapt_folders.sh", *folders, tmp_path, "--config", settings, "--devices", "2"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
    assert done.returncode == 0, done.stderr
    assert "images per class" in done.stdout and "source_test" in done.stdout
    assert (tmp_path / "adapted" / "report.html").is_file()


def test_the_example_on_frames_runs_in_python_and_in_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = tiny.write_frames(tmp_path / "frames")
    prepared = pixelscope.endovae.PrepareConfig(size=tiny.SIZE)
    store = pixelscope.endovae.prepare([frames], config=prepared, out=tmp_path / "store")
    config = tiny.endovae(frames=str(store.path), training={"epochs": 1})
    spec = importlib.util.spec_from_file_location("learn_frames", ROOT / "examples" / "learn_frames.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.learn(config, tmp_path / "python").is_file()
    assert "normal test frames" in capsys.readouterr().out
    settings = tmp_path / "tiny.yaml"
    config.save(settings)
    command = [ROOT / "examples" / "learn_frames.sh", store.path, tmp_path / "shell", "--config", settings]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shell" / "new.png").read_bytes() != b""
    assert (tmp_path / "shell" / "healthy" / "report.html").is_file()


def test_the_public_names_are_all_there() -> None:
    for name in dir(pixelscope):
        assert getattr(pixelscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pixelscope.nothing


ENTRY_POINTS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (pixelscope, pixelscope.pixelda, pixelscope.endovae)
    for name in module._PUBLIC
    if inspect.isfunction(getattr(module, name))
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_has_an_example_that_calls_it(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(ENTRY_POINTS[name]) or "")
    nodes = [node for one in examples for node in ast.walk(ast.parse(one.source)) if isinstance(node, ast.Attribute)]
    named = {dotted for node in nodes if re.fullmatch(r"pixelscope(\.\w+)+", dotted := ast.unparse(node))}
    assert name in named
    for dotted in named:
        operator.attrgetter(dotted.removeprefix("pixelscope."))(pixelscope)
