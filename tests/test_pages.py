"""The pages on tasks: every command and every line of Python in them runs, one page after the other in one folder."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("adapt-your-folders.md", "score-your-frames.md", "use-in-another-program.md")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages start from, and settings that make trainings short."""
    root = tmp_path_factory.mktemp("place")
    write_signs(root)
    for seed, (name, count) in enumerate((("frames/normal-tiny", 110), ("frames/polyps", 24), ("new-frames", 5))):
        (root / name).mkdir(parents=True)
        for number, frame in enumerate(tiny.frames(count, seed)):
            Image.fromarray(frame).resize((60, 60)).save(root / name / f"{number}.png")
    tiny.baseline(training={"images": 32}).save(root / "baseline.yaml")
    tiny.pixelda(training={"images": 32}).save(root / "pixelda.yaml")
    tiny.endovae(split={"validation_fraction": 0.4}).save(root / "endovae.yaml")
    return root


def write_signs(root: Path) -> None:
    """Write pictograms of three classes, backgrounds, photos of four classes in tracks of three frames, and loose photos."""
    images, _ = tiny.pictures(60, 1, coloured=True)
    for number, image in enumerate(images):
        track, frame = divmod(number, 3)
        for path in (f"photos/{track % 4:02d}/{track:05d}_{frame:05d}.png", f"unlabelled/{number}.png"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / path)
    for name in ("pictograms", "backgrounds"):
        (root / name).mkdir()
    for number in range(3):
        sign = np.zeros((40, 40, 4), np.uint8)
        sign[4 : 36 - 8 * number, 4:36] = (200 - 90 * number, 90 * number, 30, 255)
        Image.fromarray(sign).save(root / "pictograms" / f"{number:02d}.png")
        Image.fromarray(images[number]).resize((60, 50)).save(root / "backgrounds" / f"{number}.jpg")


SHORT = {
    "pixelscope data render": "--count 10 --size 16",
    "pixelscope pixelda baseline": "--config baseline.yaml",
    "pixelscope pixelda train": "--config pixelda.yaml",
    "pixelscope pixelda search": "--config pixelda.yaml",
    "pixelscope endovae prepare": "--size 24",
    "pixelscope endovae detect": "--images 32 --folds 3 --detectors pseudo-lesions",
    "pixelscope endovae train": "--config endovae.yaml",
}
"""What makes a command short enough for a test."""


def test_what_the_pages_say_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test, because a page starts from what the pages before it made."""
    monkeypatch.setitem(sys.modules, "submitit", None)  # trials in processes of their own import torch first
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    for page in PAGES:
        assert _run_page(page) >= 4, page
    made = ("labels.csv", "adapted/manifest.csv", "scores.csv", "maps/0.png", "classifier.onnx", "healthy.onnx.card.md")
    missing = [name for name in made if not (place / name).exists()]
    assert missing == []
    rows = (place / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 61 and rows[0].startswith("name,label,probability,runner_up")
    for run in ("before", "adapted"):
        data = json.loads((place / "runs" / run / "run.json").read_text(encoding="utf-8"))["data"]
        assert data["target"]["count"] == 45, "three of four classes"
        assert any(note.startswith("45 images are in 15 groups") for note in data["target"]["notes"])


def _run_page(page: str) -> int:
    """Run the commands and the Python of a page, and return their number."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    ran = 0
    for language, text in blocks:
        if language == "python":
            exec(compile(text, page, "exec"), {})
            ran += 1
        for line in text.replace("\\\n", " ").splitlines() if language == "sh" else []:
            if not line.startswith("pip install"):
                _run(line)
                ran += 1
    return ran


def _run(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[0] == "pixelscope", line
    short = SHORT.get(" ".join(words[:3]), "")
    code = main([*words[1:], *short.split()])
    assert code == 0, line
