"""The sections of a run say what was measured, leave out what was not, and refuse what is damaged."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from endovae.run_folder import EPOCH, WriteRun, write_run
from fixtures import tiny
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.report.anomaly import anomaly_section
from pixelscope.endovae.report.data import ReportData, listed
from pixelscope.endovae.report.findings import findings_section
from pixelscope.endovae.report.frames import augmentation_section, frames_section
from pixelscope.endovae.report.generated import latent_section, reconstructions_section
from pixelscope.endovae.report.page import headline, notes, pca_wins, quality_table, sections
from pixelscope.endovae.report.training import training_section
from pixelscope.endovae.results import Evaluation
from pixelscope.endovae.training import train_endovae
from pixelscope.errors import InputError
from pixelscope.reports.builder import build_report
from pixelscope.reports.document import CaptionedFigure, Details, Section, Table

ANCHORS = [
    "summary",
    "result",
    "frames",
    "augmentation",
    "training",
    "reconstructions",
    "latent",
    "anomaly",
    "findings",
    "record",
]
FIGURES = {
    "frames": ["frames", "preparation"],
    "augmentation": ["augmentation"],
    "training": ["training", "progress"],
    "reconstructions": ["reconstructions-random", "reconstructions-normal", "reconstructions-abnormal"],
    "latent": ["generated", "interpolation", "traversal", "divergence"],
    "anomaly": ["separation-centre", "separation-full", "heat-maps"],
    "findings": ["sharpness", "regions", "kinds", "sizes", "capacity"],
}

MEASURED = ("result", "reconstructions", "latent", "anomaly")
"""The sections that an evaluation makes."""

ALONE = {
    "frames": frames_section,
    "augmentation": augmentation_section,
    "training": training_section,
    "reconstructions": reconstructions_section,
    "latent": latent_section,
    "anomaly": anomaly_section,
    "findings": findings_section,
}
"""What makes one section, without the time that the others take."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> WriteRun:
    """Return a run folder of the given kind, to be read only."""
    made: dict[str, Path] = {}

    def run(**kind: Any) -> Path:
        key = repr(sorted(kind.items()))
        if key not in made:
            made[key] = write_run(tmp_path_factory.mktemp("runs") / "00003-endovae", **kind)
        return made[key]

    return run


@pytest.fixture
def copied(written: WriteRun, tmp_path: Path) -> WriteRun:
    """Return a run folder of the given kind that the test may change."""
    return lambda **kind: Path(shutil.copytree(written(**kind), tmp_path / "00003-endovae"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def set_quality(run: Path, kind: str, method: str, **means: float) -> None:
    found = Evaluation.load(run / "evaluation.json")
    metrics = found.sets[kind].methods[method]
    metrics.update({name: metrics[name].model_copy(update={"mean": mean}) for name, mean in means.items()})
    found.save(run / "evaluation.json")


def by_anchor(run: Path) -> dict[str, Section]:
    return {section.anchor: section for section in sections(run)}


read_once = cache(by_anchor)
"""For the run that no test changes."""


def alone(run: Path, anchor: str) -> Section:
    return ALONE[anchor](ReportData.read(run))


def notes_of(run: Path) -> tuple[str, ...]:
    return notes(ReportData.read(run))


def names(section: Section) -> list[str]:
    return [part.name for part in section.parts if isinstance(part, CaptionedFigure)]


def tables(section: Section) -> list[Table]:
    return [part for part in section.parts if isinstance(part, Table)]


def caption(section: Section, name: str) -> str:
    (found,) = [part.caption for part in section.parts if isinstance(part, CaptionedFigure) and part.name == name]
    return found


def numbers_in(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def headline_of(run: Path) -> str:
    return headline(ReportData.read(run))


def test_a_complete_run_has_every_section_and_figure(written: WriteRun) -> None:
    found = read_once(written())
    assert list(found) == ANCHORS
    assert {anchor: names(section) for anchor, section in found.items() if names(section)} == FIGURES


def test_every_figure_says_what_it_shows(written: WriteRun) -> None:
    shown = [part for section in read_once(written()).values() for part in section.parts if isinstance(part, CaptionedFigure)]
    assert all(len(part.alt or part.caption) > 20 and len(part.caption) > 20 and part.caption.endswith(".") for part in shown)
    assert all(re.fullmatch("[a-z-]+", part.name) for part in shown)


def test_a_real_run_gives_every_section(tmp_path: Path) -> None:
    frames = tiny.write_frames(tmp_path / "frames", normal=30)
    config = tiny.endovae(frames=str(frames), training={"epochs": 1})
    run = train_endovae(config, run=tmp_path / "run")
    before = by_anchor(run)
    assert list(before) == [anchor for anchor in ANCHORS if anchor not in MEASURED]
    assert headline(ReportData.read(run)) == "Not evaluated yet, so no quality is known."
    evaluate_endovae(run)
    after = by_anchor(run)
    assert list(after) == ANCHORS
    assert {anchor: names(section) for anchor, section in after.items() if names(section)} == FIGURES


def test_the_page_holds_every_figure(written: WriteRun, tmp_path: Path) -> None:
    page = build_report(written(), tmp_path / "report.html", sections).read_text(encoding="utf-8")
    assert page.count("<svg") == sum(map(len, FIGURES.values()))


def test_the_headline_is_the_measured_quality_next_to_pca(written: WriteRun) -> None:
    text = headline_of(written())
    assert numbers_in(text) == [21.30, 0.571, 6, 20.00, 0.539, 17.40, 0.505, 6, 17.20, 0.489]
    assert text.index("normal test frames") < text.index("; abnormal frames")


def test_the_headline_names_the_metrics_in_which_pca_is_better(copied: WriteRun) -> None:
    run = copied()
    set_quality(run, "abnormal", "pca", psnr=17.41, ssim=0.51)
    assert pca_wins(ReportData.read(run)) == ["PSNR of abnormal frames", "SSIM of abnormal frames"]
    assert headline_of(run).endswith("PSNR of abnormal frames and SSIM of abnormal frames.")
    set_quality(run, "abnormal", "pca", psnr=17.401, ssim=0.505)
    assert pca_wins(ReportData.read(run)) == []


def test_frames_of_the_trained_kind_are_called_test_frames(written: WriteRun) -> None:
    changes = {"split": {"train_on": "both"}}
    assert "; abnormal test frames" in headline_of(written(changes=changes))
    (both,) = notes_of(written(changes=changes))
    assert "normal and abnormal frames" in both and "all abnormal frames are test frames" not in both
    assert "all abnormal frames are test frames" in notes_of(written())[0]


def test_the_lead_says_what_was_trained_on_what_for_how_long(written: WriteRun) -> None:
    lead = read_once(written())["summary"]
    assert lead.title == "EndoVAE: normal-cecum, normal-colon and polyps"
    # Latent dimensions, frames, copies, images, epoch, hours, minutes, patience.
    assert numbers_in(lead.prose[0]) == [6, 616, 2, 131_520, 40, 5, 12, 10]
    assert "on 616 normal frames" in lead.prose[0]


def test_an_unfinished_run_says_how_far_it_came(written: WriteRun) -> None:
    run = written(epochs=10, state="stopped", evaluated=False)
    assert headline_of(run).startswith("Unfinished") and numbers_in(headline_of(run)) == [32_880, 10]
    (note,) = notes_of(run)
    assert numbers_in(note) == [32_880, 131_520] and "--resume" in note


def test_a_run_before_its_first_line_has_a_report(copied: WriteRun) -> None:
    run = copied(evaluated=False, epochs=10, state="stopped")
    (run / "stats.jsonl").unlink()
    (run / "frames.json").unlink()
    shutil.rmtree(run / "samples")
    change(run / "run.json", state="running", steps=0, images=0, seconds=None, images_per_second=None, epoch=None)
    found = by_anchor(run)
    assert list(found) == ["summary", "findings", "record"]
    assert names(found["findings"]) == ["capacity"]
    assert found["summary"].title == "EndoVAE"
    assert "was killed" in found["summary"].notes[0]


@pytest.mark.parametrize(
    ("missing", "anchor", "left"),
    [
        ("samples/frames.npz", "frames", ["preparation"]),
        ("samples/preparation.npz", "frames", ["frames"]),
        ("samples/augmentation.npz", "augmentation", []),
        ("samples/progress.npz", "training", ["training"]),
        ("stats.jsonl", "training", ["progress"]),
        ("samples/reconstructions-normal-random.npz", "reconstructions", FIGURES["reconstructions"]),
        ("samples/generated.npz", "latent", ["interpolation", "traversal", "divergence"]),
        ("samples/interpolation.npz", "latent", ["generated", "traversal", "divergence"]),
        ("samples/traversal.npz", "latent", ["generated", "interpolation", "divergence"]),
        ("evaluation.json", "findings", ["capacity"]),
        ("evaluation.csv", "findings", ["sharpness", "regions", "kinds", "sizes", "capacity"]),
    ],
)
def test_what_is_missing_is_left_out(copied: WriteRun, missing: str, anchor: str, left: list[str]) -> None:
    run = copied()
    (run / missing).unlink()
    assert names(alone(run, anchor)) == left


def test_a_section_without_anything_to_show_is_left_out(copied: WriteRun) -> None:
    run = copied()
    (run / "evaluation.json").unlink()
    (run / "samples" / "augmentation.npz").unlink()
    found = by_anchor(run)
    assert [anchor for anchor in ANCHORS if anchor not in found] == ["result", "augmentation", "anomaly"]


def test_one_kind_of_frame_alone_has_its_report(written: WriteRun) -> None:
    found = read_once(written(kinds=("normal",)))
    assert [table.header[0] for table in tables(found["findings"])] == ["Term"]
    assert names(found["reconstructions"]) == ["reconstructions-random", "reconstructions-normal"]
    assert numbers_in(caption(found["findings"], "kinds")) == []
    assert not any(row.separate for row in tables(found["result"])[0].rows)


def test_the_table_compares_every_method_on_every_set(written: WriteRun) -> None:
    table = tables(read_once(written())["result"])[0]
    assert [row.cells[:4] for row in table.rows] == [
        ("normal test frames: EndoVAE", "77", "21.30 ± 2.40", "0.571 ± 0.100"),
        ("normal test frames: PCA, 6 components", "77", "20.00 ± 2.40", "0.539 ± 0.100"),
        ("normal test frames: mean image", "77", "14.10 ± 2.40", "0.410 ± 0.100"),
        ("abnormal frames: EndoVAE", "600", "17.40 ± 2.40", "0.505 ± 0.100"),
        ("abnormal frames: PCA, 6 components", "600", "17.20 ± 2.40", "0.489 ± 0.100"),
        ("abnormal frames: mean image", "600", "12.90 ± 2.40", "0.380 ± 0.100"),
        ("reference study, Kvasir polyps (other frames)", "500", "17.16 ± 2.37", "0.424 ± 0.100"),
    ]
    assert [row.separate for row in table.rows] == [*[False] * 6, True]
    assert table.rows[0].cells[4:] == ("0.0074 ± 0.0040", "2.1%")
    assert "Wang et al. 2004: Gaussian window 11 x 11" in table.caption


def test_frames_that_no_number_includes_are_not_counted_but_named(copied: WriteRun) -> None:
    run = copied()
    found = Evaluation.load(run / "evaluation.json")
    assert found.anomaly is not None
    sets = found.sets | {"abnormal": found.sets["abnormal"].model_copy(update={"unmeasured": 7})}
    views = found.anomaly.views | {
        "centre": found.anomaly.views["centre"].model_copy(update={"unscored": {"normal": 3}, "invisible": 64})
    }
    anomaly = found.anomaly.model_copy(update={"views": views})
    found.model_copy(update={"sets": sets, "anomaly": anomaly}).save(run / "evaluation.json")
    page = read_once(run)
    assert [row.cells[1] for row in tables(page["result"])[0].rows] == ["77"] * 3 + ["593"] * 3 + ["500"]
    assert [numbers_in(note) for note in page["result"].notes] == [[7, 600]]
    said = [note for note in page["anomaly"].notes if "centre" in note and not note.startswith("Warning")]
    assert [numbers_in(note) for note in said] == [[3], [1, 64]]
    assert any("593 abnormal against 77" in table.caption for table in tables(page["findings"]))


def test_the_steps_of_an_interpolation_are_those_between_its_frames(written: WriteRun) -> None:
    (caption,) = [part.caption for part in read_once(written())["latent"].parts if part.name == "interpolation"]
    assert numbers_in(caption) == [3, 8]


def test_other_abnormal_frames_than_polyps_are_not_compared_with_the_reference_study(copied: WriteRun) -> None:
    run = copied()
    found = Evaluation.load(run / "evaluation.json")
    found.sets["abnormal"].classes["bleeding"] = found.sets["abnormal"].classes.pop("polyps")
    found.save(run / "evaluation.json")
    table = quality_table(ReportData.read(run))
    assert table is not None
    assert not any(row.separate for row in table.rows)


def test_the_checkpoints_are_compared(written: WriteRun) -> None:
    table = tables(read_once(written())["result"])[1]
    assert table.header[1:] == ("images seen", "normal, PSNR, dB", "normal, SSIM", "abnormal, PSNR, dB", "abnormal, SSIM")
    assert [row.cells[1:] for row in table.rows] == [
        ("98,640", "21.30", "0.571", "17.40", "0.505"),
        ("131,520", "21.30", "0.571", "17.40", "0.505"),
    ]
    assert [row.cells[0].partition(":")[0] for row in table.rows] == ["best-validation", "last"]
    assert ["headline" in row.cells[0] for row in table.rows] == [True, False]


def test_an_outdated_evaluation_is_noticed(copied: WriteRun) -> None:
    run = copied()
    assert len(notes_of(run)) == 1
    found = Evaluation.load(run / "evaluation.json")
    found.model_copy(update={"images": 20 * EPOCH}).save(run / "evaluation.json")
    assert numbers_in(notes_of(run)[0]) == [65_760, 98_640] and "best-validation" in notes_of(run)[0]
    found.model_copy(update={"images": 30 * EPOCH, "checkpoint": "last"}).save(run / "evaluation.json")
    assert numbers_in(notes_of(run)[0]) == [98_640, 131_520]


def test_frames_are_counted_by_class_and_kind(written: WriteRun) -> None:
    frames = read_once(written())["frames"]
    (table,) = tables(frames)
    assert [row.cells[:4] for row in table.rows] == [
        ("normal-cecum", "normal", "491", "12 black"),
        ("normal-colon", "normal", "279", "12 black"),
        ("polyps", "abnormal", "600", "12 black"),
        ("all normal", "normal", "770", "none"),
        ("all abnormal", "abnormal", "600", "none"),
    ]
    assert table.rows[0].cells[4] == "461 at 633 x 532, 17 at 720 x 576, 8 at 622 x 530, 5 at 2 other sizes"
    assert [row.separate for row in table.rows] == [False, False, False, True, True]
    assert frames.notes == ("Skipped 1 unreadable of 1,371 frames: polyps/broken.jpg.",)


def test_each_frame_of_the_stages_is_named_by_its_class(written: WriteRun) -> None:
    (figure,) = [p.figure for p in read_once(written())["frames"].parts if getattr(p, "name", "") == "preparation"]  # type: ignore[union-attr]
    named = [text.get_text() for text in figure.axes[0].texts if text.get_text() in ("normal-cecum", "normal-colon", "polyps")]
    assert named == ["normal-cecum"] * 2 + ["normal-colon"] * 2 + ["polyps"] * 2


def test_augmentation_is_described_as_it_is_configured(written: WriteRun) -> None:
    text = read_once(written())["augmentation"].prose[0]
    assert numbers_in(text) == [1, 2, 18, 10, 10, 616, 1_848]
    other = {"augmentation": {"flip": False, "zoom": 0.0, "resample_every_epoch": True, "copies_per_frame": 3}}
    changed = alone(written(changes=other), "augmentation").prose[0]
    assert numbers_in(changed) == [18, 10, 616, 2_464] and "every epoch" in changed


def test_the_course_of_the_training_is_read_from_its_lines(written: WriteRun) -> None:
    run = written()
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    best = min(evaluations, key=lambda line: line["loss/validation_total"])
    terms = [round(best[f"loss/validation_{name}"], 1) for name in ("total", "reconstruction", "kl")]
    training = read_once(run)["training"]
    # Images and epoch of the best evaluation, its terms, start_kl and when it was reached, and the drops of the learning rate.
    assert numbers_in(training.prose[0]) == [30 * EPOCH, 30, *terms, 1, 13_152, 4, 2]
    assert training.prose[1] == "Early stopping: no lower validation loss for 10 epochs."
    (warning,) = training.notes
    assert warning.startswith("Warning, posterior collapse: KL 0.01 nats")


def test_an_adversarial_loss_is_described_once_it_has_begun_and_is_no_part_of_the_model(
    written: WriteRun, tmp_path: Path
) -> None:
    losses = {"adversarial": 0.1, "adversarial_from": 30}
    run = Path(shutil.copytree(written(changes={"losses": losses}), tmp_path / "run"))
    assert not any("discriminator" in text for text in alone(run, "training").prose)
    plain = [text for text in alone(run, "findings").prose if "parameters" in text]
    record = json.loads((run / "run.json").read_text())
    record["parameters"]["discriminator"] = 314_336
    (run / "run.json").write_text(json.dumps(record))
    with (run / "stats.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "images": 40 * EPOCH, "step": 40, "loss/discriminator": 0.9}) + "\n")
    (begun,) = [text for text in alone(run, "training").prose if "discriminator" in text]
    assert begun.startswith("After 30 epochs, the decoder alone was trained") and "0.2 times the learning rate" in begun
    assert [text for text in alone(run, "findings").prose if "parameters" in text] == plain


def test_a_run_whose_schedule_never_started_says_so(written: WriteRun) -> None:
    text = alone(written(epochs=2, state="stopped", evaluated=False), "training").prose[0]
    assert "KL has not reached 1" in text and text.endswith("The learning rate was never lowered.")


def test_the_findings_are_numbers_of_the_run(written: WriteRun) -> None:
    run = written()
    findings = read_once(run)["findings"]
    spectra = Evaluation.load(run / "evaluation.json").sets["normal"].spectra
    coarse = sum(spectra["endovae"][:4]) / sum(spectra["original"][:4])
    assert numbers_in(caption(findings, "sharpness"))[:4] == [round(100 * coarse), 4, 2.1, 1.3]
    assert numbers_in(caption(findings, "kinds")) == [3.90, 17.40, 21.30]
    assert " lower than " in caption(findings, "kinds")
    assert numbers_in(caption(findings, "capacity"))[:3] == [256, 81.8, 160_547]
    assert numbers_in(findings.prose[0]) == [30 * EPOCH, 30, 4_901.8, 19.60, 250]
    assert numbers_in(findings.prose[1])[:4] == [11_124_847, 616, 1_232, 18_060]


def test_the_findings_hold_separation_and_terms(written: WriteRun) -> None:
    separation, terms = tables(read_once(written())["findings"])
    assert [row.cells for row in separation.rows] == [
        ("EndoVAE", "0.909"),
        ("PCA, 6 components", "0.836"),
        ("mean image", "0.700"),
    ]
    assert "600 abnormal against 77 normal frames" in separation.caption
    assert [row.cells for row in terms.rows] == [
        ("reconstruction", "4,901.77", "99.60%"),
        ("KL", "19.60", "0.40%"),
        ("loss", "4,921.36", "100.00%"),
    ]


def test_the_scores_are_compared_by_class_and_their_average_precision_is_of_all(written: WriteRun) -> None:
    run = written()
    anomaly = Evaluation.load(run / "evaluation.json").anomaly
    assert anomaly is not None
    for name, view in anomaly.views.items():
        (table,) = [one for one in tables(read_once(run)["anomaly"]) if one.caption.startswith(f"View {name}: AUROC per class")]
        rows, first = {row.cells[0].removesuffix(" (selected)"): row.cells[1:] for row in table.rows}, next(iter(view.groups))
        for score, by in (view.scores | view.baselines).items():
            assert rows[score] == (*(str(by[group].auroc) for group in view.groups), str(by[first].average_precision))
        assert rows["lead over it"] == (*(str(view.leads[group].difference) for group in view.groups), "")


def test_the_last_tenth_of_the_training_is_compared_on_training_and_validation_frames(written: WriteRun) -> None:
    run = written()
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = []
    for name in ("loss/reconstruction", "loss/validation_reconstruction"):
        values = [line[name] for line in lines if name in line]
        expected.append(np.mean(values[-max(1, len(values) // 10) :]))
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
    assert numbers_in(read_once(run)["findings"].prose[1])[-2:] == pytest.approx(expected, abs=0.006)


def test_the_divergence_has_its_weight_in_the_loss(copied: WriteRun) -> None:
    run = copied()
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["losses"] = {**config.get("losses", {}), "kl": 0.25}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    _, terms = tables(alone(run, "findings"))
    assert terms.rows[1].cells == ("KL, times 0.25", f"{19.6 / 4:.3g}", "0.10%")


def test_the_figures_hold_the_runs_own_numbers(written: WriteRun) -> None:
    run = written()
    found = {p.name: p.figure for s in read_once(run).values() for p in s.parts if isinstance(p, CaptionedFigure)}
    sets = Evaluation.load(run / "evaluation.json").sets
    means = [container[0].get_xdata()[0] for container in found["kinds"].axes[1].containers]  # type: ignore[index]
    assert means == [entry["psnr"].mean for found in sets.values() for entry in found.by_class.values()]
    bars = [bar.get_width() for bar in found["regions"].axes[0].patches]
    assert bars[1:6] == list(sets["normal"].region_error.values())
    assert bars[0] == sets["normal"].methods["endovae"]["squared_error"].mean
    heights = [bar.get_height() for bar in found["divergence"].axes[0].patches]
    assert heights[:6] == sorted(sets["normal"].kl, reverse=True)
    star = next(line for line in found["training"].axes[2].lines if line.get_marker() == "*")
    assert star.get_xdata()[0] == 30 * EPOCH  # type: ignore[index]


def test_the_error_of_frames_whose_insets_are_masked_is_called_that_outside_them(copied: WriteRun) -> None:
    run = copied()
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["prepare"] = {**config.get("prepare", {}), "insets": "mask"}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    sets = Evaluation.load(run / "evaluation.json").sets
    (figure,) = [p.figure for p in alone(run, "findings").parts if isinstance(p, CaptionedFigure) and p.name == "regions"]
    axes = figure.axes[0]
    assert axes.get_yticklabels()[0].get_text() == "outside insets"
    for number, found in enumerate(sets.values()):
        share = 1 - found.region_share.get("inset", 0)
        words = axes.texts[number * (1 + len(found.region_error))].get_text()
        assert words == f"{found.methods['endovae']['squared_error'].mean:.4f}, {share:.1%} of pixels"
    assert any(found.region_share.get("inset", 0) > 0.001 for found in sets.values())


def test_the_record_is_the_last_section(written: WriteRun) -> None:
    record = read_once(written())["record"]
    facts = {row.cells[0]: row.cells[1] for row in tables(record)[0].rows}
    assert (facts["Warnings raised"], facts["Time"]) == ("2", "5 h 12 min")
    assert facts["Parameters"] == "encoder 9,842,380, decoder 1,282,467"
    assert any(isinstance(part, Details) for part in record.parts)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("stats.jsonl", '{"kind": "train", "images": 32}\nnonsense\n{"kind": "train", "images": 64}\n', "line 2"),
        ("stats.jsonl", '[1, 2]\n{"kind": "train", "images": 64}\n', "line 1"),
        ("evaluation.json", "{", "not valid JSON"),
        ("evaluation.json", '{"system": "endovae", "images": 3}', "epochs"),
        ("evaluation.csv", "name,kind\na,normal\n", "damaged"),
        ("evaluation.csv", "name,kind,width,height,endovae_psnr\na,normal,4,4,high\n", "damaged"),
        ("evaluation.csv", "name,kind,width,height,endovae_psnr\na,normal,4\n", "damaged"),
        ("frames.json", '{"count": 3}', "store"),
        ("run.json", '{"system": "endovae", "epoch": "long"}', "epoch"),
        ("config.yaml", "latent: 6", "latent"),
        ("samples/preparation.npz", "PK", "preparation.npz is damaged"),
        ("samples/traversal.npz", "PK", "traversal.npz is damaged"),
        ("samples/reconstructions-normal-best.npz", "PK", "damaged"),
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


def test_nothing_in_a_run_folder_is_unpickled(copied: WriteRun) -> None:
    run = copied()
    np.savez(run / "samples" / "preparation.npz", count=np.array([object()]))
    with pytest.raises(InputError, match="damaged"):
        sections(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        sections(tmp_path)


@pytest.mark.parametrize(("given", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_names_are_listed_as_in_a_sentence(given: list[str], text: str) -> None:
    assert listed(given) == text


def test_an_evaluation_whose_views_lost_their_counts_is_damaged(copied: WriteRun) -> None:
    run = copied()
    anomaly = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["anomaly"]
    anomaly["views"]["centre"]["counts"] = {}
    change(run / "evaluation.json", anomaly=anomaly)
    with pytest.raises(InputError, match=r"evaluation\.json is damaged"):
        sections(run)
