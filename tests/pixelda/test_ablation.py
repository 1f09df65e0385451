"""Grids of settings over seeds: what is refused, what a failing cell does to the others, and words that follow from numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

import tiny
from pixelscope import InputError, ablate, build_report
from pixelscope.pixelda.ablation.cells import Job
from pixelscope.pixelda.ablation.collecting import collect, mean_std
from pixelscope.pixelda.ablation.grid import Grid, read_grid
from pixelscope.pixelda.ablation.results import ConditionResult, MeanStd, SeedResult
from pixelscope.pixelda.ablation.sections import sections
from pixelscope.pixelda.ablation.verdicts import judge
from pixelscope.pixelda.metrics import set_result
from pixelscope.pixelda.results import CurvePoint, Evaluation


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
        "cells": {
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


def test_a_grid_runs_its_cells_keeps_failures_apart_and_goes_on(domains: tuple[str, str], tmp_path: Path) -> None:
    broken = {"claim": "No such images.", "settings": {"target": str(tmp_path / "nowhere")}}
    cells = yaml.safe_load(write_grid(tmp_path / "a.yaml", domains).read_text())["cells"]
    path = write_grid(tmp_path / "grid.yaml", domains, cells=cells | {"broken": broken}, seeds=[0])
    seen: list[tuple[int, int]] = []
    found = ablate(str(path), tmp_path / "out", at_once=2, progress=lambda done, total: seen.append((done, total)))
    assert {cell.name: len(cell.outcomes) for cell in found.cells} == {"full": 1, "without-generator": 1, "broken": 0}
    assert "nowhere" in found.cells[2].missing[0] and "broken, seed 0: " in found.to_text()
    assert seen[-1] == (3, 3)
    for name in ("full", "without-generator"):
        assert (tmp_path / "out" / "cells" / f"{name}-seed0" / "evaluation.json").is_file()
    page = build_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "nowhere" in page and "without-generator" in page and "One seed decides nothing." in page
    before = (tmp_path / "out" / "cells" / "full-seed0" / "stats.jsonl").stat().st_mtime_ns
    with pytest.raises(InputError, match="exists already; name another folder, or go on with --resume"):
        ablate(str(path), tmp_path / "out")
    again = ablate(str(path), tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "cells" / "full-seed0" / "stats.jsonl").stat().st_mtime_ns == before
    assert again.cells[0].outcomes == found.cells[0].outcomes
    with pytest.raises(InputError, match="was begun with another grid, seeds or settings"):
        ablate(str(path), tmp_path / "out", seeds=[5], resume=True)


def test_numbers_are_those_of_the_runs(domains: tuple[str, str], tmp_path: Path) -> None:
    path = write_grid(tmp_path / "grid.yaml", domains, cells={"full": {"claim": "All of it."}})
    found = ablate(str(path), tmp_path / "out", at_once=2)
    (full,) = found.cells
    accuracies = []
    for seed in (0, 1):
        run = Evaluation.load(tmp_path / "out" / "cells" / f"full-seed{seed}" / "evaluation.json")
        accuracies.append(run.sets["target_test"].accuracy)
        raw = [point.target_test or 0 for point in run.curve]
        assert full.outcomes[seed].unsteadiness == pytest.approx(np.std(raw[len(raw) // 2 :]))
    assert full.accuracy is not None and full.accuracy.mean == pytest.approx(np.mean(accuracies))
    names = [section.anchor for section in sections(tmp_path / "out")]
    assert names == ["lead", "result", "curves", "samples", "diagnostics", "record"]


def test_an_outcome_is_read_off_its_runs_files(tmp_path: Path) -> None:
    """Written by hand: two classes taken for others, one without images, a curve of averages, the last tenth of the log."""
    run = tmp_path / "full-seed7"
    run.mkdir()
    confusion = torch.tensor([[5, 0, 1, 0], [4, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]])
    accuracies = [0.1, 0.2, 0.6, 0.4]
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
        rule="last",
        rules={},
        sets=sets,
        oracle=None,
        curve=curve,
    ).save(run / "evaluation.json")
    lines = [{"kind": "train", "probability/real": n / 20, "probability/generated": n / 40} for n in range(20)]
    lines += [{"kind": "evaluation", "diversity": value} for value in (0.3, 0.1)]
    lines += [{"kind": "warning", "cause": "any", "text": "any"}] * 3
    (run / "stats.jsonl").write_text("".join(json.dumps({"images": 0, **line}) + "\n" for line in lines))
    grid = Grid.parse({"reference": "full", "seeds": [7, 8], "cells": {"full": {"claim": "All."}}})
    jobs = {("full", seed): Job(tmp_path / f"full-seed{seed}", "pixelda", {}, None) for seed in (7, 8)}
    (found,) = collect(grid, jobs)
    assert found.missing == {8: "not run yet"}
    (one,) = found.outcomes
    assert (one.seed, one.accuracy, one.source, one.swapped, one.warnings, one.diversity) == (7, 7 / 14, 49 / 50, 2, 3, 0.1)
    assert (one.real, one.generated) == pytest.approx((18.5 / 20, 18.5 / 40))
    assert one.unsteadiness == pytest.approx(0.1)
    assert one.curve == [(10 * n, pytest.approx(value + 0.05)) for n, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"reference": "nothing"}, "the reference 'nothing' is none of the cells"),
        ({"cells": {"full": {"settings": {"losses": {"colour": 1}}}}}, "cell full: losses.colour"),
        ({"cells": {"full": {"expect": {"measure": "beauty", "direction": "lower"}}}}, "cells.full.expect.measure"),
        ({"cells": {"full": {}, "A b": {}}}, "the cell name 'A b' has other characters"),
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
        ((domains[0], unlabelled), {"full": {}}, "needs target labels.*target.npz has no labels"),
        (domains, of_one_cell, "needs target labels.*target.npz has no labels"),
        (domains, none, "needs target labels. No target is given"),
    ):
        path = write_grid(tmp_path / "grid.yaml", sources, cells=cells)
        for resumed in (False, True):
            with pytest.raises(InputError, match=said):
                ablate(str(path), tmp_path / "out", resume=resumed)
        assert not (tmp_path / "out").exists()


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no grid 'claim'; name one of claims, search, or a file ending in .yaml"):
        ablate("claim", tmp_path / "out")
    with pytest.raises(InputError, match="There is no cell 'nothing' in this grid; choose from full"):
        ablate("claims", tmp_path / "out", cells=["nothing"])
    with pytest.raises(InputError, match="There is no SLURM on this machine"):
        ablate("claims", tmp_path / "slurm", cluster="slurm")


def test_the_packaged_grid_names_every_claim() -> None:
    grid = read_grid("claims", {"source": "elsewhere"})
    assert len(grid.cells) == 11 and grid.seeds == (0, 1, 2)
    for name, cell in grid.cells.items():
        config = grid.config(name, 2)
        assert config.seed == 2 and config.training.images == 12_800 and config.source == "elsewhere"
        assert cell.claim.endswith(".") and (cell.expect is None) == (name == "full")
    changed = [name for name in grid.cells if grid.config(name, 0) == grid.config("full", 0)]
    assert changed == ["full"]


def collected(name: str, accuracies: list[float], swings: list[float] | None = None) -> ConditionResult:
    outcomes = [
        SeedResult(
            seed=seed,
            run="",
            accuracy=value,
            unsteadiness=None if swings is None else swings[seed],
            source=0.99,
            swapped=0,
            diversity=None,
            real=None,
            generated=None,
            warnings=0,
            curve=[],
        )
        for seed, value in enumerate(accuracies)
    ]
    found = mean_std(accuracies) if accuracies else None
    return ConditionResult(name=name, claim="", outcomes=outcomes, missing={}, accuracy=found, unsteadiness=None)


def grid_of(measure: str, direction: str) -> Grid:
    expect = {"measure": measure, "direction": direction}
    return Grid.parse({"reference": "full", "cells": {"full": {}, "other": {"expect": expect}}})


@pytest.mark.parametrize(
    ("other", "direction", "judgement", "words"),
    [
        ([0.50, 0.52, 0.51], "lower", "supported", "supports the claim, by which it is lower"),
        ([0.50, 0.52, 0.51], "higher", "contradicted", "contradicts the claim, by which it is higher"),
        ([0.95, 0.80, 0.99], "lower", "undecided", "these seeds do not decide"),
        ([0.50], "lower", "undecided", "One seed decides nothing"),
        ([], "lower", "not measured", "No seed has been run"),
    ],
)
def test_words_follow_from_the_numbers(other: list[float], direction: str, judgement: str, words: str) -> None:
    cells = [collected("full", [0.90, 0.91, 0.92]), collected("other", other)]
    verdict = judge(grid_of("accuracy", direction), cells)[1]
    assert verdict.judgement == judgement and words in verdict.words


def test_differences_are_paired_by_seed_and_in_points() -> None:
    cells = [collected("full", [0.90, 0.80, 0.70]), collected("other", [0.89, 0.79, 0.69])]
    verdict = judge(grid_of("accuracy", "lower"), cells)[1]
    assert verdict.difference is not None and verdict.difference.mean == pytest.approx(-1)
    assert verdict.judgement == "supported" and "−1.00 [−1.00, −1.00] points, over 3 seeds" in verdict.words
    swings = judge(
        grid_of("unsteadiness", "higher"),
        [collected("full", [0.9] * 2, [0.01, 0.02]), collected("other", [0.9] * 2, [0.03, 0.05])],
    )
    assert swings[1].difference is not None and swings[1].difference.mean == pytest.approx(2.5)


def test_intervals_are_students() -> None:
    values = [0.91, 0.95, 0.94, 0.90]
    found = mean_std(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert mean_std([0.5]) == MeanStd(mean=0.5, std=None, low=None, high=None)


def test_a_job_says_how_far_it_is_by_what_lies_on_disk(tmp_path: Path) -> None:
    job = Job(tmp_path / "cell-seed0", "pixelda", {}, None)
    assert job.state() == "new"
    job.run.mkdir()
    assert job.state() == "begun"
    job.failure.write_text("why")
    assert job.state() == "failed"
    (job.run / "evaluation.json").write_text("{}")
    assert job.state() == "done"
