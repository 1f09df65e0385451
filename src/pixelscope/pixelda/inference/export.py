"""A classifier as a file for other programs, and for `classify` without torch; importing this imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixelscope.data import load
from pixelscope.data.disk_array import Pixels
from pixelscope.data.imageset import ImageSet
from pixelscope.exports.bundle import Delivered, Format, deliver, require_new
from pixelscope.exports.metadata import About
from pixelscope.exports.model_card import Card, Port
from pixelscope.exports.onnx_runtime import sealed
from pixelscope.exports.parity import COMPARED, Parity, compare
from pixelscope.pixelda.domains import load_domains, load_own, lying
from pixelscope.pixelda.inference.model import PROBABILITIES, load_exported, open_run, torch_classifier
from pixelscope.pixelda.refinement.results import RefinementResult
from pixelscope.pixelda.refinement.settings import SYSTEM as REFINED
from pixelscope.pixelda.results import Evaluation, SetResult
from pixelscope.runs.folder import versions
from pixelscope.runs.record import parse_record

if TYPE_CHECKING:
    from torch import nn

    from pixelscope.pixelda.checkpoints import Checkpoint

OUTPUTS = ("logits", PROBABILITIES)
MEAN = SCALE = 127.5
NOTE = "For research only."
SYSTEMS = {
    "pixelda": "PixelDA (Bousmalis et al., CVPR 2017)",
    "baseline": "the classifier of PixelDA on the source alone",
    "refined": "PixelDA, then a classifier trained on its generated images and on target images that a network labelled",
}
BATCH = 250


def export_classifier(
    run: Path,
    out: Path,
    form: Format,
    *,
    images: str | None = None,
    rule: str = "auto",
    choose: Literal["adapted", "auto"] = "adapted",
    data_root: Path | None = None,
) -> Delivered:
    """Write T of a finished run to `out`, with its card beside it, once it agrees with the run on real images.

    images: a source of images to compare on; by default the run's own target, or a baseline's own source.
    Raises InputError as `pixelscope.export` says.
    """
    require_new(out, form)
    opened = open_run(run, rule)
    if choose == "auto":
        from pixelscope.pixelda.checkpoints import likely_better

        opened = likely_better(opened)
    shown, compared_on = _some(opened, images, data_root)

    def agreement(path: Path) -> Parity:
        starts = range(0, len(shown), BATCH)
        models = torch_classifier(opened), load_exported(path)
        found = [[model(shown[start : start + BATCH]) for start in starts] for model in models]
        return compare(*({PROBABILITIES: np.concatenate(parts)} for parts in found))

    files, parity = deliver(
        out, lambda path: _write(path, opened, form), agreement, lambda parity: _card(opened, out, form, parity, compared_on)
    )
    return Delivered(files, form, opened.rule, parity, compared_on, NOTE)


def _write(path: Path, opened: "Checkpoint", form: Format) -> None:
    from pixelscope.exports.onnx_graph import whole_graph
    from pixelscope.exports.weights import write_weights
    from pixelscope.pixelda.inference.torch_model import Probabilities, named_tensors

    about = _about(opened)
    if form == "safetensors":
        write_weights(path, named_tensors(opened), about)
        return
    network, framing = Probabilities(opened.classifier), opened.config.data.framed
    path.write_bytes(sealed(whole_graph(network, opened.size, OUTPUTS, MEAN, SCALE, framing), about))


def _about(opened: "Checkpoint") -> About:
    return About(
        system="pixelda",
        config=dict(opened.settings),
        rule=opened.rule,
        images=opened.images,
        fingerprint=torch_classifier(opened).identity["model"],
        classes=opened.classes,
        size=opened.size,
        mean=MEAN,
        scale=SCALE,
        versions=versions(),
    )


def _some(opened: "Checkpoint", images: str | None, data_root: Path | None) -> tuple[np.ndarray, str]:
    """Return uint8 images (N, S, S, 3) to compare on, and which they are."""
    if images is not None:
        given: ImageSet = load(images, size=opened.size, data_root=data_root, value_range=opened.config.data.input_values)
        return _first(given.images), given.provenance.title
    domains = load_own(opened.run, data_root)
    if domains.framing is not None:
        # The model frames what it is given, so it is given what was not framed yet.
        plain = opened.config.data.model_copy(update={"framing": "none", "target_framing": None})
        found = lying(opened.run, data_root)
        domains = load_domains(found.model_copy(update={"data": plain}), data_root, training=False)
    test = (domains.target or domains.source).test
    return _first(test.images), f"{test.provenance.title}, test split of the run"


def _first(images: Pixels) -> np.ndarray:
    from pixelscope.pixelda.forward import pixels

    return pixels(images[:COMPARED])


def _card(opened: "Checkpoint", out: Path, form: Format, parity: Parity, compared_on: str) -> Card:
    from pixelscope.pixelda.refinement.checkpoints import describe_classifier

    record = parse_record(opened.record, opened.folder)
    adapted = opened.system != "baseline"
    size, classes = opened.size, len(opened.classes)
    source, target = (record.data[role].title if role in record.data else "" for role in ("source", "target"))
    what = f"adapted from {source} to {target}" if adapted else f"trained on {source} alone"
    target_labels = "No label of the target domain was used in training or in the choice of the weights. " if adapted else ""
    return Card(
        title=f"Classifier {what}",
        file=out.name,
        format=form,
        intended_use=f"Research on unsupervised domain adaptation: tells {', '.join(opened.classes)} apart.",
        not_for="decisions about people or their health, and images of other domains than those it was trained on.",
        data=record.data,
        protocol={
            "System": SYSTEMS[opened.system],
            "Classifier": f"{describe_classifier(opened.settings)}, {_parameters(opened.classifier):,} parameters",
            "Trained on": f"{opened.images:,} images in batches of {opened.batch_size}",
            "Checkpoint rule": opened.rule,
            "Seed": str(opened.seed),
            "Labels": f"{target_labels}Labels of the source are its class folders or label file.",
        },
        results=_results(opened),
        results_note="Accuracy with its standard error, by `pixelscope pixelda evaluate`.",
        inputs=_inputs(form, size),
        outputs=_outputs(form, classes),
        limits=(
            "It answers with one of its classes whatever it is shown, and its probabilities were not calibrated.",
            f"Images are cut to the square in their middle and brought to {size} x {size} pixels; the rest is not seen.",
            *_framed(opened, form),
        ),
        parity=f"Probabilities of {parity.images:,} images ({compared_on}) differ from the run's by at most "
        f"{parity.largest:.2g}.",
        versions=_versions(form),
    )


def _parameters(network: "nn.Module") -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _framed(opened: "Checkpoint", form: Format) -> list[str]:
    """Return what a card says of images that are scaled and placed before the classifier sees them."""
    framing = opened.config.data.framed
    if framing is None:
        return []
    whose = (
        "the model does it" if form == "onnx" else "`pixelscope pixelda classify` does it, another program has to do it itself"
    )
    return [f"They are then {framing.describe(opened.size)}, on the colour {framing.fill}; {whose}."]


def _results(opened: "Checkpoint") -> list[Mapping[str, str]]:
    """Return the rows of accuracies that were measured on the weights of a card."""
    path = opened.folder.evaluation
    if not path.is_file():
        return []
    if opened.rule == "start":
        found = RefinementResult.load(path)
        return [_result(found.sets[name], accuracy) for name, accuracy in found.before.items()]
    found = (RefinementResult if opened.system == REFINED else Evaluation).load(path)
    if (found.images, found.rule) != (opened.images, opened.rule):
        return []
    if opened.system == "baseline" and isinstance(found, Evaluation) and found.source_only:
        return [_result(found.sets[name], accuracy) for name, accuracy in found.source_only.items()]
    return [_result(one, one.accuracy) for one in found.sets.values()]


def _result(one: SetResult, accuracy: float) -> Mapping[str, str]:
    error = (accuracy * (1 - accuracy) / one.count) ** 0.5
    return {"images": one.title, "count": f"{one.count:,}", "accuracy": f"{accuracy:.2%} ± {error:.2%}"}


def _inputs(form: Format, size: int) -> list[Port]:
    if form == "onnx":
        return [
            Port("images", "uint8", "(N, H, W, 3), any N, H and W", "0 to 255", "RGB; grey is repeated in all three channels")
        ]
    return [Port("images", "float32", f"(N, 3, {size}, {size})", "-1 to 1", "RGB; (byte - 127.5) / 127.5")]


def _outputs(form: Format, classes: int) -> list[Port]:
    logits = Port("logits", "float32", f"(N, {classes})", "real numbers", "one a class, in the order of the classes")
    return (
        [logits, Port(PROBABILITIES, "float32", f"(N, {classes})", "0 to 1", "their softmax")] if form == "onnx" else [logits]
    )


def _versions(form: Format) -> dict[str, Any]:
    return versions() | (versions(("onnx", "onnxscript", "onnxruntime")) if form == "onnx" else {})
