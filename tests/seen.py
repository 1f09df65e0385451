"""What a reader sees of a figure, for tests."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def drawn(figure: Figure | None) -> Figure:
    """Return a figure after it was drawn, so that everything has its place."""
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    return figure


def panel(figure: Figure | None, title: str) -> Axes:
    """Return the axes whose title begins so."""
    assert figure is not None
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    return found


def visible_texts(figure: Figure) -> list[Text]:
    """Return the texts that are seen: empty and hidden ones, and ticks outside their axes, are not."""
    found: list[Text] = []
    for axes in figure.axes:
        hidden = [*axes.get_xticklabels(minor=True), *axes.get_yticklabels(minor=True)]
        for limits, ticks, labels in (
            (axes.get_xlim(), axes.get_xticks(), axes.get_xticklabels()),
            (axes.get_ylim(), axes.get_yticks(), axes.get_yticklabels()),
        ):
            low, high = sorted(limits)
            hidden += [l for at, l in zip(ticks, labels, strict=True) if not (axes.axison and low <= at <= high)]
        found += [text for text in axes.findobj(Text) if text not in hidden]  # type: ignore[misc]
    return [text for text in found if text.get_text() and text.get_visible()]


def assert_legible(figure: Figure | None) -> None:
    """Assert that no text of a figure is cut off or lies on another."""
    made = drawn(figure)
    width, height = made.canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(made)]
    assert boxes or not made.axes[0].axison
    for i, (one, box) in enumerate(boxes):
        assert -0.5 <= box.x0 < box.x1 <= width + 0.5, one
        assert -0.5 <= box.y0 < box.y1 <= height + 0.5, one
        for other, place in boxes[:i]:
            across = min(box.x1, place.x1) - max(box.x0, place.x0)
            down = min(box.y1, place.y1) - max(box.y0, place.y0)
            assert across <= 1 or down <= 1, (one, other)
