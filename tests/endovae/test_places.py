"""A run of EndoVAE whose store moved, or is looked for from another folder."""

import shutil
from pathlib import Path

import pytest

from fixtures import tiny
from pixelscope.data.frames.prepare import prepare
from pixelscope.endovae.evaluation import evaluate_endovae
from pixelscope.endovae.training import resume_endovae, train_endovae
from pixelscope.errors import InputError
from pixelscope.imaging.config import PrepareConfig
from pixelscope.runs.folder import RunFolder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with frames, a store, and a run trained on it by a relative path; the working directory is another."""
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    tiny.write_frames(Path("frames"), normal=20, abnormal=6)
    prepare([Path("frames")], config=PrepareConfig(size=tiny.SIZE), out=Path("store"))
    train_endovae(tiny.endovae(frames="store", training={"epochs": 2}), run=Path("run"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def test_a_store_is_found_beside_the_run_wherever_both_moved(project: Path, tmp_path: Path) -> None:
    before = evaluate_endovae(project / "run").to_dict()
    moved = project.rename(tmp_path / "renamed")
    assert evaluate_endovae(moved / "run").to_dict()["checkpoints"] == before["checkpoints"]
    resume_endovae(moved / "run", epochs=3)
    assert RunFolder(moved / "run").read_record()["paths"]["frames"]["absolute"] == str(moved / "store")


def test_a_new_place_is_taken_where_the_frames_fit(project: Path, tmp_path: Path) -> None:
    run, config = project / "run", (project / "run" / "config.yaml").read_text()
    shutil.rmtree(project / "store")
    with pytest.raises(InputError, match="--frames"):
        evaluate_endovae(run)
    tiny.write_frames(tmp_path / "others", normal=21, abnormal=6)
    with pytest.raises(InputError, match="training frames"):
        resume_endovae(run, frames=str(tmp_path / "others"), epochs=3)
    assert (run / "config.yaml").read_text() == config
    resume_endovae(run, frames=str(project / "frames"), epochs=3)  # prepared once more
    assert RunFolder(run).read_record()["state"] == "finished"
    assert evaluate_endovae(run).images > 0
