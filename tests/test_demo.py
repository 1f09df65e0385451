"""The demo at a small size: both systems, the table that it ends with, one report."""

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures import tiny
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


def evaluation_of(runs: Path, system: str) -> dict[str, Any]:
    run = next(path.parent for path in runs.glob("*/run.json") if json.loads(path.read_text())["system"] == system)
    return json.loads((run / "evaluation.json").read_text())


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
    found = {system: evaluation_of(tmp_path / "runs", system) for system in ("baseline", "pixelda", "endovae")}
    for line, name in ((lines[digits + 1], "target_test"), (lines[digits + 2], "source_test")):
        count, before, after, change = line.split()[-4:]
        measured = [found[system]["sets"][name] for system in ("baseline", "pixelda")]
        assert int(count.replace(",", "")) == measured[1]["count"]
        assert [before, after] == [f"{one['accuracy']:.1%}" for one in measured]
        assert float(change) == pytest.approx(100 * (measured[1]["accuracy"] - measured[0]["accuracy"]), abs=0.051)
    frames = next(i for i, line in enumerate(lines) if line.startswith("EndoVAE"))
    assert lines[frames].split()[-5:] == ["PSNR,", "dB", "PCA-3", "SSIM", "PCA-3"]
    for line, one in zip(lines[frames + 1 : frames + 3], found["endovae"]["sets"].values(), strict=True):
        model, pca = one["methods"]["endovae"], one["methods"]["pca"]
        psnr, ssim = (model["psnr"]["mean"], pca["psnr"]["mean"]), (model["ssim"]["mean"], pca["ssim"]["mean"])
        assert line.startswith(one["title"])
        assert [float(cell) for cell in line.split()[-5:]] == pytest.approx([one["count"], *psnr, *ssim], abs=0.0051)
    assert lines[-1].startswith("Report: ")
    assert Path(lines[-1].removeprefix("Report: ")).is_file()
