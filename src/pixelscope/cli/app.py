"""The command `pixelscope`; a group's module is imported when one of its commands runs or prints its help."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import pixelscope
from pixelscope.cli.options import Choose, DataRoot, Json, Runs
from pixelscope.cli.streams import show
from pixelscope.errors import require_extra

app = App(
    name="pixelscope",
    help="Learn from images that nobody labelled.",
    version=lambda: version("pixelscope"),
    help_format="markdown",
    # A list is emptied by leaving its option out; --empty-NAME would be a second way.
    default_parameter=Parameter(negative_iterable=()),
    # main() answers Ctrl-C: it knows how to resume.
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Install tab completion for this shell (bash, zsh or fish).")


for name, help_text in (
    ("pixelda", "Adapt a classifier from labelled images of one domain to unlabelled images of another."),
    ("endovae", "Train on healthy endoscopy frames, then reconstruct, generate and score frames. For research only."),
    ("data", "Inspect, pack and make image data."),
    ("summary", "Print the layers, output shapes and parameters of a system's networks."),
):
    app.command(f"pixelscope.cli.{name}:app", name=name, help=help_text)


@app.command
def demo(*, runs: Runs = Path("runs"), seed: int = 0) -> None:
    """Train both systems on packaged images, print their results and write one report.

    Takes a few minutes on two CPU cores and downloads nothing. Needs the extra: pip install "pixelscope[demo]".

    Args:
        seed: Seed of weights, data order and every random draw.
    """
    require_extra("demo")
    print(pixelscope.run_demo(runs=runs, seed=seed).to_text())


@app.command
def report(run: Path, /, *, out: Path | None = None) -> None:
    """Write the report of a run, report.html in its folder, and print its path.

    Args:
        run: Run folder.
        out: Page to write instead, ending in .html or .htm, for example while the run is being trained.
    """
    print(pixelscope.report(run, out))


@app.command
def export(
    run: Path,
    /,
    *,
    out: Path,
    format: Literal["onnx", "safetensors"] = "onnx",
    images: str | None = None,
    checkpoint: Literal["auto", "last", "ema-last", "best-source", "best-validation"] = "auto",
    choose: Choose = "adapted",
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Export a run's model, or a detector, to one file for other programs, with a model card.

    `classify` and `score` read the file, too. For example: `pixelscope export runs/00001-pixelda --out digits.onnx`

    Args:
        run: Finished run folder, a run of EndoVAE evaluated; or a folder or file made by `endovae detect`.
        out: File to write, ending in .onnx or .safetensors, with the model card next to it as OUT.card.md and OUT.card.json;
            or a folder to make, without a suffix, of model.onnx or model.safetensors, README.md (the model card with a YAML
            header) and LICENSE. It must not exist.
        format: onnx: a graph from uint8 RGB images of any size, for onnxruntime. safetensors: the weights only.
        images: Images, or a store or folder of frames, on which file and run are compared; by default the run's own, and for
            a detector synthetic frames.
        checkpoint: Weights to export; `auto` takes the default of a finished run.
    """
    show(
        pixelscope.export(run, out, form=format, images=images, checkpoint=checkpoint, choose=choose, data_root=data_root), json
    )


@app.command
def serve(
    *runs: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_host: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    root_path: str = "",
    data: Path | None = None,
) -> None:
    """Serve runs in the browser: watch a training, draw a digit, explore a latent space, score a frame.

    For example: `pixelscope serve runs`

    Args:
        runs: Folders of runs and of detectors, or folders of them; by default `runs`.
        host: Address to listen on. 0.0.0.0 opens the app to the network, without a password.
        port: Port to listen on; 0 takes a free one.
        allowed_host: Further host name to answer to, for example of a proxy; may be repeated.
        root_path: Prefix that a proxy adds to every path, for example /pixelscope.
        data: Folder; the frames in any folder below it can be scored in the browser.
    """
    places = list(runs) or [Path("runs")]
    pixelscope.serve_runs(places, host=host, port=port, allowed_hosts=allowed_host, root_path=root_path, data=data)
