"""A small part of what benchmarks/kills.py, fuzz.py and full_disk.py do for hours."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)  # each makes its runs first, of every system
ROOT = Path(__file__).resolve().parents[2]


def _run(name: str, out: Path, *options: object) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(out), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return json.loads(out.read_text())


def test_eight_kills_leave_what_an_uninterrupted_command_leaves(tmp_path: Path) -> None:
    cases = ("train-pixelda", "evaluate-pixelda", "prepare", "classify", "export-pixelda")
    found = _run(
        "kills", tmp_path / "kills.json", "--count", 8, "--seed", 0, *(part for case in cases for part in ("--only", case))
    )
    assert found["kills"] >= 8 and found["same"] == found["attempts"]
    assert set(found["cases"]) == set(cases)


def test_two_thousand_mutated_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    found = _run("fuzz", tmp_path / "fuzz.json", "--count", 2_000, "--seed", 0)
    assert found["files"] == 2_000 and found["defects"] == 0 and found["processes"] == 1
    assert len(found["kinds"]) == 13
    assert all(count["refused"] for count in found["kinds"].values())


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
@pytest.mark.parametrize(("every", "cases"), [(29, ("train-baseline", "adapt", "prepare")), (1, ("classify",))])
def test_a_full_disk_keeps_the_last_good_state(every: int, cases: tuple[str, ...], tmp_path: Path) -> None:
    options = [part for case in cases for part in ("--only", case)]
    found = _run("full_disk", tmp_path / "disk.json", "--every", every, *options)
    assert set(found["cases"]) == set(cases)
    assert all(count["same"] == count["tried"] > 0 for count in found["cases"].values())
