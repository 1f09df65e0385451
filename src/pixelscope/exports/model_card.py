"""Model cards of exported models: intended use, data, measured results, inputs and outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pixelscope.runs.record import DataRecord


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
            "## Data\n" + "\n".join(_data(role, one) for role, one in self.data.items()),
            "## Protocol\n" + "\n".join(f"- {name}: {value}" for name, value in self.protocol.items()),
            f"## Measured results\n{_table(self.results)}\n\n{self.results_note}".rstrip(),
            "## Inputs\n" + _table([asdict(port) for port in self.inputs]),
            "## Outputs\n" + _table([asdict(port) for port in self.outputs]),
            "## Limits\n" + "\n".join(f"- {limit}" for limit in self.limits),
            f"## Agreement with the run\n{self.parity}",
            "## Versions\n" + "\n".join(f"- {name} {version}" for name, version in self.versions.items()),
        ]
        return "\n\n".join(parts) + "\n"


def _data(role: str, data: DataRecord) -> str:
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


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "None."
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_cell(row.get(name, '')) for name in head)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
