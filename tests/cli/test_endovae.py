"""The commands of EndoVAE, from a folder of frames to new ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from fixtures import tiny
from pixelscope.cli.options import EndoVAECheckpoint
from pixelscope.endovae.checkpoints import CHECKPOINTS

Cli = Callable[..., Any]

SMALL = (
    *("--prepare.size", "16", "--model.width", "2", "--training.batch-size", "8", "--runtime.threads", "1"),
    *("--runtime.precision", "32-true", "--training.checkpoint-every", "1"),
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_frames(tmp_path_factory.mktemp("cli") / "frames")


def test_every_checkpoint_is_offered() -> None:
    assert get_args(get_args(EndoVAECheckpoint)[0]) == ("auto", *CHECKPOINTS)


def test_prepare_prints_the_summary_and_finds_the_store_again(
    cli: Cli, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("endovae", "prepare", frames, "--size", "16")
    assert done.code == 0
    assert "normal-tiny" in done.out and "16x16" in done.out.replace(" x ", "x")
    (store,) = (tmp_path / "stores").iterdir()
    stamp = (store / "frames.npy").stat().st_mtime_ns
    for figure in ("stages.png", "samples.png"):
        with Image.open(store / figure) as image:
            assert min(image.size) > 100
    again = json.loads(cli("endovae", "prepare", frames, "--size", "16", "--json").out)
    assert again["count"] == 26
    assert (store / "frames.npy").stat().st_mtime_ns == stamp


def test_classes_of_other_names(cli: Cli, frames: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "mine"
    for old, new in (("normal-tiny", "clean"), ("polyps", "bleeding")):
        (renamed / new).mkdir(parents=True)
        for file in (frames / old).iterdir():
            (renamed / new / file.name).write_bytes(file.read_bytes())
    refused = cli("endovae", "prepare", renamed, "--stores", tmp_path)
    assert refused.code == 2
    assert "--normal" in refused.err and "--abnormal" in refused.err
    named = ("--normal", "clean", "--abnormal", "bleeding")
    done = cli("endovae", "prepare", renamed, *named, "--stores", tmp_path / "stores", "--json")
    assert {found["name"]: found["kind"] for found in json.loads(done.out)["classes"]} == {
        "clean": "normal",
        "bleeding": "abnormal",
    }


def test_masks_of_a_folder_of_any_name(cli: Cli, frames: Path, tmp_path: Path) -> None:
    masks = tmp_path / "annotations"
    masks.mkdir()
    with Image.open(min((frames / "polyps").iterdir())) as frame:
        Image.new("L", frame.size, 255).save(masks / f"{min((frames / 'polyps').iterdir()).stem}_mask.png")
    done = cli("endovae", "prepare", frames, "--size", "16", "--masks", f"polyps={masks}", "--out", tmp_path / "store")
    assert done.code == 0, done.err
    index = json.loads((tmp_path / "store" / "index.json").read_text())
    assert [frame["name"] for frame in index["frames"] if frame["lesion"]] == [
        f"polyps/{min((frames / 'polyps').iterdir()).name}"
    ]
    for given, message in ((("polyps",), "CLASS=DIR"), ((f"polyps={masks}", "--masks", f"polyps={masks}"), "twice")):
        refused = cli("endovae", "prepare", frames, "--masks", *given, "--out", tmp_path / "other")
        assert refused.code == 2 and message in refused.err


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_half_life_of_no_image_is_refused_before_a_run_is_made(
    cli: Cli, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("endovae", "train", "--frames", frames, *SMALL, "--training.ema-half-life", "0.005", "--out", "run", *more)
    assert done.code == 2 and "training.ema_half_life 0.005 is 0 images" in done.err
    assert not (tmp_path / "run").exists()


def test_from_frames_to_new_ones(cli: Cli, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained = cli("endovae", "train", "--frames", frames, *SMALL, "--training.epochs", "2")
    assert trained.code == 0, trained.err
    run = tmp_path / "runs" / "00000-endovae-frames-seed0"
    assert "Run folder: runs/00000-endovae-frames-seed0" in trained.out
    assert (run / "report.html").stat().st_size > 10_000
    measured = json.loads(cli("endovae", "evaluate", run, "--json").out)
    assert measured == json.loads((run / "evaluation.json").read_text())
    more = cli("endovae", "train", "--resume", run, "--training.epochs", "3", "--runtime.threads", "3")
    assert more.code == 0, more.err
    assert json.loads((run / "run.json").read_text())["runtime"]["threads"] == 3
    assert json.loads((run / "run.json").read_text())["images"] >= 3 * 48
    assert cli("endovae", "reconstruct", run, frames / "polyps", "--out", "seen.png").code == 0
    assert cli("endovae", "generate", run, "--out", "new", "--count", "4", "--json").code == 0
    assert sorted(path.name for path in Path("new").iterdir()) == [*(f"{n:05d}.png" for n in range(4)), "manifest.csv"]
    with Image.open("seen.png") as grid:
        assert grid.size == (6 * 18 + 2, 2 * 18 + 2)


def test_a_dry_run_tells_the_plan_and_makes_no_run(
    cli: Cli, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("endovae", "train", "--frames", frames, *SMALL, "--training.epochs", "7", "--dry-run")
    assert done.code == 0
    assert "epochs: 7" in done.out and "GFLOP per image, 42 steps" in done.out
    assert not (tmp_path / "runs").exists()


def test_a_store_prepared_otherwise_than_the_flags_is_refused(cli: Cli, frames: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    assert cli("endovae", "prepare", frames, "--size", "16", "--out", store).code == 0
    refused = cli("endovae", "train", "--frames", store, "--prepare.size", "24", "--out", run)
    assert (refused.code, refused.err.count("\n"), run.exists()) == (2, 1, False)
    assert "size 16, not 24" in refused.err and "--prepare.size" in refused.err
    assert cli("endovae", "train", "--frames", store, *SMALL, "--dry-run").code == 0
    for flags in (("--prepare.size", "24"), ("--prepare.insets", "mask")):
        refused = cli("endovae", "detect", store, *flags, "--out", tmp_path / "detector")
        assert (refused.code, refused.err.count("\n")) == (2, 1) and flags[0] in refused.err
    few = cli("endovae", "detect", store, "--prepare.size", "16", "--folds", "20", "--out", tmp_path / "detector")
    assert few.code == 2 and "folds" in few.err, "the store's own settings may be given"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("endovae train", "frames"),
        ("endovae train --frames absent", "absent"),
        ("endovae train --frames . --preset dem", '"demo"?'),
        ("endovae train --resume absent", "no file or folder absent"),
        ("endovae train --resume absent --losses.kl 2", "--losses.kl"),
        ("endovae evaluate absent.onnx", "no file or folder absent.onnx"),
        ("endovae generate absent --out x.png", "no file or folder absent"),
        ("endovae evaluate-generated absent", "no file or folder absent"),
        ("endovae evaluate-generated absent --count 3", "--count from 6"),
        ("endovae prepare", "folder"),
        ("endovae prepare absent", "absent"),
    ],
)
def test_a_user_error_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*command.split())
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [("generate", "--out", "x.png"), ("evaluate-generated", "--features", "encoder"), ("prior",)]
)
def test_a_run_of_the_other_system_is_refused(
    cli: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("endovae", command[0], trained, *command[1:])
    assert done.code == 2
    assert "'pixelda'" in done.err


def test_a_run_of_another_system_has_no_views(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"system": "pixelda", "state": "finished"}', encoding="utf-8")
    (tmp_path / "config.yaml").write_text("", encoding="utf-8")
    done = cli("endovae", "evaluate", tmp_path, "--view", "full")
    assert done.code == 2 and "no run of EndoVAE" in done.err and "--view" in done.err
