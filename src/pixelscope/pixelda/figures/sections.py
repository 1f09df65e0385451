"""A run of PixelDA or its baseline as the sections of a report; what the run lacks is left out."""

from pathlib import Path

import numpy as np

from pixelscope.pixelda.figures.classes import class_accuracies, confusion_matrices
from pixelscope.pixelda.figures.curves import baseline_curves, training_panels
from pixelscope.pixelda.figures.galleries import UNKNOWN, adapted_gallery, pairs_gallery, progress_gallery, styles_gallery
from pixelscope.pixelda.figures.headline import headline, notes
from pixelscope.pixelda.figures.material import Material
from pixelscope.pixelda.figures.stability import stability_panels
from pixelscope.pixelda.figures.tables import (
    accuracy_table,
    before_after_table,
    domain_names,
    percent,
    points,
    rules_table,
    verdict_table,
    warnings_table,
)
from pixelscope.pixelda.results import SetResult
from pixelscope.report.document import Illustration, Part, Section
from pixelscope.report.plotting import BLUE, GREEN, ORANGE, series
from pixelscope.report.record import duration, record_section


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on a run folder, its lead first and its record last.

    Raises InputError where `run` is not a run folder, or where a file in it is damaged.
    """
    material = Material.read(run)
    adapted = material.record.system == "pixelda"
    middle = [_domains(material)]
    middle += [_gap(material.before)] if adapted and material.before else []
    middle += [_training(material), _images(material), _classes(material), _stability(material)] if adapted else []
    middle += [] if adapted else [_gap(material), _classes(material)]
    record = record_section(material.folder, material.record, len(material.warnings))
    kept = [section for section in (_result(material), _verdict(material), *middle) if section.parts]
    return [_lead(material), *kept, record]


def _lead(material: Material) -> Section:
    source, target = domain_names(material)
    known = "target" in material.record.data
    title = f"{source} → {target}" if known else source
    return Section(title, "lead", prose=_what_was_done(material), notes=notes(material), headline=headline(material))


def _what_was_done(material: Material) -> tuple[str, ...]:
    record = material.record
    source, target = domain_names(material)
    count = f"{max(record.images, *_last_images(material)):,} images"
    if record.system == "pixelda":
        text = (
            f"PixelDA redraws labelled images of {source} in the style of {target}, whose labels it never sees, "
            "and trains a classifier T on them"
        )
    else:
        text = f"The baseline trains a classifier T on {source} alone, to measure how much it loses on {target}"
    time = f" in {duration(record.seconds)}" if record.seconds is not None else ""
    origins = [f"{role.capitalize()}: {data.title}." for role, data in record.data.items() if data.title]
    return (f"{text}: {count} in {material.steps:,} steps{time}.", *([" ".join(origins)] if origins else []))


def _last_images(material: Material) -> list[int]:
    return [0, *(line["images"] for line in (*material.train[-1:], *material.evaluations[-1:]))]


def _result(material: Material) -> Section:
    adapted = material.record.system == "pixelda"
    table = before_after_table(material) if adapted else accuracy_table(material)
    parts = tuple(part for part in (table, rules_table(material)) if part is not None)
    return Section("Result", "result", prose=_result_prose(material), parts=parts)


def _verdict(material: Material) -> Section:
    numbers = material.numbers
    table = verdict_table(material)
    if numbers is None or numbers.verdict is None or table is None:
        return Section("Does adaptation help?", "verdict")
    said = {
        "adapted": "Adaptation likely helps.",
        "source only": "Adaptation likely harms: a T trained on the source alone likely reads the target better.",
    }.get(numbers.verdict.better, "Adaptation likely makes no difference.")
    prose = (
        f"{said} This was told without target labels, from images of the target that T has not learned from.",
        f"Both give the same answer to {numbers.verdict.agreement:.0%} of them.",
    )
    return Section("Does adaptation help?", "verdict", prose=prose, parts=(table,))


def _result_prose(material: Material) -> tuple[str, ...]:
    numbers, source = material.numbers, material.results("source_test")
    if numbers is None:
        return ()
    text = f"Measured at {numbers.images:,} images by the rule {numbers.rule}"
    was = material.before.results("source_test") if material.before else None
    if source is not None and was is not None and material.record.system == "pixelda":
        change = points(source.accuracy - was.accuracy, source.count)
        text += f"; on the source's own test split accuracy changed by {change} points"
    if "target_all" in numbers.sets and material.record.system == "pixelda":
        text += ". All target images include those that training saw, without their labels"
    return (f"{text}.",)


def _domains(material: Material) -> Section:
    pairs = material.samples("pairs")
    source, target = domain_names(material)
    parts: tuple[Part, ...] = ()
    if pairs is not None:
        classes = [str(name) for name in pairs["classes"]]
        figure = pairs_gallery(pairs["source"], pairs["target"], pairs["labels"], classes)
        shown = ", ".join(classes[label] for label in pairs["labels"])
        alt = f"Pairs of corresponding images of {source} and {target}; their classes: {shown}."
        caption = f"The same in {source} (above) and {target} (below), with its class. Training never sees them as pairs."
        parts = (Illustration("pairs", figure, alt, caption),)
    return Section("The two domains", "domains", prose=(f"The same things, seen in {source} and in {target}.",), parts=parts)


def _gap(material: Material) -> Section:
    """Show how a baseline was trained, and what it loses on the target."""
    source = material.record.data.get("source")
    accuracies = material.accuracies()
    figure = baseline_curves(material.train, material.evaluations, accuracies, source.train if source else None)
    parts: tuple[Part, ...] = ()
    if figure is not None:
        last = {name: f"{line.y[-1]:.1%}" for name, line in accuracies.items()}
        alt = "Loss and accuracy of the baseline as it trains. Last accuracies: " + _listed(last)
        caption = (
            "The baseline's loss and accuracy. The line of the target shows what training on the source alone does for it."
        )
        if "target_test" not in accuracies:
            caption = "The baseline's loss and accuracy on its own domain."
        parts = (Illustration("baseline", figure, alt, caption),)
    return Section("The baseline and the gap", "baseline", prose=(_gap_sentence(material),), parts=parts)


def _gap_sentence(material: Material) -> str:
    own, other = material.results("source_test"), material.results("target_test")
    source, target = domain_names(material)
    if own is None or other is None:
        return f"T, trained on {source} alone."
    gap = points(own.accuracy - other.accuracy, other.count).lstrip("+")
    return (
        f"T, trained on {source} alone, is right on {percent(own.accuracy, own.count)} of that domain's test split and on "
        f"{percent(other.accuracy, other.count)} of the test split of {target}; {gap} points lie between them."
    )


def _training(material: Material) -> Section:
    accuracies = material.accuracies()
    before = material.before.results("target_test") if material.before else None
    figure = training_panels(material.train, accuracies, before.accuracy if before else None)
    parts: tuple[Part, ...] = ()
    if figure is not None:
        last = {name: f"{line.y[-1]:.1%}" for name, line in accuracies.items()}
        alt = "Losses of G, D and T, and accuracies of T, over the images seen. Last accuracies: " + _listed(last)
        caption = (
            "A noisy line is a running mean over its faint raw values. In (a), D and G hold each other where D's loss stays "
            "near 2 ln 2 and neither loss runs to zero. In (b), G's loss is small because it is weighted."
        )
        parts = (Illustration("training", figure, alt, caption),)
    return Section("Training", "training", prose=(_speed_sentence(material),), parts=parts)


def _speed_sentence(material: Material) -> str:
    speed = material.record.images_per_second
    text = f"{material.steps:,} steps of D and T together, then G"
    return f"{text}, at {speed:,.0f} images per second." if speed else f"{text}."


def _images(material: Material) -> Section:
    parts = tuple(part for part in (_gallery(material), _styles(material), _progress(material)) if part is not None)
    return Section("What G makes", "generated", prose=_gallery_prose(material), parts=parts)


def _gallery(material: Material) -> Illustration | None:
    gallery = material.samples("gallery")
    if gallery is None:
        return None
    own = gallery["source_labels"]
    rows = [
        ("source", gallery["source"], own, gallery["source_predictions"]),
        ("generated", gallery["generated"], own, gallery["generated_predictions"]),
        ("target", gallery["target"], gallery["target_labels"], gallery["target_predictions"]),
    ]
    wrong = [f"{name} {int(_wrong(labels, predictions).sum())}" for name, _, labels, predictions in rows]
    unknown = " The target's labels are unknown." if (gallery["target_labels"] == UNKNOWN).all() else ""
    alt = f"{len(own)} source images, what G made of them, and as many target images; wrong predictions: {', '.join(wrong)}."
    caption = (
        "Each source image above what G makes of it, and below them target images that are not related to them. Real is the "
        f"class, Pred what T says; a wrong prediction is framed, crossed and bold.{unknown}"
    )
    return Illustration("gallery", adapted_gallery(rows, material.classes), alt, caption)


def _gallery_prose(material: Material) -> tuple[str, ...]:
    gallery = material.samples("gallery")
    if gallery is None:
        return ()
    wrong = int(_wrong(gallery["source_labels"], gallery["generated_predictions"]).sum())
    text = (
        f"Of the {len(gallery['source'])} generated images shown, T takes {wrong or 'none'} for another class than the source's"
    )
    known = gallery["target_labels"] != UNKNOWN
    if known.any():
        missed = int(_wrong(gallery["target_labels"], gallery["target_predictions"]).sum())
        text += f"; of the {int(known.sum())} target images, {missed or 'none'}"
    return (f"{text}.",)


def _wrong(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return (labels != predictions) & (labels != UNKNOWN)


def _styles(material: Material) -> Illustration | None:
    styles = material.samples("styles")
    if styles is None:
        return None
    rows, draws = styles["generated"].shape[:2]
    alt = f"{rows} source images, each drawn anew by G with {draws} values of the noise z."
    caption = "One source image a row, one z a column. What differs along a row is G's use of z; a row all alike ignores it."
    return Illustration("styles", styles_gallery(styles["source"], styles["generated"]), alt, caption)


def _progress(material: Material) -> Illustration | None:
    progress = material.samples("progress")
    if progress is None:
        return None
    images = progress["images"]
    alt = f"The same source images as G drew them at {len(images)} moments, from {images[0]:,} to {images[-1]:,} images seen."
    caption = f"The same sources with the same z, drawn anew as training went on, until {images[-1]:,} images were seen."
    return Illustration("progress", progress_gallery(images, progress["generated"], progress["source"]), alt, caption)


def _classes(material: Material) -> Section:
    compared = _compared_sets(material)
    if not compared:
        return Section("Class by class", "classes")
    titles = ", ".join(title for title, _ in compared)
    matrices = [(f"{title}: {percent(result.accuracy, result.count)}", result.confusion) for title, result in compared]
    figure = confusion_matrices(matrices, material.classes)
    accuracies = [(title, [entry.accuracy for entry in result.per_class]) for title, result in compared]
    colours = (ORANGE, BLUE) if material.record.system == "pixelda" else (BLUE, GREEN)
    by_class = class_accuracies(accuracies, material.classes, colours)
    caption = (
        "Rows are the true class, columns the predicted one; each cell gives its share of the row and the number of images."
    )
    parts = (
        *([] if figure is None else [Illustration("confusion", figure, f"Confusion matrices: {titles}.", caption)]),
        *(
            []
            if by_class is None
            else [Illustration("classes", by_class, f"Accuracy on each class: {titles}.", _class_caption(compared))]
        ),
    )
    return Section("Class by class", "classes", prose=(_confused(*compared[-1], material.classes),), parts=parts)


def _compared_sets(material: Material) -> list[tuple[str, SetResult]]:
    """Return what to compare class by class: a run before and after on the target, a baseline on source and target."""
    source, target = domain_names(material)
    if material.record.system == "pixelda":
        after = material.results("target_test")
        before = material.before.results("target_test") if material.before else None
        found = (
            [(f"{target}, before", before), (f"{target}, after", after)]
            if after
            else [(f"{source}, test split", material.results("source_test"))]
        )
    else:
        found = [(f"{source}, test", material.results("source_test")), (f"{target}, test", material.results("target_test"))]
    return [(title, result) for title, result in found if result is not None and len(result.confusion) == len(material.classes)]


def _class_caption(compared: list[tuple[str, SetResult]]) -> str:
    return (
        f"Accuracy class by class; the longer a line, the more lies between {' and '.join(t for t, _ in compared)}."
        if len(compared) > 1
        else "Accuracy class by class."
    )


def _confused(title: str, result: SetResult, classes: list[str]) -> str:
    counts = np.array(result.confusion)
    np.fill_diagonal(counts, 0)
    if not counts.any():
        return f"{title}: none of the {result.count:,} images is taken for another class."
    true, predicted = np.unravel_index(counts.argmax(), counts.shape)
    return (
        f"{title}: of {result.count:,} images, {result.count - result.correct:,} are taken for another class, most often "
        f"{classes[true]} for {classes[predicted]} ({counts.max():,} times)."
    )


def _stability(material: Material) -> Section:
    figure = stability_panels(material.train, material.evaluations, material.warnings, material.classes)
    table = warnings_table(material.warnings)
    parts: list[Part] = []
    if figure is not None:
        alt = "D's probabilities, norms of G's gradients, the classes generated and the diversity over z, as training went on."
        caption = (
            "No convergence shows as D's two probabilities far apart, vanishing gradients as a line that falls by orders of "
            "magnitude, collapse as missing classes or a diversity near zero. Content is lost where the layout and the classes "
            "are low together. Red marks at the upper edge are warnings."
        )
        parts.append(Illustration("stability", figure, alt, caption))
    if table is not None:
        parts.append(table)
    count, verdict = len(material.warnings), _last_verdict(material)
    text = "Training raised no warning." if not count else f"Training raised {count:,} warning{'s' if count > 1 else ''}."
    return Section("Stability", "stability", prose=(f"{text}{verdict}",), parts=tuple(parts))


def _last_verdict(material: Material) -> str:
    lines = [series(material.train, f"probability/{name}") for name in ("real", "generated")]
    if lines[0] is None or lines[1] is None:
        return ""
    real, generated = (line.y[-max(1, len(line.y) // 10) :].mean() for line in lines if line is not None)
    return (
        f" In its last tenth D gave target images a mean probability of {real:.2f} to be real, generated ones {generated:.2f}."
    )


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items()) + "."
