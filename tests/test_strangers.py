"""Files from somebody else run no code, write nothing outside the output, and read no other file: what SECURITY.md promises."""

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pixelscope
from fixtures import tiny
from pixelscope.data.frames.prepare import prepare
from pixelscope.data.frames.store import FIGURES, FrameStore
from pixelscope.data.pack import pack
from pixelscope.errors import InputError
from pixelscope.exports.metadata import Metadata
from pixelscope.exports.onnx_runtime import CHECKSUM, _entry, read_verified, with_checksum
from pixelscope.files import folder_lock
from pixelscope.imaging.config import PrepareConfig
from pixelscope.inference.table import ResumableTable
from pixelscope.pixelda.training import train_baseline, train_pixelda
from pixelscope.runs.folder import RunFolder


class Planted:
    """Runs code where it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.proof),)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with domains and an evaluated run of the baseline, as somebody might send it."""
    folder = tmp_path_factory.mktemp("given")
    source, target = tiny.write_domains(folder)
    train_baseline(tiny.baseline(source=source, target=target, training={"images": 32}), run=folder / "run")
    pixelscope.evaluate(folder / "run")
    return folder


@pytest.fixture
def run(given: Path, tmp_path: Path) -> Path:
    """Return a copy of the run."""
    return shutil.copytree(given / "run", tmp_path / "run")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _refused(use: Callable[[], object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        use()


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.mat"])
def test_pickled_arrays_are_not_unpickled(tmp_path: Path, name: str) -> None:
    array, path, proof = np.array([Planted(tmp_path / "proof")] * 4, object), tmp_path / name, tmp_path / "proof"
    if name.endswith("npz"):
        np.savez(path, images=array, labels=np.arange(4), allow_pickle=True)
    elif name.endswith("npy"):
        np.save(path, array, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(array))
    _refused(lambda: pixelscope.load_images(str(path), size=16), str(path))
    assert not proof.exists()
    pickle.loads(pickle.dumps(Planted(proof)))
    assert proof.is_dir(), "the object does run code where it is unpickled"


@pytest.mark.parametrize("place", ["checkpoints", "samples/progress.npz", "seen.safetensors", "classifiers"])
def test_pickles_in_place_of_weights_and_arrays_are_not_unpickled(run: Path, tmp_path: Path, place: str) -> None:
    found = run / place
    for path in sorted(found.glob("*")) if found.is_dir() else [found]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(Planted(tmp_path / "proof")))
    pixelscope.run_info(run), pixelscope.newest_samples(run)
    if place in ("checkpoints", "classifiers"):
        _refused(lambda: pixelscope.evaluate(run), "damaged")
    assert not (tmp_path / "proof").exists()


def test_tags_of_yaml_make_no_object(run: Path, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'proof'}']\n" + text)
    _refused(lambda: pixelscope.evaluate(run), "config.yaml is not valid YAML")
    assert not (tmp_path / "proof").exists()


def test_what_a_run_says_is_text_on_its_page(run: Path) -> None:
    script = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    for name in ("run.json", "evaluation.json"):
        values = json.loads((run / name).read_text())
        text = json.dumps(values).replace('"c0"', json.dumps(script)).replace('"0"', json.dumps(script))
        (run / name).write_text(text)
    record = json.loads((run / "run.json").read_text()) | {"name": script, "command": script, "git": script}
    (run / "run.json").write_text(json.dumps(record))
    page = pixelscope.report(run).read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page and "<img src=x" not in page


OWN = (
    *("run.json", "config.yaml", "stats.jsonl", "evaluation.json", "checkpoints", "classifiers", "samples", "report.html"),
    *("lock", "lock.json"),
)


@pytest.mark.parametrize("name", OWN)
def test_a_run_whose_files_are_links_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    own, kept = run / name, victim / name
    if own.exists():
        own.rename(kept)
    else:
        kept.write_text("somebody's")
    own.symlink_to(kept)
    before = _files(victim)
    for use in (pixelscope.evaluate, pixelscope.report, pixelscope.resume):
        _refused(lambda use=use: use(run), "is a link")
    assert pixelscope.find_runs([run]) == [] and pixelscope.run_settings(run) == {}
    assert _files(victim) == before


def test_a_link_within_a_folder_of_the_run_is_refused(run: Path, tmp_path: Path) -> None:
    newest = RunFolder(run).checkpoint_files()[-1]
    newest.rename(tmp_path / "elsewhere")
    newest.symlink_to(tmp_path / "elsewhere")
    _refused(lambda: pixelscope.resume(run), "is a link")


def test_the_lock_of_a_folder_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="lock"), folder_lock(tmp_path):
        pass
    assert not (tmp_path / "made").exists()


def test_a_baseline_with_links_is_not_copied(given: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (run / "stats.jsonl").unlink()
    (run / "stats.jsonl").symlink_to(tmp_path / "secret")
    domains = {name: f"arrays:{given / name}.npz" for name in ("source", "target")}
    _refused(lambda: train_pixelda(tiny.pixelda(**domains), run=tmp_path / "new", baseline=run), "is a link")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_run_that_names_other_data_is_measured_on_its_own_or_not_at_all(
    given: Path, run: Path, tmp_path: Path, forgotten: bool
) -> None:
    images, labels = tiny.pictures(60, seed=8)
    np.savez(tmp_path / "private.npz", images=images, labels=labels)
    for name in ("run.json", "config.yaml"):
        text = (run / name).read_text()
        assert str(given / "source.npz") in text
        (run / name).write_text(text.replace(str(given / "source.npz"), str(tmp_path / "private.npz")))
    if forgotten:
        record = json.loads((run / "run.json").read_text())
        for domain in record["data"].values():
            for key in [key for key in domain if key.startswith("sha256")]:
                del domain[key]
        (run / "run.json").write_text(json.dumps(record))
    before = _files(run)
    _refused(lambda: pixelscope.evaluate(run), "SHA-256")
    assert {name: content for name, content in _files(run).items() if name != "lock"} == {
        name: content for name, content in before.items() if name != "lock"
    }


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_refinement_that_names_another_run_measures_none_of_its_images(tmp_path: Path, forgotten: bool) -> None:
    places = {}
    for name, count in (("own", 60), ("private", 72)):
        (tmp_path / name).mkdir()
        source, target = tiny.write_domains(tmp_path / name, count)
        places[name] = train_pixelda(
            tiny.pixelda(source=source, target=target, training={"images": 32}), run=tmp_path / name / "run"
        )
    refined = pixelscope.pixelda.refine(tiny.refined(run=str(places["own"]), training={"images": 32}), run=tmp_path / "refined")
    for name in ("run.json", "config.yaml"):
        text = (refined / name).read_text()
        (refined / name).write_text(text.replace(str(places["own"]), str(places["private"])).replace("own/run", "private/run"))
    if forgotten:
        record = json.loads((refined / "run.json").read_text()) | {"data": {}}
        (refined / "run.json").write_text(json.dumps(record))
    before = _files(refined)
    _refused(lambda: pixelscope.evaluate(refined), "SHA-256")
    text = (refined / "config.yaml").read_text()
    (refined / "config.yaml").write_text("seed: 0\n")
    _refused(lambda: pixelscope.evaluate(refined), "names no run")
    (refined / "config.yaml").write_text(text)
    assert {name for name, content in _files(refined).items() if before.get(name) != content} <= {"lock"}


@pytest.mark.parametrize("name", ["frames.npy", "index.json", FIGURES])
def test_a_store_with_links_is_refused(tmp_path: Path, name: str) -> None:
    tiny.write_frames(tmp_path / "frames")
    store = prepare([tmp_path / "frames"], config=PrepareConfig(size=16), out=tmp_path / "store").path
    (store / name).rename(tmp_path / name)
    (store / name).symlink_to(tmp_path / name)
    _refused(lambda: FrameStore.open(store), "is a link")


def test_a_pack_with_links_is_refused(given: Path, tmp_path: Path) -> None:
    pack(f"arrays:{given / 'source.npz'}", tmp_path / "pack", size=16)
    (tmp_path / "pack" / "images.npy").rename(tmp_path / "images.npy")
    (tmp_path / "pack" / "images.npy").symlink_to(tmp_path / "images.npy")
    _refused(lambda: pixelscope.load_images(f"pack:{tmp_path / 'pack'}", size=16), "is a link")


def test_a_label_file_names_only_files_of_its_folder(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "private.png")
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(folder / f"{index}.png")
    rows = [f"{index}.png,{'ab'[index % 2]}" for index in range(4)]
    named = ["../private.png,a", f"{tmp_path / 'private.png'},b"]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows, *named]) + "\n")
    try:
        found = pixelscope.load_images(f"folder:{folder}", size=16)
    except InputError as error:
        assert "private.png" in str(error)
    else:
        assert len(found) == 4


def test_labels_that_are_paths_lead_nothing_out_of_the_output(given: Path, tmp_path: Path) -> None:
    domains = {name: f"arrays:{given / name}.npz" for name in ("source", "target")}
    adapted = train_pixelda(tiny.pixelda(**domains, training={"images": 16}), run=tmp_path / "runs" / "adapted")
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(folder / f"{index}.png")
    rows = [f"{index}.png,{('../../out', '/tmp/out')[index % 2]}" for index in range(4)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    before = set(tmp_path.rglob("*"))
    pixelscope.pixelda.adapt(adapted, folder, tmp_path / "made" / "here")
    added = set(tmp_path.rglob("*")) - before
    assert added and all(path.is_relative_to(tmp_path / "made") for path in added)


@pytest.mark.parametrize("member", ["../../out.npy", "/tmp/out.npy", "images\\..\\..\\out.npy"])
def test_members_of_archives_are_written_nowhere(tmp_path: Path, member: str) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((4, 16, 16, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(member, content.getvalue())
    before = set(tmp_path.parent.rglob("*"))
    try:
        pixelscope.load_images(str(tmp_path / "a.npz"), size=16)
    except InputError as error:
        assert "a.npz" in str(error)
    assert set(tmp_path.parent.rglob("*")) == before


def test_a_table_resumes_at_its_own_place_alone(tmp_path: Path) -> None:
    """What lies beside an unfinished table says what it is of, and no place to write to."""
    out = tmp_path / "labels.csv"
    (tmp_path / "labels.csv.part").write_text("name\n")
    (tmp_path / "labels.csv.part.json").write_text(json.dumps({"columns": ["name"], "out": "/tmp/elsewhere"}))
    _refused(lambda: ResumableTable(out, ["name"], {}, resume=True), "another out")


def _model(external: bytes) -> bytes:
    """Return an ONNX model, by hand, whose one tensor has the entry `location` in its external data."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    entry = external + field(2, b"secret.bin")
    tensor = bytes([1 << 3, 4, 2 << 3, 2]) + field(8, b"w") + field(13, entry) + bytes([14 << 3, 1])
    return field(7, field(5, tensor))


@pytest.mark.parametrize(
    "key", [b"\x0a\x08location", b"\x0a\x88\x00location", b"\x8a\x00\x08location", b"\x8a\x80\x00\x88\x80\x00location"]
)
def test_a_model_file_takes_no_values_from_other_files(tmp_path: Path, key: bytes) -> None:
    weights = {"checkpoint": "last", "images": 1, "weights_sha256": "", "size": 16, "mean": 0, "scale": 1}
    about = Metadata.model_validate({"system": "pixelda", "config": {}, **weights, "versions": {}, "note": "location"})
    for content, refused in ((_model(key), True), (_model(b"\x0a\x08locution"), False)):
        (tmp_path / "model.onnx").write_bytes(with_checksum(content, about))
        if refused:
            _refused(lambda: read_verified(tmp_path / "model.onnx"), "other files")
        else:
            read_verified(tmp_path / "model.onnx")


def test_a_model_file_with_a_checksum_of_somebody_elses_is_an_error_all_the_same(tmp_path: Path) -> None:
    body = os.urandom(400)
    (tmp_path / "model.onnx").write_bytes(body + _entry(CHECKSUM, hashlib.sha256(body).hexdigest()))
    _refused(lambda: pixelscope.pixelda.load_classifier(tmp_path / "model.onnx"), "model.onnx")
