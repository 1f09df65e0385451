"""The names of `pixelscope.pixelda` for type checkers; `__init__.py` finds each when it is used."""

from pixelscope.pixelda.ablation.runner import ablate as ablate
from pixelscope.pixelda.ablation.runner import search as search
from pixelscope.pixelda.config import BaselineConfig as BaselineConfig
from pixelscope.pixelda.config import PixelDAConfig as PixelDAConfig
from pixelscope.pixelda.config import default_preset as default_preset
from pixelscope.pixelda.config import preset as preset
from pixelscope.pixelda.cost import plan as plan
from pixelscope.pixelda.cost import summarize as summarize
from pixelscope.pixelda.inference.adapt import adapt as adapt
from pixelscope.pixelda.inference.classify import classify as classify
from pixelscope.pixelda.inference.interactive import InteractiveGenerator as InteractiveGenerator
from pixelscope.pixelda.inference.model import load_classifier as load_classifier
from pixelscope.pixelda.refinement.config import RefineConfig as RefineConfig
from pixelscope.pixelda.refinement.config import refine_preset as refine_preset
from pixelscope.pixelda.refinement.training import refine as refine
from pixelscope.pixelda.results import Evaluation as Evaluation
from pixelscope.pixelda.training import train_baseline as baseline
from pixelscope.pixelda.training import train_pixelda as train

__all__ = [
    "BaselineConfig",
    "Evaluation",
    "InteractiveGenerator",
    "PixelDAConfig",
    "RefineConfig",
    "ablate",
    "adapt",
    "baseline",
    "classify",
    "default_preset",
    "load_classifier",
    "plan",
    "preset",
    "refine",
    "refine_preset",
    "search",
    "summarize",
    "train",
]
