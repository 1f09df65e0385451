"""The table of systems, and the functions that dispatch a run to its system; no other module knows all systems."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pixelscope.endovae import report as endovae_report
from pixelscope.errors import InputError
from pixelscope.pixelda import report as pixelda_charts
from pixelscope.runs.folder import RunFolder

if TYPE_CHECKING:
    # Imported for types only, because they import torch.
    from pixelscope.exports.bundle import ExportResult, Format
    from pixelscope.reports.document import Section


@dataclass(frozen=True)
class Page:
    """A page of the web app that works with a run."""

    address: str
    title: str
    link: str
    """Text of the link from the page of a run."""


@dataclass(frozen=True)
class System:
    """One kind of run, or of file. Its functions are named as `module:function` and imported when they are called."""

    name: str
    """Name in run.json."""
    title: str
    """Name on pages."""
    command: str = ""
    """Training command without `pixelscope`; with --resume RUN it resumes a run."""
    config: str = ""
    """Class of its configuration."""
    presets: str = ""
    """Returns the settings of a packaged preset by name; None selects the one that suits the given settings."""
    plan: str = ""
    """Estimates the cost of a training from its configuration."""
    resume: str = ""
    """Resumes a run folder with changes."""
    evaluate: str = ""
    """Measures a run folder, and returns the results."""
    sections: str = ""
    """Returns the sections of the report on a run folder."""
    export: str = ""
    """Exports the model of a run folder to a file in a format."""
    hub_task: str = ""
    """What an exported model does, by the name that model hubs use."""
    hub_tags: tuple[str, ...] = ()
    """Tags of an exported model on model hubs."""
    charts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Charts of a training by title: numbers of stats.jsonl with their labels."""
    samples: Mapping[str, str] = field(default_factory=dict)
    """Images in samples/progress.npz, with their titles."""
    page: Page | None = None
    """Page of the web app for its runs."""

    def preset(self, name: str | None = None, known: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Return the settings of a packaged preset; by default the one that suits the settings `known`."""
        presets = self.function("presets")
        if presets is None:
            raise InputError(f"{self.title} has no presets.")
        return presets(name, known)

    def function(self, name: str) -> Callable[..., Any] | None:
        """Import one of the functions above; None if the system has none."""
        module, _, function = getattr(self, name).partition(":")
        return getattr(import_module(module), function) if module else None


SYSTEMS = {
    system.name: system
    for system in (
        System(
            "pixelda",
            "PixelDA",
            "pixelda train",
            config="pixelscope.pixelda.config:PixelDAConfig",
            presets="pixelscope.pixelda.config:pixelda_preset",
            plan="pixelscope.pixelda.cost:plan",
            resume="pixelscope.pixelda.training:resume_pixelda",
            evaluate="pixelscope.pixelda.evaluation:evaluate_pixelda",
            sections="pixelscope.pixelda.report.page:sections",
            export="pixelscope.pixelda.inference.export:export_classifier",
            hub_task="image-classification",
            hub_tags=("domain-adaptation", "pixelda"),
            charts=pixelda_charts.PIXELDA,
            samples=pixelda_charts.SAMPLES,
            page=Page("/adapt", "Adapt", "Adapt an image"),
        ),
        System(
            "baseline",
            "baseline",
            "pixelda baseline",
            config="pixelscope.pixelda.config:BaselineConfig",
            presets="pixelscope.pixelda.config:baseline_preset",
            plan="pixelscope.pixelda.cost:plan",
            resume="pixelscope.pixelda.training:resume_pixelda",
            evaluate="pixelscope.pixelda.evaluation:evaluate_pixelda",
            sections="pixelscope.pixelda.report.page:sections",
            export="pixelscope.pixelda.inference.export:export_classifier",
            hub_task="image-classification",
            hub_tags=("pixelda",),
            charts=pixelda_charts.BASELINE,
        ),
        System(
            "refined",
            "refinement",
            "pixelda refine",
            config="pixelscope.pixelda.refinement.config:RefineConfig",
            presets="pixelscope.pixelda.refinement.config:refine_preset",
            resume="pixelscope.pixelda.refinement.training:resume_refinement",
            evaluate="pixelscope.pixelda.refinement.evaluation:evaluate_refinement",
            sections="pixelscope.pixelda.refinement.report:sections",
            export="pixelscope.pixelda.inference.export:export_classifier",
            hub_task="image-classification",
            hub_tags=("domain-adaptation", "pixelda"),
            charts=pixelda_charts.REFINEMENT,
        ),
        System(
            "endovae",
            "EndoVAE",
            "endovae train",
            config="pixelscope.endovae.config:EndoVAEConfig",
            presets="pixelscope.endovae.config:endovae_preset",
            plan="pixelscope.endovae.cost:plan_endovae",
            resume="pixelscope.endovae.training:resume_endovae",
            evaluate="pixelscope.endovae.evaluation:evaluate_endovae",
            sections="pixelscope.endovae.report.page:sections",
            export="pixelscope.endovae.inference.export:export_scorer",
            hub_task="image-feature-extraction",
            hub_tags=("anomaly-detection", "endoscopy", "vae"),
            charts=endovae_report.CHARTS,
            samples=endovae_report.SAMPLES,
            page=Page("/endoscopy", "Endoscopy", "Explore the latent space, or score a frame"),
        ),
        System(
            "endovae-detector",
            "anomaly detector",
            export="pixelscope.endovae.inference.export_detector:export_detector",
            hub_task="image-feature-extraction",
            hub_tags=("anomaly-detection", "endoscopy"),
        ),
        System("ablation", "ablation", sections="pixelscope.pixelda.ablation.report:ablation_sections"),
        System("search", "search", sections="pixelscope.pixelda.ablation.report:search_sections"),
    )
}


def resume(run: Path, *, system: str | None = None, **changes: Any) -> Path:
    """Resume a stopped run of any system from its newest checkpoint, and return its folder.

    Args:
        run: the run folder.
        system: name in `SYSTEMS`; a run of another one is refused.
        changes: what the system lets change. All: `devices`, their `threads`, and `take_over` to take the run's lock from
            another machine that has been silent for ten minutes. PixelDA and its baseline: total training `images`, new
            places of `source` and `target`, `data_root`. EndoVAE: total `epochs`, new place of `frames`. Refinement: new
            places of `origin` and `teacher`, `data_root`.

    Raises:
        InputError: the run or its images cannot be used, another process trains it, or the system does not let something
            change; the run is unchanged.

    Example:
        >>> pixelscope.resume(Path("runs/adapted"), devices=2)
    """
    found = _system(run)
    if found.command and system not in (None, found.name):
        raise InputError(f"{run} was made by another command; resume it with `pixelscope {found.command} --resume {run}`.")
    return _call(run, "resume", (run,), changes)


def evaluate(
    run: Path,
    *,
    source: str | None = None,
    target: str | None = None,
    frames: str | None = None,
    checkpoint: str = "auto",
    data_root: Path | None = None,
    take_over: bool = False,
) -> Any:
    """Measure a run of any system, finished or not, and return the results of its system.

    They are written to the run folder too, unless other images were measured, another process holds the lock (for example to
    train the run), or the folder is read-only.

    Args:
        run: a run of PixelDA, its baseline, a refinement or EndoVAE. Of an unfinished one the newest checkpoint is measured.
        source: for PixelDA and its baseline: images to measure instead of the run's own.
        target: see `source`.
        frames: for EndoVAE: a store or folder of frames to measure instead of the run's own.
        checkpoint: which weights: `last`, `ema-last` or `best-source` for PixelDA and its baseline; `auto` is the system's
            default.
        data_root: folder in which a source given as a KIND alone is looked up.
        take_over: take the run's lock from another machine that has been silent for ten minutes.

    Raises:
        InputError: run or images cannot be used, or the system does not take an option.

    Example:
        >>> print(pixelscope.evaluate(Path("runs/adapted")).to_text())
    """
    chosen = None if checkpoint == "auto" else checkpoint
    options = {"source": source, "target": target, "frames": frames, "checkpoint": chosen, "data_root": data_root}
    options["take_over"] = take_over or None
    return _call(run, "evaluate", (run,), options)


def export(
    run: Path,
    out: Path,
    *,
    form: "Format" = "onnx",
    images: str | None = None,
    checkpoint: str = "auto",
    choose: Literal["adapted", "auto"] = "adapted",
    data_root: Path | None = None,
) -> "ExportResult":
    """Export the model of a finished run, or a detector, to one file for other programs, with a model card.

    `onnx` takes uint8 RGB images of any size, N at a time, and needs only onnxruntime; `safetensors` has the weights. The
    file's metadata has classes, settings, calibration and threshold. The file is compared with the run on real images, and
    written only if no output differs by more than 1e-4.

    Args:
        run: a finished run of PixelDA, its baseline or a refinement; an evaluated run of EndoVAE; or what
            `endovae.detect` wrote, its folder or its file.
        out: file ending in .onnx or .safetensors, with the model card next to it as OUT.card.md and OUT.card.json; or a
            path without a suffix, a folder to make, of model.onnx or model.safetensors, README.md (the model card with a YAML
            header) and LICENSE. It must not exist.
        form: the format.
        images: a source of images, or a store or folder of frames, to compare on; by default the run's own, and for a
            detector synthetic frames.
        checkpoint: which weights; see `evaluate`. An unfinished run is exported only if one is named.
        choose: for a run of PixelDA: the adapted classifier, or with `auto` the one that is likely more accurate on the
            target.
        data_root: folder in which a source given as a KIND alone is looked up.

    Raises:
        InputError: run, out or images cannot be used, an extra is not installed, or file and run disagree.

    Example:
        >>> pixelscope.export(Path("runs/adapted"), Path("classifier.onnx"))
    """
    options = {
        "images": images,
        "checkpoint": None if checkpoint == "auto" else checkpoint,
        "choose": None if choose == "adapted" else choose,
        "data_root": data_root,
    }
    run = _detector_in(run) or run
    if out.suffix:
        return _call(run, "export", (run, out, form), options)
    from pixelscope.exports.bundle import write_model_folder  # it imports NumPy, which --help does without

    system = _system(run)

    def write(model: Path) -> "ExportResult":
        return _call(run, "export", (run, model, form), options)

    return write_model_folder(out, system.hub_task, system.hub_tags, form, write)


def sections(run: Path) -> "list[Section]":
    """Return the sections of the report on `run`, made by its system; raises InputError for an unknown system.

    Example:
        >>> [section.title for section in pixelscope.sections(Path("runs/adapted"))]
    """
    return _call(run, "sections", (run,), {})


def _call(run: Path, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Call a function of a run's system; raises InputError if it has none, or does not take an option."""
    system = _system(run)
    function = system.function(name)
    if function is None and system.name == "endovae-detector":
        raise InputError(f"{run} is an {system.title}, and no run; give a run folder.")
    if function is None:
        raise InputError(f"{run} is a folder of several runs; {name} one of the runs in {run / 'conditions'}.")
    given = {option: value for option, value in options.items() if value is not None}
    others = sorted(given.keys() - inspect.signature(function).parameters.keys())
    if others:
        flag = others[0].replace("_", "-")
        raise InputError(f"{run} is a run of {system.title}, whose {name} does not take {flag}; leave it out.")
    return function(*arguments, **given)


def _detector_in(folder: Path) -> Path | None:
    """Return the detector's file in a folder that `endovae detect` wrote; None if it is another folder or a file."""
    if not folder.is_dir() or (folder / "run.json").exists():
        return None
    from pixelscope.endovae.detection.results import detector_in  # it imports NumPy, which --help does without

    found = detector_in(folder)
    return None if found is None else found.path


def _system(run: Path) -> System:
    if run.is_file():
        from pixelscope.endovae.inference.scorers import is_detector  # it imports NumPy, which --help does without

        if is_detector(run):
            return SYSTEMS["endovae-detector"]
    if _detector_in(run) is not None:
        return SYSTEMS["endovae-detector"]
    name: Any = RunFolder.open(run).read_record().get("system")
    if name not in SYSTEMS:
        raise InputError(f"{run} is a run of {name!r}, which this version does not know; update pixelscope.")
    return SYSTEMS[name]
