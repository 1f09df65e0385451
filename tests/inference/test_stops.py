"""A run is opened once and handed on: how many functions of other files are called on the way."""

from pathlib import Path

import pytest

from benchmarks.stops import stops, way


def test_a_classifier_is_opened_in_three_files(pixelda_run: Path, tmp_path: Path) -> None:
    found = stops(way("load", pixelda_run, tmp_path))
    assert {file for file, _ in found} == {f"pixelda/{name}.py" for name in ("inference/model", "checkpoints", "networks")}


@pytest.mark.parametrize(("name", "run", "most"), [("evaluate", "endovae_run", 106), ("export", "pixelda_run", 73)])
def test_the_way_of_a_run_does_not_become_longer(
    name: str, run: str, most: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = stops(way(name, request.getfixturevalue(run), tmp_path))
    assert 10 < len(found) <= most, "\n".join(f"{file}: {function}" for file, function in found)
