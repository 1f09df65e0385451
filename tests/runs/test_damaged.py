"""Damaged files of a run end in one error that names the file; defects that `python -m benchmarks.fuzz` has found."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pixelscope
from fixtures import tiny
from pixelscope.config import MAX_NODES, read_yaml
from pixelscope.data.sources.relocate import find
from pixelscope.endovae.results import METHODS, METRICS, Evaluation
from pixelscope.endovae.results import SetResult as FrameSetResult
from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.files import naming, read_json
from pixelscope.pixelda.results import Evaluation as PixelDAEvaluation
from pixelscope.pixelda.results import SetResult
from pixelscope.pixelda.training import train_pixelda
from pixelscope.runs.folder import RunFolder, read_arrays, read_stats, save_arrays


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny run of PixelDA."""
    folder = tmp_path_factory.mktemp("trained")
    source, target = tiny.write_domains(folder)
    return train_pixelda(tiny.pixelda(source=source, target=target, training={"images": 16}), run=folder / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize("text", ["[]", "3", "null", "[" * 100_000, '{"a": ', "\ufeff{}", '{"a": ' + "9" * 5_000 + "}"])
def test_what_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json"):
        read_json(tmp_path / "run.json")


@pytest.mark.parametrize(
    "entry",
    [
        {"classes": 5}, {"classes": [1]}, {"data": []}, {"data": {"source": 1}}, {"paths": {"source": {"given": 1}}},
        {"versions": 3}, {"images": "x"}, {"system": None}, {"paths": []}, {"seconds": float("nan")},
        {"images": 2**63}, {"steps": -1}, {"data": {"source": {"train": 10**400}}},
    ],
)  # fmt: skip
def test_an_entry_of_the_record_that_is_something_else_is_named(run: Path, entry: dict[str, Any]) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | entry))
    for use in (pixelscope.evaluate, pixelscope.resume, pixelscope.pixelda.load_classifier):
        with pytest.raises(InputError, match=rf"run\.json: {next(iter(entry))}"):
            use(run)


@pytest.mark.parametrize(
    "line",
    [
        {"kind": 3, "images": 8}, {"kind": "train"}, {"kind": "train", "images": True}, {"kind": "train", "images": -8},
        {"kind": "train", "images": 8, "loss": {}}, {"kind": "train", "images": 8, "loss": 10**400}, [], 3,
        {"kind": "train", "images": 8, "histogram/source": 0.5}, {"kind": "train", "images": 8, "loss/total": [1.0]},
        {"kind": "train", "images": 8, "loss/total": "x"}, {"kind": "train", "images": 8, "loss/total": True},
        {"kind": "train", "images": 8, "histogram": ["a"]}, {"kind": "train", "images": 8, "step": "x"},
    ],
)  # fmt: skip
def test_a_line_that_is_none_of_statistics_is_named(tmp_path: Path, line: Any) -> None:
    good = {"kind": "train", "images": 8, "loss": float("nan"), "text": "a", "list": [1, 2.5], "none": None}
    path = tmp_path / "stats.jsonl"
    path.write_text(json.dumps(good) + "\n")
    assert [line.keys() for line in read_stats(path)] == [good.keys() - {"none"}]
    path.write_text(f"{json.dumps(line)}\n{json.dumps(good)}\n")
    with pytest.raises(InputError, match=r"stats\.jsonl, line 1"):
        read_stats(path)
    path.write_bytes(b"\xff\xfe\n" + json.dumps(good).encode())
    with pytest.raises(InputError, match=r"stats\.jsonl, line 1"):
        read_stats(path)


def test_references_of_yaml_cannot_multiply(tmp_path: Path) -> None:
    path, lines = tmp_path / "a.yaml", ["a0: &a0 [1, 1]"]
    path.write_text("first: &x {b: 1}\nsecond: *x\n")
    assert read_yaml(path) == {"first": {"b": 1}, "second": {"b": 1}}
    lines += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 30)]
    for text in ("\n".join(lines), "a: &a [*a]", "a: &a {b: *a}"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"a\.yaml"):
            read_yaml(path)
    path.write_text("a: [" + "1, " * (MAX_NODES // 2) + "1]")
    assert len(read_yaml(path)["a"]) == MAX_NODES // 2 + 1


@pytest.mark.parametrize("text", ["a: 2020-13-45", "a: " + "[" * 5_000, "? [a]\n: b", "a: !!int x", "\x00"])
def test_what_is_no_yaml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("metadata", ["", "[]", "{", '{"format": 2}', '{"format": 2, "system": 1}', "[" * 100_000])
def test_a_damaged_header_of_a_checkpoint_is_named(tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"pixelscope": metadata})
    with pytest.raises(InputError, match=r"a\.safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("before", "after"), [("width: 4", "width: 4096"), ("blocks: 1", "blocks: 256"), ("noise_dim: 3", "noise_dim: 4096")]
)
def test_networks_that_the_checkpoint_does_not_hold_are_not_built(
    run: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    text = (run / "config.yaml").read_text()
    assert before in text
    (run / "config.yaml").write_text(text.replace(before, after))
    built: list[str] = []
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, **_: built.append(str(tensor.device)))
    with pytest.raises(InputError, match=str(run)):
        pixelscope.pixelda.load_classifier(run)
    assert "meta" in built
    assert built.count("cpu") <= 5, "no more than T, which the checkpoint does hold"


def test_an_evaluation_without_what_the_report_shows_is_damaged(tmp_path: Path) -> None:
    metrics = {name: {"mean": 1.0, "std": 0.0} for name in METRICS}
    found = {"title": "normal", "count": 1, "classes": {}, "by_class": {"a": metrics}, "by_size": [], "kl": [0.0]}
    found |= {"methods": dict.fromkeys(METHODS, metrics), "detail_kept": dict.fromkeys(METHODS, 1.0)}
    found |= {"spectra": {name: [1.0] for name in ("original", *METHODS)}, "region_error": {}, "region_share": {}}
    whole = {"system": "endovae", "images": 1, "epochs": 1.0, "checkpoint": "last", "latent": 1, "components": 1}
    whole |= {"ssim_method": "", "separation": {}, "sets": {"normal": found}}
    whole |= {"checkpoints": {"last": {"images": 1, "normal_psnr": 1.0, "normal_ssim": 1.0}}}
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(whole))
    assert Evaluation.load(path).sets["normal"].count == 1
    for places, lacks in (
        (("checkpoints", "last"), "normal_ssim"),
        (("sets", "normal", "methods"), "pca"),
        (("sets", "normal", "spectra"), "original"),
        (("sets", "normal", "by_class", "a"), "ssim"),
        (("sets", "normal", "detail_kept"), "endovae"),
    ):
        damaged = json.loads(json.dumps(whole))
        holder = damaged
        for place in places:
            holder = holder[place]
        del holder[lacks]
        path.write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=rf"evaluation\.json is damaged.*has no {lacks}"):
            Evaluation.load(path)


def test_numbers_that_the_report_cannot_draw_are_damaged() -> None:
    metrics = {name: {"mean": 1.0, "std": 0.0} for name in METRICS}
    whole = {"title": "", "count": 1, "classes": {}, "methods": dict.fromkeys(METHODS, metrics), "by_class": {}, "by_size": []}
    whole |= {"kl": [0.0], "detail_kept": dict.fromkeys(METHODS, 1.0), "region_error": {"tissue": 0.1}}
    whole |= {"region_share": {"tissue": 1.0}, "spectra": {name: [1.0] for name in ("original", *METHODS)}}
    assert FrameSetResult.model_validate(whole).kl == (0.0,)
    infinite = metrics | {"squared_error": {"mean": float("inf"), "std": 0.0}}
    for change in ({"kl": [float("nan")]}, {"region_share": {}}, {"methods": dict.fromkeys(METHODS, infinite)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            FrameSetResult.model_validate(whole | change)


def test_a_name_with_half_a_character_is_damaged(tmp_path: Path) -> None:
    classes = [{"class": "a", "count": 0, "accuracy": None}]
    one = {
        "title": "",
        "count": 0,
        "correct": 0,
        "accuracy": 0.0,
        "standard_error": 0.0,
        "per_class": classes,
        "confusion": [[0]],
    }
    whole = {"system": "pixelda", "images": 1, "steps": 1, "classes": [], "checkpoint": "", "checkpoints": {}, "curve": []}
    (tmp_path / "evaluation.json").write_text(json.dumps(whole | {"sets": {"\ud800": one}, "oracle": None}))
    with pytest.raises(InputError, match=r"evaluation\.json is damaged"):
        PixelDAEvaluation.load(tmp_path / "evaluation.json")


def test_weights_of_other_names_are_refused(run: Path) -> None:
    newest = RunFolder(run).checkpoint_files()[-1]
    tensors, header = checkpoint.load(newest)
    checkpoint.save(newest, {f"x{name}": tensor for name, tensor in tensors.items()}, header)
    with pytest.raises(InputError, match=str(run)):
        pixelscope.pixelda.load_classifier(run)
    assert load_file(newest)


@pytest.mark.parametrize("path", ["x" * 5_000, "x/" * 3_000])
def test_a_path_that_no_system_opens_is_no_run(path: str) -> None:
    with pytest.raises(InputError, match="too long"):
        RunFolder.open(Path(path))


def test_a_record_with_a_place_that_no_system_opens_is_of_a_moved_run(tmp_path: Path) -> None:
    record = {"paths": {"frames": {"given": "a", "absolute": "x" * 5_000, "relative": "../" + "x" * 5_000}}}
    with pytest.raises(InputError, match="has moved"):
        find({"frames": "a"}, record, tmp_path, lambda places: {})


def test_an_array_that_the_disk_did_not_take_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as full, naming(tmp_path / "a.npy"):
        raise OSError("100000 requested and 99984 written")
    assert full.value.filename == str(tmp_path / "a.npy")


@pytest.mark.parametrize("confusion", [[[1, 0]], [[1, 0], [0]], [[1], [0]], [[1, 0, 0], [0, 1, 0]]])
def test_a_confusion_matrix_that_is_not_square_is_damaged(confusion: list[list[int]]) -> None:
    classes = [{"class": name, "count": 1, "accuracy": 1.0} for name in "ab"]
    about = {"title": "", "count": 2, "correct": 2, "accuracy": 1.0, "standard_error": 0.0, "per_class": classes}
    assert SetResult.model_validate(about | {"confusion": [[1, 0], [0, 1]]}).correct == 2
    with pytest.raises(ValueError, match="confusion"):
        SetResult.model_validate(about | {"confusion": confusion})


def test_sample_images_with_a_flipped_byte_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "gallery.npz"
    save_arrays(path, target=np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), np.uint8))
    whole = path.read_bytes()
    for at in range(60, len(whole) - 200, 50):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"gallery\.npz"):
            read_arrays(path, {"target": 4})
