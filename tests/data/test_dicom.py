"""DICOM files of one frame: what becomes black and white is the file's own window, and is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelscope.data import load
from pixelscope.data.formats.decode import image_size, read_image
from pixelscope.data.formats.dicom import Window
from pixelscope.errors import InputError

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

VALUES = np.arange(16 * 12, dtype=np.uint16).reshape(12, 16) * 20


def write(path: Path, values: np.ndarray = VALUES, **tags: Any) -> Path:
    """Write a file as a scanner would, of 12 bits; `tags` change or add entries, None removes one."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    deep = values.dtype.itemsize > 1
    entries = {
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "SamplesPerPixel": 3 if values.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if values.ndim == 3 else "MONOCHROME2",
        "BitsAllocated": 16 if deep else 8,
        "BitsStored": 12 if deep else 8,
        "HighBit": 11 if deep else 7,
        "PixelRepresentation": 0,
    }
    for name, value in {**entries, **({"PlanarConfiguration": 0} if values.ndim == 3 else {}), **tags}.items():
        setattr(data, name, value)
    data.PixelData = values.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def test_the_window_decides_what_is_black_and_white(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter=[1000, 40], WindowWidth=[500, 400], RescaleSlope=2, RescaleIntercept=-100)
    measured = VALUES.astype(float) * 2 - 100
    expected = np.clip((measured - 999.5) / 499 + 0.5, 0, 1) * 255
    assert np.abs(read_image(path)[..., 0] - expected).max() <= 0.5
    assert image_size(path) == (16, 12)


def test_windows_are_those_of_pydicom() -> None:
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        data = Dataset()
        data.PhotometricInterpretation, data.BitsStored, data.PixelRepresentation = "MONOCHROME2", 12, 0
        data.WindowCenter, data.WindowWidth, data.VOILUTFunction = 1800.0, 700.0, function
        theirs = apply_windowing(VALUES, data) / 4095
        assert np.abs(Window(1800, 700, function).apply(VALUES) - theirs).max() < 1e-3


def test_without_a_window_minimum_and_maximum_are_black_and_white(tmp_path: Path) -> None:
    found = read_image(write(tmp_path / "a.dcm"))
    assert (found.shape, found.min(), found.max()) == ((12, 16, 1), 0, 255)
    inverted = read_image(write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1"))
    assert (inverted == 255 - found).all()


def test_colour_stays(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    assert (read_image(write(tmp_path / "a.dcm", colour)) == colour).all()


def test_a_folder_says_which_windows_it_used(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", WindowCenter=1000, WindowWidth=500)
    write(tmp_path / "b.dcm")
    write(tmp_path / "c.dcm", np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8))
    cut = write(tmp_path / "cut.dcm")
    cut.write_bytes(cut.read_bytes()[:-20])
    notes = " ".join(load(str(tmp_path), size=8).provenance.notes)
    assert "a.dcm (centre 1000, width 500)" in notes
    assert "without a window, shown from their minimum to their maximum: 1: b.dcm" in notes
    assert "c.dcm" not in notes
    assert "Skipped 1 unreadable of 4 images: cut.dcm" in notes


def test_what_is_not_one_frame_or_no_dicom_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has 3 frames"):
        read_image(
            write(
                tmp_path / "frames.dcm",
                np.zeros((3, 4, 4), np.uint8),
                NumberOfFrames=3,
                Rows=4,
                Columns=4,
                SamplesPerPixel=1,
                PhotometricInterpretation="MONOCHROME2",
            )
        )
    whole = write(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"cut\.dcm: .*; repair or remove it"):
        read_image(tmp_path / "cut.dcm")
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "photo.png")
    named = (tmp_path / "photo.png").rename(tmp_path / "photo.dcm")
    assert read_image(named)[0, 0].tolist() == [9, 8, 7]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="PIXELSCOPE_MAX_PIXELS"):
        read_image(tmp_path / "whole.dcm")


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match=r"without the extra dicom; run: pip install \"pixelscope\[dicom\]\"\.$"):
        read_image(path)
