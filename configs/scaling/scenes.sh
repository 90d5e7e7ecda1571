#!/usr/bin/env bash
# CAFT against CLIP on scenes that people described: packs them, trains the ladder of scenes.yaml,
# fits the laws with the largest runs held out, and writes the report. 69 minutes on two idle
# cores; what was done before is not done again. From the repository's folder:
#
#     configs/scaling/scenes.sh [key=value of the ladder ...]
set -euo pipefail

PYTHON=${PYTHON:-.venv-train/bin/python}
SCENES=${CANOPY_SHARED:-../shared}/data/scenes
LADDER=configs/scaling/scenes.yaml
export OMP_NUM_THREADS=1

"$PYTHON" -m recaption run engine.name=existing input="$SCENES" output=scaling/tables
for split in train val; do
    "$PYTHON" -m recaption pack shards="$SCENES/$split-*.tar" tables=scaling/tables \
        require='[existing]' output="scaling/packed/$split"  # one scene's description is a refusal
done
"$PYTHON" -m tools.scaling_laws plan "$LADDER" "$@"
"$PYTHON" -m tools.scaling_laws run "$LADDER" "$@"
"$PYTHON" -m tools.scaling_laws fit table=scaling/scenes/results.csv holdout_above=3e13
"$PYTHON" -m tools.scaling_laws report table=scaling/scenes/results.csv \
    title="CAFT and CLIP on scenes"
