"""What generated frames are good for: folds, stores of their training parts, classifiers, and tables."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.polyp_classifier import SIDES, log_odds, seen, train_classifier
from benchmarks.synthetic import MODELS, folds, main, measure, shortened, showing, table, write_part
from fixtures import tiny
from pixelscope.config import merge
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.config import EndoVAEConfig, endovae_preset
from pixelscope.endovae.metrics import auroc
from pixelscope.imaging.config import PrepareConfig


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    folder = tiny.write_frames(tmp_path_factory.mktemp("frames"), normal=36, abnormal=30)
    return prepare([folder], config=PrepareConfig(size=tiny.SIZE), out=tmp_path_factory.mktemp("stores") / "tiny")


def chosen(**changes: int) -> argparse.Namespace:
    return argparse.Namespace(**{"folds": 3, "epochs": 1, "prior_images": 64, "images": 64, "seed": 0, "threads": 1, **changes})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("epochs", [1, 6, 600])
def test_a_preset_of_another_length_is_a_training(model: str, epochs: int) -> None:
    flags = iter(shortened(model, epochs))
    changes: dict = {}
    for flag, value in zip(flags, flags, strict=True):
        section, name = flag.removeprefix("--").replace("-", "_").split(".")
        changes.setdefault(section, {})[name] = value
    preset = endovae_preset(model)
    config = EndoVAEConfig.parse(merge(preset, changes))
    assert config.training.epochs == epochs
    assert bool(config.losses.adversarial) is (epochs > 1 and bool(EndoVAEConfig.parse(preset).losses.adversarial))


def test_every_frame_is_tested_once_and_never_trained_on(store: FrameStore, tmp_path: Path) -> None:
    made = folds(store, tmp_path, 3, seed=0)
    assert sorted(np.concatenate([fold.test for fold in made]).tolist()) == list(range(len(store)))
    for fold in made:
        assert set(fold.train) == set(range(len(store))) - set(fold.test)
        assert sorted([*fold.of_kind("normal"), *fold.of_kind("abnormal")]) == fold.train.tolist()
        assert store.abnormal[fold.of_kind("abnormal")].all()
        for kind in (False, True):
            groups = store.clusters(np.flatnonzero(store.abnormal == kind))
            inside = np.isin(np.flatnonzero(store.abnormal == kind), fold.test)
            assert not set(groups[inside]) & set(groups[~inside])


def test_a_part_of_a_store_is_a_store_of_these_frames(store: FrameStore, tmp_path: Path) -> None:
    positions = np.array([2, 5, 40, 41])
    write_part(store, positions, tmp_path / "part")
    part = FrameStore.open(tmp_path / "part")
    assert part.names == tuple(store.names[i] for i in positions)
    assert np.array_equal(part.frames, store.frames[positions]) and np.array_equal(part.centre, store.centre[positions])
    assert part.abnormal.tolist() == store.abnormal[positions].tolist()
    assert part.key != store.key and part.figures == []
    stamp = (tmp_path / "part" / "frames.npy").stat().st_mtime_ns
    write_part(store, positions, tmp_path / "part")
    assert (tmp_path / "part" / "frames.npy").stat().st_mtime_ns == stamp


def test_the_centre_is_cut_out_of_the_prepared_frame() -> None:
    frames = np.zeros((2, 96, 96, 3), np.uint8)
    frames[:, 26:69, 48:91] = 200
    assert seen(frames, "centre").shape == (2, SIDES["centre"], SIDES["centre"], 3)
    assert (seen(frames, "centre") == 200).all()
    assert np.array_equal(seen(frames, "full"), frames)


def test_frames_without_a_visible_lesion_are_left_out(store: FrameStore, tmp_path: Path) -> None:
    write_part(store, np.arange(len(store)), tmp_path / "masked")
    lesions = np.zeros((len(store), tiny.SIZE, tiny.SIZE), np.uint8)
    lesions[40, 7:9, 9:12] = 1  # in the centre
    lesions[41, :3, :3] = 1  # outside
    np.save(tmp_path / "masked" / "lesions.npy", lesions)
    centre = np.load(tmp_path / "masked" / "centre_lesions.npy")
    centre[40, 100:140, 100:140] = 1
    np.save(tmp_path / "masked" / "centre_lesions.npy", centre)
    index = json.loads((tmp_path / "masked" / "index.json").read_text())
    for position in (40, 41, 42):
        index["frames"][position]["lesion"] = True
    (tmp_path / "masked" / "index.json").write_text(json.dumps(index))
    masked = FrameStore.open(tmp_path / "masked")
    everything = np.arange(len(masked))
    assert set(everything) - set(showing(masked, everything, "full")) == {42}
    assert set(everything) - set(showing(masked, everything, "centre")) == {41, 42}


def test_the_classifier_learns_and_repeats_itself() -> None:
    draw = np.random.default_rng(0)
    abnormal = np.arange(40) % 2 == 1
    frames = draw.integers(0, 120, (40, 48, 48, 3)).astype(np.uint8)
    frames[abnormal, 16:32, 16:32] += 120
    found = [log_odds(train_classifier(frames[:24], abnormal[:24], 640, seed), frames[24:]) for seed in (0, 0, 1)]
    assert auroc(found[0][~abnormal[24:]], found[0][abnormal[24:]]) == 1
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_real_and_generated_frames_train_classifiers(store: FrameStore, tmp_path: Path) -> None:
    made = folds(store, tmp_path, 3, seed=0)
    for name in ("real", "paper", "real+paper"):
        measure(made[0], name, "centre", chosen())
    cells = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "fold0").glob("*.json")}
    assert set(cells) == {"real-centre", "paper-centre", "real+paper-centre"}
    count = len(made[0].train)
    assert [cells[f"{name}-centre"]["count"] for name in ("real", "paper", "real+paper")] == [count, count, 2 * count]
    assert all(cell["positions"] == made[0].test.tolist() for cell in cells.values())
    trained = FrameStore.open(tmp_path / "fold0" / "store")
    assert not set(trained.names) & {store.names[i] for i in made[0].test}
    for kind in ("normal", "abnormal"):
        assert f"train_on: {kind}" in (tmp_path / "fold0" / f"paper-{kind}" / "config.yaml").read_text()
    # Finished cells are kept.
    path = tmp_path / "fold0" / "paper-centre.json"
    path.write_text(path.read_text() + " ")
    measure(made[0], "paper", "centre", chosen(images=96))
    assert path.read_text().endswith(" ")


def write_cells(out: Path, store: FrameStore, name: str, strength: float) -> None:
    draw = np.random.default_rng(1)
    for fold in folds(store, out, 3, seed=0):
        # Each fold has a scale of its own, which the table must not compare.
        found = strength * store.abnormal[fold.test] + draw.normal(size=len(fold.test)) + 100 * fold.number - 100
        for view in ("full", "centre"):
            (fold.path).mkdir(parents=True, exist_ok=True)
            about = {"count": 44, "positions": fold.test.tolist(), "log_odds": found.tolist()}
            (fold.path / f"{name}-{view}.json").write_text(json.dumps(about))


def test_the_table_compares_within_folds(store: FrameStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cells(tmp_path, store, "real", 30.0)
    write_cells(tmp_path, store, "paper", 0.0)
    rows = table(folds(store, tmp_path, 3, seed=0), ["paper"]).splitlines()
    real, paper, both = (next(row for row in rows if row.startswith(f"| {name} |")) for name in ("real", "paper", "real+paper"))
    assert real.split(" | ")[2].startswith("1.000") and real.split(" | ")[3:5] == ["", ""]
    area = float(paper.split(" | ")[2].split()[0])
    assert 0.3 < area < 0.7 and float(paper.split(" | ")[3]) == pytest.approx(area, abs=1e-3)
    assert both == "| real+paper | | | | | |"
    given = ["--frames", str(store.path), "--out", str(tmp_path), "--models", "paper", "--table"]
    assert main(given) == 0
    assert paper in capsys.readouterr().out


def test_other_settings_need_another_folder(store: FrameStore, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(SystemExit, match="other settings"):
        main(["--frames", str(store.path), "--out", str(tmp_path)])
