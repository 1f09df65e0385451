"""The sections of a run say what was measured, leave out what was not, and refuse what is damaged."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pixelscope
from pixelscope.errors import InputError
from pixelscope.pixelda.metrics import set_result
from pixelscope.pixelda.report.data import ReportData, percent, points
from pixelscope.pixelda.report.page import headline, sections
from pixelscope.pixelda.results import UNFINISHED, Evaluation
from pixelscope.reports.document import CaptionedFigure, Details, Section, Table, duration
from report.run_folder import WriteRun


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def revise(path: Path, **values: Any) -> None:
    """Change entries of evaluation.json."""
    Evaluation.load(path).model_copy(update=values).save(path)


def headline_of(run: Path) -> str:
    return headline(ReportData.read(run))


def numbers_in(text: str) -> list[str]:
    return re.findall(r"[+−]?\d[\d,]*(?:\.\d+)?%?", text)


def by_anchor(run: Path) -> dict[str, Section]:
    return {section.anchor: section for section in sections(run)}


def names(section: Section) -> list[str]:
    return [part.name for part in section.parts if isinstance(part, CaptionedFigure)]


def tables(section: Section) -> list[Table]:
    return [part for part in section.parts if isinstance(part, Table)]


def set_accuracy(path: Path, name: str, correct: int, count: int) -> None:
    sets = Evaluation.load(path).sets
    found = {"correct": correct, "count": count, "accuracy": correct / count}
    revise(path, sets=sets | {name: sets[name].model_copy(update=found)})


def test_a_complete_run_has_every_section_and_figure(written: WriteRun) -> None:
    found = by_anchor(written())
    assert list(found) == [
        "summary",
        "result",
        "domains",
        "baseline",
        "training",
        "generated",
        "classes",
        "stability",
        "record",
    ]
    assert [name for section in found.values() for name in names(section)] == [
        *("pairs", "baseline", "training", "gallery", "styles", "progress", "confusion", "classes", "stability")
    ]


def test_the_public_api_gives_the_sections_of_the_runs_own_system(written: WriteRun) -> None:
    assert [section.anchor for section in pixelscope.sections(written(system="baseline"))] == [
        *("summary", "result", "baseline", "classes", "record")
    ]


def test_the_headline_is_the_measured_rise(written: WriteRun) -> None:
    after = Evaluation.load(written() / "evaluation.json").sets["target_test"].accuracy
    before = Evaluation.load(written() / "baseline" / "evaluation.json").sets["target_test"].accuracy
    assert (before, after) == (0.537, 0.83)
    assert numbers_in(headline_of(written())) == ["53.7%", "83.0%", "+29.3"]


@pytest.mark.parametrize(
    ("correct", "word", "numbers"),
    [
        (400, "fell", ["53.7%", "40.0%", "−13.7"]),
        (537, "stayed", ["53.7%"]),
        (538, "rose", ["53.7%", "53.8%", "+0.1"]),
    ],
)
def test_the_headline_tells_a_fall_from_a_rise(copied: WriteRun, correct: int, word: str, numbers: list[str]) -> None:
    run = copied()
    set_accuracy(run / "evaluation.json", "target_test", correct, 1000)
    assert word in headline_of(run)
    assert numbers_in(headline_of(run)) == numbers


def test_without_a_baseline_the_headline_compares_with_nothing(written: WriteRun) -> None:
    run = written(baseline=False)
    assert numbers_in(headline_of(run)) == ["83.0%"]
    assert "baseline" not in by_anchor(run)
    assert tables(by_anchor(run)["result"])[0].header == ("Accuracy", "images", "after")


def test_without_target_labels_nothing_is_said_of_the_target(written: WriteRun) -> None:
    run = written(target_labels=False, baseline=False)
    found = by_anchor(run)
    assert numbers_in(headline_of(run)) == ["98.0%"]
    assert "no labels" in headline_of(run)
    assert found["summary"].notes == ()
    assert [row.cells[0] for row in tables(found["result"])[0].rows] == ["MNIST, test split"]
    assert not any(row.separate for row in tables(found["result"])[1].rows)
    (gallery, *_) = [part for part in found["generated"].parts if isinstance(part, CaptionedFigure)]
    assert "unknown" in gallery.caption
    assert len(numbers_in(found["generated"].prose[0])) <= 2


def test_an_unfinished_run_says_how_far_it_came(written: WriteRun) -> None:
    run = written(done=0.5, baseline=False)
    assert numbers_in(headline_of(run))[:2] == ["425", "850"]
    assert numbers_in(by_anchor(run)["summary"].notes[0]) == ["425", "850"]
    assert "stopped" in by_anchor(run)["summary"].notes[0]


def test_a_killed_run_counts_the_steps_of_its_newest_line(copied: WriteRun) -> None:
    run = copied(done=0.5, baseline=False, evaluated=False)
    change(run / "run.json", state="running", steps=100, images=3200)
    assert numbers_in(headline_of(run)) == ["425", "850"]
    assert "was killed" in by_anchor(run)["summary"].notes[0]


def test_a_run_before_its_first_line_has_a_report(copied: WriteRun) -> None:
    run = copied(baseline=False, evaluated=False, done=0.5)
    for name in ("stats.jsonl", "samples"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    change(run / "run.json", state="running", steps=0, images=0, seconds=None, images_per_second=None)
    assert list(by_anchor(run)) == ["summary", "record"]
    assert numbers_in(headline_of(run)) == ["0", "850"]


@pytest.mark.parametrize(
    ("missing", "anchor", "left"),
    [
        ("samples/pairs.npz", "domains", None),
        ("samples/gallery.npz", "generated", ["styles", "progress"]),
        ("samples/styles.npz", "generated", ["gallery", "progress"]),
        ("samples/progress.npz", "generated", ["gallery", "styles"]),
        ("evaluation.json", "result", None),
        ("evaluation.json", "classes", None),
    ],
)
def test_what_is_missing_is_left_out(copied: WriteRun, missing: str, anchor: str, left: list[str] | None) -> None:
    run = copied()
    (run / missing).unlink()
    section = by_anchor(run).get(anchor)
    assert (None if section is None else names(section)) == left


@pytest.mark.parametrize("file", ["run.json", "evaluation.json"])
def test_a_file_that_lost_a_class_is_damaged(copied: WriteRun, file: str) -> None:
    run = copied(evaluated=file == "evaluation.json")
    change(run / file, classes=["0", "1"])
    with pytest.raises(InputError, match=str(run)):
        sections(run)


def test_one_evaluation_is_enough(written: WriteRun) -> None:
    assert "training" in names(by_anchor(written(moments=1))["training"])


def test_the_baselines_own_headline_is_the_gap(written: WriteRun) -> None:
    assert numbers_in(headline_of(written(system="baseline"))) == ["98.0%", "53.7%", "44.3"]


@pytest.mark.parametrize(("correct", "end"), [(964, "1.6 points less."), (996, "1.6 points more.")])
def test_the_gap_has_the_word_of_its_sign(copied: WriteRun, correct: int, end: str) -> None:
    run = copied(system="baseline")
    set_accuracy(run / "evaluation.json", "target_test", correct, 1000)
    (text,) = by_anchor(run)["baseline"].prose
    assert text.endswith(f": {end}")


def test_before_and_after_are_in_the_table(written: WriteRun) -> None:
    table = tables(by_anchor(written())["result"])[0]
    assert table.header == ("Accuracy", "images", "before", "after", "change, points")
    assert [row.cells for row in table.rows] == [
        ("MNIST, test split", "1,000", "98.0% ± 0.4", "98.0% ± 0.4", "0.0"),
        ("MNIST-M, test split", "1,000", "53.7% ± 1.6", "83.0% ± 1.2", "+29.3"),
        ("MNIST-M, all images", "5,000", "54.1% ± 0.7", "83.4% ± 0.5", "+29.3"),
    ]


def test_the_oracle_stands_apart_and_says_what_it_is(written: WriteRun) -> None:
    rows = tables(by_anchor(written())["result"])[1].rows
    assert [row.cells[0].partition(":")[0] for row in rows] == ["last", "ema-last", "best-source", "oracle"]
    assert rows[-1].cells[0] == "oracle: chosen with target labels"
    assert [row.separate for row in rows] == [False, False, False, True]
    assert rows[-1].cells[2:] == ("", "84.1%", "")
    assert [row.cells[0] for row in rows if "headline" in row.cells[0]] == [
        "ema-last: the moving average at the end (headline)"
    ]


def test_target_labels_are_said_to_serve_evaluation_only(written: WriteRun) -> None:
    (note,) = by_anchor(written())["summary"].notes
    assert "Target labels" in note


def test_target_labels_that_left_out_images_are_not_said_to_serve_evaluation_only(copied: WriteRun) -> None:
    run = copied()
    data = json.loads((run / "run.json").read_text(encoding="utf-8"))["data"]
    data["target"]["notes"] = ["Left out 12 of 52 images by their labels, of 1 class that the source lacks: x."]
    change(run / "run.json", data=data)
    (note,) = by_anchor(run)["summary"].notes
    assert "left out" in by_anchor(run)["summary"].prose[0] and "never used" not in by_anchor(run)["summary"].prose[0]
    assert "leave out" in note and "evaluation only" not in note


def test_what_an_evaluation_could_not_measure_is_noticed_once(copied: WriteRun) -> None:
    run = copied(done=0.5, baseline=False)
    revise(run / "evaluation.json", notes=(f"{UNFINISHED}: 13,600 of 27,200 images are done.", "One note.", "Another note."))
    assert by_anchor(run)["summary"].notes[-2:] == ("One note.", "Another note.")
    assert sum("finished" in note for note in by_anchor(run)["summary"].notes) == 1


def test_an_unfinished_baseline_is_noticed(copied: WriteRun) -> None:
    run = copied()
    change(run / "baseline" / "run.json", state="stopped")
    assert any("baseline is unfinished" in note for note in by_anchor(run)["summary"].notes)


def test_an_evaluation_that_the_run_has_left_behind_is_noticed(copied: WriteRun) -> None:
    run = copied()
    path = run / "evaluation.json"
    revise(path, checkpoint="best-source", images=12_800, steps=400)
    assert len(by_anchor(run)["summary"].notes) == 1, "the best checkpoint is older than the newest one, which is measured too"
    older = {name: one.model_copy(update={"images": 12_800}) for name, one in Evaluation.load(path).checkpoints.items()}
    revise(path, checkpoints=older)
    for checkpoint in older:
        revise(path, checkpoint=checkpoint)
        assert any(numbers_in(note) == ["27,200", "12,800"] for note in by_anchor(run)["summary"].notes)


def test_the_lead_says_which_images_it_is_about(written: WriteRun) -> None:
    said = by_anchor(written())["summary"].prose[1]
    assert "MNIST, handwritten digits" in said and "MNIST-M, index-aligned: made by difference blending" in said


def test_a_baseline_measured_on_other_images_is_noticed(copied: WriteRun) -> None:
    run = copied()
    set_accuracy(run / "baseline" / "evaluation.json", "target_test", 1074, 2000)
    assert any(numbers_in(note) == ["2,000", "1,000"] for note in by_anchor(run)["summary"].notes)


def test_the_figures_hold_the_runs_own_numbers(written: WriteRun) -> None:
    run = written()
    evaluation = Evaluation.load(run / "evaluation.json")
    (confusion, classes) = [part for part in by_anchor(run)["classes"].parts if isinstance(part, CaptionedFigure)]
    counts = [int(text.get_text().replace(",", "")) for text in confusion.figure.axes[1].texts[1::2]]
    cells = np.array(evaluation.sets["target_test"].confusion).flatten()
    assert counts == cells[cells > 0].tolist()
    after = next(line for line in classes.figure.axes[0].lines if line.get_label() == "MNIST-M, after")
    assert list(after.get_xdata()) == [entry.accuracy for entry in evaluation.sets["target_test"].per_class]
    (training,) = [part for part in by_anchor(run)["training"].parts if isinstance(part, CaptionedFigure)]
    ema = next(line for line in training.figure.axes[2].lines if "EMA" in str(line.get_label()))
    assert list(ema.get_ydata()) == [point.ema_target_test for point in evaluation.curve]


def test_the_most_frequent_mistake_is_named(copied: WriteRun) -> None:
    run = copied()
    sets = Evaluation.load(run / "evaluation.json").sets
    counts = 50 * np.eye(10, dtype=int)
    counts[4, 9] = 17
    found = set_result("target_test", torch.from_numpy(counts), [str(digit) for digit in range(10)])
    revise(run / "evaluation.json", sets=sets | {"target_test": found})
    (sentence,) = by_anchor(run)["classes"].prose
    assert numbers_in(sentence) == ["17", "517", "4", "9", "17"]


def test_warnings_are_counted_by_cause(written: WriteRun) -> None:
    stability = by_anchor(written())["stability"]
    (table,) = tables(stability)
    assert numbers_in(stability.prose[0])[0] == "3"
    assert [row.cells[:3] for row in table.rows] == [
        ("collapse", "1", "at 2,560 images"),
        ("overpowering discriminator", "2", "from 5,440 to 6,080 images"),
    ]


def test_the_record_holds_what_it_takes_to_do_it_again(written: WriteRun) -> None:
    run = written()
    record = by_anchor(run)["record"]
    facts = {row.cells[0]: row.cells[1] for table in tables(record)[:1] for row in table.rows}
    assert facts["Command"] == "pixelscope pixelda train --preset demo"
    assert facts["Seed"] == "0"
    assert facts["Warnings raised"] == "3"
    assert facts["Time"] == "3 min 7 s"
    assert facts["Images per second"] == "145.2"
    assert "torch 2.13.0" in facts["Versions"]
    source = {row.cells[0]: row.cells[1] for row in tables(record)[1].rows}
    assert source["Licence"] == "CC BY-SA 3.0"
    assert len(source["SHA-256 of the training images"]) == 64
    assert source["Images"] == "5,000: 3,800 training, 200 validation, 1,000 test"
    (configuration,) = [part for part in record.parts if isinstance(part, Details)]
    assert configuration.text == (run / "config.yaml").read_text()


def test_a_cut_off_last_line_is_passed_over(copied: WriteRun) -> None:
    run = copied(baseline=False)
    whole = headline_of(run)
    with (run / "stats.jsonl").open("a") as file:
        file.write('{"kind": "train", "ima')
    assert headline_of(run) == whole


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("stats.jsonl", '{"kind": "train", "images": 32}\nnonsense\n{"kind": "train", "images": 64}\n', "line 2"),
        ("stats.jsonl", '[1, 2]\n{"kind": "train", "images": 64}\n', "line 1"),
        ("evaluation.json", "{", "not valid JSON"),
        ("evaluation.json", '{"system": "pixelda", "images": 3}', "steps"),
        ("run.json", '{"system": "pixelda", "steps": "many"}', "steps"),
        ("run.json", "nonsense", "not valid JSON"),
        ("config.yaml", "[", "not valid YAML"),
        ("samples/gallery.npz", "PK", "gallery.npz is damaged"),
        ("baseline/evaluation.json", "{", "not valid JSON"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(copied: WriteRun, name: str, content: str, words: str) -> None:
    run = copied()
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        sections(run)
    message = str(caught.value)
    assert str(run / name) in message
    assert words in message
    assert "\n" not in message


def test_an_array_of_another_shape_is_refused(copied: WriteRun) -> None:
    run = copied()
    np.savez(run / "samples" / "styles.npz", source=np.zeros(3, np.uint8), generated=np.zeros(3, np.uint8))
    with pytest.raises(InputError, match=r"styles\.npz: source has shape \(3,\)"):
        sections(run)


def test_nothing_in_a_run_folder_is_unpickled(copied: WriteRun) -> None:
    run = copied()
    np.savez(run / "samples" / "styles.npz", source=np.array([object()]), generated=np.zeros(3))
    with pytest.raises(InputError, match="damaged"):
        sections(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        sections(tmp_path)


def test_domains_of_one_name_are_told_apart(copied: WriteRun) -> None:
    run = copied()
    data = json.loads((run / "run.json").read_text())["data"]
    change(run / "run.json", data={role: {**entry, "title": "Photos"} for role, entry in data.items()})
    assert "Photos (target)" in headline_of(run)


@pytest.mark.parametrize(
    ("share", "count", "text"), [(0.537, 1000, "53.7%"), (0.97354, 14_000, "97.35%"), (1.0, 10, "100.0%"), (0, 70_000, "0.00%")]
)
def test_percentages_have_the_decimals_that_the_count_supports(share: float, count: int, text: str) -> None:
    assert percent(share, count) == text


@pytest.mark.parametrize(
    ("change", "count", "text"),
    [(0.2936, 1000, "+29.4"), (-0.001, 70_000, "−0.10"), (0.0, 1000, "0.0"), (-0.00001, 1000, "0.0")],
)
def test_changes_are_signed_points(change: float, count: int, text: str) -> None:
    assert points(change, count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (42.3, "42 s"), (187.3, "3 min 7 s"), (18_720, "5 h 12 min"), (3599.9, "1 h 0 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
