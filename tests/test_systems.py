"""The table of systems: every function that it names exists, and a run is handled by the system that made it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pixelscope
from pixelscope.cli import main
from pixelscope.cli.options import setting_names
from pixelscope.config import Config
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine.task import Task
from pixelscope.errors import InputError
from pixelscope.pixelda.refinement.task import RefineTask
from pixelscope.pixelda.task import BaselineTask, PixelDATask
from pixelscope.runs.folder import RunFolder


@pytest.mark.parametrize("system", pixelscope.SYSTEMS.values(), ids=lambda system: system.name)
def test_every_function_of_the_table_exists(system: pixelscope.System) -> None:
    for name in ("config", "presets", "plan", "resume", "evaluate", "sections", "export"):
        function = system.function(name)
        assert callable(function) or not getattr(system, name)
    assert bool(system.sections) == (system.name != "endovae-detector")
    assert bool(system.export) == bool(system.hub_task) == bool(system.hub_tags)
    assert bool(system.command) == bool(system.resume) == bool(system.charts) == bool(system.config) == bool(system.presets)


@pytest.mark.parametrize("system", [one for one in pixelscope.SYSTEMS.values() if one.config], ids=lambda system: system.name)
def test_the_preset_of_a_system_is_of_its_configuration(system: pixelscope.System) -> None:
    model = system.function("config")
    assert model is not None
    assert model.parse(system.preset()) == model.parse(system.preset(None, {"seed": 0}))
    with pytest.raises(InputError, match="There is no preset 'none such'"):
        system.preset("none such")


@pytest.mark.parametrize(
    ("system", "task"),
    [("pixelda", PixelDATask), ("baseline", BaselineTask), ("refined", RefineTask), ("endovae", EndoVAETask)],
)
def test_a_number_that_is_not_finite_recommends_settings_that_the_system_has(system: str, task: type[Task]) -> None:
    model = pixelscope.SYSTEMS[system].function("config")
    assert isinstance(model, type) and issubclass(model, Config)
    recommended = [flag.replace("-", "_") for flag in re.findall(r"--([a-z.-]+)", task.if_not_finite)]
    assert recommended
    assert set(recommended) <= set(setting_names(model))


def test_what_has_no_presets_says_so() -> None:
    with pytest.raises(InputError, match="has no presets"):
        pixelscope.SYSTEMS["ablation"].preset("paper")


@pytest.mark.parametrize("module", [pixelscope, pixelscope.pixelda, pixelscope.endovae], ids=lambda module: module.__name__)
def test_type_checkers_and_programs_find_the_same_names(module: ModuleType) -> None:
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    named = {(n.module, a.name, a.asname) for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    found = {(home.partition(":")[0], home.partition(":")[2] or name, name) for name, home in module._PUBLIC.items()}
    if module is pixelscope:
        found |= {("pixelscope", system, system) for system in ("endovae", "pixelda")}
    assert named == found
    assert all(getattr(module, name) is not None for name in dir(module))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("command", ["pixelda evaluate", "endovae evaluate", "export --out x.onnx", "report"])
def test_a_run_of_version_0_1_is_refused_in_one_sentence(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = old_run(tmp_path)
    assert main([*command.split(), str(run)]) == 2
    said = capsys.readouterr().err
    assert f"{run} is a run of version 0.1.0 of pixelscope" in said and said.count("\n") == 1
    assert not (tmp_path / "x.onnx").exists() and not (run / "report.html").exists()


@pytest.mark.parametrize("training", ["pixelda train", "pixelda baseline", "pixelda refine", "endovae train"])
def test_a_run_of_version_0_1_is_not_resumed(training: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = old_run(tmp_path)
    before = (run / "run.json").read_bytes()
    assert main([*training.split(), "--resume", str(run)]) == 2
    said = capsys.readouterr().err
    assert "is a run of version 0.1.0" in said and said.count("\n") == 1
    assert (run / "run.json").read_bytes() == before


def test_python_refuses_a_run_of_version_0_1(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    for use in (
        pixelscope.evaluate,
        pixelscope.resume,
        pixelscope.report,
        pixelscope.pixelda.load_classifier,
        pixelscope.pixelda.InteractiveGenerator,
        pixelscope.endovae.load_scorer,
        pixelscope.endovae.InteractiveVAE,
        lambda run: pixelscope.export(run, tmp_path / "x.onnx"),
        lambda run: pixelscope.endovae.generate(run, tmp_path / "x.png"),
    ):
        with pytest.raises(InputError, match="is a run of version 0.1.0 of pixelscope"):
            use(run)


def old_run(folder: Path) -> Path:
    """Return a run folder as version 0.1 left it: its record says which version wrote it; settings have other names now."""
    run = folder / "old"
    run.mkdir()
    record = {"system": "pixelda", "state": "finished", "images": 96, "versions": {"pixelscope": "0.1.0"}}
    (run / "run.json").write_text(json.dumps(record))
    (run / "config.yaml").write_text("losses: {classifier_sees: both}\n")
    return run


def test_the_table_brings_no_torch() -> None:
    code = "import sys, pixelscope; pixelscope.SYSTEMS; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def _run(folder: Path, system: str) -> Path:
    with RunFolder.create(folder, "run", folder / "run", lambda run: run.update_record(system=system)) as made:
        made.config.write_text("seed: 0\n")
    return made.path


def test_what_a_system_cannot_change_or_do_is_refused(tmp_path: Path) -> None:
    run = _run(tmp_path, "endovae")
    with pytest.raises(InputError, match="EndoVAE, whose resume does not take images"):
        pixelscope.resume(run, images=64)
    with pytest.raises(InputError, match="EndoVAE, whose export does not take choose"):
        pixelscope.export(run, tmp_path / "a.onnx", choose="auto")


def test_a_folder_of_several_runs_is_neither_resumed_nor_exported(tmp_path: Path) -> None:
    run = _run(tmp_path, "ablation")
    with pytest.raises(InputError, match="resume one of the runs in .*conditions"):
        pixelscope.resume(run)
    with pytest.raises(InputError, match="export one of the runs in .*conditions"):
        pixelscope.export(run, tmp_path / "a.onnx")


@pytest.mark.parametrize("training", ["pixelda train", "pixelda baseline", "pixelda refine", "endovae train"])
def test_a_training_resumes_runs_of_its_own_kind_only(
    training: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for system in pixelscope.SYSTEMS.values():
        if system.command not in ("", training):
            run = _run(tmp_path / system.name, system.name)
            assert main([*training.split(), "--resume", str(run)]) == 2
            assert f"`pixelscope {system.command} --resume {run}`" in capsys.readouterr().err


def test_a_system_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run of 'later'"):
        pixelscope.resume(_run(tmp_path, "later"))
