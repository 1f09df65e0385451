"""A short trial of settings for new sources: what is chosen without labels, what is said where nothing is, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import tiny
from pixelscope import InputError, build_report, search
from pixelscope.config import merge
from pixelscope.pixelda.ablation.grid import read_grid
from pixelscope.pixelda.ablation.search import Trial, choose
from pixelscope.pixelda.config import PixelDAConfig, preset
from pixelscope.pixelda.verdict import Verdict

SMALL = {
    name: value
    for name, value in tiny.pixelda(
        data={"validation_fraction": 0.2}, training={"images": 32, "evaluate_every": 32, "sample_every": 32}
    )
    .model_dump(mode="json", exclude_unset=True)
    .items()
    if name != "losses"
}


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return tiny.write_domains(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def found(domains: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "out"
    search(*domains, out, changes=SMALL, at_once=2)
    return out


def trial(name: str, better: str, before: float, after: float) -> Trial:
    verdict = Verdict(better, {"information": (before, after)}, 0.5, 0.9)  # type: ignore[arg-type]
    return Trial(name=name, about="", settings={}, run=name, verdict=verdict)


def test_the_most_informative_of_those_that_likely_help_is_chosen() -> None:
    failed = Trial(name="d", about="", settings={}, run="d", failed="No memory.")
    trials = [trial("a", "adapted", 1.0, 1.4), trial("b", "source only", 1.0, 2.2), trial("c", "adapted", 1.0, 1.5), failed]
    assert choose(trials)[0] == "c"
    assert choose([trials[1], trial("e", "neither", 1.0, 1.01), failed])[0] is None


def test_four_settings_are_tried_and_compared(found: Path) -> None:
    result = json.loads((found / "search.json").read_text(encoding="utf-8"))
    assert len(result["trials"]) == 4 and not any(one["failed"] for one in result["trials"])
    for one in result["trials"]:
        own = json.loads((Path(one["run"]) / "evaluation.json").read_text(encoding="utf-8"))
        assert one["verdict"] == own["verdict"]
        assert one["with_target_labels"] == [own["source_only"]["target_test"], own["sets"]["target_test"]["accuracy"]]
    page = build_report(found).read_text(encoding="utf-8")
    assert all(one["name"] in page for one in result["trials"])


def test_what_is_written_to_go_on_with_is_the_chosen_setting_in_full_size(domains: tuple[str, str], found: Path) -> None:
    """A trial that the verdict prefers is made by hand, as trainings this short help nobody."""
    for path in sorted((found / "cells").glob("*/evaluation.json")):
        own = json.loads(path.read_text(encoding="utf-8"))
        gain = 0.5 if path.parent.name.startswith("firm") else -0.5
        own["verdict"] |= {"better": "adapted" if gain > 0 else "source only"}
        own["verdict"]["rules"]["information"] = [0.5, 0.5 + gain]
        path.write_text(json.dumps(own), encoding="utf-8")
    result = search(*domains, found, changes=SMALL, at_once=2, resume=True)
    assert result.chosen == "firm" and result.command is not None and "settings.yaml" in result.command
    written = yaml.safe_load((found / "settings.yaml").read_text(encoding="utf-8"))
    kept = {name: value for name, value in SMALL.items() if name not in ("source", "target", "training")}
    expected = merge(preset("pixelda", "auto"), kept, {"losses": {"generator_task": 0.1, "task_bound": None}})
    assert PixelDAConfig.parse(written) == PixelDAConfig.parse(expected)
    assert written["training"]["images"] == preset("pixelda", "auto")["training"]["images"]

    for path in (found / "cells").glob("*/evaluation.json"):
        own = json.loads(path.read_text(encoding="utf-8"))
        own["verdict"]["better"] = "source only"
        path.write_text(json.dumps(own), encoding="utf-8")
    nothing = search(*domains, found, changes=SMALL, at_once=2, resume=True)
    assert nothing.chosen is None and nothing.command is None and "Nothing better" in nothing.to_text()
    assert not (found / "settings.yaml").exists()


def test_labels_of_the_target_choose_nothing(domains: tuple[str, str], found: Path, tmp_path: Path) -> None:
    with np.load(domains[1].removeprefix("arrays:")) as stored:
        np.savez(tmp_path / "target.npz", images=stored["images"], labels=(stored["labels"] + 1) % 3)
    other = search(domains[0], f"arrays:{tmp_path / 'target.npz'}", tmp_path / "out", changes=SMALL, at_once=2)
    again = search(*domains, tmp_path / "again", changes=SMALL, at_once=2)
    assert [one.verdict for one in other.trials] == [one.verdict for one in again.trials]
    assert other.chosen == again.chosen
    assert [one.with_target_labels for one in other.trials] != [one.with_target_labels for one in again.trials]


def test_a_trial_that_fails_is_named_and_all_failing_is_an_error(domains: tuple[str, str], tmp_path: Path) -> None:
    grid = read_grid("search").model_dump(mode="json")
    broken = {"claim": "No such masks.", "settings": {"losses": {"content": 1.0, "content_mask": str(tmp_path / "nowhere")}}}
    few = {name: grid["cells"][name] for name in ("auto", "firm")}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(grid | {"cells": few | {"broken": broken}}), encoding="utf-8")
    result = search(*domains, tmp_path / "one", changes=SMALL, grid=str(tmp_path / "one.yaml"), at_once=2)
    assert {one.name for one in result.trials if one.failed} == {"broken"} and len(result.trials) == 3
    assert "broken failed" in result.to_text() and "nowhere" in result.to_text()
    (tmp_path / "all.yaml").write_text(
        yaml.safe_dump(grid | {"cells": {"broken": broken}, "reference": "broken"}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="All 1 trials failed"):
        search(*domains, tmp_path / "all", changes=SMALL, grid=str(tmp_path / "all.yaml"), at_once=1)


def test_bad_input_leaves_no_folder(domains: tuple[str, str], found: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        search(*domains, found, changes=SMALL)
    with pytest.raises(InputError, match="nowhere"):
        search(domains[0], str(tmp_path / "nowhere"), tmp_path / "out", changes=SMALL)
    with pytest.raises(InputError, match="--at-once 0"):
        search(*domains, tmp_path / "out", changes=SMALL, at_once=0)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="was begun with another grid"):
        search(*domains, Path(shutil.copytree(found, tmp_path / "copy")), changes={**SMALL, "seed": 5}, resume=True)
