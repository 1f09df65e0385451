"""The demo at a small size: both systems, the table that it ends with, one report."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from pixelscope import demo
from pixelscope.cli import main
from pixelscope.config import merge
from pixelscope.endovae.config import endovae_preset
from pixelscope.pixelda.config import preset


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the demo's presets and its phantom: the same images, the same steps, fewer of each."""
    config = {"baseline": tiny.baseline, "pixelda": tiny.pixelda}

    def small_preset(system: Any, name: str) -> dict[str, Any]:
        packaged = preset(system, name)
        own = {"source": packaged["source"], "target": packaged["target"], "data": {**packaged["data"], "size": tiny.SIZE}}
        return config[system](**merge(own, {"training": {"images": 64}})).model_dump()

    small_frames = tiny.endovae(training={"epochs": 1}).model_dump()
    monkeypatch.setattr(demo, "preset", small_preset)
    monkeypatch.setattr(demo, "endovae_preset", lambda name: merge(endovae_preset(name), small_frames))
    monkeypatch.setattr(demo, "NORMAL", 40)
    monkeypatch.setattr(demo, "POLYPS", 10)


@pytest.mark.usefixtures("small")
def test_the_demo_ends_with_its_numbers_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    digits = next(i for i, line in enumerate(lines) if line.startswith("PixelDA"))
    assert lines[digits].split()[-3:] == ["before", "after", "change"]
    assert [line.split()[0] for line in lines[digits + 1 : digits + 3]] == ["target,", "source,"]
    before, after, change = (float(cell.rstrip("%")) for cell in lines[digits + 1].split()[-3:])
    assert change == pytest.approx(after - before, abs=0.11)
    frames = next(i for i, line in enumerate(lines) if line.startswith("EndoVAE"))
    assert lines[frames].split()[-5:] == ["PSNR,", "dB", "PCA-3", "SSIM", "PCA-3"]
    assert all(len(line.split()) >= 7 for line in lines[frames + 1 : frames + 3])
    assert lines[-1].startswith("Report: ")
    assert Path(lines[-1].removeprefix("Report: ")).is_file()
