"""The page of results/benchmarks/gpu, from its JSON."""

from typing import Any

from benchmarks.gpu.systems import SYSTEMS
from benchmarks.table import table


def page(result: dict[str, Any]) -> str:
    """Return all tables as Markdown."""
    lines = ["# Training on a GPU", "", "Written by `python -m benchmarks.gpu`; the numbers are those of gpu.json."]
    for part in ("measure", "train"):
        if part in result:
            about = result[part]["about"]
            versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
            where = f"`{about['command']}`, {about['date']}, revision {about['revision']}, {about['card']}, {about['machine']}"
            lines += ["", f"## Part {part}", "", f"{where}. {versions}."]
            lines += _measure(result[part]) if part == "measure" else _train(result[part])
    return "\n".join(lines) + "\n"


def _measure(part: dict[str, Any]) -> list[str]:
    tests, ceilings = part.get("tests", {}), part.get("ceilings", {})
    said = tests.get("note") or f"{'passed' if tests.get('passed') else 'FAILED'}: {tests.get('summary', 'not run')}"
    rates = "; ".join(f"{name} {value:,.0f}" for name, value in ceilings.items())
    rows = part.get("rows", {})
    cells = [_row(row, rows) for row in rows.values()]
    head = [
        "system",
        "form",
        "steps/s",
        "without logs",
        "images/s",
        "over plain",
        "s per epoch",
        "first 50 steps, s",
        "peak GB",
        "note",
    ]
    lines = ["", f"GPU tests {said}", "", f"Ceilings of the card: {rates}.", "", *table(head, cells)]
    return [
        *lines,
        "",
        "Every 50th step is logged and eager; `without logs` leaves these out. `first 50 steps`: with captures and compiling.",
    ]


def _row(row: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    plain = rows.get(f"{row['system']}, plain", {}).get("images_per_second")
    rate = row.get("images_per_second")
    times = f"{rate / plain:.1f}x" if plain and rate else ""
    numbers = [row.get(name) for name in ("epoch_seconds", "first_steps_seconds", "peak_gb")]
    return [
        SYSTEMS[row["system"]].title,
        row["form"],
        *(f"{row[name]:,.1f}" if name in row else "" for name in ("steps_per_second", "unlogged_steps_per_second")),
        f"{rate:,.0f}" if rate else "",
        times,
        *("" if number is None else f"{number:.2f}" for number in numbers),
        row.get("absent") or row.get("note") or "",
    ]


def _train(part: dict[str, Any]) -> list[str]:
    head = ["seed", "steps", "train, s", "evaluate, s", "images/s", "source test", "target test"]
    rows = [
        [
            seed,
            f"{one['steps']:,}",
            f"{one['train_seconds']:.0f}",
            f"{one['evaluate_seconds']:.0f}",
            f"{one['images_per_second']:,.0f}",
            *(f"{one['accuracy'][name]:.2%}" if name in one["accuracy"] else "" for name in ("source_test", "target_test")),
        ]
        for seed, one in part["seeds"].items()
    ]
    how = f"{part['at_once']} at once{' through MPS' if part['mps'] else ''}, {part['seconds']:.0f} s in all"
    return ["", f"PixelDA, {how}. Weights of G and T: `seed*/weights.safetensors`.", "", *table(head, rows)]
