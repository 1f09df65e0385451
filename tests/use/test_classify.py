"""Classify and adapt: what they write of a folder, against the networks themselves."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from pixelscope import InputError, adapt, classify, train_baseline
from pixelscope.data.batches import to_float
from pixelscope.data.decode import read_image
from pixelscope.data.listing import image_files
from pixelscope.engine.run import RunFolder
from pixelscope.pixelda.trained import TrainedRun


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_gets_the_networks_answer(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    written = classify(pixelda_run, [digits], tmp_path / "labels.csv")
    rows = read(tmp_path / "labels.csv")
    assert (written.rows, written.failed) == (40, 0)
    classifier = TrainedRun(pixelda_run).weights.classifier
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


def test_the_baselines_answer_stands_beside(pixelda_run: Path, baseline_run: Path, digits: Path, tmp_path: Path) -> None:
    classify(pixelda_run, [digits], tmp_path / "both.csv", baseline=baseline_run)
    classify(baseline_run, [digits], tmp_path / "alone.csv")
    both, alone = read(tmp_path / "both.csv"), read(tmp_path / "alone.csv")
    assert [row["baseline_label"] for row in both] == [row["label"] for row in alone]
    assert [row["baseline_probability"] for row in both] == [row["probability"] for row in alone]


def test_a_baseline_of_another_size_is_refused_and_leaves_nothing(
    pixelda_run: Path, domains: tuple[str, str], digits: Path, tmp_path: Path
) -> None:
    other = train_baseline(tiny.baseline(source=domains[0], data={"size": 24}), run=tmp_path / "other")
    with pytest.raises(InputError, match="take images of different sizes"):
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
    stopped = tmp_path / "stopped"
    shutil.copytree(pixelda_run, stopped)
    RunFolder(stopped).update_record(state="stopped", images=40)
    with pytest.raises(InputError, match=r"is not finished \(40 images so far\); go on with --resume .* or use .* --rule last"):
        classify(stopped, [digits], out)
    assert not list(tmp_path.glob("labels*"))
    assert classify(stopped, [digits], out, rule="last").rows == 40


def test_a_source_is_redrawn_with_its_folders(pixelda_run: Path, digits: Path, tmp_path: Path) -> None:
    written = adapt(pixelda_run, digits, tmp_path / "adapted", styles=3, seed=4)
    assert written.rows == 40
    made = image_files(tmp_path / "adapted")
    expected = {f"{file.relative_to(digits).as_posix()}-{style}.png" for file in image_files(digits) for style in range(3)}
    assert {file.relative_to(tmp_path / "adapted").as_posix() for file in made} == expected
    rows = read(tmp_path / "adapted" / "manifest.csv")
    assert {name for row in rows for name in row["files"].split()} == expected
    with Image.open(made[0]) as image:
        assert (image.size, image.mode) == ((tiny.SIZE, tiny.SIZE), "RGB")
    styles = [np.asarray(Image.open(file)) for file in made[:3]]
    assert not np.array_equal(styles[0], styles[1]) and not np.array_equal(styles[1], styles[2])


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


def test_what_cannot_be_redrawn_is_said(pixelda_run: Path, baseline_run: Path, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a run of the baseline, which draws nothing"):
        adapt(baseline_run, digits, tmp_path / "out")
    with pytest.raises(InputError, match="--styles 0 makes no image"):
        adapt(pixelda_run, digits, tmp_path / "out", styles=0)
    assert not (tmp_path / "out").exists()
    adapt(pixelda_run, digits, tmp_path / "out")
    with pytest.raises(InputError, match="exists already; name another folder, or go on with --resume"):
        adapt(pixelda_run, digits, tmp_path / "out")
