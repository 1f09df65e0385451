"""The weights of a run, as each rule of choosing a checkpoint finds them; none looks at the held-out frames."""

from dataclasses import dataclass

from torch import Tensor, nn

from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.networks import Decoder, Encoder
from pixelscope.endovae.task import build_networks
from pixelscope.engine import checkpoint
from pixelscope.errors import InputError
from pixelscope.runs.folder import RunFolder

RULES = ("best-validation", "last", "ema-last")


@dataclass(frozen=True)
class Weights:
    """Encoder and decoder as they were after `images` images; in evaluation mode, on the CPU."""

    images: int
    encoder: Encoder
    decoder: Decoder


def available_weights(folder: RunFolder, config: EndoVAEConfig) -> dict[str, Weights]:
    """Return the weights that each rule chooses, rules that this run does not support left out.

    best-validation: those (their moving averages, where kept) of the lowest validation loss, the report's rule;
    last: the newest checkpoint's own weights; ema-last: its moving averages.
    """
    found: dict[str, Weights] = {}
    best = folder.checkpoints / "best.safetensors"
    if best.is_file():
        tensors, header = checkpoint.load(best)
        found["best-validation"] = _weights(tensors, _kind(tensors), config, header.progress.images)
    files = folder.checkpoint_files()
    if files:
        tensors, header = checkpoint.load(files[-1])
        found["last"] = _weights(tensors, "network", config, header.progress.images)
        if _kind(tensors) == "average":
            found["ema-last"] = _weights(tensors, "average", config, header.progress.images)
    if not found:
        raise InputError(f"{folder.path} has no checkpoint yet; let the training reach its first one.")
    return found


def choose(folder: RunFolder, config: EndoVAEConfig, rule: str = "auto") -> tuple[str, Weights]:
    """Return the weights of one rule, and its name; `auto` is best-validation, else last.

    Raises InputError for a rule that this run does not support.
    """
    available = available_weights(folder, config)
    name = next(iter(available)) if rule == "auto" else rule
    if name not in available:
        raise InputError(f"{folder.path} has no checkpoint by the rule {rule!r}; choose one of {', '.join(available)}.")
    return name, available[name]


def _kind(tensors: dict[str, Tensor]) -> str:
    return "average" if "average.decoder.dense.weight" in tensors else "network"


def _weights(tensors: dict[str, Tensor], kind: str, config: EndoVAEConfig, images: int) -> Weights:
    encoder, decoder = build_networks(config)
    for name, network in (("encoder", encoder), ("decoder", decoder)):
        prefix = f"{kind}.{name}."
        _load(network, {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
    return Weights(images, encoder, decoder)


def _load(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            "The checkpoint holds other networks than the run's config.yaml describes; restore that file."
        ) from None
    network.eval().requires_grad_(False)
