"""Writes the code next to an exported model: preparation and scoring for programs without this package."""

import ast
import importlib
import inspect
import re

from pixelscope.endovae.anomaly.calibration import HEADLINE
from pixelscope.imaging.config import PrepareConfig

MODULES = (
    "pixelscope.imaging.convert",
    "pixelscope.imaging.box",
    "pixelscope.imaging.content_area",
    "pixelscope.imaging.insets",
    "pixelscope.data.frames.view",
    "pixelscope.data.frames.preprocess",
    "pixelscope.imaging.tissue",
    "pixelscope.endovae.anomaly.statistics",
    "pixelscope.endovae.anomaly.scores",
)
"""Modules to concatenate, each after those it uses."""

HEAD = '''"""Anomaly scores of frames with {model}: content area, insets, resizing and scores. For research only.

Needs numpy, scipy, opencv-python-headless, pillow and onnxruntime. Written by `pixelscope export`; Apache-2.0.

    python {name} FRAME...

or from a program:

    model = Model("{model}")
    print(model.score(frames))

with `frames` a list of uint8 arrays (H, W, 3), RGB.
"""

from __future__ import annotations

import json
import sys
{imports}


class InputError(ValueError):
    """An input cannot be used."""


VALUE_RANGE = {value_range}


class PrepareConfig(NamedTuple):
    """Settings of the preparation of frames."""

    size: int = {size}
    method: str = "{method}"
    insets: str = "{insets}"
'''

TAIL = '''
class Model:
    """The exported model in onnxruntime, with the calibration in its metadata."""

    OUTPUTS = ("error", "dissimilarity", "kl", "mean")

    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["pixelscope"])

    def score(self, frames, view="{view}"):
        """Return per frame: score, p (fraction of healthy calibration frames with a score as high), flagged, and error.

        view: "centre", a square without border and insets, or "full".
        A frame that shows no tissue has an error and no score.
        """
        prepared = [prepare_frame(np.ascontiguousarray(frame), None, PrepareConfig()) for frame in frames]
        squares, insets = np.stack([one.frame for one in prepared]), np.stack([one.inset > 0 for one in prepared])
        maps = ErrorMaps(*self.session.run(list(self.OUTPUTS), {"images": squares}))
        latent, known = GaussianReference(**self.about["calibration"]["latent"]), self.about["calibration"]["views"][view]
        values = scores(raw_scores(maps, squares, insets, latent, view), known["log_spreads"])[known["selected"]]
        p = conformal_p(known["scores"][known["selected"]], values)
        rate = self.about["false_positive_rate"]
        return [
            {"score": float(v), "p": float(q), "flagged": None if rate is None else bool(q <= rate), "error": None}
            if np.isfinite(v)
            else {"score": None, "p": None, "flagged": None, "error": why}
            for v, q, why in zip(values, p, why_unscored(maps))
        ]


def open_frame(path):
    """Read a file as uint8 (H, W, 3); grey values deeper than 8 bits are scaled by the training's range, or by their type."""
    image = Image.open(path)
    if not image.mode.startswith(("I", "F")):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image)
    low_high = VALUE_RANGE or type_range(float(values.min()), float(values.max()), values.dtype.kind != "f")
    return np.repeat(to_eight_bits(values, low_high)[..., None], 3, axis=2)


if __name__ == "__main__":
    frames = [open_frame(path) for path in sys.argv[1:]]
    for path, found in zip(sys.argv[1:], Model("{model}").score(frames)):
        print(path, found)
'''


def standalone_code(config: PrepareConfig, model: str) -> str:
    """Return a Python file that prepares frames by `config` and scores them with the exported file `model`."""
    imports, bodies = set[str](), []
    for name in MODULES:
        found, body = _parted(inspect.getsource(importlib.import_module(name)), name.rsplit(".", 1)[1])
        imports |= found
        bodies.append(f"# From {name}\n{body}")
    imports.add("from typing import NamedTuple")
    head = HEAD.format(
        model=model,
        name=f"{model.rsplit('.', 1)[0]}_prepare.py",
        imports="\n".join(sorted(imports)),
        size=config.size,
        method=config.method,
        insets=config.insets,
        value_range=None if config.range is None else tuple(config.range),
    )
    return "\n\n".join([head, *bodies, TAIL.replace("{model}", model).replace("{view}", HEADLINE)])


def _parted(source: str, module: str) -> tuple[set[str], str]:
    """Return the imports of other packages, and the code after all imports, with private names made unique."""
    tree, lines = ast.parse(source), source.split("\n")
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    others = {ast.unparse(node) for node in imports if not ast.unparse(node).startswith("from pixelscope")}
    body = "\n".join(lines[max(node.end_lineno or 0 for node in imports) if imports else 0 :]).strip()
    for name in _private_names(tree):
        body = re.sub(rf"\b{name}\b", f"_{module}{name}", body)
    return others, body + "\n"


def _private_names(tree: ast.Module) -> set[str]:
    names = set[str]()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if name.startswith("_")}
