"""Adapt a classifier from one folder of labelled images to another without labels.

The same as adapt_folders.sh, from Python: python examples/adapt_folders.py LABELLED UNLABELLED RUNS
"""

import sys
from pathlib import Path

from pixelscope import PixelDAConfig, build_report, compare_sources, evaluate, preset, train_pixelda


def adapt(config: PixelDAConfig, runs: Path) -> Path:
    """Train as `config` says, measure, and return the path of the report."""
    print(compare_sources(config.source, config.target).to_text())
    run = train_pixelda(config, run=runs / "adapted")
    print(evaluate(run).to_text())
    return build_report(run)


if __name__ == "__main__":
    labelled, unlabelled, runs = sys.argv[1:]
    settings = {**preset("pixelda", "auto"), "source": labelled, "target": unlabelled}
    print(adapt(PixelDAConfig.parse(settings), Path(runs)))
