"""Packs: the same images as their source's, on disk, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures import tiny
from pixelscope import describe_source, load_images
from pixelscope.data import load
from pixelscope.data.disk_array import DiskArray
from pixelscope.data.pack import pack
from pixelscope.data.sources.packed import load_pack
from pixelscope.errors import InputError


def _folder(root: Path, broken: bool = False) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(root / name / f"{number}.png")
    if broken:
        (root / "cat" / "1.png").write_bytes(b"not an image")
    return root


@pytest.mark.parametrize("broken", [False, True])
def test_a_folder_is_packed_as_it_is_loaded(tmp_path: Path, broken: bool) -> None:
    folder = _folder(tmp_path / "images", broken)
    packed, loaded = pack(str(folder), tmp_path / "pack", size=16), load(str(folder), size=16)
    assert isinstance(packed.images, DiskArray)
    assert np.array_equal(packed.in_memory(), loaded.in_memory())
    assert packed.classes == loaded.classes
    assert packed.labels is not None
    assert loaded.labels is not None
    assert np.array_equal(packed.labels, loaded.labels)
    assert packed.provenance.notes == loaded.provenance.notes
    assert len(packed.provenance.notes) == int(broken)


def test_pieces_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.data.pack.BLOCK", 3)
    folder = _folder(tmp_path / "images")
    seen: list[tuple[int, int]] = []
    packed = pack(str(folder), tmp_path / "pack", size=16, progress=lambda done, count: seen.append((done, count)))
    assert np.array_equal(packed.in_memory(), load(str(folder), size=16).in_memory())
    assert seen == [(3, 8), (6, 8), (8, 8)]


def test_an_array_with_a_split_is_packed_and_found_again(tmp_path: Path) -> None:
    images, labels = tiny.pictures(60, seed=1)
    source = tmp_path / "made.npz"
    np.savez(source, x_train=images[:50], y_train=labels[:50], x_test=images[50:], y_test=labels[50:])
    pack(str(source), tmp_path / "pack", size=tiny.SIZE)
    packed, loaded = load(str(tmp_path / "pack"), size=tiny.SIZE), load_images(str(source), size=tiny.SIZE)
    assert packed.digest() == loaded.digest()
    assert packed.test is not None
    assert int(packed.test.sum()) == 10
    assert describe_source(str(tmp_path / "pack")).kind == "pack"
    again, first = describe_source(str(tmp_path / "pack")), describe_source(str(source))
    assert (again.minimum, again.maximum, again.mean) == (first.minimum, first.maximum, first.mean)


def test_what_cannot_be_packed_leaves_nothing(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", broken=True)
    with pytest.raises(InputError, match=r"1\.png"):
        pack(str(folder), tmp_path / "pack", size=16, strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="taken exists already; choose another --out"):
        pack(str(folder), tmp_path / "taken", size=16)


def test_damaged_and_foreign_packs_are_refused(tmp_path: Path) -> None:
    where = tmp_path / "pack"
    pack(str(_folder(tmp_path / "images")), where, size=16)
    with pytest.raises(InputError, match="16 x 16 pixels and 32 x 32 are wanted; .*--size 32"):
        load_pack(where, 32)
    index = json.loads((where / "pack.json").read_text())
    for change, words in (({"format": 9}, "has format 9"), ({"count": 7}, "is damaged")):
        (where / "pack.json").write_text(json.dumps(index | change))
        with pytest.raises(InputError, match=words):
            load_pack(where, 16)
    (where / "pack.json").write_text("{")
    with pytest.raises(InputError, match="not a pack"):
        load_pack(where, 16)
    (where / "pack.json").write_text(json.dumps(index))
    np.save(where / "labels.npy", np.zeros(3, np.int64))
    with pytest.raises(InputError, match=r"labels.npy has shape \(3,\) for 8 images"):
        load_pack(where, 16)


def test_names_are_packed_and_read_again(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", broken=True)
    (folder / "cat" / "0.png").rename(folder / "cat" / "Ünï\nx.png")
    packed, loaded = pack(str(folder), tmp_path / "pack", size=16), load(str(folder), size=16)
    assert packed.names == loaded.names
    assert len(packed.names) == 7
    again = pack(str(tmp_path / "pack"), tmp_path / "again", size=16)
    assert again.names == loaded.names


def test_a_pack_of_an_earlier_version_has_no_names(tmp_path: Path) -> None:
    pack(str(_folder(tmp_path / "images")), tmp_path / "pack", size=16)
    (tmp_path / "pack" / "names.json").unlink()
    assert list(load_pack(tmp_path / "pack", None).names) == []


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"a": 1}', "[1, 2, 3, 4, 5, 6, 7, 8]"])
def test_damaged_names_are_refused(tmp_path: Path, content: str) -> None:
    pack(str(_folder(tmp_path / "images")), tmp_path / "pack", size=16)
    (tmp_path / "pack" / "names.json").write_text(content)
    with pytest.raises(InputError, match=r"names\.json is damaged .* 8 names"):
        load_pack(tmp_path / "pack", None)
