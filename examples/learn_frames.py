"""Learn what healthy frames look like, see how near the others come, and draw new ones.

The same as learn_frames.sh, from Python: python examples/learn_frames.py FRAMES RUNS
FRAMES has one folder a class, such as normal-cecum and polyps.
"""

import sys
from pathlib import Path

from pixelscope import EndoVAEConfig, build_report, evaluate_endovae, generate, train_endovae


def learn(config: EndoVAEConfig, runs: Path) -> Path:
    """Train as `config` says, measure, draw nine new frames, and return the path of the report."""
    run = train_endovae(config, run=runs / "healthy")
    print(evaluate_endovae(run).to_text())
    print(generate(run, runs / "new.png", count=9, seed=0).to_text())
    return build_report(run)


if __name__ == "__main__":
    frames, runs = sys.argv[1:]
    print(learn(EndoVAEConfig(frames=frames), Path(runs)))
