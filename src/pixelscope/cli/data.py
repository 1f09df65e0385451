"""The commands of `pixelscope data`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import pixelscope
from pixelscope import RenderConfig
from pixelscope.cli.options import DataRoot, Json, Strict
from pixelscope.cli.streams import show
from pixelscope.errors import plural
from pixelscope.pixelda import BaselineConfig

app = App(name="data")


@app.command
def info(
    source: str,
    target: str | None = None,
    /,
    *,
    json: Json = False,
    sheet: Path | None = None,
    strict: Strict = False,
    data_root: DataRoot = None,
) -> None:
    """Describe a source of images: counts, classes, sizes, value range, licence; or compare two.

    Args:
        source: PATH, KIND:PATH, or a KIND alone: mnist, mnist-m, arrays, folder, pack, demo (demo:mnist, demo:mnist-m).
        target: Images that the source is to be adapted to; shows both side by side and lists likely problems.
        sheet: PNG file of sample images to write.
    """
    if target is None:
        description = pixelscope.describe_source(source, data_root=data_root, strict=strict)
    else:
        description = pixelscope.compare_sources(source, target, data_root=data_root, strict=strict)
    if sheet is not None:
        description.save_sheet(sheet)
    show(description, json)


@app.command(name="mnist-m")
def mnist_m(
    *,
    mnist: Path,
    photos: Path,
    out: Path,
    seed: int = 0,
    form: Literal["aligned", "distributed"] = "aligned",
    test_fraction: float | None = None,
) -> None:
    """Generate MNIST-M: each MNIST digit over a crop of a photo, inverted where the digit is above 0, in the order of MNIST.

    If the photos have a folder `train` next to others, training digits take their backgrounds from it and test digits from
    the others.

    Args:
        mnist: Folder of the four idx files of MNIST, plain or .gz.
        photos: Folder of photos, at any depth; the original used BSDS500.
        out: File to write, ending in .npz; it must not exist.
        seed: Seed of photos, crops and test split.
        form: aligned: 28 x 28 pixels, with a random test split. distributed: as originally distributed, the 28 x 28 mask
            centred in 32 x 32 pixels, with MNIST's own split of 60,000 and 10,000.
        test_fraction: Fraction of the digits in the test split of the form aligned; by default 0.2.
    """
    print(pixelscope.generate_mnist_m(mnist, photos, out, seed=seed, form=form, test_fraction=test_fraction))


@app.command
def render(
    *,
    pictograms: Path,
    photos: Path,
    out: Path,
    settings: Annotated[RenderConfig, Parameter(name="*", negative_iterable=())] = RenderConfig(),
    json: Json = False,
) -> None:
    """Render labelled images: pictograms over crops of photos, rotated, sheared, scaled, shifted, dimmed and blurred.

    For example: `pixelscope data render --pictograms signs/ --photos photos/ --out rendered/`

    Args:
        pictograms: Folder of drawings on a transparent background: CLASS.png, or CLASS/name.png for several per class.
        photos: Folder of background photos, at any depth.
        out: Folder to make, with PNG files in class folders and a record of the settings; it must not exist.
    """
    with pixelscope.ProgressBar("rendering") as progress:
        rendered = pixelscope.render_pictograms(pictograms, photos, out, settings, progress)
    show(rendered, json)


@app.command
def pages(source: Path, /, *, out: Path, json: Json = False) -> None:
    """Write every page of multi-page TIFF, GIF, WebP and PNG files as a separate file; other commands read the first page.

    Class folders stay, files of one page are copied, and lines of labels.csv are repeated for each page.

    Args:
        source: Image file, or a folder of images at any depth.
        out: Folder to make; it must not exist.
    """
    with pixelscope.ProgressBar("writing pages") as progress:
        written = pixelscope.write_pages(source, out, progress)
    show(written, json)


@app.command
def pack(
    source: str,
    /,
    *,
    out: Path,
    size: int = 32,
    strict: Strict = False,
    data_root: DataRoot = None,
    range: tuple[float, float] | None = None,
) -> None:
    """Write a source to disk as one array, so that trainings can read more images than fit into memory.

    Give this folder instead of the source, for example --source packed/photos.

    Args:
        source: PATH, KIND:PATH, or a KIND alone. A folder may hold any number of images.
        out: Folder to make; it must not exist.
        size: Side in pixels to which images are resized; trainings on the folder need the same --data.size.
        range: LOW HIGH: values mapped to black and white in images of more than 8 bits; by default estimated.
    """
    BaselineConfig.parse({"data": {"size": size}}, "--size")  # trainings accept no other size
    with pixelscope.ProgressBar("packing images") as progress:
        packed = pixelscope.pack(
            source, out, size=size, strict=strict, data_root=data_root, progress=progress, value_range=range
        )
    for note in packed.provenance.notes:
        print(note)
    print(f"{out}: {plural(len(packed), 'image')} of {size} x {size} pixels")
