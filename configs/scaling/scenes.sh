#!/usr/bin/env bash
# CAFT against CLIP on scenes that people described: packs them, trains the ladder of scenes.yaml,
# fits the laws with the largest runs held out, and writes the report. 69 minutes on two idle
# cores; what was done before is not done again. From the repository's folder:
#
#     configs/scaling/scenes.sh [output=FOLDER] [key=value of the ladder ...]
#
# Fit and report are written into the ladder's output folder, too. Held out are runs above
# HOLDOUT_ABOVE training FLOPs: 3e13 for the ladder as it is, none with other keys than output,
# unless the variable is set (empty: none).
set -euo pipefail

PYTHON=${PYTHON:-.venv-train/bin/python}
SCENES=${CANOPY_SHARED:-../shared}/data/scenes
LADDER=configs/scaling/scenes.yaml
export OMP_NUM_THREADS=1

output=scaling/scenes
holdout=${HOLDOUT_ABOVE-3e13}
for word in "$@"; do
    case $word in
    output=*) output=${word#output=} ;;
    *) holdout=${HOLDOUT_ABOVE-} ;;
    esac
done

"$PYTHON" -m recaption run engine.name=existing input="$SCENES" output=scaling/tables
for split in train val; do
    "$PYTHON" -m recaption pack shards="$SCENES/$split-*.tar" tables=scaling/tables \
        require='[existing]' output="scaling/packed/$split"  # one scene's description is a refusal
done
"$PYTHON" -m tools.scaling_laws plan "$LADDER" "$@"
"$PYTHON" -m tools.scaling_laws run "$LADDER" "$@"
"$PYTHON" -m tools.scaling_laws fit table="$output/results.csv" ${holdout:+holdout_above="$holdout"}
"$PYTHON" -m tools.scaling_laws report table="$output/results.csv" title="CAFT and CLIP on scenes"
