"""Run folders for the tests of sections and pages, written once and copied where a test changes one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from report.run_folder import WriteRun, write_run


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> WriteRun:
    """Return a run folder of the given kind, to be read only."""
    made: dict[str, Path] = {}

    def run(**kind: Any) -> Path:
        key = repr(sorted(kind.items()))
        if key not in made:
            made[key] = write_run(tmp_path_factory.mktemp("runs") / "00007-pixelda", **kind)
        return made[key]

    return run


@pytest.fixture
def copied(written: WriteRun, tmp_path: Path) -> WriteRun:
    """Return a run folder of the given kind that the test may change."""
    return lambda **kind: Path(shutil.copytree(written(**kind), tmp_path / "00007-pixelda"))
