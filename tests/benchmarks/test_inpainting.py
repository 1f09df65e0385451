"""Polyps drawn into healthy frames: outlines of lesions, what is redrawn, and the table."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.inpainting import chosen_masks, main, outlines, redraw
from fixtures import tiny
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FrameStore
from pixelscope.endovae.checkpoints import load_checkpoint
from pixelscope.endovae.config import endovae_preset
from pixelscope.endovae.data import FrameSubset
from pixelscope.endovae.latent_prior.config import PriorConfig
from pixelscope.endovae.latent_prior.fit import fit_prior
from pixelscope.endovae.training import train_endovae
from pixelscope.imaging.config import PrepareConfig

SIZE = tiny.SIZE
LESIONS = {"shown": (18, 10, 10), "hidden": (0, 0, 10), "dot": (20, 14, 4), "all": (0, 0, 32)}
"""Left, top and side of a lesion in a frame of 32 x 32 pixels; only the first is of use."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    folder = tiny.write_frames(tmp_path_factory.mktemp("frames"), normal=36, abnormal=32)
    (folder / "polyp-masks").mkdir()
    for number, frame in enumerate(sorted((folder / "polyps").iterdir())):
        left, top, side = list(LESIONS.values())[number % len(LESIONS)]
        mask = np.zeros((32, 32), np.uint8)
        mask[top : top + side, left : left + side] = 255
        Image.fromarray(mask).resize((SIZE, SIZE), Image.Resampling.NEAREST).save(folder / "polyp-masks" / frame.name)
    return prepare([folder], config=PrepareConfig(size=SIZE), out=tmp_path_factory.mktemp("stores") / "tiny")


@pytest.fixture(scope="module")
def run(store: FrameStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = {"kind": "spatial", "latent": 4, "width": 4, "stride": 4, "blocks": 1}
    split = {"train_on": "both", "duplicate_distance": 0, "test_fraction": 0.2}
    losses = endovae_preset("spatial")["losses"]
    made = train_endovae(
        tiny.endovae(frames=str(store.path), model=model, losses=losses, split=split),
        run=tmp_path_factory.mktemp("runs") / "both",
    )
    fit_prior(made, config=PriorConfig(images=96, batch_size=8, width=8, steps=4, threads=1, autoguidance=1.0))
    return made


def test_outlines_are_of_lesions_that_both_views_show(store: FrameStore) -> None:
    found = outlines(FrameSubset(store, np.arange(len(store))))
    assert len(found) == 8, "every fourth of 32"
    for one in found:
        rows, columns = np.nonzero(one)
        assert abs(rows.mean() / SIZE - 15 / 32) < 0.1 and abs(columns.mean() / SIZE - 23 / 32) < 0.1
    masks = chosen_masks(FrameSubset(store, np.arange(len(store))), 20, seed=0)
    assert len(masks) == 20, "outlines are used again where there are too few"
    with pytest.raises(SystemExit, match="outline"):
        chosen_masks(FrameSubset(store, np.flatnonzero(~store.abnormal)), 3, seed=0)


def test_only_the_part_inside_the_outline_is_redrawn(store: FrameStore, run: Path) -> None:
    frames = store.frames[np.flatnonzero(~store.abnormal)[:3]]
    masks = chosen_masks(FrameSubset(store, np.arange(len(store))), 3, seed=0)
    found = redraw(load_checkpoint(run), frames, masks, seed=0)
    for drawn in (found.normal, found.polyp):
        assert np.array_equal(drawn[~masks], frames[~masks]) and not np.array_equal(drawn[masks], frames[masks])
    assert not np.array_equal(found.normal, found.polyp)
    again, other = (redraw(load_checkpoint(run), frames, masks, seed) for seed in (0, 1))
    assert np.array_equal(again.polyp, found.polyp) and not np.array_equal(other.polyp, found.polyp)


def test_a_moved_store_is_named_and_both_views_are_in_the_table(
    store: FrameStore, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copytree(store.path, tmp_path / "store")
    picture = tmp_path / "sheet.png"
    command = [str(run), "--frames", str(moved), "--images", "64", "--sheet", str(picture)]
    assert main(command) == 0
    cells = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in cells] == ["| `full`"] * 5 + ["| `centre`"] * 5
    counts = {row[1]: int(row[2]) for row in cells}
    assert counts["real polyps"] > 0 and len({counts[name] for name in counts if name != "real polyps"}) == 1
    assert picture.stat().st_size > 1000
