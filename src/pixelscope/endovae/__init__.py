"""EndoVAE: a variational autoencoder for endoscopy frames (Diamantis et al., IVMSP 2022); for research only.

The functions are those of the command line: `pixelscope endovae train` is `pixelscope.endovae.train`.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "detect": "pixelscope.endovae.detection.detect",
    "DetectConfig": "pixelscope.endovae.detection.config",
    "DetectorInfo": "pixelscope.endovae.detection.results",
    "draw_frames": "pixelscope.endovae.report.frames",
    "EndoVAEConfig": "pixelscope.endovae.config",
    "evaluate_generated": "pixelscope.endovae.generation.evaluate",
    "Evaluation": "pixelscope.endovae.results",
    "find_detectors": "pixelscope.endovae.detection.results",
    "FrameAnalysis": "pixelscope.endovae.inference.interactive",
    "FrameScore": "pixelscope.endovae.inference.score",
    "FrameStore": "pixelscope.data.frames.store",
    "generate": "pixelscope.endovae.inference.generate",
    "GenerationResult": "pixelscope.endovae.generation.results",
    "InteractiveDetector": "pixelscope.endovae.inference.interactive",
    "InteractiveVAE": "pixelscope.endovae.inference.interactive",
    "load_scorer": "pixelscope.endovae.inference.scorers",
    "plan": "pixelscope.endovae.cost:plan_endovae",
    "prepare": "pixelscope.data.frames.prepare",
    "PrepareConfig": "pixelscope.imaging.config",
    "prior": "pixelscope.endovae.latent_prior.fit:fit_prior",
    "PriorConfig": "pixelscope.endovae.latent_prior.config",
    "PriorResult": "pixelscope.endovae.latent_prior.results",
    "preset": "pixelscope.endovae.config:endovae_preset",
    "reconstruct": "pixelscope.endovae.inference.reconstruct",
    "score": "pixelscope.endovae.inference.score",
    "score_frames": "pixelscope.endovae.inference.score",
    "summarize": "pixelscope.endovae.cost:summarize_endovae",
    "train": "pixelscope.endovae.training:train_endovae",
}
"""Public names, and where each is defined: its module, with `:name` where it has another name there."""


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pixelscope.endovae' has no attribute {name!r}")
    module, _, defined = _PUBLIC[name].partition(":")
    from pixelscope.arguments import check_arguments

    return check_arguments(getattr(import_module(module), defined or name))
