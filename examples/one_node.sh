#!/usr/bin/env bash
# The whole chain on a folder: detect, translate, segment lesions where a segmenter of the target contrast is installed, and, where true
# target images are there, evaluate.
#   [MODEL=t1-to-t2] [JOBS=1] bash examples/one_node.sh T1_FOLDER OUT [TRUE_TARGET_FOLDER [LESION_MASK_FOLDER]]
set -euo pipefail
t1=${1:?usage: one_node.sh T1_FOLDER OUT [TRUE_TARGET_FOLDER [LESION_MASK_FOLDER]]}
out=${2:?usage: one_node.sh T1_FOLDER OUT [TRUE_TARGET_FOLDER [LESION_MASK_FOLDER]]}
ref=${3:-}
truth=${4:-}
model=${MODEL:-t1-to-t2}

# Exit code 1 means that some volumes failed: the others are worth evaluating, failures.tsv lists the rest.
some_may_fail() { "$@" || [ $? -eq 1 ]; }

# models list prints: name, task, contrasts (of a translator "T1w → T2w"), folder.
models=$(localdiff models list)
target=$(awk -F '\t' -v name="$model" '$1 == name { sub(/.* /, "", $3); print $3 }' <<<"$models")
segmenter=$(awk -F '\t' -v target="$target" '$2 == "segment" && $3 == target { print $1; exit }' <<<"$models")

some_may_fail localdiff detect --in "$t1" --out "$out/ood" --model "$model" --save-mask --jobs "${JOBS:-1}"
some_may_fail localdiff translate --in "$t1" --out "$out/plain" --model "$model" --mode plain --jobs "${JOBS:-1}"
some_may_fail localdiff translate --in "$t1" --out "$out/local" --model "$model" --save-source --jobs "${JOBS:-1}"
if [ -n "$segmenter" ]; then
    some_may_fail localdiff segment --in "$out/plain" --out "$out/plain_lesions" --model "$segmenter" --jobs "${JOBS:-1}"
    some_may_fail localdiff segment --in "$out/local" --out "$out/local_lesions" --model "$segmenter" --jobs "${JOBS:-1}"
else
    echo "no segmenter of $target lesions is installed (localdiff models list): lesions are not segmented"
fi
if [ -n "$ref" ]; then
    some_may_fail localdiff evaluate --in "$out/local" --baseline "$out/plain" --ref "$ref" --ood "$out/ood" --condition "$t1" \
        ${truth:+--truth "$truth"} ${segmenter:+--segmenter "$segmenter"} --out "$out/report" --jobs "${JOBS:-1}"
fi
