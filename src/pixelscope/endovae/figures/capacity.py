"""Where the parameters of the two networks are."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.figures.looks import filled, hatched
from pixelscope.report.plotting import GREEN, ORANGE, padded_figure, short_count, styled

KINDS = {"Conv2d": "conv", "ConvTranspose2d": "transposed conv", "Linear": "dense"}
NAMES = {"mean": "dense, mean", "log_variance": "dense, log variance"}


class LayerSize(NamedTuple):
    """A layer with parameters."""

    network: str
    name: str
    """What it is and its output."""
    parameters: int


def layer_sizes(config: EndoVAEConfig) -> list[LayerSize]:
    """Return the layers with parameters of encoder and decoder, in order."""
    import torch

    from pixelscope.endovae.task import build_networks
    from pixelscope.engine.cost import Layer, describe_network

    def name(layer: Layer) -> str:
        kind = NAMES.get(layer.name, KINDS.get(layer.kind, layer.kind))
        return f"{kind}: {' × '.join(f'{length:,}' for length in layer.output)}"

    encoder, decoder = build_networks(config)
    image = torch.zeros(1, 3, config.prepare.size, config.prepare.size)
    parts = (("encoder", encoder, image), ("decoder", decoder, torch.zeros(1, config.model.latent)))
    return [
        LayerSize(network, name(layer), layer.parameters)
        for network, module, given in parts
        for layer in describe_network(network, module, (given,)).layers
        if layer.parameters
    ]


@styled
def layer_bars(layers: Sequence[LayerSize]) -> Figure | None:
    """Draw the parameters of each layer, with their number and their share of all."""
    if not layers:
        return None
    figure = padded_figure(880, 90 + 25 * len(layers))
    axes = figure.add_subplot()
    total = sum(layer.parameters for layer in layers)
    looks = {"encoder": filled(GREEN), "decoder": hatched(ORANGE)}
    for network, look in looks.items():
        rows = [row for row, layer in enumerate(layers) if layer.network == network]
        axes.barh(rows, [layers[row].parameters for row in rows], 0.7, label=network, **look)
    for row, layer in enumerate(layers):
        words = f"{layer.parameters:,} ({_share(layer.parameters / total)})"
        axes.annotate(words, (layer.parameters, row), (6, 0), textcoords="offset points", va="center", fontsize=10.5)
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, 1.28 * max(layer.parameters for layer in layers))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("parameters")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"
