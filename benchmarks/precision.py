"""Whether bfloat16 costs accuracy: the demo's trainings in both precisions over several seeds.

python -m benchmarks.precision [--seeds 0 1 2] [--runs DIR] [--out FILE.json]

Each training is a run folder of its own; finished ones are measured and not trained again, stopped ones continue.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pixelscope.pixelda.results import Evaluation
from pixelscope.runs.folder import RunFolder

PRECISIONS = ("32-true", "bf16-mixed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure what is missing, print the table, and store the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/precision"))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/precision.json"))
    chosen = parser.parse_args(arguments)
    accuracies = {
        precision: [measure(chosen.runs / f"{precision}-seed{seed}", precision, seed) for seed in chosen.seeds]
        for precision in PRECISIONS
    }
    result = {"command": f"python -m benchmarks.precision --seeds {' '.join(map(str, chosen.seeds))}"}
    result |= {"seeds": chosen.seeds, "target_test": accuracies}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(chosen.seeds, accuracies))
    return 0


def measure(run: Path, precision: str, seed: int) -> float:
    """Return the accuracy on the target's test split of a demo training, trained here unless `run` holds it."""
    settings = ["--preset", "demo", "--seed", str(seed), "--precision", precision, "--out", str(run)]
    if not ((run / "evaluation.json").is_file() and RunFolder(run).read_record().get("state") == "finished"):
        again = ["--resume", str(run)] if run.exists() else settings
        pixelscope("pixelda", "train", *again)
    return Evaluation.load(run / "evaluation.json").sets["target_test"].accuracy


def pixelscope(*arguments: str) -> None:
    """Run one command, its progress on this terminal."""
    subprocess.run([sys.executable, "-m", "pixelscope", *arguments], check=True)


def table(seeds: Sequence[int], accuracies: dict[str, list[float]]) -> str:
    """Return a Markdown table, a row a precision."""
    head = ["precision", *(f"seed {seed}" for seed in seeds), "mean", "std"]
    rows = [head, ["---"] * len(head)]
    for precision, values in accuracies.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append([precision, *(f"{value:.2%}" for value in (*values, statistics.mean(values), spread))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
