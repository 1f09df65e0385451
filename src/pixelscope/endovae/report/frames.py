"""The sections "Frames" and "Augmentation", and the same figures written next to a prepared frame store."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pixelscope.data.frames.preprocess import Stages
from pixelscope.data.frames.store import ClassSummary, FrameStore
from pixelscope.endovae.report.data import ReportData, listed
from pixelscope.endovae.report.plotting import LINE, MAX_MARGIN, NAME_SIZE, captioned, rows_gallery
from pixelscope.errors import plural
from pixelscope.files import atomic_file
from pixelscope.imaging.content_area import Box
from pixelscope.reports.document import CaptionedFigure, Row, Section, Table, present
from pixelscope.reports.plotting import DASHED, DOTTED, SOLID, WIDTH, Canvas, evenly_spaced, fitted, styled, text_width

CUT = 0.9
"""Fraction of the content area below which Otsu's rectangle counts as cutting into the image."""
MAX_ROWS = 6
"""Maximum number of frames in the figure of the stages."""
GAP = 10.0
MAX_ASPECT = 1.0
"""Maximum height of a cell, relative to its width."""
FINAL = 0.62
"""Width of the last stage's cell, relative to the others."""
OTSU_COLOUR, AREA_COLOUR = "#62f0a0", "#7cc4ff"
"""Bright and unlike tissue, because the lines lie on frames."""
HEADS = ("original", "grey", "Otsu's mask", "contour and content area")
DPI = 144
"""Resolution of image files, twice that of the layout."""


def frames_section(data: ReportData) -> Section:
    """Return what frames there are, and how they were prepared."""
    parts = present(_frames_table(data), _classes(data), _stages(data))
    return Section("Frames", "frames", parts=parts, notes=tuple(data.frames.notes) if data.frames else ())


def augmentation_section(data: ReportData) -> Section:
    """Return how training frames are augmented."""
    arrays = data.samples("augmentation")
    parts: tuple[CaptionedFigure, ...] = ()
    if arrays is not None:
        count, versions = arrays["versions"].shape[:2]
        caption = f"{plural(count, 'training frame')}, each above its {plural(versions - 1, 'augmented version')}."
        parts = (CaptionedFigure("augmentation", versions_gallery(arrays["versions"]), caption),)
    return Section("Augmentation", "augmentation", prose=(_augmentation(data),), parts=parts)


def draw_frames(store: FrameStore) -> list[Path]:
    """Write stages.png and samples.png into the folder of a store, unless they are there.

    Returns:
        The paths of those that exist; stages.png needs frames whose stages were kept.

    Example:
        >>> store = pixelscope.endovae.FrameStore.open(Path("stores/kvasir"))
        >>> pixelscope.endovae.draw_frames(store)
    """
    draws = {"stages.png": _draw_stages, "samples.png": _draw_samples}
    for name, draw in draws.items():
        _write(store, store.path / name, draw)
    return [path for path in (store.path / name for name in draws) if path.is_file()]


def _write(store: FrameStore, path: Path, draw: Callable[[FrameStore], Figure | None]) -> None:
    figure = None if path.is_file() else draw(store)
    if figure is not None:
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def _draw_stages(store: FrameStore) -> Figure | None:
    names = [store.classes[store.labels[one.position]] for one in store.figures]
    return stages_figure(list(zip(names, store.figures, strict=True)), store.settings.size)


def _draw_samples(store: FrameStore) -> Figure:
    # Imports torch, which a store that is drawn already does not need.
    from pixelscope.endovae.samples import sample_positions

    shown = sample_positions(store)
    return classes_gallery(store.frames[shown], store.labels[shown], list(store.classes))


@styled
def classes_gallery(frames: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw frames, uint8 (K, H, W, 3), one row per class; `labels`: int (K,), into `classes`."""
    shown = [label for label in range(len(classes)) if (labels == label).any()]
    return rows_gallery([(classes[label], frames[labels == label]) for label in shown])


@styled
def versions_gallery(versions: np.ndarray) -> Figure:
    """Draw frames above their augmented copies; `versions`: uint8 (K, 1 + copies, H, W, 3), the original first."""
    names = ["original", *(f"copy {number}" for number in range(1, versions.shape[1]))]
    return rows_gallery([(name, versions[:, row]) for row, name in enumerate(names)])


def _frames_table(data: ReportData) -> Table | None:
    if data.frames is None:
        return None
    rows = [*(_group(group) for group in data.frames.classes), *(_group(group, separate=True) for group in data.frames.kinds)]
    caption = f"Frames as prepared; content area by the method {data.frames.method!r}."
    return Table(caption, ("Class", "kind", "frames", "with an inset", "original sizes"), tuple(rows), numeric=False)


def _group(group: ClassSummary, separate: bool = False) -> Row:
    cells = (group.name, group.kind, f"{group.count:,}", group.insets_text() or "none", group.sizes_text())
    return Row(cells, separate)


def _classes(data: ReportData) -> CaptionedFigure | None:
    arrays = data.samples("frames")
    if arrays is None:
        return None
    classes = [str(name) for name in arrays["classes"]]
    size = arrays["frames"].shape[1]
    caption = f"Random prepared frames of each class, {size} × {size} pixels."
    alt = f"{plural(len(arrays['frames']), 'frame')} of the classes {listed(classes)}."
    return captioned("frames", classes_gallery(arrays["frames"], arrays["labels"], classes), caption, alt)


def _stages(data: ReportData) -> CaptionedFigure | None:
    kept = data.stages()
    names = _class_names(data, [one.position for one in kept])
    figure = stages_figure(list(zip(names, kept, strict=True)), data.config.prepare.size)
    if figure is None:
        return None
    shown = [kept[i] for i in evenly_spaced(len(kept), MAX_ROWS)]
    cut = sum(_area(one.otsu_box) < CUT * _area(one.box) for one in shown)
    thresholds = [one.threshold for one in shown]
    filled = " Insets are filled afterwards." if data.config.prepare.insets == "inpaint" else ""
    caption = (
        f"The five stages of preprocessing. The fourth column shows the largest contour of Otsu's mask (thin), its rectangle "
        f"(dashed), the content area by the method {data.config.prepare.method!r} (solid) and its centre square (dotted), "
        f"which becomes the last stage. Otsu's rectangle keeps less than {CUT:.0%} of the content area in {cut} of these "
        f"{plural(len(shown), 'frame')}. Thresholds range from {min(thresholds):.0f} to {max(thresholds):.0f} of 255.{filled}"
    )
    return captioned("preparation", figure, caption, f"{plural(len(shown), 'frame')}, one per row. {caption}")


def _class_names(data: ReportData, positions: list[int]) -> list[str]:
    """Return the class per frame of the store, which is sorted by class."""
    if data.frames is None:
        return ["" for _ in positions]
    last = np.cumsum([group.count for group in data.frames.classes])
    found = np.searchsorted(last, positions, side="right")
    return [data.frames.classes[i].name if i < len(last) else "" for i in found]


def _area(box: np.ndarray) -> float:
    return float(box[2] * box[3])


def _augmentation(data: ReportData) -> str:
    chosen = data.config.augmentation
    changes = [
        "mirrored with probability 1/2" if chosen.flip else "",
        f"rotated by up to {360 * chosen.rotation:.3g} degrees" if chosen.rotation else "",
        f"zoomed by up to {chosen.zoom:.0%} in height and in width" if chosen.zoom else "",
        f"changed in contrast by up to {chosen.contrast:.0%}" if chosen.contrast else "",
    ]
    drawn = "drawn again every epoch" if chosen.resample_every_epoch else "drawn once"
    text = f"An augmented copy is {listed([change for change in changes if change]) or 'unchanged'}; copies are {drawn}."
    count = data.training_frames
    return f"{text} {count:,} training frames give {count * (1 + chosen.copies_per_frame):,} per epoch." if count else text


@styled
def stages_figure(frames: Sequence[tuple[str, Stages]], size: int) -> Figure | None:
    """Draw original, grey, Otsu's mask, contour with content area, and final square, one row per frame, at most 6.

    Args:
        frames: name and stages per frame.
        size: side of the prepared frames.
    """
    shown = [frames[i] for i in evenly_spaced(len(frames), MAX_ROWS)]
    if not shown:
        return None
    margin = min(MAX_MARGIN, max((text_width(name, NAME_SIZE) for name, _ in shown if name), default=0) + 20)
    width = (WIDTH - margin - GAP) / (len(HEADS) + FINAL) - GAP
    heights = [width * min(MAX_ASPECT, one.original.shape[0] / one.original.shape[1]) for _, one in shown]
    top = LINE + 10
    canvas = Canvas.of(WIDTH, top + sum(heights) + GAP * len(shown))
    for column, head in enumerate((*HEADS, f"final {size} × {size}")):
        canvas.text(margin + column * (width + GAP), LINE, head, ha="left", fontweight="bold")
    for (name, one), height in zip(shown, heights, strict=True):
        canvas.text(margin - 10, top + height / 2, fitted(name, margin - 14, NAME_SIZE), ha="right", va="center")
        _draw_row(canvas, one, (margin, top), (width, height), size)
        top += height + GAP
    return canvas.figure


def final_square(one: Stages, size: int) -> np.ndarray:
    """Return the last stage, uint8 (size, size, 3): the centre square of the content area."""
    cut = one.original[_square(one).slices]
    return np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.LANCZOS))


def _square(one: Stages) -> Box:
    return Box(*(round(float(value)) for value in one.box)).centre_square()


def _draw_row(canvas: Canvas, one: Stages, corner: tuple[float, float], cell: tuple[float, float], size: int) -> None:
    (left, top), (width, height) = corner, cell
    step = width + GAP
    scale = 1.0
    for column, image in enumerate((one.original, one.grey, 255 * one.mask, one.original)):
        scale = _place(canvas, image, left + column * step, top, cell)
    look = {"boxstyle": "square,pad=0.25", "facecolor": "black", "edgecolor": "none", "alpha": 0.75}
    threshold = f"threshold {one.threshold:.0f}"
    canvas.text(left + 2 * step + 5, top + height - 7, threshold, ha="left", color="white", bbox=look)
    _outline(canvas, one, left + 3 * step, top, scale)
    side = min(height, FINAL * width)
    _place(canvas, final_square(one, size), left + 4 * step, top + (height - side) / 2, (side, side))


def _place(canvas: Canvas, image: np.ndarray, left: float, top: float, cell: tuple[float, float]) -> float:
    """Place an image as large as the cell allows, and return its scale."""
    scale = min(cell[0] / image.shape[1], cell[1] / image.shape[0])
    width, height = scale * image.shape[1], scale * image.shape[0]
    if scale < 1:
        image = np.asarray(Image.fromarray(image).resize((round(width), round(height)), Image.Resampling.BOX))
    look = {"cmap": "gray", "vmin": 0, "vmax": 255} if image.ndim == 2 else {}
    canvas.axes.imshow(image, extent=(left, left + width, top + height, top), interpolation="none", aspect="auto", **look)
    return scale


def _outline(canvas: Canvas, one: Stages, left: float, top: float, scale: float) -> None:
    if len(one.contour):
        points = np.concatenate([one.contour, one.contour[:1]]) * scale
        canvas.axes.plot(left + points[:, 0], top + points[:, 1], color=OTSU_COLOUR, linewidth=1.1, label="_contour")
    square = _square(one)
    inner = (square.left, square.top, square.width, square.height)
    for box, colour, dashes in (
        (one.otsu_box, OTSU_COLOUR, DASHED),
        (one.box, AREA_COLOUR, SOLID),
        (inner, AREA_COLOUR, DOTTED),
    ):
        x, y, width, height = (float(value) * scale for value in box)
        corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)])
        canvas.axes.plot(left + corners[:, 0], top + corners[:, 1], color=colour, linestyle=dashes, linewidth=1.8)
