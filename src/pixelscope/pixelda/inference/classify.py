"""Classify any number of images into a table; importing this imports no torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelscope.errors import InputError
from pixelscope.inference.files import InputFile, require_files
from pixelscope.inference.pipeline import ERROR, LEAST, BatchResult, Steps, decode_rgb, run_pipeline
from pixelscope.inference.table import Row, open_table
from pixelscope.pixelda.inference.model import Bytes, ClassifierModel, load_classifier
from pixelscope.pixelda.results import Choose
from pixelscope.runs.progress import ProgressCallback

COLUMNS = ("name", "label", "probability", "runner_up", "runner_up_probability")
BASELINE = ("baseline_label", "baseline_probability")


def classify(
    model: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    baseline: Path | None = None,
    checkpoint: str = "auto",
    choose: Choose = "adapted",
    devices: int | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> BatchResult:
    """Write one row per image: name, label, probability, runner-up and its probability, and an error if it is unreadable.

    Args:
        model: a finished run of PixelDA or its baseline, or a file that `export` made of one, which needs no torch.
        paths: image files, and folders of them at any depth, in the order of the rows.
        out: file ending in .csv or .jsonl, which must not exist; or `-` for JSON lines on standard output.
        baseline: another run or exported file, whose predictions are added.
        checkpoint: which weights of a run; see `evaluate`. An unfinished run is used only if one is named.
        choose: for a run of PixelDA: the adapted classifier, or with `auto` the one that is likely more accurate on the
            target. The notes of the result say which classifier of a run was used.
        devices: number of GPUs, by default one; without a GPU of threads, by default one for each core.
        resume: continue an unfinished table.
        progress: called with the rows done and all rows.

    Raises:
        InputError: model, paths or out cannot be used, or the disk is full.
        Interrupted: Ctrl-C; existing rows are kept.

    Example:
        >>> pixelscope.pixelda.classify(Path("classifier.onnx"), [Path("my/unlabelled")], Path("labels.csv"))
    """
    require_files(paths)
    answering = [load_classifier(model, checkpoint, devices, choose)]
    answering += [load_classifier(baseline, devices=devices)] if baseline is not None else []
    for one in answering:
        one.prepare()
    identity = dict(answering[0].identity)
    if baseline is not None:
        _require_alike(model, baseline, answering)
        identity |= {f"baseline_{name}": value for name, value in answering[1].identity.items()}
    table = open_table(out, [*COLUMNS, *(BASELINE if baseline else ()), ERROR], identity, resume)

    first, ranges = answering[0], tuple(dict.fromkeys(one.value_range for one in answering))

    def compute(_: Sequence[InputFile], images: Sequence[tuple[Bytes, ...]]) -> Sequence[Row]:
        # A last batch may be small, and a resumed table may end in another one: padded, its rows have the same digits.
        padded = [*images, *[images[-1]] * (LEAST - len(images))]
        read = dict(zip(ranges, map(np.stack, zip(*padded, strict=True)), strict=True))
        return _rows([one(read[one.value_range])[: len(images)] for one in answering], list(first.classes))

    values = first.value_range
    stages = Steps(
        lambda item: tuple(decode_rgb(item, first.size, one) for one in ranges), compute, first.devices, value_range=values
    )
    written = run_pipeline(table, paths, stages, progress)
    return replace(written, notes=(f"classified by {first.choice}", *written.notes)) if first.choice else written


def _require_alike(model: Path, baseline: Path, answering: Sequence[ClassifierModel]) -> None:
    if answering[0].classes != answering[1].classes:
        raise InputError(f"{model} and {baseline} have different classes; give a baseline with the same ones.")
    if answering[0].size != answering[1].size:
        raise InputError(f"{model} and {baseline} have different image sizes; give two of one size.")


def _rows(found: Sequence[np.ndarray], classes: list[str]) -> list[Row]:
    order = np.argsort(-found[0], axis=1, kind="stable")
    rows: list[Row] = []
    for position, (first, *others) in enumerate(order[:, :2].tolist()):
        probabilities = found[0][position]
        row: dict[str, str | float | bool | None] = {"label": classes[first], "probability": float(probabilities[first])}
        for second in others:
            row |= {"runner_up": classes[second], "runner_up_probability": float(probabilities[second])}
        if len(found) > 1:
            best = int(found[1][position].argmax())
            row |= {"baseline_label": classes[best], "baseline_probability": float(found[1][position][best])}
        rows.append(row)
    return rows
