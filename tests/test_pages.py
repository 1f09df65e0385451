"""The pages on tasks: every command and every line of Python in them runs, one page after the other in one folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

import tiny
from pixelscope.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("adapt-your-folders.md", "score-your-frames.md", "use-in-another-program.md")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages start from, and settings that make trainings short."""
    root = tmp_path_factory.mktemp("place")
    for name, seed, coloured in (("labelled", 0, False), ("unlabelled", 1, True)):
        images, labels = tiny.pictures(60, seed, coloured)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / name / (tiny.CLASSES[label] if name == "labelled" else ".")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    for seed, (name, count) in enumerate((("frames/normal-tiny", 60), ("frames/polyps", 24), ("new-frames", 5))):
        (root / name).mkdir(parents=True)
        for number, frame in enumerate(tiny.frames(count, seed)):
            Image.fromarray(frame).resize((60, 60)).save(root / name / f"{number}.png")
    tiny.baseline(training={"images": 32}).save(root / "baseline.yaml")
    tiny.pixelda(training={"images": 32}).save(root / "pixelda.yaml")
    tiny.endovae(split={"validation_fraction": 0.4}).save(root / "endovae.yaml")
    return root


SHORT = {
    "pixelscope pixelda baseline": "--config baseline.yaml",
    "pixelscope pixelda train": "--config pixelda.yaml",
    "pixelscope endovae prepare": "--size 24",
    "pixelscope endovae train": "--config endovae.yaml",
}
"""What makes a command short enough for a test."""


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_runs(page: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    blocks = re.findall(r"```(sh|python)\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    ran = 0
    for language, text in blocks:
        if language == "python":
            exec(compile(text, page, "exec"), {})
            ran += 1
        for line in text.splitlines() if language == "sh" else []:
            if not line.startswith("pip install"):
                _run(line)
                ran += 1
    sys.modules.pop("healthy_prepare", None)
    assert ran >= 4, capsys.readouterr()


def _run(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[0] == "pixelscope", line
    short = SHORT.get(" ".join(words[:3]), "")
    code = main([*words[1:], *short.split()])
    assert code == 0, line


def test_what_was_promised_is_there(place: Path) -> None:
    made = ("labels.csv", "adapted/manifest.csv", "scores.csv", "maps/0.png", "classifier.onnx", "healthy.card.md")
    missing = [name for name in made if not (place / name).exists()]
    assert missing == []
    rows = (place / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 61 and rows[0].startswith("name,label,probability,runner_up")
