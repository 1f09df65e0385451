"""The table of systems: every function that it names exists, and a run is handled by the system that made it."""

import subprocess
import sys
from pathlib import Path

import pytest

import pixelscope
from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder


@pytest.mark.parametrize("system", pixelscope.SYSTEMS.values(), ids=lambda system: system.name)
def test_every_function_of_the_table_exists(system: pixelscope.System) -> None:
    for name in ("resume", "sections", "export"):
        function = system.function(name)
        assert callable(function) or not getattr(system, name)
    assert system.sections
    assert bool(system.command) == bool(system.resume) == bool(system.charts)


def test_the_table_brings_no_torch() -> None:
    code = "import sys, pixelscope; pixelscope.SYSTEMS; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def _run(folder: Path, system: str) -> Path:
    made = RunFolder.create(folder, "run", folder / "run", lambda run: run.update_record(system=system))
    made.config.write_text("seed: 0\n")
    return made.path


def test_what_a_system_cannot_change_or_do_is_refused(tmp_path: Path) -> None:
    run = _run(tmp_path, "endovae")
    with pytest.raises(InputError, match="is a run of EndoVAE, whose resume does not take images"):
        pixelscope.resume(run, images=64)
    with pytest.raises(InputError, match="is a run of EndoVAE, whose export does not take choose"):
        pixelscope.export(run, tmp_path / "a.onnx", choose="auto")


def test_a_folder_of_several_runs_is_neither_resumed_nor_exported(tmp_path: Path) -> None:
    run = _run(tmp_path, "ablation")
    with pytest.raises(InputError, match="a folder of several runs; resume one of the runs in .*conditions"):
        pixelscope.resume(run)
    with pytest.raises(InputError, match="a folder of several runs; export one of the runs in .*conditions"):
        pixelscope.export(run, tmp_path / "a.onnx")


def test_a_system_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a run of 'later', which this version does not know"):
        pixelscope.resume(_run(tmp_path, "later"))
