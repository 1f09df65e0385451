"""Grids of settings over seeds: what is refused, what a failing run does to the others, and claims judged by numbers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from fixtures import tiny
from pixelscope import InputError
from pixelscope.pixelda.ablation.analysis import collect, compare_to_reference, holm, mean_std, require_same_images
from pixelscope.pixelda.ablation.grid import Grid, read_grid
from pixelscope.pixelda.ablation.jobs import Job, run_job
from pixelscope.pixelda.ablation.report import ablation_sections
from pixelscope.pixelda.ablation.results import ConditionResult, MeanStd, SeedResult
from pixelscope.pixelda.ablation.runner import ablate
from pixelscope.pixelda.evaluation import evaluate_pixelda
from pixelscope.pixelda.metrics import set_result
from pixelscope.pixelda.results import CurvePoint, Evaluation
from pixelscope.reports.builder import build_report
from pixelscope.runs.folder import RunFolder


def write_grid(path: Path, domains: tuple[str, str], **changes) -> Path:
    base = tiny.pixelda(source=domains[0], target=domains[1], training={"images": 64, "evaluate_every": 16}).model_dump(
        mode="json"
    )
    del base["seed"]
    grid = {
        "preset": "paper",
        "seeds": [0, 1],
        "reference": "full",
        "base": base,
        "conditions": {
            "full": {"claim": "All of it."},
            "without-generator": {
                "claim": "The gap.",
                "system": "baseline",
                "expect": {"measure": "accuracy", "direction": "lower"},
            },
        },
    }
    path.write_text(yaml.safe_dump(grid | changes, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return tiny.write_domains(tmp_path_factory.mktemp("domains"))


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs be made in this process, as without submitit: processes of their own import torch first."""
    monkeypatch.setitem(sys.modules, "submitit", None)


@pytest.mark.usefixtures("in_turn")
def test_conditions_of_other_sizes_and_of_any_name_have_their_own_row_of_samples(
    domains: tuple[str, str], tmp_path: Path
) -> None:
    conditions = {"source": {}, "target": {"settings": {"data": {"size": 24}}}}
    path = write_grid(tmp_path / "grid.yaml", domains, conditions=conditions, seeds=[0], reference="source")
    ablate(str(path), tmp_path / "out")
    with np.load(tmp_path / "out" / "samples.npz") as stored:
        names, drawn = stored["names"].tolist(), stored["drawn"]
    assert names == ["source", "source", "target", "target"]
    assert drawn.shape[0] == 4 and drawn.shape[2:] == (24, 24, 3)
    assert len(np.unique(drawn.reshape(4, -1), axis=0)) == 4
    with np.load(tmp_path / "out" / "conditions" / "target-seed0" / "samples" / "progress.npz") as stored:
        generated = stored["generated"]
    assert np.array_equal(drawn[2], generated[-1][: drawn.shape[1]]), "what G draws at the end"
    assert not np.array_equal(generated[0], generated[-1])


@pytest.mark.usefixtures("in_turn")
def test_a_grid_that_cannot_run_at_all_is_an_error(
    domains: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_grid(tmp_path / "nowhere.yaml", (str(tmp_path / "nowhere"), domains[1]), seeds=[0])
    with pytest.raises(InputError, match="No run of the grid can start: .*nowhere"):
        ablate(str(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path = write_grid(tmp_path / "grid.yaml", domains, seeds=[0])
    monkeypatch.setattr("pixelscope.pixelda.ablation.runner.launch", lambda *_: None)
    with pytest.raises(InputError, match="All 2 runs failed; the first: full, seed 0: not run yet"):
        ablate(str(path), tmp_path / "out")
    assert RunFolder(tmp_path / "out").read_record()["state"] == "stopped"


def test_a_grid_runs_its_conditions_keeps_failures_apart_and_resumes(domains: tuple[str, str], tmp_path: Path) -> None:
    broken = {"claim": "No such images.", "settings": {"target": str(tmp_path / "nowhere")}}
    cells = yaml.safe_load(write_grid(tmp_path / "a.yaml", domains).read_text())["conditions"]
    path = write_grid(tmp_path / "grid.yaml", domains, conditions=cells | {"broken": broken}, seeds=[0])
    seen: list[tuple[int, int]] = []
    found = ablate(str(path), tmp_path / "out", max_parallel=2, progress=lambda done, total: seen.append((done, total)))
    assert {one.name: len(one.seeds) for one in found.conditions} == {"full": 1, "without-generator": 1, "broken": 0}
    assert "nowhere" in found.conditions[2].missing[0] and "broken, seed 0: " in found.to_text()
    assert seen[-1] == (3, 3)
    for name in ("full", "without-generator"):
        assert (tmp_path / "out" / "conditions" / f"{name}-seed0" / "evaluation.json").is_file()
    page = build_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "nowhere" in page and "without-generator" in page
    before = (tmp_path / "out" / "conditions" / "full-seed0" / "stats.jsonl").stat().st_mtime_ns
    with pytest.raises(InputError, match="--resume"):
        ablate(str(path), tmp_path / "out")
    with (
        RunFolder(tmp_path / "out").locked("worked on"),
        pytest.raises(InputError, match=f"worked on by process {os.getpid()} "),
    ):
        ablate(str(path), tmp_path / "out", resume=True)
    again = ablate(str(path), tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "conditions" / "full-seed0" / "stats.jsonl").stat().st_mtime_ns == before
    assert again.conditions[0].seeds == found.conditions[0].seeds
    with pytest.raises(InputError, match=r"seeds \[0\], not \[5\]"):
        ablate(str(path), tmp_path / "out", seeds=[5], resume=True)
    run = tmp_path / "out" / "conditions" / "full-seed0"
    evaluate_pixelda(run, checkpoint="last")
    assert ablate(str(path), tmp_path / "out", resume=True).conditions[0].seeds == found.conditions[0].seeds
    assert Evaluation.load(run / "evaluation.json").checkpoint == "ema-last", "measured again, as the others"
    stored = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    stored["generator"]["noise_dim"] += 1
    (run / "config.yaml").write_text(yaml.safe_dump(stored), encoding="utf-8")
    with pytest.raises(InputError, match=r"full-seed0 was trained with generator.noise_dim"):
        ablate(str(path), tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("domain", "changed", "refused"),
    [
        ("target", "sha256", True),
        ("target", "sha256_test", True),
        ("source", "sha256_test", True),
        ("source", "sha256", False),
    ],
)
def test_conditions_with_other_held_out_source_images_are_of_the_same_target_and_tests(
    domain: str, changed: str, refused: bool, tmp_path: Path
) -> None:
    jobs = []
    for name, fraction in (("full", 0.0), ("without", 0.05)):
        job = Job(tmp_path / name, "pixelda", {"data": {"validation_fraction": fraction, "seed": 0}}, None)
        job.run.mkdir()
        data = {one: {"sha256": "a", "sha256_test": "b"} for one in ("source", "target")}
        data[domain][changed] = name
        record = {"system": "pixelda", "state": "finished", "images": 64, "data": data}
        (job.run / "run.json").write_text(json.dumps(record))
        Evaluation(
            system="pixelda",
            images=64,
            steps=8,
            classes=[],
            checkpoint="ema-last",
            checkpoints={},
            sets={},
            oracle=None,
            curve=[],
        ).save(job.run / "evaluation.json")
        jobs.append(job)
    with pytest.raises(InputError, match="of other images") if refused else nullcontext():
        require_same_images(jobs)


@pytest.mark.usefixtures("in_turn")
def test_numbers_are_those_of_the_runs(domains: tuple[str, str], tmp_path: Path) -> None:
    path = write_grid(tmp_path / "grid.yaml", domains, conditions={"full": {"claim": "All of it."}})
    found = ablate(str(path), tmp_path / "out")
    (full,) = found.conditions
    accuracies = []
    for seed in (0, 1):
        run = Evaluation.load(tmp_path / "out" / "conditions" / f"full-seed{seed}" / "evaluation.json")
        accuracies.append(run.sets["target_test"].accuracy)
        raw = [point.target_test or 0 for point in run.curve]
        assert full.seeds[seed].collapsed == (raw[-1] < max(raw) / 2)
    assert full.accuracy is not None and full.accuracy.mean == pytest.approx(np.mean(accuracies))
    record = tmp_path / "out" / "conditions" / "full-seed1" / "run.json"
    stored = json.loads(record.read_text())
    stored["data"]["target"]["sha256_test"] = "0" * 64
    record.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"full-seed1 .*full-seed0"):
        ablate(str(path), tmp_path / "out", resume=True)
    names = [section.anchor for section in ablation_sections(tmp_path / "out")]
    assert names == ["summary", "result", "curves", "samples", "diagnostics", "record"]


def test_an_outcome_is_read_off_its_runs_files(tmp_path: Path) -> None:
    """Written by hand: two classes taken for others, one without images, a curve of averages, the last tenth of the log."""
    run = tmp_path / "full-seed7"
    run.mkdir()
    confusion = torch.tensor([[5, 0, 1, 1], [4, 1, 0, 0], [0, 4, 3, 0], [0, 0, 0, 0]])
    accuracies = [0.1, 0.2, 0.3, 0.4, 0.9, 0.7, 0.8, 0.5, 0.6, 0.3, 0.4]
    curve = [
        CurvePoint(images=10 * n, step=n, target_test=value, ema_target_test=value + 0.05, source_test=0.9)
        for n, value in enumerate(accuracies)
    ]
    counts = {"target_test": confusion, "source_test": torch.diag(torch.tensor([10, 10, 10, 19]))}
    counts["source_test"][0, 1] = 1
    sets = {name: set_result(name, found, list("abcd")) for name, found in counts.items()}
    Evaluation(
        system="pixelda",
        images=30,
        steps=3,
        classes=list("abcd"),
        checkpoint="ema-last",
        checkpoints={},
        sets=sets,
        oracle=None,
        curve=curve,
    ).save(run / "evaluation.json")
    lines = [{"kind": "train", "probability/real": n / 20, "probability/generated": n / 40} for n in range(20)]
    lines += [{"kind": "evaluation", "diversity": value} for value in (0.3, 0.1)]
    lines += [{"kind": "warning", "cause": "any", "text": "any"}] * 3
    (run / "run.json").write_text('{"system": "pixelda", "state": "finished"}')
    (run / "stats.jsonl").write_text("".join(json.dumps({"images": 0, **line}) + "\n" for line in lines))
    grid = Grid.parse({"reference": "full", "seeds": [7, 8], "conditions": {"full": {"claim": "All."}}})
    jobs = {("full", seed): Job(tmp_path / f"full-seed{seed}", "pixelda", {}, None) for seed in (7, 8)}
    (found,) = collect(grid, jobs)
    assert found.missing == {8: "not run yet"}
    (one,) = found.seeds
    assert (one.seed, one.accuracy, one.source_accuracy, one.swapped_classes, one.warnings, one.diversity) == (
        7,
        9 / 19,
        49 / 50,
        2,
        3,
        0.1,
    )
    assert (one.probability_real, one.probability_generated) == pytest.approx((18.5 / 20, 18.5 / 40))
    late = accuracies[5:]
    line = np.polynomial.Polynomial.fit(range(6), late, 1)(np.arange(6))
    assert one.accuracy_swing == pytest.approx(np.sqrt(np.sum((late - line) ** 2) / 4))
    assert one.collapsed
    assert one.curve == [(10 * n, pytest.approx(value + 0.05)) for n, value in enumerate(accuracies)]
    plain = [point.model_copy(update={"ema_target_test": None}) for point in curve[:3]]
    Evaluation.load(run / "evaluation.json").model_copy(update={"curve": plain}).save(run / "evaluation.json")
    (short,) = collect(grid, jobs)[0].seeds
    assert short.curve == [(0, 0.1), (10, 0.2), (20, 0.3)], "no average is kept"
    assert short.accuracy_swing is None and not short.collapsed, "two points are on any line"
    tied = set_result("target_test", torch.tensor([[5, 0, 0, 0], [3, 3, 0, 0], [0, 4, 3, 0], [0, 0, 0, 0]]), list("abcd"))
    found = Evaluation.load(run / "evaluation.json")
    found.model_copy(update={"sets": found.sets | {"target_test": tied}}).save(run / "evaluation.json")
    assert collect(grid, jobs)[0].seeds[0].swapped_classes == 1, "a class that is as often itself as another one is not swapped"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour"),
        ({"reference": "nothing"}, "nothing"),
        ({"conditions": {"full": {"settings": {"losses": {"colour": 1}}}}}, "full: losses.colour"),
        ({"conditions": {"full": {"expect": {"measure": "beauty", "direction": "lower"}}}}, "conditions.full.expect.0.measure"),
        ({"conditions": {"full": {}, "A b": {}}}, "A b"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_grid_with_what_there_is_not_is_refused(domains: tuple[str, str], tmp_path: Path, change: dict, message: str) -> None:
    path = write_grid(tmp_path / "grid.yaml", domains, **change)
    with pytest.raises(InputError, match=message):
        ablate(str(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_target_without_labels_is_refused_before_anything_is_trained(domains: tuple[str, str], tmp_path: Path) -> None:
    np.savez(tmp_path / "target.npz", images=tiny.pictures(60, 1)[0])
    unlabelled = f"arrays:{tmp_path / 'target.npz'}"
    of_one_cell = {"full": {}, "other": {"settings": {"target": unlabelled}}, "alone": {"system": "baseline"}}
    none = {"full": {}, "alone": {"system": "baseline", "settings": {"target": ""}}}
    for sources, cells, said in (
        ((domains[0], unlabelled), {"full": {}}, "target.npz"),
        (domains, of_one_cell, "target.npz"),
        (domains, none, "No target"),
    ):
        path = write_grid(tmp_path / "grid.yaml", sources, conditions=cells)
        for resumed in (False, True):
            with pytest.raises(InputError, match=said):
                ablate(str(path), tmp_path / "out", resume=resumed)
        assert not (tmp_path / "out").exists()


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'claim'"):
        ablate("claim", tmp_path / "out")
    with pytest.raises(InputError, match="'nothing'"):
        ablate("claims", tmp_path / "out", conditions=["nothing"])
    with pytest.raises(InputError, match="SLURM"):
        ablate("claims", tmp_path / "slurm", cluster="slurm")
    with pytest.raises(InputError, match="--slurm.partition needs --cluster slurm"):
        ablate("claims", tmp_path / "local", slurm={"partition": "gpu"})
    assert not (tmp_path / "local").exists()


def test_seeds_that_decide_no_deviation_get_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seeds, conditions in (([0, 1, 2], None), ([0, 1, 2], ["without-generator"]), (None, None)):
        with pytest.raises(InputError, match="SLURM"):
            ablate("claims", tmp_path / "out", seeds=seeds, conditions=conditions, cluster="slurm")
    (said,) = (record.getMessage() for record in caplog.records)
    assert "with 3 seeds" in said and "--seeds" in said


def test_a_seed_next_to_the_seeds_of_a_grid_is_refused(domains: tuple[str, str], tmp_path: Path) -> None:
    path = write_grid(tmp_path / "grid.yaml", domains)
    with pytest.raises(InputError, match=r"--config has seed 5, .*--seeds 5"):
        ablate(str(path), tmp_path / "out", changes={"seed": 5})
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    changes = {
        "base": {"base": values["base"] | {"seed": 5}},
        "trial": {"trial": {"seed": 5}},
        "conditions.full.settings": {"conditions": {"full": {"settings": {"seed": 5}}}},
    }
    for where, change in changes.items():
        with pytest.raises(InputError, match=re.escape(f"{where}.seed has no effect")):
            ablate(str(write_grid(tmp_path / "grid.yaml", domains, **change)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_packaged_grid_names_every_claim() -> None:
    grid = read_grid("claims", {"source": "elsewhere"})
    assert len(grid.conditions) == 11 and grid.seeds == tuple(range(8))
    for name, one in grid.conditions.items():
        config = grid.config(name, 2)
        assert config.seed == 2 and config.training.images == 12_800 and config.source == "elsewhere"
        assert one.claim.endswith(".") and (not one.expect) == (name == "full")
    changed = [name for name in grid.conditions if grid.config(name, 0) == grid.config("full", 0)]
    assert changed == ["full"]


def collected(name: str, accuracies: list[float], swings: list[float] | None = None) -> ConditionResult:
    outcomes = [
        SeedResult(
            seed=seed,
            run="",
            accuracy=value,
            accuracy_swing=None if swings is None else swings[seed],
            collapsed=False,
            source_accuracy=0.99,
            swapped_classes=0,
            diversity=None,
            probability_real=None,
            probability_generated=None,
            warnings=0,
            curve=[],
        )
        for seed, value in enumerate(accuracies)
    ]
    found = mean_std(accuracies) if accuracies else None
    return ConditionResult(name=name, claim="", seeds=outcomes, missing={}, accuracy=found, accuracy_swing=None)


def grid_of(measure: str, direction: str) -> Grid:
    expect = {"measure": measure, "direction": direction}
    return Grid.parse({"reference": "full", "conditions": {"full": {}, "other": {"expect": expect}}})


@pytest.mark.parametrize(
    ("other", "direction", "judgement"),
    [
        ([0.50, 0.52, 0.51], "lower", "supported"),
        ([0.50, 0.52, 0.51], "higher", "contradicted"),
        ([0.95, 0.80, 0.99], "lower", "undecided"),
        ([0.50], "lower", "undecided"),
        ([], "lower", "not measured"),
    ],
)
def test_the_judgement_follows_from_the_numbers(other: list[float], direction: str, judgement: str) -> None:
    conditions = [collected("full", [0.90, 0.91, 0.92]), collected("other", other)]
    reference, compared = compare_to_reference(grid_of("accuracy", direction), conditions)
    assert (reference.judgement, compared.judgement, compared.seeds) == ("reference", judgement, len(other))


def test_differences_are_paired_by_seed_and_in_points() -> None:
    conditions = [collected("full", [0.90, 0.80, 0.70]), collected("other", [0.88, 0.79, 0.69])]
    found = compare_to_reference(grid_of("accuracy", "lower"), conditions)[1]
    assert found.difference is not None and found.difference.mean == pytest.approx(-4 / 3)
    assert found.row("why")[:5] == ("other", "why", "undecided", "target accuracy, points", "−1.33")
    assert found.row("why")[5:] == ("−2.77 to +0.10", "0.057", "3")
    swings = compare_to_reference(
        grid_of("accuracy_swing", "higher"),
        [collected("full", [0.9] * 2, [0.01, 0.02]), collected("other", [0.9] * 2, [0.03, 0.05])],
    )
    assert swings[1].difference is not None and swings[1].difference.mean == pytest.approx(2.5)


def test_only_seeds_that_both_have_are_compared() -> None:
    """Deviations are from the median of these seeds; a seed without a number of its own is no zero."""
    full, other = collected("full", [0.8, 0.9, 0.7]), collected("other", [0.5, 0.9, 0.6, 0.1, 0.1])
    found = compare_to_reference(grid_of("accuracy_deviation", "higher"), [full, other])[1]
    assert found.difference is not None and found.seeds == 3
    assert found.difference.mean == pytest.approx(100 * (np.mean([0.1, 0.3, 0.0]) - np.mean([0.0, 0.1, 0.1])))
    full, other = (collected(name, [0.9] * 3, [low, low + 0.01, low]) for name, low in (("full", 0.01), ("other", 0.05)))
    other.seeds[1] = other.seeds[1].model_copy(update={"accuracy_swing": None})
    found = compare_to_reference(grid_of("accuracy_swing", "higher"), [full, other])[1]
    assert found.difference is not None and (found.seeds, found.difference.mean) == (2, pytest.approx(4))


def test_p_values_are_corrected_for_the_number_of_tests() -> None:
    """Against statsmodels' numbers: a difference that one test alone finds is not found among four."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []
    reference = collected("full", [0.90, 0.91, 0.92, 0.91])
    worse = collected("other", [0.87, 0.90, 0.90, 0.895])
    same = [collected(f"same-{n}", [0.90, 0.92, 0.91, 0.91]) for n in range(3)]
    expect = {"expect": {"measure": "accuracy", "direction": "lower"}}

    def judged(others: list[ConditionResult]) -> list[str]:
        names = {one.name: expect for one in (worse, *others)}
        grid = Grid.parse({"reference": "full", "conditions": {"full": {}, **names}})
        return [one.judgement for one in compare_to_reference(grid, [reference, worse, *others])]

    assert judged([]) == ["reference", "supported"]
    grid = Grid.parse({"reference": "full", "conditions": {"full": {}, "other": expect}})
    alone = compare_to_reference(grid, [reference, worse])[1]
    assert alone.p == pytest.approx(stats.ttest_rel([0.87, 0.90, 0.90, 0.895], [0.90, 0.91, 0.92, 0.91]).pvalue)
    assert judged(same) == ["reference", *["undecided"] * 4]


@pytest.mark.parametrize(("seeds", "p", "judgement"), [(2, 0.5, "undecided"), (8, 2 / 2**8, "supported")])
def test_equal_differences_are_judged_by_their_signs(seeds: int, p: float, judgement: str) -> None:
    """Student's t is not defined without a spread."""
    conditions = [collected("full", [0.9] * seeds), collected("other", [0.8] * seeds), collected("same", [0.9] * seeds)]
    expect = {"expect": {"measure": "accuracy", "direction": "lower"}}
    grid = Grid.parse({"reference": "full", "conditions": {"full": {}, "other": expect, "same": {"expect": None}}})
    found = compare_to_reference(grid, conditions)
    assert found[1].p == pytest.approx(p) and found[1].judgement == judgement
    both = Grid.parse({"reference": "full", "conditions": {"full": {}, "other": expect, "same": expect}})
    assert [one.p for one in compare_to_reference(both, conditions)[1:]] == pytest.approx([2 * p, 1])


@pytest.mark.parametrize("collapsed_runs", [8, 7, 6])
def test_counts_are_judged_by_the_exact_test_of_signs(collapsed_runs: int) -> None:
    """More collapsed runs never have a larger p; no interval leaves what is possible."""
    full, other = (collected(name, [0.9] * 8) for name in ("full", "other"))

    def with_collapsed(one: ConditionResult, count: int) -> ConditionResult:
        seeds = [seed.model_copy(update={"collapsed": i < count}) for i, seed in enumerate(one.seeds)]
        return one.model_copy(update={"seeds": seeds})

    conditions = [with_collapsed(full, 0), with_collapsed(other, collapsed_runs)]
    found = compare_to_reference(grid_of("collapsed", "higher"), conditions)[1]
    assert found.p == pytest.approx(2.0 ** (1 - collapsed_runs))
    assert found.difference is not None and found.difference.mean == 100 * collapsed_runs / 8
    assert (found.difference.high is None) == (collapsed_runs == 8)
    assert collapsed_runs == 8 or found.difference.high == 100


def test_a_condition_without_a_claim_is_no_test_of_one() -> None:
    grid = Grid.parse({"reference": "full", "conditions": {"full": {}, "other": {}}})
    conditions = [collected("full", [0.9, 0.8]), collected("other", [0.7, 0.75])]
    found = compare_to_reference(grid, conditions)[1]
    assert found.judgement == "no claim" and found.p is None


def test_nearly_equal_differences_are_judged_by_students_t() -> None:
    full, other = [0.9, 0.9, 0.9], [0.8, 0.80004, 0.79996]
    found = compare_to_reference(grid_of("accuracy", "lower"), [collected("full", full), collected("other", other)])[1]
    assert found.p == pytest.approx(stats.ttest_rel(other, full).pvalue, rel=1e-6) and found.judgement == "supported"


def test_a_claim_may_expect_two_things() -> None:
    """Each is tested by itself; one of seeds, one of each run."""
    full = collected("full", [0.9, 0.9, 0.9, 0.9], [0.01, 0.01, 0.01, 0.01])
    other = collected("other", [0.8, 0.9, 0.9, 0.99], [0.05, 0.06, 0.05, 0.06])
    assert list(other.values("accuracy_deviation", range(4)).values()) == pytest.approx([0.1, 0, 0, 0.09])
    expect = [{"measure": name, "direction": "higher"} for name in ("accuracy_deviation", "accuracy_swing")]
    grid = Grid.parse({"reference": "full", "conditions": {"full": {}, "other": {"expect": expect}}})
    found = compare_to_reference(grid, [full, other])
    assert [(one.measure, one.judgement) for one in found[1:]] == [
        ("accuracy_deviation", "undecided"),
        ("accuracy_swing", "supported"),
    ]


def test_intervals_are_students() -> None:
    values = [0.91, 0.95, 0.94, 0.90]
    found = mean_std(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert mean_std([0.5]) == MeanStd(mean=0.5, std=None, low=None, high=None)
    few = mean_std([0.2, 0.8], 0, 1)
    assert (few.mean, few.low, few.high) == (0.5, 0, 1), "no accuracy is below 0 or above 1"
    assert mean_std(values, 0, 1) == found


def test_a_job_says_how_far_it_is_by_what_lies_on_disk(tmp_path: Path) -> None:
    job = Job(tmp_path / "full-seed0", "pixelda", {}, None)
    assert job.state() == "new"
    job.run.mkdir()
    assert job.state() == "started"
    job.failure.write_text("why")
    assert job.state() == "failed"
    job.failure.unlink()
    measured = {
        "system": "pixelda",
        "images": 64,
        "steps": 8,
        "classes": [],
        "checkpoint": "ema-last",
        "checkpoints": {},
        "sets": {},
    }
    Evaluation.parse({**measured, "oracle": None, "curve": []}).save(job.run / "evaluation.json")
    for state, found in (("stopped", "started"), ("running", "started"), ("finished", "done")):
        (job.run / "run.json").write_text(json.dumps({"system": "pixelda", "state": state, "images": 64}))
        assert job.state() == found, "a run that was stopped and evaluated is not done"
    (job.run / "run.json").write_text(json.dumps({"system": "pixelda", "state": "finished", "images": 96}))
    assert job.state() == "started", "a run that was evaluated, and then trained to its end, is not done"
    Evaluation.parse({**measured, "images": 96, "oracle": None, "curve": []}).save(job.run / "evaluation.json")
    assert job.state() == "done"
    other = {**measured, "images": 96, "checkpoint": "last", "oracle": None, "curve": []}
    Evaluation.parse(other).save(job.run / "evaluation.json")
    assert job.state() == "started", "conditions are compared by the same checkpoint"


def test_a_job_that_is_interrupted_outside_of_its_training_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixelscope.pixelda.ablation.jobs.train_pixelda", interrupted)
    job = Job(tmp_path / "full-seed0", "pixelda", {}, None)
    with pytest.raises(KeyboardInterrupt):
        run_job(job)
    assert (job.state(), job.reason()) == ("failed", "interrupted")


def test_ctrl_c_ends_local_jobs_in_one_sentence(domains: tuple[str, str], tmp_path: Path) -> None:
    """A terminal sends it to the whole group of processes."""
    path = write_grid(tmp_path / "grid.yaml", domains, seeds=[0], conditions={"full": {}})
    values = yaml.safe_load(path.read_text())
    values["base"]["training"] |= {"images": 10**7, "log_every": 16, "evaluate_every": 10**6, "checkpoint_every": 10**6}
    path.write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pixelscope", "pixelda", "ablate", str(path), "--out", str(out)]
    # Where a shell runs the tests in the background, processes inherit that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    signal.signal(signal.SIGINT, before)
    stats = out / "conditions" / "full-seed0" / "stats.jsonl"
    while not stats.is_file() and started.poll() is None:
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=240)
    assert started.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("Interrupted. What is trained is kept")
    folder = RunFolder(stats.parent)
    assert folder.read_record()["state"] == "stopped" and folder.checkpoint_files(), "it was saved before the command ended"
    job = Job(folder.path, "pixelda", {}, None)
    assert job.state() == "failed" and "--resume" in job.reason()


def test_a_resumed_grid_is_running(domains: tuple[str, str], tmp_path: Path) -> None:
    path = write_grid(tmp_path / "grid.yaml", domains, seeds=[0], conditions={"full": {}})
    out, states = tmp_path / "out", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        ablate(str(path), out)
    (out / "conditions" / "full-seed0" / "evaluation.json").unlink()
    ablate(str(path), out, resume=True, progress=lambda done, total: states.append(RunFolder(out).read_record()["state"]))
    assert states == ["running"] and RunFolder(out).read_record()["state"] == "finished"
