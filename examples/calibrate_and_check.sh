#!/usr/bin/env bash
# Make a bundle's own calibration from the val people, hold what they promise against the test people, and write the page of results.
#   [MODEL=t1-to-flair] [EVERY=5] [OUT=examples/benchmarks] bash examples/calibrate_and_check.sh WORK DATA_FOLDER...
# Run it from the checkout, again whenever weights or defaults of the bundle have changed; what is already in WORK is not measured again.
set -euo pipefail
work=${1:?usage: calibrate_and_check.sh WORK DATA_FOLDER...}
shift
[ $# -gt 0 ] || { echo "usage: calibrate_and_check.sh WORK DATA_FOLDER..." >&2; exit 2; }
model=${MODEL:-t1-to-flair}
every=${EVERY:-5}
out=${OUT:-examples/benchmarks}

folder=$(localdiff models list | awk -F '\t' -v name="$model" '$1 == name { print $4 }')
data=()
shape=()
for each in "$@"; do
    data+=(--data "$each")
    shape+=(--bands-from "$each")
done
# The bands ask nothing of the cut, so that the bundle's own is taken. Val people chose settings: --with-val says so in the certificate.
localdiff calibrate --model "$model" "${data[@]}" --split val --with-val --interval 0.9 "${shape[@]}" --every "$every" --work "$work" \
    --out "$folder/configs/calibration.json"
python -m examples.benchmarks.paper --part promise --model "$model" --data "$@" --split test --every "$every" --work "$work" --out "$out" --page
