"""Export a classifier for other programs, and for `classify` without torch; importing this imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelscope.data import load
from pixelscope.data.disk_array import sampled
from pixelscope.exports.bundle import MAX_COMPARED, ExportResult, Format, Parity, compare, require_new_export, write_bundle
from pixelscope.exports.metadata import Metadata, ModelCard, TensorSpec
from pixelscope.pixelda.inference.model import PROBABILITIES, ClassifierModel, TorchClassifier, load_classifier
from pixelscope.pixelda.refinement.results import RefinementResult
from pixelscope.pixelda.results import Choose, Evaluation, SetResult, chosen_by_labels, standard_error
from pixelscope.runs.folder import versions
from pixelscope.runs.record import RunRecord, parse_record

if TYPE_CHECKING:
    from pixelscope.pixelda.checkpoints import Checkpoint

MEAN = SCALE = 127.5
NOTE = "For research only."
SYSTEMS = {
    "pixelda": "PixelDA (Bousmalis et al., CVPR 2017)",
    "baseline": "the classifier of PixelDA on the source alone",
    "refined": "PixelDA, then a classifier trained on its generated images and on pseudo-labelled target images",
}
BATCH = 250


def export_classifier(
    run: Path,
    out: Path,
    form: Format,
    *,
    images: str | None = None,
    checkpoint: str = "auto",
    choose: Choose = "adapted",
    data_root: Path | None = None,
) -> ExportResult:
    """Write the classifier of a finished run to `out`, with a model card, if its outputs agree with the run's.

    images: images to compare on; by default the test split of the run's target, or of a baseline's source. Raises InputError
    as `pixelscope.export` does.
    """
    from pixelscope.pixelda.checkpoints import choose_classifier, load_checkpoint

    require_new_export(out, form)
    loaded = choose_classifier(load_checkpoint(run, checkpoint), choose)
    classifier = TorchClassifier.from_checkpoint(loaded)
    shown, compared_on = _images(loaded, images, data_root)
    about = _about(loaded, classifier.identity["model"])

    def agreement(path: Path) -> Parity:
        return compare(*({PROBABILITIES: _answers(model, shown)} for model in (classifier, load_classifier(path))))

    def card(parity: Parity) -> ModelCard:
        return _card(loaded, out.name, form, f"{parity.images:,} images ({compared_on})", parity.largest)

    files, parity = write_bundle(out, lambda path: _write(path, form, loaded, about), agreement, card)
    return ExportResult(files, form, loaded.name, parity, compared_on, NOTE, loaded.describe_choice())


def _images(checkpoint: "Checkpoint", images: str | None, data_root: Path | None) -> tuple[np.ndarray, str]:
    """Return uint8 images (N, S, S, 3) to compare on, and a description of them."""
    from pixelscope.pixelda.data import load_unframed_test
    from pixelscope.pixelda.forward import pixels

    if images is None:
        test = load_unframed_test(checkpoint.run, data_root)
        return pixels(test.images[:MAX_COMPARED]), f"{test.provenance.title}, test split of the run"
    found = load(images, size=checkpoint.size, data_root=data_root, value_range=checkpoint.config.data.input_values)
    return pixels(sampled(found.images, MAX_COMPARED)), found.provenance.title


def _answers(model: ClassifierModel, images: np.ndarray) -> np.ndarray:
    return np.concatenate([model(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def _about(checkpoint: "Checkpoint", sha256: str) -> Metadata:
    return Metadata(
        system="pixelda",
        config=dict(checkpoint.settings),
        checkpoint=checkpoint.name,
        images=checkpoint.images,
        weights_sha256=sha256,
        classes=checkpoint.classes,
        size=checkpoint.size,
        mean=MEAN,
        scale=SCALE,
        versions=versions(),
    )


def _write(path: Path, form: Format, checkpoint: "Checkpoint", about: Metadata) -> None:
    from pixelscope.exports.onnx_graph import build_graph
    from pixelscope.exports.onnx_runtime import with_checksum
    from pixelscope.exports.weights import write_weights
    from pixelscope.pixelda.inference.torch_model import ClassifierGraph, exported_tensors

    if form == "safetensors":
        write_weights(path, exported_tensors(checkpoint), about)
        return
    core, framing = ClassifierGraph(checkpoint.classifier), checkpoint.config.data.framed
    path.write_bytes(with_checksum(build_graph(core, about.size, core.OUTPUTS, MEAN, SCALE, framing), about))


def _card(checkpoint: "Checkpoint", file: str, form: Format, compared: str, largest: float) -> ModelCard:
    record = parse_record(checkpoint.record, checkpoint.folder.record)
    adapted, classes, size = checkpoint.system != "baseline", checkpoint.classes, checkpoint.size
    source, target = (record.data[role].title if role in record.data else "" for role in ("source", "target"))
    target_labels = _target_labels(record) if adapted else ""
    return ModelCard(
        title=_title(checkpoint, source, target),
        file=file,
        format=form,
        intended_use=f"Research on unsupervised domain adaptation: classification of {', '.join(classes)}.",
        not_for="decisions about people or their health, and images of other domains than those it was trained on.",
        data=record.data,
        protocol={
            "System": SYSTEMS[checkpoint.system],
            "Chosen": checkpoint.describe_choice(),
            "Classifier": checkpoint.describe_classifier(),
            "Trained on": f"{checkpoint.images:,} images in batches of {checkpoint.batch_size}",
            "Checkpoint": checkpoint.name,
            "Seed": str(checkpoint.seed),
            "Labels": f"{target_labels}Labels of the source are its class folders or label file.",
        },
        results=_results(checkpoint),
        results_note="Accuracy with its standard error, by `pixelscope pixelda evaluate`.",
        inputs=[_input(form, size)],
        outputs=_outputs(form, len(classes)),
        limits=(
            "It assigns one of its classes to any image, and its probabilities are not calibrated.",
            f"Images are cropped to their centre square and resized to {size} x {size} pixels.",
            *_framed(checkpoint, form),
            "Large JPEG files are decoded at reduced size, as in training; in memory, probabilities may differ slightly.",
        ),
        parity=f"Probabilities of {compared} differ from the run's by at most {largest:.2g}.",
        versions=versions() | (versions(("onnx", "onnxscript", "onnxruntime")) if form == "onnx" else {}),
    )


def _target_labels(record: RunRecord) -> str:
    """Return the model card's sentence on what labels of the target were used for."""
    if "target" in record.data and chosen_by_labels(record.data["target"].notes):
        return "Labels of the target domain only left out images of classes that the source lacks; they chose no weights. "
    return "No label of the target domain was used in training or in the choice of the weights. "


def _title(checkpoint: "Checkpoint", source: str, target: str) -> str:
    if checkpoint.system == "baseline":
        title = f"Classifier trained on {source} alone"
    else:
        title = f"Classifier adapted from {source} to {target}"
    rejected = checkpoint.name == "start"
    return title + (", not refined" if rejected else ", refined" if checkpoint.system == "refined" else "")


def _framed(checkpoint: "Checkpoint", form: Format) -> list[str]:
    """Return the model card's sentence on framing; empty if images are not scaled and shifted."""
    framing = checkpoint.config.data.framed
    if framing is None:
        return []
    whose = (
        "the model does it" if form == "onnx" else "`pixelscope pixelda classify` does it, other programs must do it themselves"
    )
    return [f"They are then {framing.describe(checkpoint.size)}, on the colour {framing.fill}; {whose}."]


def _results(checkpoint: "Checkpoint") -> list[Mapping[str, str]]:
    """Return the accuracies measured with these weights, one row per set."""
    path = checkpoint.folder.evaluation
    if not path.is_file():
        return []
    refined = checkpoint.folder.path != checkpoint.run.folder.path
    found = (RefinementResult if refined else Evaluation).load(path)
    measured = {name: one.accuracy for name, one in found.sets.items()}
    of_pair = {"start": "before", "mean": "mean"}.get(checkpoint.name)
    if of_pair is not None and isinstance(found, RefinementResult):
        measured = getattr(found, of_pair)
    elif (found.images, found.checkpoint) != (checkpoint.images, checkpoint.name):
        return []
    elif checkpoint.system == "baseline" and isinstance(found, Evaluation) and found.source_only:
        measured = found.source_only
    return [_result(found.sets[name], accuracy) for name, accuracy in measured.items()]


def _result(one: SetResult, accuracy: float) -> Mapping[str, str]:
    error = standard_error(accuracy, one.count)
    return {"images": one.title, "count": f"{one.count:,}", "accuracy": f"{accuracy:.2%} ± {error:.2%}"}


def _input(form: Format, size: int) -> TensorSpec:
    if form == "onnx":
        return TensorSpec(
            "images", "uint8", "(N, H, W, 3), any N, H and W", "0 to 255", "RGB; grey is repeated in all three channels"
        )
    return TensorSpec("images", "float32", f"(N, 3, {size}, {size})", "-1 to 1", "RGB; (byte - 127.5) / 127.5")


def _outputs(form: Format, classes: int) -> list[TensorSpec]:
    logits = TensorSpec("logits", "float32", f"(N, {classes})", "real numbers", "one per class, in the order of the classes")
    softmax = TensorSpec(PROBABILITIES, "float32", f"(N, {classes})", "0 to 1", "their softmax")
    return [logits, softmax] if form == "onnx" else [logits]
