"""The weights of a run, as each rule of choosing a checkpoint finds them; no rule here looks at target labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.pixelda.baseline import build_classifier
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.networks import Generator, TaskNetwork
from pixelscope.pixelda.task import build_networks
from pixelscope.runs.folder import RunFolder

RULES = ("last", "ema-last", "best-source")


@dataclass(frozen=True)
class Weights:
    """A classifier, and for PixelDA a generator, as they were after `images` images; in evaluation mode, on the CPU."""

    images: int
    classifier: TaskNetwork
    generator: Generator | None
    judge: TaskNetwork | None = None
    """T of the source alone, trained beside; None where the run has none."""


def available_weights(folder: RunFolder, config: BaselineConfig, classes: tuple[str, ...]) -> dict[str, Weights]:
    """Return the weights that each rule chooses, rules that this run does not support left out.

    last: the newest checkpoint's own weights; ema-last: its moving averages; best-source: the averages (the weights
    where none are kept) that were best on the source's validation images.
    """
    files = folder.checkpoint_files()
    if not files:
        raise InputError(f"{folder.path} has no checkpoint yet; let the training reach its first one.")
    newest, header = checkpoint.load(files[-1])
    found = {"last": _weights(newest, "network", config, len(classes), header.progress.images)}
    if "average.classifier.conv1.weight" in newest:
        found["ema-last"] = _weights(newest, "average", config, len(classes), header.progress.images)
    best = folder.checkpoints / "best.safetensors"
    if best.is_file():
        tensors, header = checkpoint.load(best)
        kind = "average" if "average.classifier.conv1.weight" in tensors else "network"
        found["best-source"] = _weights(tensors, kind, config, len(classes), header.progress.images)
    return found


def stored_classifiers(
    folder: RunFolder, config: BaselineConfig, classes: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, TaskNetwork]]]:
    """Yield (images, {"last": T, "ema": its average}) for every classifier stored along the way, oldest first."""
    newest = folder.checkpoint_files()[-1]
    _, header = checkpoint.load(newest)
    for path in sorted(folder.classifiers.glob("*.safetensors")):
        if int(path.stem) <= header.progress.images:
            yield int(path.stem), _read_classifiers(path, config, len(classes))


def _read_classifiers(path: Path, config: BaselineConfig, classes: int) -> dict[str, TaskNetwork]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it to evaluate without it.") from None
    found = {}
    for which in ("last", "ema"):
        own = {name.removeprefix(f"{which}."): tensor for name, tensor in tensors.items() if name.startswith(f"{which}.")}
        if own:
            found[which], _ = _networks(config, classes)
            found[which].load_state_dict(own)
            found[which].eval()
    return found


def _weights(tensors: dict[str, Tensor], kind: str, config: BaselineConfig, classes: int, images: int) -> Weights:
    classifier, generator = _networks(config, classes)
    judge = build_classifier(config, classes) if isinstance(config, PixelDAConfig) and config.has_judge else None
    for name, network in (("classifier", classifier), ("generator", generator), ("judge", judge)):
        if network is not None:
            _load(network, {k: v for k, v in tensors.items() if k.startswith(f"{kind}.{name}.")}, f"{kind}.{name}.")
    return Weights(images, classifier, generator, judge)


def _load(network: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    try:
        network.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    except RuntimeError:
        raise InputError(
            "The checkpoint holds other networks than the run's config.yaml describes; restore that file."
        ) from None
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _networks(config: BaselineConfig, classes: int) -> tuple[TaskNetwork, Generator | None]:
    if isinstance(config, PixelDAConfig):
        generator, _, classifier = build_networks(config, classes)
        return classifier, generator
    return build_classifier(config, classes), None
