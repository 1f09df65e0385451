"""A small part of what benchmarks/kills.py, fuzz.py, full_disk.py and hostile.py do for minutes or hours."""

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pixelscope
from benchmarks.small import small_domains, small_frames, small_settings
from fixtures.processes import Forked

pytestmark = pytest.mark.timeout(900)  # each makes its runs first, of every system
ROOT = Path(__file__).resolve().parents[2]


def _run(name: str, out: Path, *options: object, within: bool = True) -> dict[str, Any]:
    """Return what a benchmark counted; `within`: it must have kept all of its limits."""
    process = Forked(out.with_suffix(".txt"), _benchmark, name, "--out", *map(str, (out, *options)))
    said = process.wait(timeout=900)
    assert out.is_file() and process.returncode in ((0,) if within else (0, 1)), said[-6_000:]
    return json.loads(out.read_text())


def _benchmark(name: str, *arguments: str) -> None:
    os.chdir(ROOT)
    sys.argv = [name, *arguments]
    sys.exit(import_module(f"benchmarks.{name}").main())


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


def test_hostile_requests_break_nothing_and_an_app_killed_in_uploads_leaves_nothing(tmp_path: Path) -> None:
    small_domains(tmp_path), small_frames(tmp_path)
    runs = tmp_path / "runs"
    adapted = pixelscope.pixelda.PixelDAConfig.parse(small_settings("pixelda", tmp_path))
    healthy = pixelscope.endovae.EndoVAEConfig.parse(small_settings("endovae", tmp_path))
    pixelscope.evaluate(pixelscope.pixelda.train(adapted, run=runs / "adapted"))
    pixelscope.evaluate(pixelscope.endovae.train(healthy, run=runs / "healthy"))
    found = _run("hostile", tmp_path / "hostile.json", runs, "--clients", 8, "--seconds", 5, within=False)
    assert not {"500", "good", "left behind"} & set(found["broken"]), found  # time and memory are for longer runs
    assert len(found["answers"]) > 10
