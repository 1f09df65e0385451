"""The runs of benchmarks.pairs, its pictures, and the patches of one of its pairs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import polyp_patches
from benchmarks.pairs import PAIRS, Cell, figure, main, require_comparable, run, table


def test_a_figure_shows_source_redrawn_and_target_from_above(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    levels = {"source": 10, "generated": 100, "target": 200}
    stored = {name: np.full((16, 8, 8, 3), level, np.uint8) for name, level in levels.items()}
    np.savez(tmp_path / "samples" / "gallery.npz", **stored)
    sheet = np.asarray(figure(tmp_path))
    assert sheet.shape == (3 * 18, 16 * 18, 3)
    assert [sheet[18 * row + 5, 18 * 15 + 5, 0] for row in range(3)] == [10, 100, 200]


@pytest.mark.parametrize("pair", sorted(PAIRS))
def test_a_folder_without_runs_gives_an_empty_row(pair: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "data", "--out", str(tmp_path), "--pairs", pair, "--table"]) == 0
    assert f"| {PAIRS[pair].title} | 0 |" in capsys.readouterr().out


def test_runs_that_cannot_be_compared_are_not_in_one_row(tmp_path: Path) -> None:
    def write(name: str, target: str, images: int = 32) -> None:
        (tmp_path / name).mkdir()
        data = {"source": {"sha256_test": "a"}, "target": {"sha256_test": target}}
        (tmp_path / name / "run.json").write_text(json.dumps({"data": data, "images": images}), encoding="utf-8")
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"images": 16}), encoding="utf-8")

    for name, target in (("signs-auto-s0", "b"), ("signs-paper-s0", "framed"), ("usps-auto-s0", "b"), ("usps-auto-s1", "c")):
        write(name, target)
    (tmp_path / "signs-auto-s2").mkdir()
    write("signs-refined-s0", "b", images=64)
    for pair in ("signs", "usps"):
        require_comparable(tmp_path, pair)
    write("usps-refined-s1", "b")
    with pytest.raises(SystemExit, match=r"usps-auto-s1.*usps-refined-s1.*test images"):
        require_comparable(tmp_path, "usps")
    write("signs-refined-s1", "c", images=64)
    with pytest.raises(SystemExit, match=r"signs-auto-s0.*signs-refined-s1.*test images"):
        require_comparable(tmp_path, "signs")
    write("signs-auto-s1", "b", images=64)
    with pytest.raises(SystemExit, match=r"signs-auto-s0.*signs-auto-s1.*numbers of images"):
        require_comparable(tmp_path, "signs")


def _configure(run: Path, blocks: int, width: int) -> None:
    settings = {"generator": {"blocks": blocks, "width": width}, "discriminator": {"width": width}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.mark.parametrize("small", [True, False])
def test_small_and_full_runs_are_not_mixed(tmp_path: Path, small: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        _write(tmp_path / f"impossible-auto-s{seed}", 32, {"target_test": 0.8})
        _configure(tmp_path / f"impossible-auto-s{seed}", *((3, 32) if small else (6, 64)))
    command = ["--data", str(tmp_path / "none"), "--out", str(tmp_path), "--pairs", "impossible", "--seeds", "0", "1"]
    with pytest.raises(SystemExit, match="impossible-auto-s0 has small" if small else "impossible-auto-s0 has full"):
        main(command if small else [*command, "--small"])
    assert main([*command, "--small"] if small else command) == 0
    assert main([*command, "--table"]) == 0
    assert "80.0" in capsys.readouterr().out
    _configure(tmp_path / "impossible-auto-s1", *((6, 64) if small else (3, 32)))
    with pytest.raises(SystemExit, match=r"impossible-auto-s0.*impossible-auto-s1 have networks of different sizes"):
        main([*command, "--table"])


def _write(run: Path, images: int, sets: dict[str, float], state: str = "finished", kept: str = "refined") -> None:
    run.mkdir(parents=True)
    data = {"source": {"sha256_test": "a"}, "target": {"sha256_test": "b"}}
    (run / "run.json").write_text(json.dumps({"data": data, "state": state, "images": images}), encoding="utf-8")
    measured = {name: {"accuracy": value, "standard_error": 0.01} for name, value in sets.items()}
    used = {"guard": {"kept": kept}, "before": {"target_test": 0.85}, "mean": {"target_test": 0.95}}
    evaluation = {"images": images, "sets": measured, "source_only": {"target_test": 0.5}, **used}
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")


def test_a_mean_over_other_seeds_than_its_row_names_their_number(tmp_path: Path) -> None:
    for seed in range(3):
        _write(tmp_path / f"usps-auto-s{seed}", 32, {"target_test": 0.8})
    for seed, state in enumerate(("finished", "finished", "stopped")):
        _write(tmp_path / f"usps-refined-s{seed}", 64, {"target_test": 0.9}, state)
    row = table(tmp_path, ["usps"]).splitlines()[-1]
    assert row.split(" | ")[1:5] == ["3", "50.0 +- 0.0", "80.0 +- 0.0", "90.0 +- 0.0 (of 2)"]


def test_a_row_has_the_accuracy_of_the_refined_classifier_and_of_what_is_used(tmp_path: Path) -> None:
    for seed, kept in enumerate(("refined", "mean", "start")):
        _write(tmp_path / f"usps-auto-s{seed}", 32, {"target_test": 0.8})
        _write(tmp_path / f"usps-refined-s{seed}", 64, {"target_test": 0.91}, kept=kept)
    row = table(tmp_path, ["usps"]).splitlines()[-1]
    assert row.split(" | ")[4:6] == ["91.0 +- 0.0", "90.3 +- 5.0"], "91, 95 and 85"


def test_a_stopped_run_is_continued_also_where_it_was_evaluated(tmp_path: Path) -> None:
    for state, continued in (("finished", False), ("stopped", True)):
        _write(tmp_path / state, 32, {}, state)
        run(Cell(state, ("train", "--help")), tmp_path)
        assert (tmp_path / f"{state}.log").is_file() == continued


def _frames(folder: Path, count: int, width: int, height: int, draw: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number + 1}.jpg")


def test_patches_of_both_classes_have_one_size_and_names_that_group_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    for name in ("polyps", "normal-colon"):
        _frames(tmp_path / "kvasir" / name, 3, 300, 260, draw)
    (tmp_path / "kvasir" / "polyp-masks").mkdir()
    mask = np.zeros((260, 300), np.uint8)
    mask[200:250, 220:290] = 255
    for number in (1, 2, 3):
        Image.fromarray(mask).save(tmp_path / "kvasir" / "polyp-masks" / f"{number}.png")
    _frames(tmp_path / "cvc" / "polyps", 30, 70, 80, draw)
    _frames(tmp_path / "cvc" / "non_polyps", 2, 180, 120, draw)
    arguments = ["--kvasir", str(tmp_path / "kvasir"), "--cvc", str(tmp_path / "cvc"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["polyp_patches", *arguments])
    polyp_patches.main()
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert len(made) == 3 + 3 + 30 + 2
    assert {"kvasir/polyps/1_0.png", "kvasir/non_polyps/1_0.png", "cvc/polyps/block01_30.png"} <= set(made)
    assert {polyp_patches.read(tmp_path / "out" / name).size for name in made} == {(64, 64)}


def test_a_patch_of_a_small_normal_frame_has_no_black_border(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    _frames(tmp_path / "polyps", 2, 400, 400, draw)
    (tmp_path / "polyp-masks").mkdir()
    mask = np.zeros((400, 400), np.uint8)
    mask[20:380, 20:380] = 255
    for number in (1, 2):
        Image.fromarray(mask).save(tmp_path / "polyp-masks" / f"{number}.png")
    (tmp_path / "normal-colon").mkdir()
    Image.new("RGB", (180, 160), (200, 120, 100)).save(tmp_path / "normal-colon" / "1.jpg")
    patches = [patch for label, _, patch in polyp_patches.kvasir(tmp_path, draw) if label == "non_polyps"]
    assert len(patches) == 2 and all(np.asarray(patch).min() > 80 for patch in patches)
