"""PixelDA: unsupervised pixel-level domain adaptation (Bousmalis et al., CVPR 2017).

The functions are those of the command line: `pixelscope pixelda train` is `pixelscope.pixelda.train`.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ablate": "pixelscope.pixelda.ablation.runner",
    "adapt": "pixelscope.pixelda.inference.adapt",
    "baseline": "pixelscope.pixelda.training:train_baseline",
    "BaselineConfig": "pixelscope.pixelda.config",
    "classify": "pixelscope.pixelda.inference.classify",
    "default_preset": "pixelscope.pixelda.config",
    "Evaluation": "pixelscope.pixelda.results",
    "InteractiveGenerator": "pixelscope.pixelda.inference.interactive",
    "load_classifier": "pixelscope.pixelda.inference.model",
    "PixelDAConfig": "pixelscope.pixelda.config",
    "plan": "pixelscope.pixelda.cost",
    "preset": "pixelscope.pixelda.config",
    "refine": "pixelscope.pixelda.refinement.training",
    "refine_preset": "pixelscope.pixelda.refinement.config",
    "RefineConfig": "pixelscope.pixelda.refinement.config",
    "search": "pixelscope.pixelda.ablation.runner",
    "summarize": "pixelscope.pixelda.cost",
    "train": "pixelscope.pixelda.training:train_pixelda",
}
"""Public names, and where each is defined: its module, with `:name` where it has another name there."""


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pixelscope.pixelda' has no attribute {name!r}")
    module, _, defined = _PUBLIC[name].partition(":")
    from pixelscope.arguments import check_arguments

    return check_arguments(getattr(import_module(module), defined or name))
