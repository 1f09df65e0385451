"""The two domains of a run: copies stay on one side of their splits, and what is missing is named."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures import tiny
from fixtures.sources import write_classes
from pixelscope import evaluate
from pixelscope.cli import main
from pixelscope.data.pack import pack
from pixelscope.errors import InputError
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.data import load_domains
from pixelscope.pixelda.refinement.training import refine
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder


def with_copies(folder: Path) -> Path:
    """Write two classes of 20 images, each of them twice, and one class of a single image."""
    write_classes(folder, {"a": 20, "b": 20, "rare": 1}, side=tiny.SIZE)
    for file in sorted(folder.glob("[ab]/*.png")):
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    return folder


def pixels(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_copy_of_a_training_image_is_tested(tmp_path: Path, seed: int) -> None:
    source = with_copies(tmp_path / "source")
    config = tiny.pixelda(source=str(source), target=str(source))
    config = config.model_copy(update={"data": config.data.model_copy(update={"seed": seed, "validation_fraction": 0.2})})
    domains = load_domains(config, training=False)
    assert domains.target is not None
    parts = [pixels(part.in_memory()) for part in (domains.source.train, domains.source.validation, domains.source.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 41
    assert not pixels(domains.target.train.in_memory()) & pixels(domains.target.test.in_memory())


def test_copies_and_classes_without_images_are_in_the_record_and_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train_baseline(tiny.baseline(source=str(with_copies(tmp_path / "source"))), run=tmp_path / "run")
    notes = json.loads((run / "run.json").read_text())["data"]["source"]["notes"]
    assert notes[0].startswith("40 of 81 images are exact copies of others")
    assert notes[1].startswith("The class rare has no t")
    printed = capfd.readouterr().err
    assert all(f"Note on the source: {note}" in printed for note in notes)


def domains_with_copies(folder: Path) -> tuple[Path, Path]:
    """Write a source, and a target whose test split has 8 copies of source images and 4 of its own training images."""
    source, target = write_classes(folder / "source", {"a": 20, "b": 20}, side=tiny.SIZE), folder / "target"
    for part, count, seed in (("train", 8, 1), ("test", 5, 2)):
        write_classes(target / part, {"a": count, "b": count}, side=tiny.SIZE, seed=seed)
    for name in "ab":
        for copied, prefix, count in ((source / name, "source", 4), (target / "train" / name, "own", 2)):
            for file in sorted(copied.glob("*.png"))[:count]:
                (target / "test" / name / f"{prefix}-{file.name}").write_bytes(file.read_bytes())
    return source, target


@pytest.mark.parametrize(("fraction", "least"), [(0.001, 7), (0.4, 1)])
def test_test_images_that_are_copies_of_source_images_are_counted(tmp_path: Path, fraction: float, least: int) -> None:
    """Copies of source images that are in the source's test split do no harm."""
    source, target = domains_with_copies(tmp_path)
    config = tiny.pixelda(source=str(source), target=str(target), data={"test_fraction": fraction})
    found = load_domains(config, training=False)
    assert found.target is not None and len(found.target.test) == 22 and found.source.leaks == ()
    known = pixels(found.source.train.in_memory()) | pixels(found.source.validation.in_memory())
    copied = sum(image.tobytes() in known for image in found.target.test.in_memory())
    assert least <= copied <= 8
    own, shared = found.target.leaks
    assert own.startswith("4 test images are exact copies") and set(found.target.leaks) <= set(found.target.notes)
    assert shared.startswith(f"{copied} of 22 test images are exact copies of labelled source images")
    scaled = {"test_fraction": fraction, "target_framing": (8, 4, 4, 0, 0, 0)}
    framed = load_domains(tiny.pixelda(source=str(source), target=str(target), data=scaled), training=False).target
    assert framed is not None and framed.leaks == found.target.leaks
    assert not np.array_equal(framed.test.in_memory(), found.target.test.in_memory())


def test_a_target_that_is_the_source_is_named(tmp_path: Path) -> None:
    source, target = domains_with_copies(tmp_path)
    for given, same in ((source, True), (target, False)):
        found = load_domains(tiny.pixelda(source=str(source), target=str(given)), training=False).target
        assert found is not None and any("also in the source" in note for note in found.notes) == same


def test_train_and_evaluate_tell_of_copies_in_the_test_split(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, target = domains_with_copies(tmp_path)
    run = train_pixelda(tiny.pixelda(source=str(source), target=str(target)), run=tmp_path / "run")
    printed = capfd.readouterr().err
    domains = load_domains(tiny.pixelda(source=str(source), target=str(target)), training=False)
    assert domains.target is not None and len(domains.target.leaks) == 2
    assert all(f"Note on the target: {leak}" in printed for leak in domains.target.leaks)
    other = str(write_classes(tmp_path / "other", {"a": 8, "b": 8}, side=tiny.SIZE, seed=3))
    for text in (evaluate(run).to_text(), evaluate(run, source=other).to_text()):
        assert all(f"target's test split may be too high: {leak}" in text for leak in domains.target.leaks)
    assert "too high" not in evaluate(run, target=other).to_text()
    refined = refine(tiny.refined(run=str(run)), run=tmp_path / "refined")
    assert all(leak in evaluate(refined).to_text() for leak in domains.target.leaks)
    shutil.rmtree(target / "train")
    shutil.rmtree(target / "test")
    write_classes(target, {"a": 8, "b": 8}, side=tiny.SIZE, seed=3)
    clean = train_pixelda(tiny.pixelda(source=str(source), target=str(target)), run=tmp_path / "clean")
    assert "too high" not in evaluate(clean).to_text()


def test_a_source_without_labels_says_how_it_was_read(tmp_path: Path) -> None:
    source = write_classes(tmp_path / "source", {"a": 3, "b": 3}, side=tiny.SIZE)
    (source / "a" / "0.png").rename(source / "loose.png")
    with pytest.raises(InputError, match=r"no labels; .*labels\.csv.* folders a, b: loose\.png"):
        load_domains(tiny.baseline(source=str(source)), training=False)


# --- groups and classes -----------------------------------------------------------------------------------------------

TRACK = r"^(\w+/\d+)_"


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "rendered", {"a": 10, "b": 10, "c": 10}, side=tiny.SIZE)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of the classes A, b and x in tracks of four frames."""
    folder = write_classes(tmp_path / "photos", {"A": 20, "b": 20, "x": 12}, side=tiny.SIZE, seed=1)
    for file in sorted(folder.rglob("*.png")):
        file.rename(file.with_name(f"{int(file.stem) // 4}_{file.name}"))
    return folder


def adapting(source: Path, target: Path, **data: object) -> PixelDAConfig:
    return tiny.pixelda(source=str(source), target=str(target), data=data)


def tracks(names: object) -> set[str]:
    return {str(name).split("_")[0] for name in names}  # type: ignore[attr-defined]


@pytest.mark.parametrize("packed", [False, True])
def test_groups_never_part_in_folders_and_packs(tmp_path: Path, rendered: Path, photos: Path, packed: bool) -> None:
    where = tmp_path / "pack" if packed else photos
    if packed:
        pack(str(photos), where, size=tiny.SIZE)
    domains = load_domains(adapting(rendered, where, group_by=TRACK, classes="source"), training=False)
    target = domains.target
    assert target is not None and not domains.target_unmeasured
    assert len(target.test) == 8, "a fifth of 40, two tracks"
    assert len(tracks(target.test.names)) == 2
    assert not tracks(target.test.names) & tracks(target.train.names)
    assert any("40 images are in 10 groups" in note for note in target.notes)


def test_without_the_settings_splits_are_those_of_before(rendered: Path, photos: Path) -> None:
    domains = load_domains(adapting(rendered, photos), training=False)
    assert domains.target is not None
    assert "x" in domains.target_unmeasured
    order = torch.randperm(52, generator=torch.Generator().manual_seed(0))
    assert len(domains.target.test) == 10
    assert np.array_equal(domains.target.training_positions, order[10:].sort().values)


def test_a_target_that_cannot_be_measured_is_grouped_too(rendered: Path, photos: Path) -> None:
    domains = load_domains(adapting(rendered, photos, group_by=TRACK), training=False)
    assert domains.target is not None and domains.target_unmeasured
    assert len(domains.target.test) == 8
    groups = np.bincount(domains.target.training_positions // 4, minlength=13)
    assert set(groups.tolist()) == {0, 4}


def test_images_of_classes_that_the_source_lacks_are_left_out_by_name_and_count(rendered: Path, photos: Path) -> None:
    domains = load_domains(adapting(rendered, photos, classes="source"), training=False)
    target = domains.target
    assert target is not None and domains.target_unmeasured == ""
    assert target.count == 40
    assert target.test.labels is not None
    for name, label in zip(target.test.names, target.test.labels.tolist(), strict=True):
        assert domains.classes[label] == name.split("/")[0].lower()
    assert "2 classes" in target.test.provenance.title
    left_out = "Left out 12 of 52 images by their labels, of 1 class that the source lacks: x."
    assert left_out in target.test.provenance.notes
    assert [note for note in target.notes if " c" in note] == ["1 class without an image: c."]


def test_left_out_images_are_not_trained_on(tmp_path: Path, rendered: Path, photos: Path) -> None:
    config = adapting(rendered, photos, classes="source", group_by=TRACK)
    run = train_pixelda(
        config.model_copy(update={"training": config.training.model_copy(update={"images": 16})}), run=tmp_path / "run"
    )
    notes = json.loads((run / "run.json").read_text())["data"]["target"]["notes"]
    assert any(note.startswith("Left out 12") for note in notes)
    assert any("10 groups" in note for note in notes)
    found = evaluate(run)
    assert found.sets["target_all"].count == 40
    assert any("not independent" in note for note in found.notes), "photos of one track are alike"
    write_classes(tmp_path / "other", {"a": 4, "b": 4, "y": 4}, side=24)
    for file in sorted((tmp_path / "other").rglob("*.png")):
        file.rename(file.with_name(f"{file.parent.name == 'b':d}_{file.name}"))
    other = evaluate(run, target=str(tmp_path / "other")).sets
    assert (other["target_all"].count, other["target_test"].count) == (8, 4), "a track of four is not parted"
    RunFolder(run).update_record(state="stopped")
    assert any("not finished" in note for note in evaluate(run, target=str(tmp_path / "other")).notes)
    (tmp_path / "other" / "loose.png").write_bytes((tmp_path / "other" / "a" / "0_0.png").read_bytes())
    with pytest.raises(InputError, match="cannot be measured: .*other has no labels; give labelled images.$"):
        evaluate(run, target=str(tmp_path / "other"))


BAD_PATTERNS = [
    ("(", "--data.group-by .*regular expression"),
    ("a_", "--data.group-by .*has no parentheses"),
    (r"^(\d{9})_", r"'\^\(\\d\{9\}\)_' matches the path of no image \(the source has a/0.png; the target has A/0_0.png\)"),
    (r"(\.png)", "puts all images of the source .*rendered into one group"),
    (r"^\w/\d+(_)", "puts all images of the target .*photos into one group"),
    ("^([^/]+)/", r"'\^\(\[\^/\]\+\)/' puts each class of the source into one group.*CLASS/PATIENT/name"),
]


@pytest.mark.parametrize(("pattern", "said"), BAD_PATTERNS)
def test_a_pattern_that_groups_nothing_or_everything_is_refused(
    tmp_path: Path, rendered: Path, photos: Path, pattern: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pixelda", "train", "--source", str(rendered), "--target", str(photos), "--out", str(tmp_path / "run")]
    assert main([*words, "--data.group-by", pattern]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert [line.startswith("Error: ") for line in error.splitlines()][-1:] == [True], "one sentence, and nothing after it"
    assert not (tmp_path / "run").exists()


def test_groups_that_hold_out_a_class_are_refused(tmp_path: Path, rendered: Path, photos: Path) -> None:
    for file in sorted((rendered / "a").glob("*.png")):
        file.rename(file.with_name(f"0_{file.name}"))
    config = adapting(rendered, photos, group_by=r"^(a|\w/\d+_)", test_fraction=0.4)
    missing = [seed for seed in range(8) if "a" not in trained_classes(config, seed)]
    assert missing, "one of the seeds holds out the class"
    for seed in missing:
        with pytest.raises(InputError, match=r"no training image of 1 class of the source \(a\).*--data\.seed"):
            load_domains(with_seed(config, seed))


def trained_classes(config: PixelDAConfig, seed: int) -> set[str]:
    """Return the classes of the source that have training images."""
    train = load_domains(with_seed(config, seed), training=False).source.train
    return {name for name, count in zip(train.classes, train.class_counts(), strict=True) if count}


def with_seed(config: PixelDAConfig, seed: int) -> PixelDAConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"seed": seed})})


def test_groups_of_patients_in_classes_are_kept_together(tmp_path: Path, rendered: Path) -> None:
    for file in sorted(rendered.rglob("*.png")):
        (file.parent / f"patient-{int(file.stem) // 2}").mkdir(exist_ok=True)
        file.rename(file.parent / f"patient-{int(file.stem) // 2}" / file.name)
    domains = load_domains(adapting(rendered, rendered, group_by="^([^/]+/[^/]+)/"))
    parts = [{name.rpartition("/")[0] for name in part.names or ()} for part in (domains.source.train, domains.source.test)]
    assert [len(part) for part in parts] == [12, 3] and not parts[0] & parts[1]


def test_a_pack_without_names_cannot_be_grouped(tmp_path: Path, photos: Path) -> None:
    pack(str(photos), tmp_path / "pack", size=tiny.SIZE)
    (tmp_path / "pack" / "names.json").unlink()
    config = tiny.baseline(source=str(tmp_path / "pack"), data={"group_by": TRACK})
    with pytest.raises(InputError, match="has no paths; pack its images again"):
        load_domains(config, training=False)


def test_a_target_without_labels_or_without_a_class_of_the_source_has_no_images_to_leave_out(
    tmp_path: Path, rendered: Path
) -> None:
    flat = write_classes(tmp_path / "flat", {"only": 12}, side=tiny.SIZE)
    with pytest.raises(InputError, match=r"flat has no labels.*two or more class folders, flat/CLASS/name\.jpg"):
        load_domains(adapting(flat, rendered), training=False)
    with pytest.raises(InputError, match="has no labels.*--data.classes source"):
        load_domains(adapting(rendered, flat, classes="source"), training=False)
    other = write_classes(tmp_path / "other", {"x": 12, "y": 12}, side=tiny.SIZE)
    with pytest.raises(InputError, match=r"No image of .*other has a class of the source"):
        load_domains(adapting(rendered, other, classes="source"), training=False)
    why = load_domains(adapting(rendered, other), training=False).target_unmeasured
    assert "Rename" in why and "--data.classes" not in why, "no class is shared, so that none would be left"
