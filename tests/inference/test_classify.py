"""Classify and adapt: what they write of a folder, against the networks themselves."""

import csv
import gc
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fixtures import tiny
from fixtures.weights import Tensors, edit
from pixelscope import InputError, Interrupted
from pixelscope.config import merge
from pixelscope.data import load
from pixelscope.data.formats.decode import read_image
from pixelscope.data.loader import to_float
from pixelscope.data.sources.listing import image_files
from pixelscope.pixelda.checkpoints import load_checkpoint
from pixelscope.pixelda.inference.adapt import adapt
from pixelscope.pixelda.inference.classify import classify
from pixelscope.pixelda.training import train_baseline
from pixelscope.runs.folder import RunFolder


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_gets_the_networks_answer(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    written = classify(pixelda_run, [digits], tmp_path / "labels.csv")
    rows = read(tmp_path / "labels.csv")
    assert (written.rows, written.failed) == (40, 0)
    classifier = load_checkpoint(pixelda_run).classifier
    for row in rows:
        image = np.broadcast_to(read_image(Path(row["name"]), tiny.SIZE), (tiny.SIZE, tiny.SIZE, 3))
        with torch.no_grad():
            batch = to_float(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
            found = torch.softmax(classifier(batch), 1)[0]
        best, second = found.topk(2).indices.tolist()
        assert (row["label"], row["runner_up"]) == (str(best), str(second))
        assert float(row["probability"]) == pytest.approx(float(found[best]), abs=1e-3)
        assert float(row["runner_up_probability"]) == pytest.approx(float(found[second]), abs=1e-3)


def test_a_row_does_not_depend_on_its_neighbours_or_on_the_devices(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    files = image_files(digits)
    classify(pixelda_run, files, tmp_path / "all.jsonl")
    classify(pixelda_run, files, tmp_path / "two.jsonl", devices=2)
    classify(pixelda_run, files[7:8], tmp_path / "one.jsonl")
    rows = (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()
    assert (tmp_path / "two.jsonl").read_text(encoding="utf-8").splitlines() == rows
    assert json.loads((tmp_path / "one.jsonl").read_text(encoding="utf-8")) == json.loads(rows[7])


def test_a_table_cut_anywhere_has_the_same_digits_when_it_is_resumed(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    classify(pixelda_run, [digits], tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (1, 7, 18, len(lines) - 2):
        out = tmp_path / f"{kept}.csv"
        with pytest.raises(Interrupted):
            classify(pixelda_run, [digits], out, progress=_interrupt)
        Path(f"{out}.part").write_bytes(b"".join(lines[: kept + 1]))
        classify(pixelda_run, [digits], out, resume=True, devices=3)
        assert out.read_bytes() == whole, kept


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_the_baselines_answer_stands_beside(pixelda_run: Path, baseline_run: Path, digits: Path, tmp_path: Path) -> None:
    classify(pixelda_run, [digits], tmp_path / "both.csv", baseline=baseline_run)
    classify(baseline_run, [digits], tmp_path / "alone.csv")
    both, alone = read(tmp_path / "both.csv"), read(tmp_path / "alone.csv")
    assert [row["baseline_label"] for row in both] == [row["label"] for row in alone]
    assert [row["baseline_probability"] for row in both] == [row["probability"] for row in alone]


def test_run_and_baseline_read_deep_images_with_their_own_ranges(pixelda_run: Path, baseline_run: Path, tmp_path: Path) -> None:
    folder, images = tmp_path / "deep", tiny.pictures(6)[0][..., 0]
    folder.mkdir()
    for number, image in enumerate([*images, np.full((16, 16), 99)]):
        Image.fromarray(image.astype(np.uint16) * 16).save(folder / f"{number}.png")
    runs = [Path(shutil.copytree(run, tmp_path / run.name)) for run in (pixelda_run, baseline_run)]
    for run, name, high in zip(runs, ("target_range", "source_range"), (65535, 4095), strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(merge(config, {"data": {name: [0, high]}})))
    written = classify(runs[0], [folder], tmp_path / "both.csv", baseline=runs[1])
    for number, run in enumerate(runs):
        classify(run, [folder], tmp_path / f"{number}.csv")
    both, adapted, baseline = (read(tmp_path / f"{name}.csv") for name in ("both", "0", "1"))
    assert [row["baseline_probability"] for row in both] == [row["probability"] for row in baseline]
    assert [row["probability"] for row in both] == [row["probability"] for row in adapted]
    (flat,) = [text for text in written.notes if "flat colour" in text]
    assert f"1 ({folder / '6.png'})" in flat


def test_a_baseline_of_another_size_is_refused_and_leaves_nothing(
    pixelda_run: Path, domains: tuple[str, str], digits: Path, tmp_path: Path
) -> None:
    other = train_baseline(tiny.baseline(source=domains[0], data={"size": 24}), run=tmp_path / "other")
    with pytest.raises(InputError, match="different image sizes"):
        classify(pixelda_run, [digits], tmp_path / "labels.csv", baseline=other)
    assert not list(tmp_path.glob("labels*"))


def test_what_cannot_classify_is_said(pixelda_run: Path, endovae_run: Path, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    with pytest.raises(InputError, match="is a run of 'endovae', not of pixelda"):
        classify(endovae_run, [digits], out)
    with pytest.raises(InputError, match="is not a run folder"):
        classify(tmp_path, [digits], out)
    with pytest.raises(InputError, match="There is no .*nowhere"):
        classify(pixelda_run, [tmp_path / "nowhere"], out)
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(InputError, match="no images in .*empty"):
        classify(pixelda_run, [tmp_path / "empty"], out)
    with pytest.raises(InputError, match="'best'; give one of: adapted, auto"):
        classify(pixelda_run, [digits], out, choose="best")  # pyright: ignore[reportArgumentType]
    stopped = tmp_path / "stopped"
    shutil.copytree(pixelda_run, stopped)
    RunFolder(stopped).update_record(state="stopped", images=40)
    with pytest.raises(InputError, match=r"40 images so far"):
        classify(stopped, [digits], out)
    assert not list(tmp_path.glob("labels*"))
    assert classify(stopped, [digits], out, checkpoint="last").rows == 40


def test_a_source_is_redrawn_with_its_folders(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    written = adapt(pixelda_run, digits, tmp_path / "adapted", styles=3, seed=4)
    assert written.rows == 120
    made = image_files(tmp_path / "adapted")
    expected = {f"{file.relative_to(digits).as_posix()}-{style}.png" for file in image_files(digits) for style in range(3)}
    assert {file.relative_to(tmp_path / "adapted").as_posix() for file in made} == expected
    rows = read(tmp_path / "adapted" / "manifest.csv")
    assert len(rows) == 120 and {row["file"] for row in rows} == expected
    for row in rows:
        inner = Path(row["source"]).relative_to(digits)
        assert row["file"] == f"{inner.as_posix()}-{row['style']}.png" and row["label"] == inner.parts[0] and not row["error"]
    with Image.open(made[0]) as image:
        assert (image.size, image.mode) == ((tiny.SIZE, tiny.SIZE), "RGB")
    styles = [np.asarray(Image.open(file)) for file in made[:3]]
    assert not np.array_equal(styles[0], styles[1]) and not np.array_equal(styles[1], styles[2])


def test_each_file_is_what_g_makes_of_its_own_image(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    """So little trained, G hardly heeds z; its contrast is raised, so that images differ."""

    def sharpen(tensors: Tensors) -> None:
        tensors["average.generator.conv_out.weight"] *= 40

    run = Path(shutil.copytree(pixelda_run, tmp_path / "run"))
    edit(RunFolder(run).checkpoint_files()[-1], sharpen)
    adapt(run, digits, tmp_path / "adapted", styles=3)
    network, files = load_checkpoint(run).generator, image_files(digits)
    assert network is not None
    shown = np.stack([np.broadcast_to(read_image(file, tiny.SIZE), (tiny.SIZE, tiny.SIZE, 3)) for file in files])
    with torch.no_grad():
        drawn = network(to_float(torch.from_numpy(shown).permute(0, 3, 1, 2)), torch.zeros(len(files), 3))
    expected = ((drawn + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(expected[1:] - expected[:-1]).max((1, 2, 3)).min() > 15
    for file, image in zip(files, expected, strict=True):
        for style in range(3):
            written = Image.open(tmp_path / "adapted" / f"{file.relative_to(digits).as_posix()}-{style}.png")
            assert np.abs(np.asarray(written) - image).max() < 8, file


def test_an_image_is_redrawn_alike_whatever_lies_beside_it(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    first = image_files(digits)[0]
    (alone / first.parent.name).mkdir(parents=True)
    shutil.copyfile(first, alone / first.parent.name / first.name)
    adapt(pixelda_run, digits, tmp_path / "all", styles=2)
    adapt(pixelda_run, alone, tmp_path / "one", styles=2)
    adapt(pixelda_run, alone, tmp_path / "other", styles=2, seed=1)
    name = f"{first.parent.name}/{first.name}-1.png"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


NAMES = ("two words.png", "a,b.png", 'a "quoted" name.png', "two\nlines.png", "carriage\rreturn.png", " .png", "=1+1.png")


def test_a_manifest_reads_back_whatever_a_file_is_called(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "train" / "class, one"
    source.mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(tiny.pictures(1)[0][0]).save(source / name)
    adapt(pixelda_run, tmp_path / "in", tmp_path / "out", styles=2)
    rows = read(tmp_path / "out" / "manifest.csv")
    assert {Path(row["source"]).name for row in rows} == set(NAMES) and len(rows) == 2 * len(NAMES)
    assert all((tmp_path / "out" / row["file"]).is_file() and row["label"] == "class, one" for row in rows)


def test_labels_of_a_file_beside_the_images_are_in_the_manifest(pixelda_run: Path, tmp_path: Path) -> None:
    for name in ("one.png", "train/two.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.pictures(1)[0][0]).save(tmp_path / "in" / name)
    (tmp_path / "in" / "labels.csv").write_text('name,label\none.png,"a, b"\ntrain/two.png,c\n', encoding="utf-8")
    adapt(pixelda_run, tmp_path / "in", tmp_path / "out")
    rows = {row["file"]: row["label"] for row in read(tmp_path / "out" / "manifest.csv")}
    assert rows == {"a, b/one.png-0.png": "a, b", "c/train/two.png-0.png": "c"}
    images = load(str(tmp_path / "out"), size=None)
    assert [images.classes[label] for label in images.labels] == ["a, b", "c"]
    found = classify(pixelda_run, [tmp_path / "in"], tmp_path / "found.csv")
    assert (found.rows, found.failed) == (2, 0), "the file of labels is no image that failed"
    assert not any("labels.csv" in note for note in found.notes)


@pytest.mark.parametrize(("one", "other"), [("a/b", "a_b"), ("..", "_")])
def test_labels_that_would_share_a_folder_are_refused(pixelda_run: Path, tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png"):
        Image.fromarray(tiny.pictures(1)[0][0]).save(tmp_path / "in" / name)
    table = tmp_path / "in" / "labels.csv"
    table.write_text(f"1.png,{one}\n2.png,{other}\n", encoding="utf-8")
    with pytest.raises(InputError, match="would have one folder"):
        adapt(pixelda_run, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    table.write_text(f"1.png,{one}\n2.png,{one}\n", encoding="utf-8")
    adapt(pixelda_run, tmp_path / "in", tmp_path / "out")
    assert [row["label"] for row in read(tmp_path / "out" / "manifest.csv") if not row["error"]] == [one, one]


def test_no_redrawn_image_replaces_another_whose_label_is_its_folder(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    names = ("1.png", "cat/1.png", "dog/1.png")
    for name, image in zip(names, sorted(digits.rglob("*.png")), strict=False):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "in" / name)
    labels = tmp_path / "in" / "labels.csv"
    for text in ("1.png,cat\ncat/1.png,cat\ndog/1.png,dog\n", "1.png,cat\ndog/1.png,dog\n"):
        labels.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"in/1\.png and .*in/cat/1\.png would have one name"):
            adapt(pixelda_run, tmp_path / "in", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "1.png").rename(tmp_path / "in" / "0.png")
    labels.write_text("0.png,cat\ncat/1.png,cat\ndog/1.png,dog\n", encoding="utf-8")
    adapt(pixelda_run, tmp_path / "in", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    ("files", "tables", "expected"),
    [
        (
            ["train/images/1.png", "train/images/2.png", "test/images/3.png"],
            {"train/labels.csv": "images/1.png,cat\nimages/2.png,dog\n", "test/labels.csv": "images/3.png,cat\n"},
            ["cat", "cat", "dog"],
        ),
        (["seg_train/cat/1.png", "seg_train/dog/2.png", "seg_test/cat/3.png"], {}, ["cat", "cat", "dog"]),
        (["train/1.png", "bus/2.png", "car/3.png"], {}, ["bus", "car", "train"]),
        (["images/1.png", "images/2.png", "images/3.png"], {}, ["", "", ""]),
        (["1.png", "cat/2.png", "dog/3.png"], {}, ["", "", ""]),
        (["images/1.png", "images/2.png", "images/3.png"], {"labels.csv": "images/1.png,a\nimages/2.png,b\n"}, ["", "a", "b"]),
    ],
)
def test_redrawn_images_have_the_labels_that_a_training_reads(
    pixelda_run: Path, tmp_path: Path, files: list[str], tables: dict[str, str], expected: list[str]
) -> None:
    for number, name in enumerate(files):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.pictures(3)[0][number]).save(tmp_path / "in" / name)
    for name, text in tables.items():
        (tmp_path / "in" / name).write_text(text, encoding="utf-8")
    written = adapt(pixelda_run, tmp_path / "in", tmp_path / "out")
    rows = [row for row in read(tmp_path / "out" / "manifest.csv") if not row["error"]]
    assert sorted(row["label"] for row in rows) == expected
    source = load(str(tmp_path / "in"), size=None)
    labels = () if source.labels is None else source.labels
    assert (source.labels is None) == any(text.startswith("Unlabelled") for text in written.notes)
    read_as = {name: source.classes[label] for name, label in zip(source.names, labels, strict=False)}
    assert all(row["label"] == read_as.get(Path(row["source"]).relative_to(tmp_path / "in").as_posix(), "") for row in rows)
    if "" not in expected:
        made = load(str(tmp_path / "out"), size=None)
        assert sorted(made.classes[label] for label in made.labels) == expected


def test_drawing_does_not_go_on_with_other_labels(pixelda_run: Path, tmp_path: Path) -> None:
    images = tiny.pictures(70)[0]
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / f"{number:02d}.png")
    table = tmp_path / "in" / "labels.csv"
    table.write_text("".join(f"{number:02d}.png,{'ab'[number % 2]}\n" for number in range(70)))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        adapt(pixelda_run, tmp_path / "in", tmp_path / "out", progress=interrupt)
    before = table.read_text()
    table.write_text(before.replace(",a", ",c"))
    with pytest.raises(InputError, match="label file"):
        adapt(pixelda_run, tmp_path / "in", tmp_path / "out", resume=True)
    table.write_text(before)
    adapt(pixelda_run, tmp_path / "in", tmp_path / "out", resume=True)
    assert sum(row["label"] == "a" for row in read(tmp_path / "out" / "manifest.csv")) == 35


@pytest.mark.filterwarnings("ignore")  # of the library and what it brings
def test_redrawn_images_are_read_by_the_datasets_library(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    source = tmp_path / "in"
    shutil.copytree(digits, source)
    (source / "top" / "broken.png").write_bytes(b"no image")
    assert adapt(pixelda_run, source, tmp_path / "out", styles=2).failed == 1
    found = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    rows = {row["file"]: row for row in read(tmp_path / "out" / "manifest.csv") if row["file"]}
    assert len(found) == len(rows) == 80
    assert set(found.column_names) == {"image", "label", "source", "style"}
    named = {(row["source"], row["style"]): row for row in rows.values()}
    for example in found:
        row = named[example["source"], str(example["style"])]
        assert example["label"] == row["label"]
        assert np.array_equal(np.asarray(example["image"]), np.asarray(Image.open(tmp_path / "out" / row["file"])))
    gc.collect()  # the library leaves files open, which would warn in a later test


def test_metadata_names_what_was_written_alone(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(digits, source)
    (source / "top" / "broken.png").write_bytes(b"no image")
    adapt(pixelda_run, source, tmp_path / "out", styles=2)
    rows = read(tmp_path / "out" / "metadata.csv")
    assert [row["file_name"] for row in rows] == [row["file"] for row in read(tmp_path / "out" / "manifest.csv") if row["file"]]
    assert all(row["label"] == row["file_name"].split("/")[0] for row in rows) and len(rows) == 80


def test_a_file_that_cannot_be_written_is_a_row_with_its_error_and_the_others_go_on(
    pixelda_run: Path, digits: Path, tmp_path: Path
) -> None:
    source, long = tmp_path / "in", "گ" * 124 + ".png"
    shutil.copytree(digits, source)
    Image.fromarray(tiny.pictures(1)[0][0]).save(source / "top" / long)
    Image.fromarray(tiny.pictures(1)[0][0]).save(source / "top" / ("گ" * 122 + ".png"))
    written = adapt(pixelda_run, source, tmp_path / "out", styles=2)
    rows = read(tmp_path / "out" / "manifest.csv")
    failed = [row for row in rows if row["error"]]
    assert (written.rows, written.failed, len(failed)) == (84, 2, 2)
    assert {row["style"] for row in failed} == {"0", "1"} and not any(row["file"] for row in failed)
    assert all(Path(row["source"]).name == long and "cannot be written: File name too long" in row["error"] for row in failed)
    assert sum((tmp_path / "out" / row["file"]).is_file() for row in rows if row["file"]) == 82


def test_drawing_goes_on_where_it_stopped(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(digits, source / "first")
    shutil.copytree(digits, source / "second")
    adapt(pixelda_run, source, tmp_path / "whole", styles=3)

    def interrupt(done: int, total: int) -> None:
        assert (done, total) == (64, 80)
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="192 rows are kept"):
        adapt(pixelda_run, source, tmp_path / "out", styles=3, devices=1, progress=interrupt)
    part = tmp_path / "out" / "manifest.csv.part"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:-2]) + lines[-2][:5])
    done: list[int] = []
    adapt(pixelda_run, source, tmp_path / "out", styles=3, devices=1, resume=True, progress=lambda now, _: done.append(now))
    assert done == [80]
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == (tmp_path / "whole" / "manifest.csv").read_bytes()
    made = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.png")}
        for root in (tmp_path / "out", tmp_path / "whole")
    ]
    assert made[0] == made[1] and len(made[0]) == 240


def test_what_cannot_be_redrawn_is_said(pixelda_run: Path, baseline_run: Path, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a baseline, which has no generator"):
        adapt(baseline_run, digits, tmp_path / "out")
    with pytest.raises(InputError, match="--styles 0 makes no image"):
        adapt(pixelda_run, digits, tmp_path / "out", styles=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in .*empty"):
        adapt(pixelda_run, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    adapt(pixelda_run, digits, tmp_path / "out")
    with pytest.raises(InputError, match="exists already; .*--resume"):
        adapt(pixelda_run, digits, tmp_path / "out")


def test_an_image_whose_name_is_no_text_is_redrawn(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsdecode(b"lat\xe9in.png")
    shutil.copy(image_files(digits)[1], folder / name)
    assert adapt(pixelda_run, folder, tmp_path / "out").failed == 0
    assert (tmp_path / "out" / f"{name}-0.png").is_file()
