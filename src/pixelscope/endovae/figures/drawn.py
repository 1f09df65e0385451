"""The sections on what the networks draw: reconstructions, new frames, ways through the latent space."""

from pixelscope.endovae.figures.galleries import (
    Reconstructions,
    generated_gallery,
    interpolation_gallery,
    reconstruction_gallery,
    traversal_gallery,
)
from pixelscope.endovae.figures.latent import SPEAKING, divergence_bars, speaking
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.words import KINDS, plural, set_name
from pixelscope.report.document import Illustration, Section


def reconstructions_section(material: Material) -> Section:
    """Return frames beside what comes back of them: random ones, the worst and the best."""
    parts = [_shown_reconstructions(material, "random", [(kind, "random") for kind in KINDS])]
    parts += [_shown_reconstructions(material, kind, [(kind, "worst"), (kind, "best")]) for kind in KINDS]
    return Section("Reconstructions", "reconstructions", parts=tuple(part for part in parts if part is not None))


def latent_section(material: Material) -> Section:
    """Return new frames, and what the latent vectors hold."""
    found = (_generated(material), _ways(material), _walks(material), _divergence(material))
    parts = tuple(part for part in found if part is not None)
    return Section("New frames and the latent space", "latent", parts=parts)


def _shown_reconstructions(material: Material, name: str, wanted: list[tuple[str, str]]) -> Illustration | None:
    groups = []
    for kind, which in wanted:
        arrays = material.reconstructions(kind, which)
        if arrays is not None:
            title = f"{set_name(material, kind)}, {which}"
            groups.append(Reconstructions(title, *(arrays[key] for key in ("originals", "reconstructions", "psnr", "ssim"))))
    if not groups:
        return None
    ranges = [f"{group.title}, {group.psnr.min():.1f} to {group.psnr.max():.1f} dB" for group in groups]
    caption = f"Frames above what EndoVAE makes of them, from the posterior's mean: {'; '.join(ranges)}."
    return Illustration(f"reconstructions-{name}", reconstruction_gallery(groups), caption, caption)


def _generated(material: Material) -> Illustration | None:
    arrays = material.samples("generated")
    if arrays is None:
        return None
    caption = f"{plural(len(arrays['generated']), 'new frame')}, decoded from random z ~ N(0, I); none is chosen."
    return Illustration("generated", generated_gallery(arrays["generated"]), caption, caption)


def _ways(material: Material) -> Illustration | None:
    arrays = material.samples("interpolation")
    if arrays is None:
        return None
    rows, steps = arrays["ways"].shape[:2]
    caption = (
        f"{plural(rows, 'way')} between two held-out frames in {steps} equal steps from one posterior mean to the other. What "
        "differs between a frame and the drawing beside it is lost in its code."
    )
    return Illustration("interpolation", interpolation_gallery(arrays["ends"], arrays["ways"]), caption, caption)


def _walks(material: Material) -> Illustration | None:
    arrays = material.samples("traversal")
    if arrays is None:
        return None
    values = arrays["values"]
    caption = (
        f"One latent dimension a row, moved from {values[0]:g} to {values[-1]:g} standard deviations of the prior while the "
        "others are 0, with its mean KL in nats: the more, the more it says. A row all alike is not used by the decoder."
    ).replace("from -", "from −")
    figure = traversal_gallery(arrays["walks"], values, arrays["dimensions"], arrays["kl"])
    return Illustration("traversal", figure, f"Frames drawn along {plural(len(values), 'value')} each. {caption}", caption)


def _divergence(material: Material) -> Illustration | None:
    sets = [(set_name(material, kind), found.kl) for kind, found in material.sets.items()]
    figure = divergence_bars(sets)
    if figure is None:
        return None
    said = [f"{sum(kl):.2f} nats in {speaking(kl)} of {len(kl)} dimensions over {SPEAKING:g} ({title})" for title, kl in sets]
    caption = f"Mean KL by latent dimension: {'; '.join(said)}. The dotted line is at {SPEAKING:g} nats."
    return Illustration("divergence", figure, caption, caption)
