"""The sentence that stands for a run, and what must be said beside it; every number in it was measured."""

from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.words import epochs_at, listed, set_name, trained_kind
from pixelscope.endovae.results import MODEL, PCA, SetResult

STATES = {"running": "It is still running, or was killed", "stopped": "It was stopped"}
DECIMALS = {"psnr": 2, "ssim": 3}
METRICS = {"psnr": "PSNR", "ssim": "SSIM"}


def headline(material: Material) -> str:
    """Return the result of a run in a sentence or two."""
    sentence = _quality(material) if material.sets else "Not evaluated yet, so no quality is known."
    if not is_unfinished(material):
        return sentence
    return f"Unfinished, at {epochs_at(material, material.images)}: {sentence[0].lower()}{sentence[1:]}"


def is_unfinished(material: Material) -> bool:
    """Return whether the training has not come to its end."""
    return material.record.state != "finished"


def notes(material: Material) -> tuple[str, ...]:
    """Return what a reader of the headline must not overlook."""
    found = (_unfinished_note(material), _outdated_note(material), _held_out_note(material))
    return tuple(note for note in found if note)


def better_in(material: Material) -> list[str]:
    """Return in what PCA of the same size is better than the model, as far as the decimals shown tell."""
    found = []
    for kind, numbers in material.sets.items():
        for metric, decimals in DECIMALS.items():
            model, pca = (round(numbers.methods[method][metric].mean, decimals) for method in (MODEL, PCA))
            if pca > model:
                found.append(f"{METRICS[metric]} of {set_name(material, kind)}")
    return found


def _quality(material: Material) -> str:
    parts = [_compared(material, kind, numbers) for kind, numbers in material.sets.items()]
    sentence = "; ".join(parts)
    better = better_in(material)
    verdict = f"PCA is better in {listed(better)}" if better else "PCA is better in none of these"
    return f"{sentence[0].upper()}{sentence[1:]}. {verdict}."


def _compared(material: Material, kind: str, numbers: SetResult) -> str:
    model, pca = (
        {metric: f"{numbers.methods[method][metric].mean:.{decimals}f}" for metric, decimals in DECIMALS.items()}
        for method in (MODEL, PCA)
    )
    components = material.numbers.components if material.numbers else 0
    return (
        f"{set_name(material, kind)} come back at {model['psnr']} dB and SSIM {model['ssim']} "
        f"(PCA with {components} components: {pca['psnr']} dB, {pca['ssim']})"
    )


def _unfinished_note(material: Material) -> str:
    state, epoch = material.record.state, material.record.epoch
    if not is_unfinished(material):
        return ""
    planned = f" of at most {material.config.training.epochs * epoch:,}" if epoch else ""
    why = f" {STATES[state]}; --resume goes on with it." if state in STATES else ""
    return f"This run is unfinished: {material.images:,}{planned} images are done.{why}"


def _outdated_note(material: Material) -> str:
    numbers, best = material.numbers, material.best
    if numbers is None:
        return ""
    newest = best.images if numbers.rule == "best-validation" and best is not None else material.images
    if numbers.images >= newest:
        return ""
    return (
        f"The run went on after it was evaluated: the weights measured are those at {numbers.images:,} images, those of the "
        f"rule {numbers.rule} are now at {newest:,}; evaluate it again."
    )


def _held_out_note(material: Material) -> str:
    if not material.sets:
        return ""
    other = {"normal": "abnormal", "abnormal": "normal"}.get(material.config.split.train_on)
    text = (
        f"It learns {trained_kind(material)} frames. The held-out ones, and all near-duplicates of them, had no part in "
        "training or in any choice"
    )
    return f"{text}; of {other} frames, which it never learns, all are measured." if other in material.sets else f"{text}."
