"""The sections on the frames: what there is, how it was prepared, how it is altered."""

import numpy as np

from pixelscope.endovae.figures.galleries import classes_gallery, versions_gallery
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.stages import chosen_frames, stages_figure
from pixelscope.endovae.figures.tables import frames_table
from pixelscope.endovae.figures.words import listed, plural
from pixelscope.report.document import Illustration, Part, Section

CUT = 0.9
"""Share of the area used under which Otsu's rectangle is said to cut into the picture."""


def frames_section(material: Material) -> Section:
    """Return what frames there are, and how they were prepared."""
    found = (frames_table(material), _classes(material), _stages(material))
    kept = tuple(part for part in found if part is not None)
    return Section("The frames", "frames", parts=kept, notes=tuple(material.frames.notes) if material.frames else ())


def augmentation_section(material: Material) -> Section:
    """Return how training frames are altered."""
    arrays = material.samples("augmentation")
    parts: tuple[Part, ...] = ()
    if arrays is not None:
        count, versions = arrays["versions"].shape[:2]
        caption = f"{plural(count, 'training frame')} above {plural(versions - 1, 'version')} of each that training sees too."
        parts = (Illustration("augmentation", versions_gallery(arrays["versions"]), caption, caption),)
    return Section("Augmentation", "augmentation", prose=(_alterations(material),), parts=parts)


def _classes(material: Material) -> Illustration | None:
    arrays = material.samples("frames")
    if arrays is None:
        return None
    classes = [str(name) for name in arrays["classes"]]
    size = arrays["frames"].shape[1]
    caption = f"Random frames of each class, prepared: {size} × {size} pixels."
    alt = f"{plural(len(arrays['frames']), 'frame')} of the classes {listed(classes)}."
    return Illustration("frames", classes_gallery(arrays["frames"], arrays["labels"], classes), alt, caption)


def _stages(material: Material) -> Illustration | None:
    kept = material.stages()
    names = _class_names(material, [one.position for one in kept])
    figure = stages_figure(list(zip(names, kept, strict=True)), material.config.prepare.size)
    if figure is None:
        return None
    shown = [kept[i] for i in chosen_frames(len(kept))]
    cut = sum(_area(one.otsu_box) < CUT * _area(one.box) for one in shown)
    thresholds = [one.threshold for one in shown]
    filled = " Insets are filled after that." if material.config.prepare.insets == "inpaint" else ""
    caption = (
        f"The five stages of preprocessing. In the fourth: the largest contour of Otsu's mask (thin line), its rectangle "
        f"(dashed), the area used, by the method {material.config.prepare.method!r} (solid), and its centre square (dotted), "
        f"which is the last stage. On {cut} of these {plural(len(shown), 'frame')} Otsu's rectangle keeps less than "
        f"{CUT:.0%} of the area used. Thresholds are from {min(thresholds):.0f} to {max(thresholds):.0f} of 255.{filled}"
    )
    return Illustration("preparation", figure, f"{plural(len(shown), 'frame')}, a row each. {caption}", caption)


def _class_names(material: Material, positions: list[int]) -> list[str]:
    """Return the class of each frame of the store, which has its frames in the order of their classes."""
    if material.frames is None:
        return ["" for _ in positions]
    last = np.cumsum([group.count for group in material.frames.classes])
    found = np.searchsorted(last, positions, side="right")
    return [material.frames.classes[i].name if i < len(last) else "" for i in found]


def _area(box: np.ndarray) -> float:
    return float(box[2] * box[3])


def _alterations(material: Material) -> str:
    chosen = material.config.augmentation
    ways = [
        "mirrored one time in two" if chosen.flip else "",
        f"turned by up to {360 * chosen.rotation:.3g} degrees" if chosen.rotation else "",
        f"zoomed by up to {chosen.zoom:.0%} in height and in width" if chosen.zoom else "",
        f"changed in contrast by up to {chosen.contrast:.0%}" if chosen.contrast else "",
    ]
    drawn = "drawn anew every epoch" if chosen.fresh else "drawn once"
    text = f"An altered copy is {listed([way for way in ways if way])}; copies are {drawn}."
    data = material.record.data.get("frames")
    if data is None or not data.train:
        return text
    return f"{text} {data.train:,} training frames become {data.train * (1 + chosen.copies):,} an epoch."
