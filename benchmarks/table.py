"""Results as Markdown: what is printed and what is stored beside the JSON."""

from collections.abc import Sequence
from typing import Any

from benchmarks.items import ITEMS, MACHINE, START


def page(result: dict[str, Any]) -> str:
    """Return all tables of a run."""
    about = result["about"]
    rates = "; ".join(
        f"{dtype} {values['convolution']:.0f} (convolution), {values['matrix product']:.0f} (matrix product)"
        for dtype, values in result["ceiling"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    where = f"{about['machine']}; {about['threads']} threads. {versions}."
    head = [
        "# Benchmarks",
        "",
        f"{about['command']}, {about['date']}, revision {about['revision']}. {where}",
        "",
        f"The machine's ceiling in GFLOP/s, best of a few large ones, measured in this run: {rates}.",
        "",
        "Contenders take turns; rates are medians over rounds, slowest and fastest. `ratio`: the first row's rate over it.",
    ]
    parts = [_item(name, measured) for name, measured in result["items"].items()]
    return "\n".join([*head, *(line for part in parts for line in ("", *part))]) + "\n"


def _item(name: str, measured: dict[str, Any]) -> list[str]:
    if name == START:
        rows = [[title, f"{one['seconds'] * 1e3:.1f}", f"{one['times']:.2f}"] for title, one in measured.items()]
        return ["## Start", "", *table(["process", "ms", "times `python -c pass`"], rows)]
    item = ITEMS[name]
    head = [f"{item.unit}/s", "slowest - fastest", "ratio", "GFLOP/s", "of ceiling", "data", "peak MB", "growth MB"]
    first = next(iter(measured.values()))
    ceilings = {title.removeprefix(MACHINE): one["gflops"] for title, one in measured.items() if title.startswith(MACHINE)}
    rows = [[title, *_cells(one, first, ceilings, title.startswith(MACHINE))] for title, one in measured.items()]
    return [f"## {item.title}", "", *table(["contender", *head], rows)]


def _cells(one: dict[str, Any], first: dict[str, Any], ceilings: dict[str, float], is_machine: bool) -> list[str]:
    if "absent" in one:
        return [one["absent"], *[""] * 7]
    rate, best = one["gflops"], ceilings.get(one["dtype"])
    share = f"{rate / best:.0%} of {one['dtype']}" if rate and best and not is_machine else ""
    if is_machine:
        return ["", "", "", f"{rate:.0f}", share, "", _whole(one["peak_mb"]), ""]
    return [
        f"{one['per_second']:,.1f}",
        f"{one['slowest']:,.1f} - {one['fastest']:,.1f}",
        f"{first['per_second'] / one['per_second']:.2f}x",
        f"{rate:.0f}" if rate else "",
        share,
        f"{one['data_share']:.2%}" if one["data_share"] is not None else "",
        _whole(one["peak_mb"]),
        _whole(one["growth_mb"]),
    ]


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
