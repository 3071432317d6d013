#!/usr/bin/env bash
# The whole chain on a real brain: a slab of a multiple-sclerosis patient (examples/data), T1w to FLAIR.
#   bash examples/demo.sh [OUT]
set -euo pipefail
out=${1:-demo}
data=$(cd "$(dirname "$0")" && pwd)/data/sub-openms19
t1=$data/sub-openms19_T1w.nii.gz
brain=$data/sub-openms19_brain.nii.gz # a slab is too thin for the brain to be found in it
ref=$data/sub-openms19_FLAIR.nii.gz
model=(--model t1-to-flair --brain "$brain")
mkdir -p "$out"
rm -rf "${out:?}"/{ood,plain,local,lesions,report,picture.png}

localdiff detect --in "$t1" --out "$out/ood" "${model[@]}" --save-mask
localdiff translate --in "$t1" --out "$out/plain" "${model[@]}" --suffix FLAIR --mode plain
localdiff translate --in "$t1" --out "$out/local" "${model[@]}" --suffix FLAIR --save-source
localdiff segment --in "$out/local" --out "$out/lesions" --brain "$brain"
localdiff evaluate --in "$out/local" --baseline "$out/plain" --ref "$ref" --truth "$data/sub-openms19_mask.nii.gz" \
    --segmenter lesion-flair --ood "$out/ood" --condition "$t1" --brain "$brain" --out "$out/report"
python "$(dirname "$0")/picture.py" "$out/picture.png" "$t1" "$out/local/sub-openms19_FLAIR_source.nii.gz" \
    "$out/plain/sub-openms19_FLAIR.nii.gz" "$out/local/sub-openms19_FLAIR.nii.gz" "$ref" "$brain"

echo
echo "Done. Look at $out/picture.png: what is orange was drawn, which is nothing in this patient: the detector is sure of gliomas only, and the lesions of the"
echo "true FLAIR appear in neither translation. What is yellow is called unknown: there the T1w looks as where lesions lie that the network cannot draw."
echo "$out/local/qc.tsv says what a person has to look at. Compare both with the true FLAIR. The numbers are in"
echo "$out/report/report.html (open it in a browser)."
