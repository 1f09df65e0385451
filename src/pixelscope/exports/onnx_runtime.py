"""Exported ONNX files with a verified checksum. Reading needs onnxruntime, but neither torch nor onnx.

Metadata is appended to a serialized model: fields after a protobuf message belong to it, and field 14 of a ModelProto is a
list of key and value. The last entry is the SHA-256 of all bytes before it, so that changes are detected.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelscope.errors import InputError
from pixelscope.exports.metadata import KEY, Metadata, parse_metadata
from pixelscope.imaging.convert import require_rgb

if TYPE_CHECKING:
    import onnxruntime

CHECKSUM = f"{KEY}.sha256"
_METADATA = 14 << 3 | 2
"""Tag of a ModelProto's metadata entry: field 14, length-delimited."""
_OTHER_FILES = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
"""How a tensor refers to values in another file: the key of an entry, `location`, in every encoding of its tag and
length. JSON, as in the metadata, has no such control characters."""
_FIRST, _SECOND = 1 << 3 | 2, 2 << 3 | 2
"""Tags of an entry's key and value."""


def with_checksum(model: bytes, about: Metadata) -> bytes:
    """Return a serialized ONNX model with `about` in its metadata and its checksum at the end."""
    body = model + _entry(KEY, about.model_dump_json())
    return body + _entry(CHECKSUM, hashlib.sha256(body).hexdigest())


def read_verified(path: Path) -> bytes:
    """Return a file's bytes; raises InputError if `export` did not write it, it was changed since, or it names other files."""
    content = path.read_bytes()
    length = len(_entry(CHECKSUM, "0" * 64))
    body, checksum = content[:-length], content[-length:]
    if checksum[:-64] != _entry(CHECKSUM, "0" * 64)[:-64]:
        raise InputError(f"{path} was not made by `pixelscope export`, or was changed since; export the run again.")
    if checksum != _entry(CHECKSUM, hashlib.sha256(body).hexdigest()):
        raise InputError(f"{path} is damaged or was changed since it was exported; export the run again.")
    if _OTHER_FILES.search(body):
        raise InputError(f"{path} takes values from other files, which no exported model does; export the run again.")
    return content


class OnnxModel:
    """An exported file in onnxruntime on the CPU; thread-safe."""

    def __init__(self, path: Path) -> None:
        """Read and verify a file; raises InputError if it cannot be used, or onnxruntime is not installed."""
        content = read_verified(path)
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Waiting threads would take the cores from those that read files.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session: onnxruntime.InferenceSession = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - its own kinds of errors share no other base
            raise InputError(
                f"{path} has no model that onnxruntime can run ({' '.join(str(error).split())[:160]}); export the run again."
            ) from None
        self.about = parse_metadata(self.session.get_modelmeta().custom_metadata_map.get(KEY, ""), str(path))

    def __call__(self, images: np.ndarray, outputs: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return the named outputs for uint8 images (N, H, W, 3); raises InputError for others."""
        require_rgb(images)
        found: list[Any] = list(self.session.run(list(outputs), {"images": np.ascontiguousarray(images)}))
        return dict(zip(outputs, found, strict=True))


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("An exported .onnx file needs onnxruntime; run: pip install onnxruntime.") from None
    return onnxruntime


def _entry(key: str, value: str) -> bytes:
    pair = _field(_FIRST, key.encode()) + _field(_SECOND, value.encode())
    return _field(_METADATA, pair)


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
