"""A run of EndoVAE as the sections of a report; what the run lacks is left out."""

from pathlib import Path

from pixelscope.endovae.figures.abnormal import anomaly_section
from pixelscope.endovae.figures.course import training_section
from pixelscope.endovae.figures.drawn import latent_section, reconstructions_section
from pixelscope.endovae.figures.evidence import findings_section
from pixelscope.endovae.figures.headline import headline, notes
from pixelscope.endovae.figures.material import Material
from pixelscope.endovae.figures.preparation import augmentation_section, frames_section
from pixelscope.endovae.figures.tables import quality_table, rules_table
from pixelscope.endovae.figures.words import epochs_at, listed, plural, trained_kind
from pixelscope.report.document import Section
from pixelscope.report.record import duration, record_section


def sections(run: Path) -> list[Section]:
    """Return the sections of the report on a run folder, its lead first and its record last.

    Raises InputError where `run` is not a run folder, or where a file in it is damaged.
    """
    material = Material.read(run)
    middle = [
        _result(material),
        frames_section(material),
        augmentation_section(material),
        training_section(material),
        reconstructions_section(material),
        latent_section(material),
        anomaly_section(material),
        findings_section(material),
    ]
    record = record_section(material.folder, material.record, len(material.warnings))
    return [_lead(material), *(section for section in middle if section.parts), record]


def _lead(material: Material) -> Section:
    data = material.record.data.get("frames")
    classes = [group.name for group in material.frames.classes] if material.frames else []
    title = f"EndoVAE: {listed(classes)}" if classes else "EndoVAE"
    origin = [f"Frames: {data.title}."] if data is not None and data.title else []
    return Section(title, "lead", prose=(_what_was_done(material), *origin), notes=notes(material), headline=headline(material))


def _what_was_done(material: Material) -> str:
    record, data = material.record, material.record.data.get("frames")
    copies, latent = material.config.augmentation.copies, material.config.model.latent
    count = f"{data.train:,} " if data is not None and data.train else ""
    altered = f" and {copies:,} altered {'copy' if copies == 1 else 'copies'} of each" if copies else ""
    time = f" in {duration(record.seconds)}" if record.seconds is not None else ""
    ended = f" {material.record.ended}" if material.record.ended else ""
    return (
        f"EndoVAE learns to write a frame as {plural(latent, 'number')}, and to draw it again from them, on {count}"
        f"{trained_kind(material)} frames{altered}. It saw {epochs_at(material, material.images)}{time}.{ended}"
    )


def _result(material: Material) -> Section:
    parts = tuple(part for part in (quality_table(material), rules_table(material)) if part is not None)
    numbers = material.numbers
    prose = () if numbers is None else (f"Measured by the rule {numbers.rule}, at {epochs_at(material, numbers.images)}.",)
    return Section("Result", "result", prose=prose, parts=parts)
