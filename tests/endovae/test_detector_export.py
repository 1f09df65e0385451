"""Detectors in ONNX files: the numbers of the detector, without torch, for views of any size."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import pixelscope
from fixtures.frames import write_frames
from pixelscope import InputError
from pixelscope.cli import main
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.data.phantom import write_phantom
from pixelscope.endovae.detection.config import LITE0, DetectConfig, DetectorName
from pixelscope.endovae.detection.detect import detect, fit_to_store
from pixelscope.endovae.detection.features import PretrainedExtractor
from pixelscope.endovae.detection.model import FittedDetector
from pixelscope.endovae.inference.scorers import open_scorer
from pixelscope.errors import has_extra
from pixelscope.exports.onnx_runtime import OnnxModel
from pixelscope.imaging.resize import resize_frames_bicubic

QUICK = DetectConfig(detectors=("pseudo-lesions",), folds=3, images=32, min_lesion=0)
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(["torch", "lightning_fabric", "sklearn", "onnx", "onnxscript", "matplotlib"]))
from pixelscope.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("frames"), normal=20, polyps=8, seed=0)


@pytest.fixture(scope="module")
def store(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return prepare([frames], out=tmp_path_factory.mktemp("stores") / "phantom")


@pytest.fixture(scope="module")
def found(store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `detect` wrote."""
    out = tmp_path_factory.mktemp("detectors") / "found"
    detect(store.path, out, config=QUICK)
    return out


@pytest.fixture(scope="module")
def exported(found: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    pixelscope.export(found, path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name", ["learned-mahalanobis", "learned-padim", "learned-patchcore", "lite0-matched-filters", "lite0-pseudo-lesions"]
)
def test_an_exported_detector_gives_the_scores_and_maps_of_its_detector(
    frames: Path, store: FrameStore, tmp_path: Path, name: DetectorName, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in LITE0 and not has_extra("pretrained"):
        pytest.skip("the extra `pretrained` is not installed")
    if name == "lite0-matched-filters":  # it sees each frame twice, and the other one of Lite0 sees frames of the usual side
        monkeypatch.setattr(PretrainedExtractor, "side", 96)
        monkeypatch.setattr("pixelscope.endovae.detection.config.PRETRAINED_SIDE", 96)
    fitted = fit_to_store(store, name, replace_config(detectors=(name,)))
    fitted.save(tmp_path / "detector.safetensors")
    result = pixelscope.export(tmp_path / "detector.safetensors", tmp_path / "model", images=str(store.path))
    assert result.parity.images == len(store)
    exported = tmp_path / "model" / "model.onnx"
    for text in ((tmp_path / "model" / file).read_text() for file in ("README.md", "LICENSE")):
        assert ("EfficientNet-Lite0, whose weights are in this file" in text) == (name in LITE0) == ("Apache-2.0\n" in text)
    view = np.asarray(store.view("centre").frames[:9])
    expected, scorer = fitted(view), open_scorer(exported, None, "auto")
    assert scorer.name == name and scorer.view == "centre" and scorer.identity == {"model": fitted.sha256}
    pictures = [np.asarray(Image.open(frames / store.names[index]).convert("RGB")) for index in (0, -1)]
    found, again = (
        open_scorer(path, None, "auto").score([scorer.prepared_pixels(one) for one in pictures])
        for path in (exported, tmp_path / "detector.safetensors")
    )
    np.testing.assert_allclose(found.values, again.values, rtol=1e-4)
    np.testing.assert_allclose(found.maps, again.maps, atol=1e-4)
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    side = OnnxModel(exported).about.size
    score, maps = session.run(["score", "map"], {"images": resize_frames_bicubic(view, side)})
    np.testing.assert_allclose(score, expected.scores, rtol=1e-3)
    assert maps.shape == expected.maps.shape and np.corrcoef(maps.ravel(), expected.maps.ravel())[0, 1] > 0.99


def replace_config(**changes: object) -> DetectConfig:
    return QUICK.model_copy(update=changes)


def test_a_table_of_scores_is_made_without_torch_and_is_that_of_the_detector(
    found: Path, exported: Path, frames: Path, tmp_path: Path
) -> None:
    args = ["endovae", "score", str(exported), str(frames), "--out", str(tmp_path / "onnx.csv")]
    args += ["--maps", str(tmp_path / "maps"), "--false-positive-rate", "0.2"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pixelscope.endovae.score(found, [frames], tmp_path / "torch.csv", maps=tmp_path / "same", false_positive_rate=0.2)
    names = [Path(row["name"]) for row in rows(tmp_path / "torch.csv")]
    pictures = [np.asarray(Image.open(name).convert("RGB")) for name in names]
    once = pixelscope.endovae.score_frames(pixelscope.endovae.load_scorer(found), pictures, false_positive_rate=0.2)
    assert [f"{one.p:.6g}" for one in once] == [f"{float(row['p']):.6g}" for row in rows(tmp_path / "torch.csv")]
    mine, theirs = rows(tmp_path / "onnx.csv"), rows(tmp_path / "torch.csv")
    assert len(mine) == 28
    for one, other in zip(mine, theirs, strict=True):
        assert float(one.pop("score")) == pytest.approx(float(other.pop("score")), rel=2e-3, abs=2e-4)
        assert one == other
    drawn, same = (sorted((tmp_path / name).rglob("*.png")) for name in ("maps", "same"))
    assert len(drawn) == 28
    for one, other in zip(drawn, same, strict=True):
        assert (
            np.abs(np.asarray(Image.open(one), int) - np.asarray(Image.open(other), int)).max() <= 4
        )  # one step of the colour map


def test_the_metadata_and_the_card_hold_calibration_threshold_and_results(found: Path, exported: Path) -> None:
    about = OnnxModel(exported).about
    fitted = FittedDetector.load(found / "detector.safetensors")
    assert about.calibration is not None and tuple(about.calibration["scores"]) == fitted.calibration.scores
    assert (about.threshold is None) == (len(fitted.calibration.scores) < 19) == (about.false_positive_rate is None)
    card = json.loads(exported.with_name("detector.onnx.card.json").read_text())
    result = json.loads((found / "detection.json").read_text())
    measured = {row["score"]: row["AUROC"] for row in card["results"]}
    assert measured["pseudo-lesions"].startswith(
        f"{result['scores']['pseudo-lesions']['auroc']['normal-phantom']['value']:.3f}"
    )
    assert card["data"]["frames"]["count"] == 20 and "pretrained features" not in card["data"]
    text = exported.with_name("detector.onnx.card.md").read_text()
    assert "research only" in text and "differ from the detector's" in text


def test_what_a_detector_cannot_do_is_said_in_one_sentence(
    found: Path, exported: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = found / "detector.safetensors"
    with pytest.raises(InputError, match="is a .safetensors file already"):
        pixelscope.export(detector, tmp_path / "again.safetensors", form="safetensors")
    with pytest.raises(InputError, match="does not take checkpoint"):
        pixelscope.export(detector, tmp_path / "again.onnx", checkpoint="last")
    for place in (found, detector):
        with pytest.raises(InputError, match="no run; give a run folder"):
            pixelscope.evaluate(place)
    opened = pixelscope.endovae.load_scorer(exported)
    for change in ({"view": "full"}, {"score": "mse"}):
        with pytest.raises(InputError):
            pixelscope.endovae.score_frames(opened, [np.zeros((40, 40, 3), np.uint8)], **change)  # type: ignore[arg-type]
    for change in ({"view": "full"}, {"score": "mse"}, {"devices": 2}, {"checkpoint": "last"}):
        with pytest.raises(InputError):
            pixelscope.endovae.score(exported, [frames], tmp_path / "scores.csv", **change)  # type: ignore[arg-type]
    assert main(["export", str(exported), "--out", str(tmp_path / "again.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") <= 3
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused(exported: Path, frames: Path, tmp_path: Path) -> None:
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.onnx").write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"bad\.onnx is damaged"):
        pixelscope.endovae.score(tmp_path / "bad.onnx", [frames], tmp_path / "scores.csv")


def test_frames_of_a_folder_are_compared_and_results_of_another_detector_are_left_out(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    detector = tmp_path / "detector.safetensors"
    replace(FittedDetector.load(found / detector.name), config=replace_config(seed=1)).save(detector)
    (tmp_path / "detection.json").write_bytes((found / "detection.json").read_bytes())
    with pytest.raises(InputError):
        pixelscope.export(detector, tmp_path / "detector.onnx", images=str(tmp_path / "nowhere"))
    assert not list(tmp_path.glob("detector.[oc]*"))
    write_frames(tmp_path / "own", {"normal-a": 3})
    result = pixelscope.export(detector, tmp_path / "detector.onnx", images=str(tmp_path / "own"))
    assert result.parity.images == 3 and "own" in result.compared_on
    assert json.loads((tmp_path / "detector.onnx.card.json").read_text())["results"] == []
