#!/usr/bin/env bash
# Learn what healthy frames look like, see how near the others come, and draw new ones.
# Usage: examples/learn_frames.sh FRAMES RUNS [any flag of `pixelscope endovae train`]
set -euo pipefail
frames=$1 runs=$2
shift 2

# Prepares the frames, trains, measures, and writes $runs/healthy/report.html.
pixelscope endovae train --frames "$frames" --out "$runs/healthy" "$@"
pixelscope endovae generate "$runs/healthy" --out "$runs/new.png" --count 9
