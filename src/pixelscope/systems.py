"""Which system made a run folder: an explicit table, the only place that knows them all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pixelscope.endovae.figures import sections as endovae_sections
from pixelscope.engine.run import RunFolder
from pixelscope.errors import InputError
from pixelscope.exchange.delivery import Delivered, Format
from pixelscope.page import Section
from pixelscope.pixelda.ablation.search_sections import sections as search_sections
from pixelscope.pixelda.ablation.sections import sections as ablation_sections
from pixelscope.pixelda.figures import sections as pixelda_sections
from pixelscope.pixelda.refinement.sections import sections as refined_sections

SECTIONS: dict[str, Callable[[Path], list[Section]]] = {
    "pixelda": pixelda_sections,
    "baseline": pixelda_sections,
    "endovae": endovae_sections,
    "refined": refined_sections,
    "ablation": ablation_sections,
    "search": search_sections,
}


def export(
    run: Path,
    out: Path,
    *,
    form: Format = "onnx",
    images: str | None = None,
    rule: str = "auto",
    choose: Literal["adapted", "auto"] = "adapted",
    data_root: Path | None = None,
) -> Delivered:
    """Write the model of a finished run to one file that other programs read, with a model card beside it.

    `onnx` takes uint8 RGB images of any size, N at a time, and needs onnxruntime alone; `safetensors` holds the weights.
    Classes, settings, calibration and threshold are in the file's metadata. It is compared with the run on real images, and
    written only where no output differs by more than 1e-4.

    Args:
        run: a finished run of PixelDA, its baseline, a refinement or EndoVAE; the last one evaluated.
        out: the file, ending in .onnx or .safetensors; it must not exist.
        form: the format.
        images: a source of images, or a store or folder of frames, to compare on; by default the run's own.
        rule: which weights; see `evaluate`. A run that is not finished is exported only where one is named.
        choose: of a run of PixelDA, the adapted classifier, or with `auto` the one that likely reads the target better.
        data_root: where a source given as a KIND alone is looked for.

    Raises:
        InputError: run, out or images cannot be used, an extra is not installed, or file and run disagree.
    """
    system = _system(run)
    if system in ("ablation", "search"):
        raise InputError(f"{run} is a folder of several runs; export one of the runs in {run / 'cells'}.")
    if system == "endovae":
        if choose != "adapted":
            raise InputError(f"{run} is a run of EndoVAE, which has nothing to choose from; drop --choose.")
        from pixelscope.endovae.exporting import export_scorer

        return export_scorer(run, out, form, images=images, rule=rule)
    from pixelscope.pixelda.exporting import export_classifier

    return export_classifier(run, out, form, images=images, rule=rule, choose=choose, data_root=data_root)


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on `run`, made by its own system; raises InputError for an unknown one."""
    return SECTIONS[_system(run)](run)


def _system(run: Path) -> str:
    system: Any = RunFolder.open(run).read_record().get("system")
    if system not in SECTIONS:
        raise InputError(f"{run} is a run of {system!r}, which this version does not know; update pixelscope.")
    return system
