"""Data that moved: what a record says of where they lie, and where they are looked for."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pixelscope.data.sources.relocate import find, written
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


def _record(spec: str, digest: str = "own") -> dict[str, Any]:
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


@pytest.mark.parametrize("lost", ["given", "absolute", "relative"])
def test_a_record_with_half_a_place_has_none(project: Path, lost: str) -> None:
    record = _record("src")
    del record["paths"]["source"][lost]
    assert find({"source": "src"}, record, Path("run"), _contents) == {"source": "src"}


def test_what_is_nowhere_is_told_with_every_place_that_was_tried(project: Path, tmp_path: Path) -> None:
    record = _record("src")
    (project / "src").unlink()
    with pytest.raises(InputError, match=f"no {project / 'src'}.*--resume run --source"):
        find({"source": "src"}, record, Path("run"), _contents)


def test_a_colon_in_a_name_is_no_kind(project: Path) -> None:
    place = written({"source": "scans:2020/a"}, {"source": "scans:2020/a"}, Path("run"))["source"]
    assert place["absolute"] == str(project / "scans:2020/a")
    assert place["relative"] == "../scans:2020/a"


def test_a_run_behind_a_link_says_where_its_data_lie_beside_it(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "link").symlink_to(project)
    spec = str(tmp_path / "elsewhere" / "link" / "src")
    place = written({"source": spec}, {"source": spec}, tmp_path / "elsewhere" / "link" / "run")["source"]
    assert place == {"given": spec, "absolute": spec, "relative": "../src"}


def _two_projects(project: Path, tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Write source and target in a project and in a copy of it; return where the copy's lie, and its run."""
    (project / "tgt").write_text("own target")
    copy = shutil.copytree(project, tmp_path / "elsewhere" / "copy")
    return {"source": str(copy / "src"), "target": str(copy / "tgt")}, copy / "run"


@pytest.mark.parametrize("moved", ["source", "target", ""])
def test_every_place_of_a_run_has_to_fit(project: Path, tmp_path: Path, moved: str) -> None:
    """In the copy one of the two holds other images."""
    given = {"source": "src", "target": "tgt"}
    copies, run = _two_projects(project, tmp_path)
    record = {
        "paths": written(given, given, Path("run")),
        "data": {"source": {"sha256": "own"}, "target": {"sha256": "own target"}},
    }
    if moved:
        Path(copies[moved]).write_text("other")
        copies[moved] = str(project / given[moved])
    assert find(given, record, run, _contents) == copies


def test_a_place_that_cannot_be_read_does_not_fit(project: Path, tmp_path: Path) -> None:
    copies, run = _two_projects(project, tmp_path)

    def digests(places: dict[str, str]) -> dict[str, str]:
        if places["source"] == copies["source"]:
            raise InputError("damaged")
        return _contents(places)

    assert find({"source": "src"}, _record("src"), run, digests) == {"source": str(project / "src")}


def test_arrays_with_a_layout_are_where_their_file_is(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = _record("arrays:src@N-H-W")
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = find({"source": "arrays:src@N-H-W"}, record, project / "run", _contents)
    assert found == {"source": f"arrays:{project / 'src'}@N-H-W"}
    (project / "src").unlink()
    with pytest.raises(InputError, match="has moved"):
        find({"source": "arrays:src@N-H-W"}, record, project / "run", _contents)
