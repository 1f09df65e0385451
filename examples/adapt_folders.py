"""Adapt a classifier from one folder of labelled images to another without labels.

The same as adapt_folders.sh, from Python: python examples/adapt_folders.py LABELLED UNLABELLED RUNS
"""

import sys
from pathlib import Path

import pixelscope
from pixelscope.pixelda import PixelDAConfig


def adapt(config: PixelDAConfig, runs: Path) -> Path:
    """Train as `config` says, measure, and return the path of the report."""
    print(pixelscope.compare_sources(config.source, config.target).to_text())
    run = pixelscope.pixelda.train(config, run=runs / "adapted")
    print(pixelscope.evaluate(run).to_text())
    return pixelscope.report(run)


if __name__ == "__main__":
    labelled, unlabelled, runs = sys.argv[1:]
    settings = {**pixelscope.pixelda.preset("pixelda", "auto"), "source": labelled, "target": unlabelled}
    print(adapt(PixelDAConfig.parse(settings), Path(runs)))
