"""The names of `pixelscope.endovae` for type checkers; `__init__.py` finds each when it is used."""

from pixelscope.data.frames.prepare import prepare as prepare
from pixelscope.data.frames.store import FrameStore as FrameStore
from pixelscope.endovae.config import EndoVAEConfig as EndoVAEConfig
from pixelscope.endovae.config import endovae_preset as preset
from pixelscope.endovae.cost import plan_endovae as plan
from pixelscope.endovae.cost import summarize_endovae as summarize
from pixelscope.endovae.detection.config import DetectConfig as DetectConfig
from pixelscope.endovae.detection.detect import detect as detect
from pixelscope.endovae.detection.results import DetectorInfo as DetectorInfo
from pixelscope.endovae.detection.results import find_detectors as find_detectors
from pixelscope.endovae.generation.evaluate import evaluate_generated as evaluate_generated
from pixelscope.endovae.generation.results import GenerationResult as GenerationResult
from pixelscope.endovae.inference.generate import generate as generate
from pixelscope.endovae.inference.interactive import FrameAnalysis as FrameAnalysis
from pixelscope.endovae.inference.interactive import InteractiveDetector as InteractiveDetector
from pixelscope.endovae.inference.interactive import InteractiveVAE as InteractiveVAE
from pixelscope.endovae.inference.reconstruct import reconstruct as reconstruct
from pixelscope.endovae.inference.score import FrameScore as FrameScore
from pixelscope.endovae.inference.score import score as score
from pixelscope.endovae.inference.score import score_frames as score_frames
from pixelscope.endovae.inference.scorers import load_scorer as load_scorer
from pixelscope.endovae.latent_prior.config import PriorConfig as PriorConfig
from pixelscope.endovae.latent_prior.fit import fit_prior as prior
from pixelscope.endovae.latent_prior.results import PriorResult as PriorResult
from pixelscope.endovae.report.frames import draw_frames as draw_frames
from pixelscope.endovae.results import Evaluation as Evaluation
from pixelscope.endovae.training import train_endovae as train
from pixelscope.imaging.config import PrepareConfig as PrepareConfig

__all__ = [
    "DetectConfig",
    "DetectorInfo",
    "EndoVAEConfig",
    "Evaluation",
    "FrameAnalysis",
    "FrameScore",
    "FrameStore",
    "GenerationResult",
    "InteractiveDetector",
    "InteractiveVAE",
    "PrepareConfig",
    "PriorConfig",
    "PriorResult",
    "detect",
    "draw_frames",
    "evaluate_generated",
    "find_detectors",
    "generate",
    "load_scorer",
    "plan",
    "prepare",
    "preset",
    "prior",
    "reconstruct",
    "score",
    "score_frames",
    "summarize",
    "train",
]
