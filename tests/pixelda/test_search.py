"""A short trial of settings for new sources: what is chosen without labels, what is said where nothing is, what is refused."""

import json
import shutil
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fixtures import tiny
from pixelscope import InputError
from pixelscope.cli import main
from pixelscope.config import merge
from pixelscope.pixelda.ablation.analysis import choose_trial, read_trial
from pixelscope.pixelda.ablation.grid import Condition, read_grid
from pixelscope.pixelda.ablation.jobs import Job
from pixelscope.pixelda.ablation.results import SearchResult, Trial
from pixelscope.pixelda.ablation.runner import search
from pixelscope.pixelda.config import PixelDAConfig, preset
from pixelscope.pixelda.metrics import set_result
from pixelscope.pixelda.results import DECIDES, Evaluation
from pixelscope.reports.builder import build_report

SMALL = {
    name: value
    for name, value in tiny.pixelda(
        data={"validation_fraction": 0.2}, training={"images": 32, "evaluate_every": 32, "sample_every": 32}
    )
    .model_dump(mode="json", exclude_unset=True)
    .items()
    if name != "losses"
}


@pytest.fixture(scope="module", autouse=True)
def in_turn():
    """Trials run in this process, as without submitit: another process imports torch first, which takes longer than a trial."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        yield


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return tiny.write_domains(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def found(domains: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "out"
    search(*domains, out, changes=SMALL)
    return out


def trial(name: str, better: str, before: float, after: float) -> Trial:
    verdict = {"better": better, "criteria": {DECIDES: (before, after)}, "agreement": 0.5, "swapped": 0.0}
    return Trial.parse({"name": name, "about": "", "settings": {}, "run": name, "verdict": verdict})


def judge_by_hand(folder: Path, better: str | None) -> None:
    """Let the trial `better` be the only one whose verdict prefers the adapted T."""
    for path in (folder / "conditions").glob("*/evaluation.json"):
        own, helps = Evaluation.load(path), path.parent.name == f"{better}-seed0"
        assert own.verdict is not None
        criteria = own.verdict.criteria | {DECIDES: (0.5, 1.0 if helps else 0.0)}
        verdict = own.verdict.model_copy(update={"better": "adapted" if helps else "source only", "criteria": criteria})
        own.model_copy(update={"verdict": verdict}).save(path)


def test_the_most_informative_of_those_that_likely_help_is_chosen() -> None:
    failed = Trial(name="d", about="", settings={}, run="d", failed="No memory.")
    trials = [trial("a", "adapted", 0.2, 1.4), trial("b", "source only", 1.0, 2.2), trial("c", "adapted", 1.0, 1.5), failed]
    assert choose_trial(trials)[0] == "c"
    assert choose_trial([trials[1], trial("e", "neither", 1.0, 1.01), failed])[0] is None
    chosen, reason = choose_trial([trial("f", "unknown", 0.0, 1.0), failed])
    assert chosen is None and "learned the source" in reason and "--config" in reason


def test_a_trial_is_read_off_its_runs_files(tmp_path: Path) -> None:
    """Written by hand: accuracies of T of the source alone before those of the adapted T, and warnings of two causes."""
    run, verdict = tmp_path / "soft-seed0", trial("soft", "adapted", 1.0, 1.4).verdict
    run.mkdir()
    counts = {"target_test": torch.tensor([[6, 4], [2, 8]]), "source_test": torch.tensor([[5, 0], [0, 5]])}
    Evaluation(
        system="pixelda",
        images=32,
        steps=4,
        classes=["a", "b"],
        checkpoint="ema-last",
        checkpoints={},
        sets={name: set_result(name, found, ["a", "b"]) for name, found in counts.items()},
        source_only={"target_test": 0.55, "source_test": 0.9},
        discordant=7,
        verdict=verdict,
        oracle=None,
        curve=[],
    ).save(run / "evaluation.json")
    (run / "run.json").write_text('{"system": "pixelda", "state": "finished"}')
    causes = ["content lost", "collapse", "content lost"]
    lines = [{"kind": "warning", "images": 0, "cause": cause, "text": ""} for cause in causes] + [
        {"kind": "train", "images": 0}
    ]
    (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_trial("soft", Condition(claim="Less.", settings={"seed": 1}), Job(run, "pixelda", {}, None))
    assert (found.name, found.about, found.settings, found.failed) == ("soft", "Less.", {"seed": 1}, "")
    assert (found.verdict, found.content_warnings) == (verdict, 2)
    assert (found.with_target_labels, found.test_images, found.discordant) == ((0.55, 0.7), 20, 7)


def test_a_trial_that_target_labels_contradict_is_named() -> None:
    good, bad = trial("good", "adapted", 1.0, 1.4), trial("bad", "adapted", 1.0, 1.5)
    labels = {"good": (0.5, 0.7), "bad": (0.7, 0.5)}
    trials = [one.model_copy(update={"with_target_labels": labels[one.name], "test_images": 400}) for one in (good, bad)]
    found = SearchResult(out="", grid="search", trials=trials, chosen="bad", reason="", command=None)
    assert found.contradictions == ["bad: The target labels contradict the verdict."]
    assert found.contradictions[0] in found.to_text()
    likely = trial("likely", "adapted", 1.0, 1.4).model_copy(update={"with_target_labels": (0.55, 0.5), "test_images": 400})
    assert [bool(likely.model_copy(update={"discordant": count}).contradiction) for count in (40, 110)] == [True, False]


def test_four_settings_are_tried_and_compared(found: Path) -> None:
    result = SearchResult.load(found / "search.json")
    assert len(result.trials) == 4 and not any(one.failed for one in result.trials)
    for one in result.trials:
        own = Evaluation.load(Path(one.run) / "evaluation.json")
        assert one.verdict == own.verdict and own.source_only is not None
        assert one.with_target_labels == (own.source_only["target_test"], own.sets["target_test"].accuracy)
    page = build_report(found).read_text(encoding="utf-8")
    assert all(one.name in page and one.about in unescape(page) for one in result.trials)
    assert "0 images in 0 steps" not in page and "Warnings raised" not in page, "it is no training itself"


def test_what_is_written_to_go_on_with_is_the_chosen_setting_in_full_size(domains: tuple[str, str], found: Path) -> None:
    """A trial that the verdict prefers is made by hand, as trainings this short help nobody."""
    judge_by_hand(found, "firm")
    result = search(*domains, found, changes=SMALL, resume=True)
    assert result.chosen == "firm" and result.command is not None and "settings.yaml" in result.command
    written = yaml.safe_load((found / "settings.yaml").read_text(encoding="utf-8"))
    length = ("images", "log_every", "evaluate_every", "sample_every", "checkpoint_every", "ema_half_life")
    others = {name: value for name, value in SMALL["training"].items() if name not in length}
    assert "batch_size" in others
    given = {**SMALL, "training": others, "source": domains[0], "target": domains[1], "seed": 0}
    expected = merge(preset("pixelda", "auto"), given, {"losses": {"generator_task": 0.1, "task_bound": None}})
    assert PixelDAConfig.parse(written) == PixelDAConfig.parse(expected)
    assert written["training"]["images"] == preset("pixelda", "auto")["training"]["images"]
    assert "training.batch_size" in result.kept and "training.images" in result.left_out
    assert "seed" in result.to_text() and "training.images" in result.to_text()

    judge_by_hand(found, None)
    nothing = search(*domains, found, changes=SMALL, resume=True)
    assert nothing.chosen is None and nothing.command is None and "Nothing better" in nothing.to_text()
    assert not (found / "settings.yaml").exists()


def test_settings_have_the_grids_base_the_given_ones_and_the_seed(domains: tuple[str, str], tmp_path: Path) -> None:
    trial, condition = read_grid("search").trial, read_grid("search").conditions["firm"].model_dump(mode="json")
    values = {
        "preset": "usps",
        "reference": "firm",
        "seeds": [3, 4],
        "base": {"data": {"size": 16}, "judge": True, "training": {"batch_size": 4, "images": 32}},
        "trial": merge(trial, {"generator": {"blocks": 1, "width": 8}, "training": {"images": 64, "batch_size": 2}}),
        "conditions": {"firm": condition},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    given = {"source": domains[0], "target": domains[1], "generator": {"width": 48}, "data": {"group_by": "(a)"}}
    grid = read_grid(str(tmp_path / "grid.yaml"), given)
    small, full = grid.config("firm", 3), grid.full_config("firm", 3)
    assert isinstance(small, PixelDAConfig)
    assert (small.generator.blocks, small.generator.width, small.training.batch_size, small.training.images) == (1, 48, 2, 64)
    plain = merge(preset("pixelda", "usps"), given, {"data": {"size": 16}, "judge": True, "training": {"batch_size": 4}})
    assert full == PixelDAConfig.parse(merge(plain, condition["settings"], {"seed": 3}))
    assert {"data.group_by", "generator.width", "training.batch_size"} <= set(grid.kept())
    assert {"generator.blocks", "training.images", "training.ema_half_life"} <= set(grid.left_out())
    assert not set(grid.kept()) & set(grid.left_out())


def test_labels_of_the_target_choose_nothing(domains: tuple[str, str], found: Path, tmp_path: Path) -> None:
    with np.load(domains[1].removeprefix("arrays:")) as stored:
        np.savez(tmp_path / "target.npz", images=stored["images"], labels=(stored["labels"] + 1) % 3)
    other = search(domains[0], f"arrays:{tmp_path / 'target.npz'}", tmp_path / "out", changes=SMALL)
    again = search(*domains, tmp_path / "again", changes=SMALL)
    assert [one.verdict for one in other.trials] == [one.verdict for one in again.trials]
    assert other.chosen == again.chosen
    assert [one.with_target_labels for one in other.trials] != [one.with_target_labels for one in again.trials]


def test_a_trial_that_fails_is_named_and_all_failing_is_an_error(
    domains: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "submitit")
    grid = read_grid("search").model_dump(mode="json")
    broken = {"claim": "No such masks.", "settings": {"losses": {"content": 1.0, "content_mask": str(tmp_path / "nowhere")}}}
    result = search(*domains, tmp_path / "one", changes=SMALL, grid=one_trial(tmp_path, broken=broken), max_parallel=2)
    assert [(one.name, bool(one.failed)) for one in result.trials] == [("auto", False), ("broken", True)]
    assert list((tmp_path / "one" / "logs").iterdir()), "submitit ran them"
    assert "broken failed" in result.to_text() and "nowhere" in result.to_text()
    (tmp_path / "all.yaml").write_text(
        yaml.safe_dump(grid | {"conditions": {"broken": broken}, "reference": "broken"}), encoding="utf-8"
    )
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="All 1 trials failed"):
        search(*domains, tmp_path / "all", changes=SMALL, grid=str(tmp_path / "all.yaml"))


def test_bad_input_leaves_no_folder(domains: tuple[str, str], found: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        search(*domains, found, changes=SMALL)
    with pytest.raises(InputError, match="nowhere"):
        search(domains[0], str(tmp_path / "nowhere"), tmp_path / "out", changes=SMALL)
    with pytest.raises(InputError, match="--max-parallel"):
        search(*domains, tmp_path / "out", changes=SMALL, max_parallel=0)
    with pytest.raises(InputError, match="nowhere"):
        search(domains[0], str(tmp_path / "nowhere"), tmp_path / "out", changes=SMALL, resume=True)
    assert not (tmp_path / "out").exists()
    copy = Path(shutil.copytree(found, tmp_path / "copy"))
    with pytest.raises(InputError, match=r"was started with seeds \[0\], not \[5\]"):
        search(*domains, copy, changes={**SMALL, "seed": 5}, resume=True)
    with pytest.raises(InputError, match=rf"was started with target '{domains[1]}', not '{domains[0]}'"):
        search(domains[0], domains[0], copy, changes=SMALL, resume=True)


def one_trial(folder: Path, **cells: dict) -> str:
    """Write a grid of one trial, and of those given; returns its path."""
    grid = read_grid("search").model_dump(mode="json")
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(grid | {"conditions": {"auto": grid["conditions"]["auto"]} | cells}), encoding="utf-8")
    return str(path)


def test_with_submitit_as_many_trials_run_at_a_time_as_there_are_cores(
    domains: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "submitit")
    asked: list[int] = []
    monkeypatch.setattr("pixelscope.pixelda.ablation.runner.share_of_cores", lambda devices: 2)
    monkeypatch.setattr(
        "pixelscope.pixelda.ablation.runner.launch", lambda jobs, logs, options: asked.append(options.max_parallel)
    )
    for name, cells in (("one", {}), ("three", {"a": {}, "b": {}})):
        with pytest.raises(InputError, match="trials failed"):
            search(*domains, tmp_path / name, changes=SMALL, grid=one_trial(tmp_path, **cells))
    assert asked == [1, 2]


def test_without_submitit_trials_run_in_turn(domains: tuple[str, str], tmp_path: Path) -> None:
    broken = {"settings": {"losses": {"content": 1.0, "content_mask": str(tmp_path / "nowhere")}}}
    grid = one_trial(tmp_path, broken=broken, last={"settings": {"losses": {"generator_task": 0.2}}})
    with pytest.raises(InputError, match=r"pixelscope\[ablate\]"):
        search(*domains, tmp_path / "out", changes=SMALL, grid=grid, max_parallel=2)
    assert not (tmp_path / "out").exists()
    result = search(*domains, tmp_path / "out", changes=SMALL, grid=grid)
    assert [(one.name, bool(one.failed)) for one in result.trials] == [("auto", False), ("broken", True), ("last", False)]
    assert "nowhere" in result.trials[1].failed
    ends = [(Path(one.run) / "evaluation.json").stat().st_mtime_ns for one in result.trials if not one.failed]
    begun = (Path(result.trials[2].run) / "config.yaml").stat().st_mtime_ns
    assert ends[0] < begun < ends[1]
    assert not (tmp_path / "out" / "logs").exists(), "nothing was handed to submitit"


def test_a_target_without_labels_is_enough(domains: tuple[str, str], tmp_path: Path) -> None:
    with np.load(domains[1].removeprefix("arrays:")) as stored:
        np.savez(tmp_path / "target.npz", images=stored["images"])
    target, grid = f"arrays:{tmp_path / 'target.npz'}", one_trial(tmp_path)
    (one,) = (result := search(domains[0], target, tmp_path / "out", changes=SMALL, grid=grid)).trials
    (other,) = search(*domains, tmp_path / "labelled", changes=SMALL, grid=grid).trials
    assert one.with_target_labels is None and one.verdict == other.verdict is not None
    for text in (result.to_text(), build_report(tmp_path / "out").read_text(encoding="utf-8")):
        assert "not known" in text


def test_the_command_ends_well_where_nothing_better_is_found(
    domains: tuple[str, str], found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "config.yaml", Path(shutil.copytree(found, tmp_path / "out"))
    config.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    words = ["pixelda", "search", "--source", domains[0], "--target", domains[1], "--out", str(out), "--config", str(config)]
    for better, said in ((None, "Nothing better than T of the source alone"), ("semantic", "Chosen: semantic")):
        judge_by_hand(out, better)
        assert main([*words, "--resume"]) == 0
        printed = capsys.readouterr().out
        assert said in printed and "report.html" in printed
        assert ("pixelscope pixelda train" in printed) == (out / "settings.yaml").exists() == (better is not None)


BAD = [
    (["--out", "{found}"], {}, "exists already"),
    (["--target", "{tmp}/nowhere"], {}, "nowhere"),
    (["--max-parallel", "0"], {}, "--max-parallel"),
    (["--grid", "serch"], {}, "serch"),
    ([], {"losses": {"generator_tsk": 1}}, "losses.generator_task"),
    ([], {"data": {"size": 20}}, "data.size"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "settings", "said"), BAD)
def test_the_command_refuses_bad_input_in_one_line(
    domains: tuple[str, str],
    found: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    settings: dict,
    said: str,
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(merge(SMALL, settings)), encoding="utf-8")
    given = {"--source": domains[0], "--target": domains[1], "--out": "{tmp}/out", "--config": "{tmp}/config.yaml"}
    given |= dict(zip(changed[::2], changed[1::2], strict=True))
    words = [word.format(found=found, tmp=tmp_path) for pair in given.items() for word in pair]
    assert main(["pixelda", "search", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("Error: ") and captured.err.count("\n") == 1
    assert said in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_what_a_run_found_in_other_images_is_refused(tmp_path: Path) -> None:
    found = {"source": "renders", "target": "photos", "data": {"target_framing": (96, -32, -32, 0, 0, 0)}}
    with pytest.raises(InputError, match="data.target_framing, which belongs to target photos"):
        search("renders", "others", tmp_path / "out", changes=found)
    with pytest.raises(InputError, match="data.target_framing, which belongs to data.size 32"):
        grid = {"reference": "a", "conditions": {"a": {"settings": {"data": {"size": 16}}}}}
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
        read_grid(str(tmp_path / "grid.yaml"), merge(found, {"data": {"size": 32}}))
    assert not (tmp_path / "out").exists()
