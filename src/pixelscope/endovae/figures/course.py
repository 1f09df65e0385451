"""The section on the training: how the loss went, and what was drawn as it went."""

from pixelscope.endovae.figures.curves import falls, loss_panels
from pixelscope.endovae.figures.galleries import chosen_moments, progress_gallery
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.words import epochs_at, plural
from pixelscope.report.document import Illustration, Part, Section


def training_section(material: Material) -> Section:
    """Return how the loss went, and what was drawn as it went."""
    best = material.best
    marked = None if best is None else (best.images, best.total)
    figure = loss_panels(material.train, material.evaluations, marked, material.config.schedule.take_off)
    parts: list[Part] = []
    if figure is not None:
        caption = (
            "The two terms of the loss and their sum, in panels of their own, as their scales differ. A noisy line is a "
            "running mean over its faint raw values; the first moments may lie above a panel's frame."
        )
        parts.append(Illustration("training", figure, f"{caption} {_course(material)}", caption))
    progress = _progress(material)
    raised = dict.fromkeys(f"Warning, {line.get('cause', 'unknown')}: {line.get('text', '')}" for line in material.warnings)
    return Section(
        "Training",
        "training",
        prose=tuple(filter(None, (_course(material), material.record.ended))),
        parts=(*parts, *([progress] if progress else [])),
        notes=tuple(raised),
    )


def _course(material: Material) -> str:
    best = material.best
    if best is None:
        return ""
    drops = falls(material.evaluations)
    rates = f"The learning rate fell {plural(len(drops), 'time')}." if drops else "The learning rate never fell."
    return (
        f"The validation loss was lowest at {epochs_at(material, best.images)}: {best.total:,.1f} = {best.reconstruction:,.1f} "
        f"reconstruction + {best.kl:.1f} KL{_weight(material)}. {_take_off(material)}{rates}"
    )


def _weight(material: Material) -> str:
    weight = material.config.losses.kl
    return "" if weight == 1 else f" × {weight:g}"


def _take_off(material: Material) -> str:
    level = material.config.schedule.take_off
    reached = [line["images"] for line in material.evaluations if line.get("loss/validation_kl", -1.0) >= level]
    if not reached:
        return f"KL has not reached {level:g}, from which the schedule counts. "
    return f"KL first reached {level:g}, from which the schedule counts, at {epochs_at(material, reached[0])}. "


def _progress(material: Material) -> Illustration | None:
    progress = material.samples("progress")
    if progress is None:
        return None
    images = progress["images"]
    shown = len(chosen_moments(len(images)))
    caption = (
        f"The same validation frames, and the same random latent vectors, at {plural(shown, 'moment')} from {images[0]:,} to "
        f"{images[-1]:,} images seen."
    )
    figure = progress_gallery(images, progress["originals"], progress["reconstructions"], progress["generated"])
    return Illustration("progress", figure, f"{caption} The originals are in the first row.", caption)
