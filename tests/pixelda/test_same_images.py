"""A run knows its own images: changed ones are refused where they pass for its own, and measured only where they are named."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import evaluate, export
from pixelscope.cli import main
from pixelscope.data.imageset import image_hashes
from pixelscope.errors import InputError
from pixelscope.pixelda.checkpoints import read_run
from pixelscope.pixelda.data import SeenImages, load_domains
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.pixelda.refinement.training import refine
from pixelscope.pixelda.results import Evaluation
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder


def write_source(folder: Path, count: int = 40) -> Path:
    """Write `count` images in two class folders."""
    for number, image in enumerate(tiny.pictures(count)[0]):
        place = folder / ("even" if number % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02d}.png")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Path:
    made = train_baseline(tiny.baseline(source=str(source), training={"images": 16}), run=tmp_path / "run")
    evaluate(made)
    return made


def files_of(run: Path, split: str) -> list[Path]:
    config = read_run(RunFolder(run)).config
    part = getattr(load_domains(config).source, split)
    return [Path(config.source) / name for name in part.names]


def test_the_record_holds_a_digest_of_every_split(run: Path) -> None:
    config = read_run(RunFolder(run)).config
    own, recorded = load_domains(config).source, RunFolder(run).read_record()["data"]["source"]
    for split, key in (("train", "sha256"), ("validation", "sha256_validation"), ("test", "sha256_test")):
        assert recorded[key] == getattr(own, split).digest()
    assert len({recorded[key] for key in ("sha256", "sha256_validation", "sha256_test")}) == 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_changed_image_is_noticed_and_the_stored_result_kept(run: Path, split: str) -> None:
    stored = (run / "evaluation.json").read_bytes()
    file = files_of(run, split)[0]
    Image.fromarray(255 - np.array(Image.open(file))).save(file)
    with pytest.raises(InputError, match=f"{'training' if split == 'train' else 'test'} images.* SHA-256"):
        evaluate(run)
    with pytest.raises(InputError, match="SHA-256"):
        export(run, run.parent / "model.onnx")
    assert (run / "evaluation.json").read_bytes() == stored


def test_an_image_more_is_measured_only_where_named_and_without_what_was_trained_on(run: Path, source: Path) -> None:
    """One image more changes the random split: most of the new test split was trained on."""
    stored = (run / "evaluation.json").read_bytes()
    trained_on = {Path(file).name for file in files_of(run, "train")}
    Image.fromarray(tiny.pictures(1, seed=9)[0][0]).save(source / "even" / "zz.png")
    with pytest.raises(InputError, match="SHA-256"):
        evaluate(run)
    config = read_run(RunFolder(run)).config
    new_test = load_domains(config).source.test
    unseen = [name for name in new_test.names if Path(name).name not in trained_on]
    assert 0 < len(unseen) < len(new_test)
    result = evaluate(run, source=str(source))
    assert result.sets["source_test"].count == len(unseen)
    assert f"without {len(new_test) - len(unseen)} images" in result.sets["source_test"].title
    assert (run / "evaluation.json").read_bytes() == stored


def test_the_command_of_the_message_works_and_is_named_only_where_it_does(tmp_path: Path) -> None:
    source, target = write_source(tmp_path / "my images"), tmp_path / "unlabelled"
    target.mkdir()
    for number, image in enumerate(tiny.pictures(20, seed=3)[0]):
        Image.fromarray(image).save(target / f"{number}.png")
    config = tiny.baseline(source=str(source), target=str(target), training={"images": 16})
    run = train_baseline(config, run=tmp_path / "my run")
    Image.fromarray(tiny.pictures(1, seed=9)[0][0]).save(source / "even" / "zz.png")
    with pytest.raises(InputError, match="as other images") as error:
        evaluate(run)
    command = str(error.value).split("`")[1]
    assert main(shlex.split(command)[1:]) == 0
    (source / "even" / "zz.png").unlink()
    (target / "0.png").unlink()
    with pytest.raises(InputError, match="target.*SHA-256.* Restore them\\."):
        evaluate(run)


def test_its_own_training_images_alone_cannot_be_measured(run: Path, tmp_path: Path) -> None:
    for file in files_of(run, "train"):
        (tmp_path / "seen" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "seen" / file.parent.name)
    with pytest.raises(InputError, match="every image"):
        evaluate(run, source=str(tmp_path / "seen"))


def test_the_runs_own_images_need_not_be_there_where_both_others_are_named(run: Path, source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source)
    other = write_source(tmp_path / "other", count=20)
    for file in sorted(other.rglob("*.png")):
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    assert evaluate(run, source=str(other), target=str(other)).sets["target_all"].count == 20


def test_hashes_are_of_the_pixels_in_colour() -> None:
    images = tiny.image_set(5).in_memory()
    grey = images[:, :1]
    assert (image_hashes(grey) == image_hashes(grey.repeat(3, 1))).all()
    assert len(set(image_hashes(images).tolist())) == 5
    assert (image_hashes(images) != image_hashes(images[..., ::-1])).all()


def test_a_run_says_what_it_has_seen_in_both_domains(tmp_path: Path) -> None:
    source, target = tiny.write_domains(tmp_path)
    config = tiny.pixelda(source=source, target=target, data={"validation_fraction": 0.2}, training={"images": 16})
    seen = SeenImages.load(RunFolder(train_pixelda(config, run=tmp_path / "run")))
    own = load_domains(config)
    assert seen is not None and own.target is not None
    for part in (own.source.train, own.source.validation, own.target.train):
        assert seen.holds(part).all()
    for part in (own.source.test, own.target.test):
        assert not seen.holds(part).any()


def test_a_damaged_list_of_what_was_seen_is_named(run: Path, source: Path) -> None:
    (run / "seen.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="seen.safetensors"):
        evaluate(run, source=str(source))


# --- refinement -------------------------------------------------------------------------------------------------------


def small(run: Path, **teacher: object) -> RefineConfig:
    training = {
        "batch_size": 8,
        "images": 16,
        "evaluate_every": 16,
        "checkpoint_every": 16,
        "log_every": 16,
        "ema_half_life": 8,
    }
    return RefineConfig.parse(
        {
            "run": str(run),
            "network": {"width": 4},
            "generated": {"pool_size": 16, "refresh_every": 48},
            "self_training": {"rampup_images": 0, **teacher},
            "training": training,
            "runtime": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
        }
    )


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    source, target = tiny.write_domains(tmp_path)
    return train_pixelda(tiny.pixelda(source=source, target=target, training={"images": 16}), run=tmp_path / "adapted")


def test_a_teacher_that_saw_other_splits_is_refused(adapted: Path, tmp_path: Path) -> None:
    """Same settings, same places, same classes: only the images in the target file are in another order."""
    with np.load(tmp_path / "target.npz") as file:
        arrays = dict(file)
    order = np.random.default_rng(3).permutation(len(arrays["labels"]))
    config = json.loads(json.dumps(read_run(RunFolder(adapted)).config.model_dump(mode="json")))
    original = (tmp_path / "target.npz").read_bytes()
    np.savez(tmp_path / "target.npz", **{name: values[order] for name, values in arrays.items()})
    teacher = train_pixelda(
        tiny.pixelda(**{k: config[k] for k in ("source", "target")}, training={"images": 16}), run=tmp_path / "t"
    )
    (tmp_path / "target.npz").write_bytes(original)
    with pytest.raises(InputError, match="teacher"):
        refine(small(adapted, teacher=str(teacher)), run=tmp_path / "refined")
    assert not (tmp_path / "refined").exists()
    refine(small(adapted, teacher=str(adapted)), run=tmp_path / "refined")


def test_a_refinement_of_changed_images_is_refused(adapted: Path, tmp_path: Path) -> None:
    images, labels = tiny.pictures(60, seed=5, coloured=True)
    np.savez(tmp_path / "target.npz", images=images, labels=labels)
    with pytest.raises(InputError, match="target.* SHA-256"):
        refine(small(adapted), run=tmp_path / "refined")
    assert not (tmp_path / "refined").exists()


# --- a given target is measured, or the command says why not ----------------------------------------------------------


def named(path: Path, names: list[str], seed: int = 1) -> Path:
    """Write 60 images into a folder per class; `names` are the three classes' names, a fourth holds one image more."""
    images, labels = tiny.pictures(60, seed)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / names[label] / f"{number}.png")
    for name in names[3:]:
        (path / name).mkdir()
        for number in range(2):
            Image.fromarray(255 - images[number]).save(path / name / f"{number}.png")
    return path


def test_class_names_in_another_case_are_the_same_classes(tmp_path: Path) -> None:
    source, target = named(tmp_path / "s", ["bright", "left", "top"]), named(tmp_path / "t", ["Bright", "LEFT", "top"], 2)
    run = train_baseline(tiny.baseline(source=str(source), target=str(target), training={"images": 16}), run=tmp_path / "run")
    result = evaluate(run)
    assert result.sets["target_all"].count == 60
    assert [row.count for row in result.sets["target_all"].per_class] == [20, 20, 20]


def test_a_target_with_a_class_more_is_named_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = (
        named(tmp_path / "s", ["bright", "left", "top"]),
        named(tmp_path / "t", ["bright", "left", "top", "more"], 2),
    )
    settings = tmp_path / "tiny.yaml"
    tiny.baseline(training={"images": 16}).save(settings)
    text = "\n".join(line for line in settings.read_text().splitlines() if not line.startswith(("source:", "target:")))
    settings.write_text(text)
    command = ["pixelda", "baseline", "--config", str(settings), "--source", str(source), "--target", str(target)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    last = "\n".join(capsys.readouterr().out.splitlines()[-5:])
    assert "target is not known" in last and "more" in last
    assert "target is not known" in Evaluation.load(tmp_path / "run" / "evaluation.json").notes[0]


def test_an_export_says_which_images_it_was_compared_on(run: Path, tmp_path: Path) -> None:
    own = export(run, tmp_path / "own.safetensors", form="safetensors")
    assert "test split of the run" in own.to_text()
    assert "test split of the run" in (tmp_path / "own.safetensors.card.md").read_text()
    other = write_source(tmp_path / "other", count=20)
    named = export(run, tmp_path / "named.safetensors", form="safetensors", images=str(other))
    assert "Images of other" in named.to_text() and "test split of the run" not in named.to_text()
