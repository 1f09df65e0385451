"""The commands of `pixelscope summary`."""

from cyclopts import App

import pixelscope
from pixelscope.cli.endovae import EndoVAESettings, EndoVAESources
from pixelscope.cli.options import Json, resolve_config
from pixelscope.cli.pixelda import BaselineSettings, PixelDASettings, PixelDASources
from pixelscope.cli.streams import show
from pixelscope.endovae import EndoVAEConfig
from pixelscope.pixelda import BaselineConfig, PixelDAConfig

app = App(name="summary")


@app.command
def pixelda(
    *,
    json: Json = False,
    sources: PixelDASources = PixelDASources(),
    settings: PixelDASettings = PixelDAConfig(),
) -> None:
    """Print the layers, output shapes and parameters of generator, discriminator and classifier."""
    show(pixelscope.pixelda.summarize("pixelda", resolve_config(settings, "pixelda", sources)), json)


@app.command
def baseline(
    *,
    json: Json = False,
    sources: PixelDASources = PixelDASources(),
    settings: BaselineSettings = BaselineConfig(),
) -> None:
    """Print the layers, output shapes and parameters of the baseline's classifier."""
    show(pixelscope.pixelda.summarize("baseline", resolve_config(settings, "baseline", sources)), json)


@app.command
def endovae(
    *,
    json: Json = False,
    sources: EndoVAESources = EndoVAESources(),
    settings: EndoVAESettings = EndoVAEConfig(),
) -> None:
    """Print the layers, output shapes and parameters of encoder and decoder."""
    show(pixelscope.endovae.summarize(resolve_config(settings, "endovae", sources)), json)
