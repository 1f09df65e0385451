#!/usr/bin/env bash
# Adapt a classifier from one folder of labelled images to another without labels.
# Usage: examples/adapt_folders.sh LABELLED UNLABELLED RUNS [any flag of `pixelscope pixelda train`]
set -euo pipefail
labelled=$1 unlabelled=$2 runs=$3
shift 3

pixelscope data info "$labelled" "$unlabelled"
# Trains, measures, and writes $runs/adapted/report.html.
pixelscope pixelda train --source "$labelled" --target "$unlabelled" --out "$runs/adapted" "$@"
