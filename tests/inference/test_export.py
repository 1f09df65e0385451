"""Exported files: the run's own numbers, without torch, for images of any size; and no file that was tampered with."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from skimage.metrics import structural_similarity

from fixtures import tiny
from pixelscope import InputError, export
from pixelscope.data.frames.preprocess import ViewName
from pixelscope.data.sources.listing import image_files
from pixelscope.endovae.anomaly.calibration import FILE, read_calibration
from pixelscope.endovae.inference import torch_model
from pixelscope.endovae.inference.interactive import InteractiveVAE
from pixelscope.endovae.inference.score import score, score_frames
from pixelscope.endovae.inference.scorers import MAPS, load_scorer
from pixelscope.endovae.metrics import Dissimilarity
from pixelscope.exports.bundle import compare, require_new_export, sidecar_files
from pixelscope.exports.metadata import KEY, parse_metadata
from pixelscope.exports.onnx_graph import build_graph
from pixelscope.exports.onnx_runtime import CHECKSUM, OnnxModel, with_checksum
from pixelscope.exports.weights import read_weights, write_weights
from pixelscope.imaging.resize import resize
from pixelscope.pixelda.inference.classify import classify
from pixelscope.pixelda.inference.interactive import InteractiveGenerator
from pixelscope.pixelda.inference.model import load_classifier

FORMATS = [("pixelda", "model.onnx"), ("pixelda-weights", "model.safetensors")]
FRAME_FORMATS = [("endovae", "model.onnx"), ("endovae-weights", "model.safetensors")]


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same_rows(one: Path, other: Path, numbers: tuple[str, ...]) -> None:
    rows = list(zip(read(one), read(other), strict=True))
    assert rows
    for mine, theirs in rows:
        assert {k: v for k, v in mine.items() if k not in numbers} == {k: v for k, v in theirs.items() if k not in numbers}
        for name in numbers:
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=2e-3, abs=2e-4)


@pytest.mark.parametrize(("folder", "name"), FORMATS)
def test_classify_takes_a_file_and_gives_the_runs_rows(
    models: Path, pixelda_run: Path, digits: Path, tmp_path: Path, folder: str, name: str
) -> None:
    classify(models / folder / name, [digits], tmp_path / "file.csv")
    classify(pixelda_run, [digits], tmp_path / "run.csv")
    assert_same_rows(tmp_path / "file.csv", tmp_path / "run.csv", ("probability", "runner_up_probability"))


@pytest.mark.parametrize(("folder", "name"), FRAME_FORMATS)
def test_score_takes_a_file_and_gives_the_runs_rows(
    models: Path, endovae_run: Path, frame_files: Path, tmp_path: Path, folder: str, name: str
) -> None:
    score(models / folder / name, [frame_files], tmp_path / "file.csv", maps=tmp_path / "maps")
    score(endovae_run, [frame_files], tmp_path / "run.csv", maps=tmp_path / "maps-run")
    Image.new("RGB", (60, 60)).save(tmp_path / "black.png")
    score(models / folder / name, [tmp_path / "black.png"], tmp_path / "black.csv")
    assert "no tissue is seen" in read(tmp_path / "black.csv")[0]["error"] and not read(tmp_path / "black.csv")[0]["score"]
    assert_same_rows(tmp_path / "file.csv", tmp_path / "run.csv", ("score",))
    drawn = [np.asarray(Image.open(file), int) for file in image_files(tmp_path / "maps")]
    others = [np.asarray(Image.open(file), int) for file in image_files(tmp_path / "maps-run")]
    assert max(np.abs(a - b).max() for a, b in zip(drawn, others, strict=True)) <= 1


@pytest.mark.parametrize("system", ["pixelda", "endovae"])
def test_a_folder_holds_what_model_hubs_expect(
    request: pytest.FixtureRequest, models: Path, tmp_path: Path, system: str
) -> None:
    run = request.getfixturevalue(f"{system}_run")
    result = export(run, tmp_path / "model")
    assert {Path(name).relative_to(tmp_path / "model").as_posix() for name in result.files} == {
        path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*")
    }
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.onnx", "README.md", "LICENSE"}
    _, header, text = (tmp_path / "model" / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["license_link"] == "LICENSE" and "pixelscope" in values["tags"]
    assert text.strip().startswith(f"# {values['model_name']}") and "## Intended use" in text
    assert "no right is granted" in (tmp_path / "model" / "LICENSE").read_text()
    alone = OnnxModel(models / system / "model.onnx").about
    assert OnnxModel(tmp_path / "model" / "model.onnx").about.weights_sha256 == alone.weights_sha256
    with pytest.raises(InputError, match="exists already"):
        export(run, tmp_path / "model")


def test_the_card_is_read_by_the_hubs_library(pixelda_run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    export(pixelda_run, tmp_path / "model", form="safetensors")
    card = hub.ModelCard.load(tmp_path / "model" / "README.md")
    assert (card.data.license, card.data.pipeline_tag) == ("other", "image-classification")
    assert card.text.strip().startswith("# Classifier adapted")


def test_a_folder_of_a_run_that_cannot_be_exported_is_not_made(endovae_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        export(endovae_run, tmp_path / "model", checkpoint="ema-last", images=str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning_fabric", "onnx", "onnxscript"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from pixelscope.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_torch(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_onnx_file_is_used_without_torch(models: Path, digits: Path, frame_files: Path, tmp_path: Path) -> None:
    without_torch("pixelda", "classify", models / "pixelda" / "model.onnx", digits, "--out", tmp_path / "labels.csv")
    without_torch("endovae", "score", models / "endovae" / "model.onnx", frame_files, "--out", tmp_path / "scores.csv")
    assert len(read(tmp_path / "labels.csv")) == 40 and len(read(tmp_path / "scores.csv")) == 84


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 40, 33), (2, 17, 90), (5, 9, 12)], ids=str)
def test_the_graph_takes_bytes_of_any_size_and_number(models: Path, pixelda_run: Path, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(models / "pixelda" / "model.onnx", providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
    assert logits.shape == probabilities.shape == (shape[0], 3)
    if shape[1:] == (tiny.SIZE, tiny.SIZE):
        assert probabilities == pytest.approx(load_classifier(pixelda_run)(images), abs=1e-5)


class Same(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + 0


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 40, 33), (2, 17, 90), (5, 9, 12)], ids=str)
def test_the_graph_resizes_as_the_package_does(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(build_graph(Same(), tiny.SIZE, ("values_seen",), 100.0, 2.0))
    seen = session.run(None, {"images": images})[0] * 2 + 100
    expected = resize(images.transpose(0, 3, 1, 2), tiny.SIZE)
    apart = np.abs(seen - expected)
    # A value half way between two bytes may be rounded either way.
    assert apart.max() <= 1 and (apart > 0.01).mean() < 0.05


class AlmostThePrior(torch.nn.Module):
    """An encoder whose posterior is almost N(0, I)."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        means = frames[:, :, 3, 5]
        return torch.stack([1e-3 * means, 2e-3 * means], 1)


class Grey(torch.nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(z[:, :, None, None].expand(-1, -1, tiny.SIZE, tiny.SIZE))


def test_divergences_near_the_prior_are_the_same_in_both_formats() -> None:
    frames = tiny.frames(5, 0)
    names, networks = torch_model.EndoVAEGraph.OUTPUTS, (AlmostThePrior(), Grey())
    graph = build_graph(torch_model.EndoVAEGraph(*networks, tiny.SIZE), tiny.SIZE, names, 0.0, 255.0)
    exported = dict(zip(names, onnxruntime.InferenceSession(graph).run(None, {"images": frames}), strict=True))
    maps, _ = torch_model.TorchVAE(*networks).analyze(frames)
    for mean, found in ((exported["mean"], exported["kl"]), (maps.mean, maps.kl)):
        mean = mean.astype(np.float64)
        expected = 0.5 * (mean**2 + np.expm1(2 * mean) - 2 * mean)
        assert 0 < expected.max() < 1e-4
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_exported_network_goes_on_in_place() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.ReLU(inplace=True), torch.nn.ReLU())
    build_graph(network, tiny.SIZE, ("values_seen",), 100.0, 2.0)
    assert [getattr(module, "inplace", None) for module in network] == [None, True, False]


def test_what_it_takes_is_in_the_metadata(models: Path, endovae_run: Path) -> None:
    about = OnnxModel(models / "endovae" / "model.onnx").about
    calibration = read_calibration(endovae_run / "checkpoints" / FILE)
    assert about.calibration == json.loads(calibration.model_dump_json())
    known = calibration.views["centre"]
    assert about.threshold == known.threshold(known.selected, 0.05) and about.false_positive_rate == 0.05
    assert OnnxModel(models / "pixelda" / "model.onnx").about.classes == ("0", "1", "2")


def test_onnx_itself_reads_the_file(models: Path) -> None:
    model = onnx.load(models / "endovae" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.key for entry in model.metadata_props][-2:] == [KEY, CHECKSUM]
    assert [output.name for output in model.graph.output] == ["reconstruction", *MAPS]


@pytest.mark.parametrize("view", ["centre", "full"])
def test_frames_in_memory_are_scored_as_files_are(
    models: Path, endovae_run: Path, frame_files: Path, tmp_path: Path, view: ViewName
) -> None:
    files = image_files(frame_files)[::9]
    Image.new("RGB", (60, 60), (255, 255, 255)).save(tmp_path / "white.png")
    files.append(tmp_path / "white.png")
    score(endovae_run, files, tmp_path / "run.csv", view=view, false_positive_rate=0.1)
    frames = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    exported = models / "endovae" / "model.onnx"
    for model in (exported, load_scorer(exported), endovae_run):
        *rows, white = zip(
            read(tmp_path / "run.csv"), score_frames(model, frames, view=view, false_positive_rate=0.1), strict=True
        )
        assert not white[0]["score"] and white[1].score is white[1].p is white[1].flagged is None
        assert str(white[1].error) in white[0]["error"] and "no tissue is seen" in str(white[1].error)
        for row, found in rows:
            assert found.score == pytest.approx(float(row["score"]), rel=2e-3, abs=1e-3)
            assert found.p == pytest.approx(float(row["p"]), rel=1e-3)
            assert found.flagged == (row["flagged"] == "true") and found.error is None
    assert score_frames(exported, []) == []
    for bad in (frames[0][..., 0], frames[0] / 255):
        with pytest.raises(InputError, match="Frame 1 is"):
            score_frames(exported, [frames[0], bad])


def wrong_images(images: np.ndarray) -> list[np.ndarray]:
    return [images / 255, images.astype(np.uint16) * 257, images > 127, images[..., :1], images[0]]


@pytest.mark.parametrize("name", ["run", *("/".join(parts) for parts in FORMATS)])
def test_a_classifier_refuses_values_that_are_no_bytes_of_rgb(models: Path, pixelda_run: Path, name: str) -> None:
    model = load_classifier(pixelda_run if name == "run" else models / name)
    images = np.random.default_rng(0).integers(0, 256, (2, tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
    assert model(images).shape == (2, 3)
    for bad in (*wrong_images(images), *([] if name.endswith(".onnx") else [np.repeat(images, 2, axis=1)])):
        with pytest.raises(InputError):
            model(bad)


@pytest.mark.parametrize("name", ["run", *("/".join(parts) for parts in FRAME_FORMATS)])
def test_a_scorer_refuses_values_that_are_no_bytes_of_rgb(models: Path, endovae_run: Path, name: str) -> None:
    model = load_scorer(endovae_run if name == "run" else models / name)
    frames = np.random.default_rng(0).integers(0, 256, (2, model.prepare.size, model.prepare.size, 3), dtype=np.uint8)
    assert len(model(frames).error) == 2
    for bad in wrong_images(frames):
        with pytest.raises(InputError):
            model(bad)


def test_what_shows_one_image_refuses_values_that_are_no_bytes_of_rgb(pixelda_run: Path, endovae_run: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
    studio, vae = InteractiveGenerator(pixelda_run), InteractiveVAE(endovae_run)
    styles = studio.style(0)[None]
    assert studio.redraw(image, styles).shape == (1, tiny.SIZE, tiny.SIZE, 3)
    for bad in wrong_images(image[None]):
        for used in (lambda bad=bad: studio.redraw(bad[0], styles), lambda bad=bad: vae.analyze(bad[0])):
            with pytest.raises(InputError, match="give uint8"):
                used()


def test_the_dissimilarity_is_that_of_scikit_image() -> None:
    random = torch.Generator().manual_seed(0)
    one, other = (torch.rand(3, 3, 30, 30, generator=random, dtype=torch.float64) for _ in range(2))
    look = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "full": True}
    for a, b, found in zip(one.numpy(), other.numpy(), Dissimilarity(30)(one, other).numpy(), strict=True):
        expected = structural_similarity(a, b, channel_axis=0, **look)[1].mean(0)[5:-5, 5:-5]
        np.testing.assert_allclose(1 - found, expected, atol=1e-6)


def test_the_card_says_what_a_reader_needs(models: Path) -> None:
    page = (models / "endovae" / "model.onnx.card.md").read_text(encoding="utf-8")
    for heading in ("Intended use", "Data", "Protocol", "Measured results", "Inputs", "Outputs", "Limits", "Versions"):
        assert f"## {heading}" in page
    assert "no diagnosis" in page and "**Not for:** diagnosis" in page and "trivial: black fraction" in page
    card = json.loads((models / "pixelda" / "model.onnx.card.json").read_text(encoding="utf-8"))
    assert card["data"]["target"]["sha256"] and card["protocol"]["Checkpoint"] == "ema-last"
    assert "No label of the target domain was used" in card["protocol"]["Labels"]
    assert card["protocol"]["Classifier"].startswith("paper, ")
    assert card["results"][0]["images"].endswith("source test split")
    assert card["inputs"][0]["dtype"] == "uint8"


def changed(path: Path, out: Path, position: int) -> Path:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    out.write_bytes(content)
    return out


@pytest.mark.parametrize("position", [200, -200, -70, -1])
def test_a_file_that_was_changed_is_refused(models: Path, digits: Path, tmp_path: Path, position: int) -> None:
    bad = changed(models / "pixelda" / "model.onnx", tmp_path / "bad.onnx", position)
    with pytest.raises(InputError, match="changed since"):
        classify(bad, [digits], tmp_path / "labels.csv")


def test_a_file_edited_with_onnx_is_refused(models: Path, digits: Path, tmp_path: Path) -> None:
    model = onnx.load(models / "pixelda" / "model.onnx")
    model.metadata_props[-2].value = model.metadata_props[-2].value.replace('"0"', '"9"')
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(InputError, match="changed since it was exported"):
        classify(tmp_path / "edited.onnx", [digits], tmp_path / "labels.csv")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="was not made by `pixelscope export`"):
        classify(tmp_path / "foreign.onnx", [digits], tmp_path / "labels.csv")


def test_weights_that_were_changed_are_refused(models: Path, digits: Path, tmp_path: Path) -> None:
    path = models / "pixelda-weights" / "model.safetensors"
    bad = changed(path, tmp_path / "bad.safetensors", -5)
    with pytest.raises(InputError, match=r"bad\.safetensors was changed"):
        classify(bad, [digits], tmp_path / "labels.csv")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.safetensors is damaged"):
        classify(tmp_path / "cut.safetensors", [digits], tmp_path / "labels.csv")
    tensors, about = read_weights(path)
    name = next(iter(tensors))
    write_weights(tmp_path / "shape.safetensors", tensors | {name: torch.zeros(3)}, about)
    with pytest.raises(InputError, match="weights.*export the run again"):
        classify(tmp_path / "shape.safetensors", [digits], tmp_path / "labels.csv")


def test_a_file_of_another_version_or_another_system_is_refused(models: Path, digits: Path, tmp_path: Path) -> None:
    about = OnnxModel(models / "pixelda" / "model.onnx").about
    with pytest.raises(InputError, match="format 9.* update it"):
        parse_metadata(about.model_copy(update={"format": 9}).model_dump_json(), "model.onnx")
    old = {"format": 1, "versions": {"pixelscope": "0.1.0"}}
    with pytest.raises(InputError, match=r"format 1.* use version 0\.1\.0"):
        parse_metadata(about.model_copy(update=old).model_dump_json(), "model.onnx")
    with pytest.raises(InputError, match="damaged metadata"):
        parse_metadata("{}", "model.onnx")
    with pytest.raises(InputError, match="model of endovae, not of pixelda"):
        classify(models / "endovae" / "model.onnx", [digits], tmp_path / "labels.csv")
    with pytest.raises(InputError, match="--devices"):
        classify(models / "pixelda" / "model.onnx", [digits], tmp_path / "labels.csv", devices=2)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(InputError, match=".onnx or .safetensors"):
        classify(tmp_path / "model.pt", [digits], tmp_path / "labels.csv")


def test_a_file_that_disagrees_is_not_written(endovae_run: Path, tmp_path: Path, monkeypatch) -> None:
    class Other(torch_model.EndoVAEGraph):
        def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, ...]:
            reconstruction, error, dissimilarity, kl, mean = super().forward(frames)
            return reconstruction, error, dissimilarity, kl, mean + 2e-3

    monkeypatch.setattr(torch_model, "EndoVAEGraph", Other)
    with pytest.raises(InputError, match=r"84 images .*mean 0.00.*; allowed 0.0001"):
        export(endovae_run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_differences_are_relative_over_one_and_never_hidden() -> None:
    found = compare({"a": np.array([10.0, 0.5])}, {"a": np.array([10.001, 0.5001])})
    assert found.largest == pytest.approx(1e-4, rel=1e-3)
    assert compare({"a": np.array([1.0])}, {"a": np.array([np.nan])}).largest == float("inf")
    assert compare({"a": np.zeros(2)}, {"a": np.zeros((2, 1))}).largest == float("inf")


def test_what_cannot_be_exported_is_said(endovae_run: Path, pixelda_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not end in .onnx; .*--format.* folder"):
        export(pixelda_run, tmp_path / "model.pt")
    (tmp_path / "model.onnx.card.md").write_text("mine")
    with pytest.raises(InputError, match="model.onnx.card.md exists already"):
        export(pixelda_run, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="is not a run folder"):
        export(tmp_path, tmp_path / "other.onnx")
    young = tmp_path / "young"
    shutil.copytree(endovae_run, young)
    (young / "checkpoints" / FILE).unlink()
    with pytest.raises(InputError, match="There is no calibration in"):
        export(young, tmp_path / "other.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx.card.md", "young"]


def test_sealing_covers_every_byte(models: Path) -> None:
    about = OnnxModel(models / "pixelda" / "model.onnx").about
    content = with_checksum(b"model", about)
    assert content.startswith(b"model") and with_checksum(b"modem", about)[-64:] != content[-64:]


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_a_file_has_one_checkpoint(models: Path, digits: Path, frame_files: Path, tmp_path: Path, name: str) -> None:
    ending = "" if name.endswith(".onnx") else "-weights"
    with pytest.raises(InputError, match="one checkpoint; drop --checkpoint last"):
        classify(models / f"pixelda{ending}" / name, [digits], tmp_path / "labels.csv", checkpoint="last")
    with pytest.raises(InputError, match="one checkpoint; drop --checkpoint last"):
        score(models / f"endovae{ending}" / name, [frame_files], tmp_path / "scores.csv", checkpoint="last")


@pytest.mark.parametrize("change", [{"images": 1}, {"checkpoint": "last"}])
@pytest.mark.parametrize("system", ["pixelda", "endovae"])
def test_a_card_shows_no_numbers_that_were_measured_of_other_weights(
    system: str, change: dict, pixelda_run: Path, endovae_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(pixelda_run if system == "pixelda" else endovae_run, run)
    cards = []
    for number, changed in enumerate(({}, change)):
        stored = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
        (run / "evaluation.json").write_text(json.dumps(stored | changed), encoding="utf-8")
        export(run, tmp_path / f"{number}" / "model.safetensors", form="safetensors")
        (card,) = (tmp_path / f"{number}").glob("*.card.md")
        cards.append(card.read_text(encoding="utf-8"))
    assert "## Measured results\n| " in cards[0]
    assert "## Measured results\nNone." in cards[1]


def test_a_card_calls_no_default_score_selected(endovae_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(endovae_run, tmp_path / "run")
    file = run / "checkpoints" / "calibration.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    for view in known["views"].values():
        view |= {"selection_auroc": {}, "selection_counts": {"normal": 5}}
    file.write_text(json.dumps(known | {"held_out": False}), encoding="utf-8")
    export(run, tmp_path / "model.safetensors", form="safetensors")
    (card,) = tmp_path.glob("*.card.md")
    text = card.read_text(encoding="utf-8")
    assert "selected on validation frames" not in text and "also selected checkpoint and score" in text


def test_what_a_killed_export_leaves_is_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    beside = list(sidecar_files(out).values())
    for path in beside:
        path.write_text("begun")
    with pytest.raises(InputError, match="exists already"):
        require_new_export(out, "onnx")
    assert all(path.exists() for path in beside)

    (tmp_path / ".model.onnx.unfinished").touch()
    require_new_export(out, "onnx")
    assert list(tmp_path.iterdir()) == []
