"""Runs whose data, or whose run, moved: evaluated, exported, resumed and refined from wherever they are."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fixtures import tiny
from pixelscope import evaluate, export, resume
from pixelscope.config import read_yaml
from pixelscope.errors import InputError
from pixelscope.pixelda.refinement.config import RefineConfig
from pixelscope.pixelda.refinement.evaluation import evaluate_refinement
from pixelscope.pixelda.refinement.training import refine, resume_refinement
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder

SMALL: dict[str, Any] = {
    "network": {"width": 2},
    "generated": {"pool_size": 16, "refresh_every": 16},
    "training": {"batch_size": 8, "images": 16, "log_every": 16, "evaluate_every": 16, "checkpoint_every": 16},
    "runtime": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with data and a run trained on them by relative paths; the working directory is another one."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    tiny.write_domains(project)
    monkeypatch.chdir(project)
    train_pixelda(tiny.pixelda(source="arrays:source.npz", target="target.npz", training={"images": 16}), run=Path("run"))
    monkeypatch.chdir(elsewhere)
    return project


def _refined(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    run = refine(RefineConfig.parse({"run": "run", **SMALL}), run=Path("refined"))
    monkeypatch.chdir(project.parent / "elsewhere")
    return project / run


def test_a_run_is_used_from_another_folder_and_after_project_and_run_moved(project: Path, tmp_path: Path) -> None:
    before = evaluate(project / "run").sets["target_test"].correct
    moved = project.rename(tmp_path / "renamed")
    other, _ = tiny.pictures(60, seed=5)
    np.savez("source.npz", images=other, labels=np.arange(60) % 3)  # of the same name in the working directory
    assert evaluate(moved / "run").sets["target_test"].correct == before
    assert export(moved / "run", tmp_path / "m.safetensors", form="safetensors").parity.images > 0
    config = (moved / "run" / "config.yaml").read_text()
    assert resume(moved / "run", images=32) == moved / "run"
    assert RunFolder(moved / "run").read_record()["images"] == 32
    assert read_yaml(moved / "run" / "config.yaml")["source"] == "arrays:source.npz"
    assert config.replace("images: 16", "images: 32") == (moved / "run" / "config.yaml").read_text()


def test_a_new_place_is_taken_where_the_images_fit_and_kept(project: Path, tmp_path: Path) -> None:
    run, config = project / "run", (project / "run" / "config.yaml").read_text()
    shutil.move(project / "source.npz", tmp_path / "moved.npz")
    with pytest.raises(InputError, match=r"source\.npz, has moved.*--source PLACE"):
        evaluate(run)
    images, labels = tiny.pictures(60, seed=5)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    with pytest.raises(InputError, match="training images of the source.*SHA-256 differs"):
        resume(run, source=str(tmp_path / "other.npz"), images=32)
    assert (run / "config.yaml").read_text() == config
    assert RunFolder(run).read_record()["state"] == "finished"
    resume(run, source="../moved.npz", images=32)
    assert evaluate(run).images == 32
    place = RunFolder(run).read_record()["paths"]["source"]
    assert (place["given"], place["absolute"]) == ("../moved.npz", str(tmp_path / "moved.npz"))


def test_other_images_are_measured_where_those_of_the_run_have_moved(project: Path, tmp_path: Path) -> None:
    images, labels = tiny.pictures(40, seed=9)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    both = evaluate(project / "run", target=str(tmp_path / "other.npz"))
    shutil.move(project / "target.npz", tmp_path / "moved.npz")
    found = evaluate(project / "run", target=str(tmp_path / "other.npz"))
    assert {"source_test", "target_test", "target_all"} <= set(both.sets)
    assert set(found.sets) == set(both.sets) - {"source_test"}
    assert all(found.sets[name].correct == both.sets[name].correct for name in found.sets)
    assert "source is not measured" in found.to_text()
    shutil.move(project / "source.npz", tmp_path / "moved-source.npz")
    assert evaluate(project / "run", target=str(tmp_path / "other.npz")).sets == found.sets


def test_a_refinement_finds_its_run_wherever_both_moved(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _refined(project, monkeypatch)
    before = evaluate_refinement(run).sets["target_test"].correct
    moved = project.rename(tmp_path / "renamed")
    assert evaluate_refinement(moved / "refined").sets["target_test"].correct == before
    assert export(moved / "refined", tmp_path / "m.safetensors", form="safetensors").parity.images > 0
    resume_refinement(moved / "refined")
    (moved / "run").rename(tmp_path / "origin")
    with pytest.raises(InputError, match="run, has moved"):
        resume_refinement(moved / "refined")


def test_a_refinement_takes_a_new_place_of_its_run_where_its_networks_fit(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refined = _refined(project, monkeypatch)
    weights, config = load_file(RunFolder(refined).checkpoint_files()[-1]), (refined / "config.yaml").read_text()
    (project / "run").rename(project / "origin")
    other = tiny.pixelda(
        source=str(project / "source.npz"), target=str(project / "target.npz"), seed=3, training={"images": 16}
    )
    train_pixelda(other, run=project / "other")
    with pytest.raises(InputError, match="SHA-256 differs"):
        resume_refinement(refined, origin=project / "other")
    assert (refined / "config.yaml").read_text() == config
    resume_refinement(refined, origin=project / "origin")
    assert evaluate_refinement(refined).run == str(project / "origin")
    after = load_file(RunFolder(refined).checkpoint_files()[-1])
    assert all(torch.equal(weights[name], after[name]) for name in weights)


def test_arrays_with_their_layout_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = tiny.pictures(60)
    np.savez(tmp_path / "matlab.npz", images=images[..., 0].transpose(1, 2, 0), labels=labels)
    monkeypatch.chdir(tmp_path)
    train_baseline(tiny.baseline(source="arrays:matlab.npz@H-W-N", training={"images": 16}), run=Path("run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(Path("../run")).sets["source_test"].count == 12
