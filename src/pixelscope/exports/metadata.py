"""Metadata of exported model files, and their model cards: intended use, data, measured results, inputs and outputs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pixelscope.config import Config
from pixelscope.errors import InputError
from pixelscope.runs.record import DataRecord

FORMAT = 4
"""Increased when files need another reader; files of other formats are refused."""
KEY = "pixelscope"
"""Key of the JSON entry in a file's metadata."""
COMMANDS = {"pixelda": "pixelda classify", "endovae": "endovae score", "endovae-detector": "endovae score"}
"""Command that reads a file, by the system in its metadata."""


class Metadata(Config):
    """Everything needed to use the weights."""

    format: int = FORMAT
    system: str
    """Package that reads the file."""
    config: dict[str, Any]
    """Configuration of the run."""
    checkpoint: str
    """Name of the exported checkpoint, for example `ema-last`."""
    images: int
    """Images seen at this checkpoint."""
    weights_sha256: str
    classes: tuple[str, ...] = ()
    """Class names of a classifier, in output order."""
    size: Annotated[int, Field(ge=1, le=4096)]
    """Side in pixels of the network's input."""
    mean: float
    scale: float
    """Network input is (bytes - mean) / scale."""
    calibration: dict[str, Any] | None = None
    """Calibration of anomaly scores; see `pixelscope.endovae.anomaly.calibration`."""
    false_positive_rate: float | None = None
    threshold: float | None = None
    """Score above which a frame is flagged, at that rate."""
    note: str = "For research only."
    versions: dict[str, str]


def parse_metadata(text: str, origin: str) -> Metadata:
    """Parse a file's metadata; raises InputError that names `origin` if it is damaged or of another format."""
    try:
        values = json.loads(text)
        found = values.get("format") if isinstance(values, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise InputError(_other_format(found, origin, values.get("versions")))
        return Metadata.model_validate(values)
    except (ValueError, RecursionError, ValidationError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{origin} has damaged metadata ({' '.join(str(error).split())[:160]}); export the run again."
        ) from None


def _other_format(found: int, origin: str, versions: Any) -> str:
    message = f"{origin} has format {found}, and this version of pixelscope reads format {FORMAT}"
    if found > FORMAT:
        return f"{message}; update it."
    writer = versions.get("pixelscope", "0.1") if isinstance(versions, dict) else "0.1"
    return f"{message}; use version {writer}, which wrote it, or train and export again."


def refuse_checkpoint(path: Path, checkpoint: str) -> None:
    """Raise InputError if a checkpoint is named for an exported file, which has the weights of one."""
    if checkpoint != "auto":
        raise InputError(
            f"{path} is a file, which has the weights of one checkpoint; drop --checkpoint {checkpoint}, or give the run "
            "folder."
        )


def require_system(about: Metadata, system: str, origin: str) -> None:
    """Raise InputError if a file is of another system."""
    if about.system != system:
        command = COMMANDS.get(about.system, about.system)
        raise InputError(f"{origin} is a model of {about.system}, not of {system}; give it to `pixelscope {command}`.")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output tensor."""

    name: str
    dtype: str
    shape: str
    values: str
    """Range and unit."""
    meaning: str


@dataclass(frozen=True)
class ModelCard:
    """A model card; its headings follow Mitchell et al., "Model Cards for Model Reporting", FAT* 2019."""

    title: str
    file: str
    format: str
    intended_use: str
    not_for: str
    data: dict[str, DataRecord]
    protocol: dict[str, str]
    """Training and model selection, by name."""
    results: Sequence[Mapping[str, str]]
    """Measured results: one mapping per row, all with the same keys."""
    results_note: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    limits: Sequence[str]
    parity: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"data": {role: one.model_dump() for role, one in self.data.items()}}

    def to_markdown(self) -> str:
        """Return a Markdown page."""
        parts = [
            f"# {self.title}",
            f"Model file: `{self.file}` ({self.format})",
            f"## Intended use\n{self.intended_use}\n\n**Not for:** {self.not_for}",
            "## Data\n" + "\n".join(_data_list(role, one) for role, one in self.data.items()),
            "## Protocol\n" + "\n".join(f"- {name}: {value}" for name, value in self.protocol.items()),
            f"## Measured results\n{_markdown_table(self.results)}\n\n{self.results_note}".rstrip(),
            "## Inputs\n" + _markdown_table([asdict(port) for port in self.inputs]),
            "## Outputs\n" + _markdown_table([asdict(port) for port in self.outputs]),
            "## Limits\n" + "\n".join(f"- {limit}" for limit in self.limits),
            f"## Agreement with the run\n{self.parity}",
            "## Versions\n" + "\n".join(f"- {name} {version}" for name, version in self.versions.items()),
        ]
        return "\n\n".join(parts) + "\n"


def _data_list(role: str, data: DataRecord) -> str:
    held_out = {"validation": data.validation, "calibration": data.calibration, "test": data.test}
    counts = {"images": data.count, "training": data.train, **held_out}
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    lines = [
        f"- {role}: {data.title or data.spec}" + f" ({parts})" * bool(parts),
        f"  - licence: {data.licence or 'not recorded'}",
    ]
    lines += [f"  - citation: {data.citation}"] if data.citation else []
    lines += [f"  - SHA-256 of the training images: `{data.sha256}`"] if data.sha256 else []
    return "\n".join(lines)


def _markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "None."
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_table_cell(row.get(name, '')) for name in head)} |" for row in rows]
    return "\n".join(lines)


def _table_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
