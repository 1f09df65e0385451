"""The figures of prepared frames, written beside them: the stages of preprocessing, and samples of each class."""

from pathlib import Path
from typing import TYPE_CHECKING

from pixelscope.data.frames.store import FrameStore
from pixelscope.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 144
"""Twice the resolution at which figures are laid out."""


def draw_frames(store: FrameStore) -> list[Path]:
    """Write stages.png and samples.png into the folder of `store`, unless they are there, and return their paths.

    What draws is imported where it is needed: preparing again draws nothing and should not wait for it.
    """
    stages, samples = store.path / "stages.png", store.path / "samples.png"
    if not stages.is_file():
        _draw_stages(store, stages)
    if not samples.is_file():
        _draw_samples(store, samples)
    return [path for path in (stages, samples) if path.is_file()]


def _draw_stages(store: FrameStore, path: Path) -> None:
    from pixelscope.endovae.figures.stages import stages_figure

    kept = store.figures
    names = [store.classes[store.labels[one.position]] for one in kept]
    figure = stages_figure(list(zip(names, kept, strict=True)), store.settings.size)
    if figure is not None:
        _save(figure, path)


def _draw_samples(store: FrameStore, path: Path) -> None:
    from pixelscope.endovae.figures.galleries import classes_gallery
    from pixelscope.endovae.samples import sample_positions

    shown = sample_positions(store)
    _save(classes_gallery(store.frames[shown], store.labels[shown], list(store.classes)), path)


def _save(figure: "Figure", path: Path) -> None:
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")
