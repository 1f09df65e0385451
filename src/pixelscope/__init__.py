"""Pixelscope: learn from images that nobody labelled.

This is the whole public surface; the command line, the report and a notebook all call it. Nothing is imported until
it is used, so that `import pixelscope` and `pixelscope --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelscope.data.decode import decode_bytes as decode_bytes
    from pixelscope.data.describe import SourceDescription as SourceDescription
    from pixelscope.data.describe import compare_sources as compare_sources
    from pixelscope.data.describe import contact_sheet as contact_sheet
    from pixelscope.data.describe import describe_source as describe_source
    from pixelscope.data.frames.prepare import prepare as prepare
    from pixelscope.data.frames.store import FrameStore as FrameStore
    from pixelscope.data.imageset import ImageSet as ImageSet
    from pixelscope.data.pack import pack as pack
    from pixelscope.data.sources.mnist_m import generate_mnist_m as generate_mnist_m
    from pixelscope.data.sources.pictograms import Rendered as Rendered
    from pixelscope.data.sources.pictograms import render_pictograms as render_pictograms
    from pixelscope.demo import DemoResult as DemoResult
    from pixelscope.demo import run_demo as run_demo
    from pixelscope.endovae.config import EndoVAEConfig as EndoVAEConfig
    from pixelscope.endovae.config import endovae_preset as endovae_preset
    from pixelscope.endovae.cost import plan_endovae as plan_endovae
    from pixelscope.endovae.cost import summarize_endovae as summarize_endovae
    from pixelscope.endovae.evaluation import evaluate_endovae as evaluate_endovae
    from pixelscope.endovae.inference.generate import generate as generate
    from pixelscope.endovae.inference.interactive import InteractiveVAE as InteractiveVAE
    from pixelscope.endovae.inference.reconstruct import reconstruct as reconstruct
    from pixelscope.endovae.inference.score import score as score
    from pixelscope.endovae.report.frames import draw_frames as draw_frames
    from pixelscope.endovae.training import resume_endovae as resume_endovae
    from pixelscope.endovae.training import train_endovae as train_endovae
    from pixelscope.engine.cost import Plan as Plan
    from pixelscope.engine.cost import Summary as Summary
    from pixelscope.engine.runtime import is_first_process as is_first_process
    from pixelscope.errors import InputError as InputError
    from pixelscope.errors import Interrupted as Interrupted
    from pixelscope.errors import TrainingStopped as TrainingStopped
    from pixelscope.imaging.config import PrepareConfig as PrepareConfig
    from pixelscope.imaging.config import RenderConfig as RenderConfig
    from pixelscope.pixelda.ablation.runner import ablate as ablate
    from pixelscope.pixelda.ablation.runner import search as search
    from pixelscope.pixelda.config import BaselineConfig as BaselineConfig
    from pixelscope.pixelda.config import PixelDAConfig as PixelDAConfig
    from pixelscope.pixelda.config import default_preset as default_preset
    from pixelscope.pixelda.config import preset as preset
    from pixelscope.pixelda.cost import plan as plan
    from pixelscope.pixelda.cost import summarize as summarize
    from pixelscope.pixelda.evaluation import evaluate_pixelda as evaluate_pixelda
    from pixelscope.pixelda.inference.adapt import adapt as adapt
    from pixelscope.pixelda.inference.classify import classify as classify
    from pixelscope.pixelda.inference.interactive import InteractiveGenerator as InteractiveGenerator
    from pixelscope.pixelda.inference.model import load_classifier as load_classifier
    from pixelscope.pixelda.refinement.config import RefineConfig as RefineConfig
    from pixelscope.pixelda.refinement.config import refine_preset as refine_preset
    from pixelscope.pixelda.refinement.evaluation import evaluate_refinement as evaluate_refinement
    from pixelscope.pixelda.refinement.training import refine as refine
    from pixelscope.pixelda.refinement.training import resume_refinement as resume_refinement
    from pixelscope.pixelda.results import Evaluation as Evaluation
    from pixelscope.pixelda.training import resume_pixelda as resume_pixelda
    from pixelscope.pixelda.training import train_baseline as train_baseline
    from pixelscope.pixelda.training import train_pixelda as train_pixelda
    from pixelscope.progress import ProgressBar as ProgressBar
    from pixelscope.progress import ProgressCallback as ProgressCallback
    from pixelscope.report.builder import build_report as build_report
    from pixelscope.runs.listing import RunInfo as RunInfo
    from pixelscope.runs.listing import find_runs as find_runs
    from pixelscope.runs.listing import newest_samples as newest_samples
    from pixelscope.runs.listing import run_info as run_info
    from pixelscope.runs.listing import run_settings as run_settings
    from pixelscope.runs.listing import run_statistics as run_statistics
    from pixelscope.serve import serve_runs as serve_runs
    from pixelscope.systems import SYSTEMS as SYSTEMS
    from pixelscope.systems import System as System
    from pixelscope.systems import evaluate as evaluate
    from pixelscope.systems import export as export
    from pixelscope.systems import resume as resume

_HOMES = {
    "ImageSet": "pixelscope.data.imageset",
    "is_first_process": "pixelscope.engine.runtime",
    "pack": "pixelscope.data.pack",
    "SourceDescription": "pixelscope.data.describe",
    "contact_sheet": "pixelscope.data.describe",
    "compare_sources": "pixelscope.data.describe",
    "describe_source": "pixelscope.data.describe",
    "generate_mnist_m": "pixelscope.data.sources.mnist_m",
    "RenderConfig": "pixelscope.imaging.config",
    "Rendered": "pixelscope.data.sources.pictograms",
    "render_pictograms": "pixelscope.data.sources.pictograms",
    "FrameStore": "pixelscope.data.frames.store",
    "PrepareConfig": "pixelscope.imaging.config",
    "prepare": "pixelscope.data.frames.prepare",
    "EndoVAEConfig": "pixelscope.endovae.config",
    "endovae_preset": "pixelscope.endovae.config",
    "train_endovae": "pixelscope.endovae.training",
    "resume_endovae": "pixelscope.endovae.training",
    "evaluate_endovae": "pixelscope.endovae.evaluation",
    "draw_frames": "pixelscope.endovae.report.frames",
    "reconstruct": "pixelscope.endovae.inference.reconstruct",
    "generate": "pixelscope.endovae.inference.generate",
    "score": "pixelscope.endovae.inference.score",
    "summarize_endovae": "pixelscope.endovae.cost",
    "plan_endovae": "pixelscope.endovae.cost",
    "InputError": "pixelscope.errors",
    "TrainingStopped": "pixelscope.errors",
    "Interrupted": "pixelscope.errors",
    "BaselineConfig": "pixelscope.pixelda.config",
    "PixelDAConfig": "pixelscope.pixelda.config",
    "ablate": "pixelscope.pixelda.ablation.runner",
    "search": "pixelscope.pixelda.ablation.runner",
    "adapt": "pixelscope.pixelda.inference.adapt",
    "classify": "pixelscope.pixelda.inference.classify",
    "preset": "pixelscope.pixelda.config",
    "train_baseline": "pixelscope.pixelda.training",
    "train_pixelda": "pixelscope.pixelda.training",
    "default_preset": "pixelscope.pixelda.config",
    "resume_pixelda": "pixelscope.pixelda.training",
    "RefineConfig": "pixelscope.pixelda.refinement.config",
    "refine_preset": "pixelscope.pixelda.refinement.config",
    "refine": "pixelscope.pixelda.refinement.training",
    "resume_refinement": "pixelscope.pixelda.refinement.training",
    "evaluate_refinement": "pixelscope.pixelda.refinement.evaluation",
    "Evaluation": "pixelscope.pixelda.results",
    "evaluate": "pixelscope.systems",
    "evaluate_pixelda": "pixelscope.pixelda.evaluation",
    "load_classifier": "pixelscope.pixelda.inference.model",
    "Plan": "pixelscope.engine.cost",
    "Summary": "pixelscope.engine.cost",
    "plan": "pixelscope.pixelda.cost",
    "summarize": "pixelscope.pixelda.cost",
    "InteractiveVAE": "pixelscope.endovae.inference.interactive",
    "InteractiveGenerator": "pixelscope.pixelda.inference.interactive",
    "RunInfo": "pixelscope.runs.listing",
    "find_runs": "pixelscope.runs.listing",
    "newest_samples": "pixelscope.runs.listing",
    "run_info": "pixelscope.runs.listing",
    "run_settings": "pixelscope.runs.listing",
    "run_statistics": "pixelscope.runs.listing",
    "decode_bytes": "pixelscope.data.decode",
    "serve_runs": "pixelscope.serve",
    "SYSTEMS": "pixelscope.systems",
    "System": "pixelscope.systems",
    "export": "pixelscope.systems",
    "resume": "pixelscope.systems",
    "ProgressBar": "pixelscope.progress",
    "ProgressCallback": "pixelscope.progress",
    "build_report": "pixelscope.report.builder",
    "DemoResult": "pixelscope.demo",
    "run_demo": "pixelscope.demo",
}


def load_images(
    source: str,
    *,
    size: int | None = 32,
    strict: bool = False,
    data_root: Any = None,
    value_range: tuple[float, float] | None = None,
) -> "ImageSet":
    """Read images from a source (`KIND:PATH`, `PATH` or `KIND`); `pixelscope.data.load` says more."""
    from pixelscope.data import load

    return load(source, size=size, strict=strict, data_root=data_root, value_range=value_range)


def sections(run: Any) -> Any:
    """Return the sections of the report of a run folder, made by the system that trained it."""
    from pixelscope.systems import sections as of_its_system

    return of_its_system(run)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pixelscope")
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelscope' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
