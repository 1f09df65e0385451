"""The documentation site builds without a warning, the tutorials run, and every decision is in the index."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SMALL = {
    "pixelda": {"DIGITS": "60", "IMAGES": "64"},
    "endovae": {"NORMAL": "300", "POLYPS": "20", "EPOCHS": "1"},
}
"""Sizes at which the tests run each tutorial."""


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.relative_to(tmp_path / "site").as_posix(): path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert "pixelda classify" in pages["reference/cli/index.html"]
    for name in ("pixelscope.evaluate", "pixelscope.pixelda.train", "pixelscope.endovae.score"):
        assert name in pages["reference/api/index.html"]
    assert {f"tutorials/{name}/index.html" for name in SMALL} <= pages.keys()
    elsewhere = {
        link
        for text in pages.values()
        for link in re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]+)"', text)
        if link.startswith(("http:", "https:", "//"))
    }
    assert elsewhere == set(), "the site loads nothing from elsewhere"


@pytest.mark.parametrize("name", SMALL)
def test_a_tutorial_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells run one after another at a small size, and what they promise is there."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DOCS / "tutorials" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for constant, value in SMALL[name].items():
        code, count = re.subn(rf"^{constant} = [\d_]+", f"{constant} = {value}", code, flags=re.MULTILINE)
        assert count == 1, constant
    exec(compile(code, name, "exec"), {})
    work = tmp_path / f"tutorial-{name}"
    made = {"pixelda": ("digits.onnx", "labels.csv", "runs/adapted/report.html"), "endovae": ("scores.csv", "maps")}[name]
    assert [file for file in made if not (work / file).exists()] == []
    assert capsys.readouterr().out


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "decisions" / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert len(files) > 15
    assert [name for name in files if f"[{name[:4]}]({name})" not in index] == []


CONTAINERS = sorted((ROOT / "containers").glob("*.Dockerfile"))


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda path: path.stem)
def test_a_container_file_copies_what_exists_and_keeps_to_good_practice(file: Path) -> None:
    text = re.sub(r"\\\n\s*", "", file.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD", "ENV"}
    assert {line.split()[0] for line in lines} <= known
    assert lines[0].startswith("FROM ") and ":" in lines[0] and ":latest" not in lines[0], "the base has a version"
    for line in lines:
        words = line.split()
        if words[0] == "COPY":
            assert [name for name in words[1:-1] if not (ROOT / name).exists()] == []
        if words[0] in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(line.partition(" ")[2]), list), "exec form, so that signals arrive"
        if "pip install" in line:
            assert "-c constraints.txt" in line and "--no-cache-dir" in line
    users = [number for number, line in enumerate(lines) if line.startswith("USER ")]
    assert users and users[-1] < next(n for n, line in enumerate(lines) if line.startswith("ENTRYPOINT")), "not as root"
    extras = set(re.findall(r"\.\[([\w,]+)\]", text)[0].split(","))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [extra for extra in extras if not re.search(rf"^{extra} = ", project, re.MULTILINE)] == []
