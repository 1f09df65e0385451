"""Data that moved: what a record says of where they lie, and where they are looked for."""

import shutil
from pathlib import Path

import pytest

from pixelscope.data.places import find, written
from pixelscope.errors import InputError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with a run and its data, looked at from outside of it, and three places with data of that name."""
    for place in ("project", "project/deeper", "elsewhere"):
        (tmp_path / place).mkdir()
    (tmp_path / "project" / "src").write_text("own")
    (tmp_path / "project" / "run").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def _contents(places: dict[str, str]) -> dict[str, str]:
    return {name: Path(spec.removeprefix("arrays:")).read_text() for name, spec in places.items()}


def _record(spec: str, digest: str = "own") -> dict[str, object]:
    return {"paths": written({"source": spec}, {"source": spec}, Path("run")), "data": {"source": {"sha256": digest}}}


@pytest.mark.parametrize(("spec", "kind"), [("src", ""), ("arrays:src", "arrays:"), ("./src", "")])
def test_a_place_is_written_as_given_absolute_and_relative_to_the_run(project: Path, spec: str, kind: str) -> None:
    place = written({"source": spec, "target": ""}, {"source": spec, "target": ""}, Path("run"))
    assert place == {"source": {"given": spec, "absolute": str(project / "src"), "relative": "../src"}}


@pytest.mark.parametrize("spec", ["mnist", "demo:mnist"])
def test_a_source_without_a_path_stays_what_it_is(project: Path, spec: str) -> None:
    record = {"paths": written({"source": spec}, {"source": spec}, Path("run"))}
    assert record["paths"] == {"source": {"given": spec}}
    assert find({"source": spec}, record, Path("run"), _contents) == {"source": spec}


def test_from_another_folder_and_after_a_move_it_is_found(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _record("arrays:src")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find({"source": "arrays:src"}, record, project / "run", _contents) == {"source": f"arrays:{project / 'src'}"}
    moved = tmp_path / "elsewhere" / "project"
    shutil.move(project, moved)
    assert find({"source": "arrays:src"}, record, Path("project/run"), _contents) == {"source": f"arrays:{moved / 'src'}"}
    shutil.move(moved / "run", tmp_path / "run")
    monkeypatch.chdir(moved)
    assert find({"source": "arrays:src"}, record, tmp_path / "run", _contents) == {"source": f"arrays:{moved / 'src'}"}


@pytest.mark.parametrize(("digest", "taken"), [("beside", 0), ("own", 1), ("here", 2), ("none of them", 0)])
def test_the_first_whose_images_fit_is_taken(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, taken: int
) -> None:
    record = _record("src", digest)
    shutil.copytree(project / "run", project / "deeper" / "run")
    (project / "deeper" / "src").write_text("beside")
    (tmp_path / "elsewhere" / "src").write_text("here")
    monkeypatch.chdir(tmp_path / "elsewhere")
    order = [project / "deeper" / "src", project / "src", tmp_path / "elsewhere" / "src"]
    found = find({"source": "src"}, record, project / "deeper" / "run", _contents)
    assert found == {"source": str(order[taken])}


def test_an_edited_configuration_has_its_own_word(project: Path) -> None:
    assert find({"source": "other"}, _record("src"), Path("run"), _contents) == {"source": "other"}
    assert find({"source": "src"}, {}, Path("run"), _contents) == {"source": "src"}


def test_what_is_nowhere_is_told_with_every_place_that_was_tried(project: Path, tmp_path: Path) -> None:
    record = _record("src")
    (project / "src").unlink()
    with pytest.raises(InputError, match=f"no {project / 'src'}.*--resume run --source"):
        find({"source": "src"}, record, Path("run"), _contents)
