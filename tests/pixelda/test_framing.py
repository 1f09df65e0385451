"""A run whose target is framed as its source: in training, in measuring, in classifying, and in what it exports."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import evaluate, export, load_images, resume
from pixelscope.config import read_yaml
from pixelscope.data.formats.decode import decode
from pixelscope.data.pack import pack
from pixelscope.errors import InputError
from pixelscope.exports.bundle import Format
from pixelscope.pixelda.checkpoints import load_checkpoint
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import load_domains
from pixelscope.pixelda.inference.classify import classify
from pixelscope.pixelda.inference.interactive import InteractiveGenerator
from pixelscope.pixelda.inference.model import TorchClassifier
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write bars of three classes: the source's fill half of the image, those of the target touch its edges."""
    folder = tmp_path_factory.mktemp("framing")
    for domain, side, ink in (("source", 16, 255), ("target", 32, 200)):
        for number in range(60):
            bar = np.zeros((side, side), np.uint8)
            middle, label = side // 2 + number // 3 % 3 - 1, number % 3
            if label != 1:
                bar[:, middle - side // 8 : middle + side // 8] = ink
            if label != 0:
                bar[middle - side // 8 : middle + side // 8] = ink
            image = np.zeros((32, 32), np.uint8)
            start = (32 - side) // 2
            image[start : start + side, start : start + side] = bar
            path = folder / domain / str(label) / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def _config(folder: Path, **changes: object) -> PixelDAConfig:
    domains = {"source": str(folder / "source"), "target": str(folder / "target")}
    return tiny.pixelda(**domains, data={"framing": "match"}, **changes)


@pytest.fixture(scope="module")
def run(folders: Path) -> Path:
    return train_pixelda(_config(folders, training={"images": 640}), run=folders / "run")


def test_the_target_is_framed_and_the_framing_kept(folders: Path, run: Path) -> None:
    framing = read_yaml(RunFolder(run).config)["data"]["target_framing"]
    assert framing[0] == pytest.approx(8, abs=1)
    found = load_domains(_config(folders))
    assert found.target is not None
    assert found.source.train.images.shape == found.target.train.images.shape[:1] + found.source.train.images.shape[1:]
    edge = found.target.test.images[:, :, 0]
    assert int(edge.max()) == 0
    assert int(load_images(str(folders / "target"), size=16).images[:, :, 0].max()) == 200
    assert any("Scaled and shifted" in note for note in RunFolder(run).read_record()["data"]["target"]["notes"])


def test_without_the_setting_nothing_is_framed(folders: Path) -> None:
    config = _config(folders)
    found = load_domains(config.model_copy(update={"data": config.data.model_copy(update={"framing": "none"})}))
    assert found.framing is None
    assert found.target is not None
    assert int(found.target.test.images[:, :, 0].max()) == 200


def test_the_framing_is_found_on_training_images(folders: Path, tmp_path: Path) -> None:
    """Test images of another framing do not change it."""
    own = load_domains(_config(folders))
    assert own.target is not None
    for file in (folders / "target").rglob("*.png"):
        name = file.relative_to(folders / "target").as_posix()
        image = Image.open(file)
        if name in own.target.test.names:
            small = Image.new("L", (32, 32))
            small.paste(image.resize((12, 12)), (0, 0))
            image = small
        (tmp_path / "target" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "target" / name)
    config = _config(folders)
    changed = load_domains(config.model_copy(update={"target": str(tmp_path / "target")}))
    assert changed.framing == own.framing


def test_it_is_said_why_images_stay_as_they_are(folders: Path, tmp_path: Path) -> None:
    alike = load_domains(_config(folders).model_copy(update={"target": str(folders / "source")}))
    assert alike.target is not None
    assert alike.framing is None
    assert any("match already" in note for note in alike.target.notes)
    photos = tmp_path / "photos"
    for number in range(20):
        photos.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)).save(photos / f"{number}.png")
    unclear = load_domains(_config(folders).model_copy(update={"target": str(photos)}))
    assert unclear.target is not None
    assert unclear.framing is None
    assert any("no foreground was found in the target" in note for note in unclear.target.notes)


def test_a_pack_is_framed_as_it_is_read(folders: Path, tmp_path: Path) -> None:
    pack(str(folders / "target"), tmp_path / "pack", size=16)
    config = _config(folders)
    packed = load_domains(config.model_copy(update={"target": str(tmp_path / "pack")}))
    plain = load_domains(config)
    assert packed.target is not None
    assert plain.target is not None
    assert packed.framing == plain.framing
    np.testing.assert_array_equal(packed.target.train.images[:][:, :1], plain.target.train.images[:])
    np.testing.assert_array_equal(packed.target.train.images[3], plain.target.train.images[3].repeat(3, 0))


def _probabilities(model: Path, images: Path, out: Path) -> np.ndarray:
    classify(model, [images], out)
    with out.open(encoding="utf-8", newline="") as file:
        return np.array([[row["label"], f"{float(row['probability']):.4f}"] for row in csv.DictReader(file)])


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_files_are_framed_by_the_run_and_by_what_it_exports(folders: Path, run: Path, tmp_path: Path, form: Format) -> None:
    delivered = export(run, tmp_path / f"model.{form}", form=form)
    assert delivered.parity.largest < 1e-5
    rows = [
        _probabilities(model, folders / "target", tmp_path / f"{number}.csv")
        for number, model in enumerate((run, tmp_path / f"model.{form}"))
    ]
    np.testing.assert_array_equal(*rows)
    assert len({tuple(row) for row in rows[0].tolist()}) > 3, "images that are all alike would agree whatever is done to them"


def test_evaluation_and_classification_agree(folders: Path, run: Path, tmp_path: Path) -> None:
    measured = evaluate(run).sets["target_all"].accuracy
    classify(run, [folders / "target"], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([row["label"] == Path(row["name"]).parent.name for row in rows]) == pytest.approx(measured)


def test_other_images_are_framed_alike(folders: Path, run: Path, tmp_path: Path) -> None:
    own = evaluate(run).sets["target_test"]
    other = evaluate(run, target=str(folders / "target")).sets["target_test"]
    assert (own.accuracy, own.count) == (other.accuracy, other.count)


def test_images_trained_on_are_left_out_of_either_domain(folders: Path, run: Path, tmp_path: Path) -> None:
    own = evaluate(run).sets
    as_target = evaluate(run, target=str(folders / "source")).sets["target_all"]
    assert 0 < as_target.count == own["source_test"].count, "the source was not framed in training"
    shutil.copytree(folders / "target", tmp_path / "other" / "test")
    shutil.copytree(folders / "source", tmp_path / "other" / "train")
    as_source = evaluate(run, source=str(tmp_path / "other")).sets["source_test"]
    assert 0 < as_source.count == own["target_test"].count, "the target was framed in training"


def test_a_run_goes_on_with_its_framing(folders: Path, tmp_path: Path) -> None:
    run = train_pixelda(_config(folders, training={"images": 16}), run=tmp_path / "run")
    before = read_yaml(RunFolder(run).config)["data"]
    resume(run, images=32)
    assert read_yaml(RunFolder(run).config)["data"] == before


def test_a_baseline_is_measured_on_the_framed_target(folders: Path, tmp_path: Path) -> None:
    config = tiny.baseline(
        source=str(folders / "source"), target=str(folders / "target"), data={"framing": "match"}, training={"images": 16}
    )
    run = train_baseline(config, run=tmp_path / "run")
    assert read_yaml(RunFolder(run).config)["data"]["target_framing"] is not None


def test_images_shown_with_the_source_are_not_framed_for_either_classifier(folders: Path, run: Path, tmp_path: Path) -> None:
    domains = {"source": str(folders / "source"), "target": str(folders / "target")}
    before = train_baseline(tiny.baseline(**domains, data={"framing": "match"}), run=tmp_path / "before")
    shown = np.stack([np.repeat(decode(path, 16), 3, axis=2) for path in sorted((folders / "source").rglob("*.png"))[::10]])
    answers = InteractiveGenerator(run, before).answers(shown)
    for name, place in (("adapted", run), ("baseline", before)):
        plain = TorchClassifier.from_checkpoint(load_checkpoint(place, finished=False), framed=False)
        np.testing.assert_array_equal(answers[name], plain(shown))
        framed = TorchClassifier.from_checkpoint(load_checkpoint(place, finished=False))
        assert np.abs(answers[name] - framed(shown)).max() > 0


@pytest.mark.parametrize("framing", [[0, 0, 0, 0, 0, 0], [8, 0, 0, 0, 0, 256], [8, 0, 0, 0, 0]])
def test_a_framing_that_cannot_be_is_refused(framing: list[int]) -> None:
    with pytest.raises(InputError, match="target_framing"):
        tiny.pixelda(data={"target_framing": framing})
