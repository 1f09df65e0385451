"""python -m benchmarks [NAME... | --all] [--out DIR] [--threads N] [--rounds N]."""

import argparse
import difflib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.items import ITEMS, START
from benchmarks.measure import measure, measure_ceiling, measure_starts
from benchmarks.table import page

NAMES = (*ITEMS, START)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the items named, print their tables, and store them as JSON and Markdown."""
    chosen = _parser().parse_args(arguments)
    names = list(NAMES) if chosen.all else chosen.names
    wrong = next((name for name in names if name not in NAMES), None)
    if wrong is not None:
        near = difflib.get_close_matches(wrong, NAMES, 1)
        mend = f"did you mean {near[0]}?" if near else f"choose from {', '.join(NAMES)}."
        print(f"There is no benchmark {wrong!r}; {mend}", file=sys.stderr)
        return 2
    if chosen.threads < 1 or (chosen.rounds is not None and chosen.rounds < 1):
        print("Threads and rounds are at least 1; give a larger number.", file=sys.stderr)
        return 2
    if not names:
        print("\n".join(f"{name:<15} {ITEMS[name].title if name in ITEMS else 'Start of import and --help'}" for name in NAMES))
        return 0
    result = {"about": about(chosen.threads, arguments), "ceiling": measure_ceiling(chosen.threads), "items": {}}
    for name in names:
        print(f"measuring {name}", file=sys.stderr)
        result["items"][name] = measure_starts() if name == START else measure(ITEMS[name], chosen.threads, chosen.rounds)
        store(result, chosen.out)
    print(page(result))
    return 0


def about(threads: int, arguments: Sequence[str] | None) -> dict[str, Any]:
    """Return what ran, when and where."""
    from pixelscope.engine.runtime import cpu_name
    from pixelscope.runs.folder import git_revision, versions

    words = sys.argv[1:] if arguments is None else arguments
    return {
        "command": " ".join(["python -m benchmarks", *words]),
        "date": datetime.now(UTC).date().isoformat(),
        "revision": (git_revision() or "unknown")[:12],
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "threads": threads,
        "versions": versions(),
    }


def store(result: dict[str, Any], folder: Path) -> None:
    """Write the numbers and the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page(result), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; none lists them")
    parser.add_argument("--all", action="store_true", help="measure everything")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for benchmarks.json and README.md")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each contender")
    parser.add_argument("--rounds", type=int, help="rounds of each contender, in place of each item's own number")
    return parser


if __name__ == "__main__":
    sys.exit(main())
