"""Build one ONNX graph from networks; it takes uint8 RGB images of any size."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelscope.errors import MissingExtra
from pixelscope.imaging.framing import Framing

OPSET = 20
IR = 10
"""Version of the file format; onnxruntime reads it since 1.17."""


def build_graph(
    core: nn.Module, size: int, outputs: Sequence[str], mean: float, scale: float, framing: Framing | None = None
) -> bytes:
    """Return a serialized model: input `images`, uint8 (N, H, W, 3), any N, H and W; outputs as `core` names them.

    The graph crops the largest centred square and resizes it to `size`, bilinear and antialiased, with rounding; then
    `framing` scales and shifts it. `core`, a network of float32 (N, 3, size, size), gets (value - mean) / scale.

    Raises:
        InputError: the extra `export` is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        raise MissingExtra("Exports to ONNX", "export") from None
    inner = _exported(core, size, outputs)
    before = onnx.compose.add_prefix(
        _preparation(size, mean, scale, framing), "preparation/", rename_inputs=False, rename_outputs=False
    )
    merged = onnx.compose.merge_models(before, inner, io_map=[("values", "values")])
    merged.ir_version = IR
    merged.producer_name = "pixelscope"
    onnx.checker.check_model(merged, full_check=True)
    return merged.SerializeToString()


def _exported(core: nn.Module, size: int, outputs: Sequence[str]) -> Any:
    import onnx

    example = torch.zeros(2, 3, size, size)
    shapes = ({0: torch.export.Dim("n")},)
    with tempfile.TemporaryDirectory() as folder, _quiet(), _out_of_place(core):
        path = Path(folder) / "core.onnx"
        torch.onnx.export(
            core.cpu().eval(),
            (example,),
            str(path),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["values"],
            output_names=list(outputs),
            opset_version=OPSET,
            external_data=False,
        )
        model = onnx.load(str(path))
    model.ir_version = IR
    return model


def _preparation(size: int, mean: float, scale: float, framing: Framing | None) -> Any:
    """Return the graph from uint8 (N, H, W, 3) to the networks' input."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper

    numbers = {
        "two": np.array([2], np.int64),
        "axes": np.array([2, 3], np.int64),
        "target": np.array([size, size], np.int64),
        "least": np.float32(0),
        "most": np.float32(255),
        "mean": np.float32(mean),
        "scale": np.float32(scale),
    }
    if framing:
        down, across = framing.matrices(size)
        fill = np.array(framing.fill, np.float32).reshape(3, 1, 1)
        numbers |= {"down": down, "across": np.ascontiguousarray(across.T), "fill": fill, "thousand": np.float32(1000)}
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    values = helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", 3, size, size])
    nodes = _preparation_nodes(framed=framing is not None)
    graph = helper.make_graph(nodes, "pixelscope", [images], [values], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    checker.check_model(model)
    return model


def _preparation_nodes(*, framed: bool) -> list[Any]:
    """Return the nodes that cut the centre square of images, resize it, place it as the run's if `framed`, and normalise it."""
    from onnx import TensorProto
    from onnx.helper import make_node as node

    return [
        node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        # The centre square: sides (H, W), the shorter one, and half of the difference.
        node("Shape", ["planes"], ["sides"], start=2, end=4),
        node("ReduceMin", ["sides"], ["side"], keepdims=1),
        node("Sub", ["sides", "side"], ["over"]),
        node("Div", ["over", "two"], ["start"]),
        node("Add", ["start", "side"], ["end"]),
        node("Slice", ["floats", "start", "end", "axes"], ["square"]),
        node(
            "Resize",
            ["square", "", "", "target"],
            ["resized"],
            mode="linear",
            antialias=1,
            # At the edges the filter's weights are normalised over the pixels inside the image, as in Pillow and torch.
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
            axes=[2, 3],
        ),
        node("Round", ["resized"], ["rounded"]),
        node("Clip", ["rounded", "least", "most"], ["square bytes" if framed else "bytes"]),
        *(_framing_nodes() if framed else []),
        node("Sub", ["bytes", "mean"], ["centred"]),
        node("Div", ["centred", "scale"], ["values"]),
    ]


def _framing_nodes() -> list[Any]:
    """Return the nodes that scale and shift images, as `Framing.apply` does."""
    from onnx import helper

    node = helper.make_node
    return [
        node("Sub", ["square bytes", "fill"], ["from fill"]),
        node("MatMul", ["down", "from fill"], ["rows placed"]),
        node("MatMul", ["rows placed", "across"], ["placed"]),
        node("Add", ["placed", "fill"], ["filled"]),
        node("Mul", ["filled", "thousand"], ["thousandths"]),
        node("Round", ["thousandths"], ["whole thousandths"]),
        node("Div", ["whole thousandths", "thousand"], ["filled to thousandths"]),
        node("Round", ["filled to thousandths"], ["filled bytes"]),
        node("Clip", ["filled bytes", "least", "most"], ["bytes"]),
    ]


@contextlib.contextmanager
def _out_of_place(core: nn.Module) -> Iterator[None]:
    """Let activations make new tensors: the exporter takes each one in place apart, which doubles its time."""
    in_place = [module for module in core.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in in_place:
            module.inplace = False  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for module in in_place:
            module.inplace = True  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def _quiet() -> Any:
    # The exporter prints its progress to stdout, and warns of deprecations in its own code.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
