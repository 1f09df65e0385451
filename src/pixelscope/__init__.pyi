"""The names of `pixelscope` for type checkers; `__init__.py` finds each when used. Functions also take strings for paths."""

from pixelscope import endovae as endovae
from pixelscope import pixelda as pixelda
from pixelscope.data import load as load_images
from pixelscope.data.describe import SourceDescription as SourceDescription
from pixelscope.data.describe import compare_sources as compare_sources
from pixelscope.data.describe import contact_sheet as contact_sheet
from pixelscope.data.describe import describe_source as describe_source
from pixelscope.data.formats.decode import decode_bytes as decode_bytes
from pixelscope.data.imageset import ImageSet as ImageSet
from pixelscope.data.pack import pack as pack
from pixelscope.data.pages import WrittenPages as WrittenPages
from pixelscope.data.pages import write_pages as write_pages
from pixelscope.data.sources.mnist_m import generate_mnist_m as generate_mnist_m
from pixelscope.data.sources.pictograms import Rendered as Rendered
from pixelscope.data.sources.pictograms import render_pictograms as render_pictograms
from pixelscope.demo import DemoResult as DemoResult
from pixelscope.demo import run_demo as run_demo
from pixelscope.engine.cost import Plan as Plan
from pixelscope.engine.cost import Summary as Summary
from pixelscope.engine.distributed import is_first_process as is_first_process
from pixelscope.errors import InputError as InputError
from pixelscope.errors import Interrupted as Interrupted
from pixelscope.errors import TrainingStopped as TrainingStopped
from pixelscope.imaging.config import RenderConfig as RenderConfig
from pixelscope.reports.builder import build_report as report
from pixelscope.runs.listing import RunInfo as RunInfo
from pixelscope.runs.listing import find_runs as find_runs
from pixelscope.runs.listing import newest_samples as newest_samples
from pixelscope.runs.listing import run_info as run_info
from pixelscope.runs.listing import run_settings as run_settings
from pixelscope.runs.listing import run_statistics as run_statistics
from pixelscope.runs.progress import ProgressBar as ProgressBar
from pixelscope.runs.progress import ProgressCallback as ProgressCallback
from pixelscope.serve import serve_runs as serve_runs
from pixelscope.systems import SYSTEMS as SYSTEMS
from pixelscope.systems import System as System
from pixelscope.systems import evaluate as evaluate
from pixelscope.systems import export as export
from pixelscope.systems import resume as resume
from pixelscope.systems import sections as sections

__all__ = [
    "SYSTEMS",
    "DemoResult",
    "ImageSet",
    "InputError",
    "Interrupted",
    "Plan",
    "ProgressBar",
    "ProgressCallback",
    "RenderConfig",
    "Rendered",
    "RunInfo",
    "SourceDescription",
    "Summary",
    "System",
    "TrainingStopped",
    "compare_sources",
    "contact_sheet",
    "decode_bytes",
    "describe_source",
    "endovae",
    "evaluate",
    "export",
    "find_runs",
    "generate_mnist_m",
    "is_first_process",
    "load_images",
    "newest_samples",
    "pack",
    "pixelda",
    "render_pictograms",
    "report",
    "resume",
    "run_demo",
    "run_info",
    "run_settings",
    "run_statistics",
    "sections",
    "serve_runs",
]

__version__: str
