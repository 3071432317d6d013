#!/usr/bin/env bash
# The whole chain on a folder: detect, translate, and, where true target images are there, evaluate.
#   bash examples/one_node.sh T1_FOLDER OUT [TRUE_TARGET_FOLDER [LESION_MASK_FOLDER]]
set -euo pipefail
t1=${1:?usage: one_node.sh T1_FOLDER OUT [TRUE_TARGET_FOLDER [LESION_MASK_FOLDER]]}
out=${2:?usage: one_node.sh T1_FOLDER OUT [TRUE_TARGET_FOLDER [LESION_MASK_FOLDER]]}
ref=${3:-}
truth=${4:-}

# Exit code 1 means that some volumes failed: the others are worth evaluating, failures.tsv lists the rest.
some_may_fail() { "$@" || [ $? -eq 1 ]; }

some_may_fail localdiff detect --in "$t1" --out "$out/ood" --save-mask
some_may_fail localdiff translate --in "$t1" --out "$out/plain" --mode plain
some_may_fail localdiff translate --in "$t1" --out "$out/local" --save-source
if [ -n "$ref" ]; then
    some_may_fail localdiff evaluate --in "$out/local" --baseline "$out/plain" --ref "$ref" --ood "$out/ood" --condition "$t1" \
        ${truth:+--truth "$truth"} --out "$out/report"
fi
