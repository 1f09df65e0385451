"""Train EndoVAE on healthy frames, measure how well it reconstructs the others, and generate new ones.

The same as learn_frames.sh, from Python: python examples/learn_frames.py FRAMES RUNS
FRAMES has one folder per class, such as normal-cecum and polyps.
"""

import sys
from pathlib import Path

import pixelscope
from pixelscope.endovae import EndoVAEConfig


def learn(config: EndoVAEConfig, runs: Path) -> Path:
    """Train as `config` says, measure, generate nine frames, and return the path of the report."""
    run = pixelscope.endovae.train(config, run=runs / "healthy")
    print(pixelscope.evaluate(run).to_text())
    print(pixelscope.endovae.generate(run, runs / "new.png", count=9, seed=0).to_text())
    return pixelscope.report(run)


if __name__ == "__main__":
    frames, runs = sys.argv[1:]
    print(learn(EndoVAEConfig(frames=frames), Path(runs)))
