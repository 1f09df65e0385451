"""Pixelscope: learn from images that nobody labelled.

This is the public API, which the command line and the web app use, too. It mirrors the command line: `pixelscope pixelda train`
is `pixelscope.pixelda.train`, and `pixelscope endovae score` is `pixelscope.endovae.score`. `resume`, `evaluate`, `report` and
`export` take a run of any system, which run.json names.

Nothing is imported until it is used, so that `import pixelscope` and `pixelscope --help` are quick; `__init__.pyi` has the
same names for type checkers.
"""

from importlib import import_module
from typing import Any

_SYSTEMS = ("endovae", "pixelda")
_PUBLIC = {
    "compare_sources": "pixelscope.data.describe",
    "contact_sheet": "pixelscope.data.describe",
    "decode_bytes": "pixelscope.data.formats.decode",
    "DemoResult": "pixelscope.demo",
    "describe_source": "pixelscope.data.describe",
    "evaluate": "pixelscope.systems",
    "export": "pixelscope.systems",
    "find_runs": "pixelscope.runs.listing",
    "generate_mnist_m": "pixelscope.data.sources.mnist_m",
    "ImageSet": "pixelscope.data.imageset",
    "InputError": "pixelscope.errors",
    "Interrupted": "pixelscope.errors",
    "is_first_process": "pixelscope.engine.distributed",
    "load_images": "pixelscope.data:load",
    "newest_samples": "pixelscope.runs.listing",
    "pack": "pixelscope.data.pack",
    "Plan": "pixelscope.engine.cost",
    "ProgressBar": "pixelscope.runs.progress",
    "ProgressCallback": "pixelscope.runs.progress",
    "render_pictograms": "pixelscope.data.sources.pictograms",
    "RenderConfig": "pixelscope.imaging.config",
    "Rendered": "pixelscope.data.sources.pictograms",
    "report": "pixelscope.reports.builder:build_report",
    "resume": "pixelscope.systems",
    "run_demo": "pixelscope.demo",
    "run_info": "pixelscope.runs.listing",
    "run_settings": "pixelscope.runs.listing",
    "run_statistics": "pixelscope.runs.listing",
    "RunInfo": "pixelscope.runs.listing",
    "sections": "pixelscope.systems",
    "serve_runs": "pixelscope.serve",
    "SourceDescription": "pixelscope.data.describe",
    "Summary": "pixelscope.engine.cost",
    "System": "pixelscope.systems",
    "SYSTEMS": "pixelscope.systems",
    "TrainingStopped": "pixelscope.errors",
    "write_pages": "pixelscope.data.pages",
    "WrittenPages": "pixelscope.data.pages",
}
"""Public names, and where each is defined: its module, with `:name` where it has another name there."""


def __dir__() -> list[str]:
    return sorted([*globals(), *_SYSTEMS, *_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pixelscope")
    if name in _SYSTEMS:
        return import_module(f"pixelscope.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pixelscope' has no attribute {name!r}")
    module, _, defined = _PUBLIC[name].partition(":")
    from pixelscope.arguments import check_arguments

    return check_arguments(getattr(import_module(module), defined or name))
