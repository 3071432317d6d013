#!/usr/bin/env bash
# A BIDS dataset of the packaged patient (examples/data), to try localdiff-bids on: the raw images, and masks as derivatives.
#   bash examples/bids_study.sh [STUDY]
#   localdiff-bids STUDY STUDY/derivatives/localdiff participant --brain STUDY/derivatives/brain
#   localdiff-bids STUDY STUDY/derivatives/localdiff group --truth STUDY/derivatives/experts --segmenter lesion-flair
set -euo pipefail
study=${1:-study}
data=$(cd "$(dirname "$0")" && pwd)/data/sub-openms19
anat=sub-openms19/anat
mkdir -p "$study/$anat" "$study/derivatives/brain/$anat" "$study/derivatives/experts/$anat"

cp "$data/sub-openms19_T1w.nii.gz" "$data/sub-openms19_FLAIR.nii.gz" "$study/$anat/"
cp "$data/sub-openms19_brain.nii.gz" "$study/derivatives/brain/$anat/sub-openms19_space-T1w_desc-brain_mask.nii.gz"
cp "$data/sub-openms19_mask.nii.gz" "$study/derivatives/experts/$anat/sub-openms19_space-T1w_label-lesion_mask.nii.gz"

describe() { # FOLDER NAME DERIVATIVE
    printf '{"Name": "%s", "BIDSVersion": "1.10.0", "License": "CC BY 4.0", "Authors": ["Ž. Lesjak", "F. Pernuš", "B. Likar", "Ž. Špiclin"]%s}\n' "$2" "$3" \
        >"$1/dataset_description.json"
    echo "Slices 68 to 107 of patient 19 of open_ms_data (Lesjak et al., Neuroinformatics 2018), CC BY 4.0; see examples/data/README.md of localdiff." \
        >"$1/README.md"
}
describe "$study" "One patient of open_ms_data" ""
describe "$study/derivatives/brain" "Brain masks" ', "DatasetType": "derivative", "GeneratedBy": [{"Name": "support of the skull-stripped T1w"}]'
describe "$study/derivatives/experts" "Lesion masks by experts" ', "DatasetType": "derivative", "GeneratedBy": [{"Name": "open_ms_data"}]'
for mask in brain/$anat/sub-openms19_space-T1w_desc-brain_mask experts/$anat/sub-openms19_space-T1w_label-lesion_mask; do
    echo '{"SpatialReference": "../../'"$anat"'/sub-openms19_T1w.nii.gz"}' >"$study/derivatives/$mask.json"
done
for image in T1w FLAIR; do
    echo '{"MagneticFieldStrength": 3, "SkullStripped": true}' >"$study/$anat/sub-openms19_$image.json"
done
echo "made $study; next: localdiff-bids $study $study/derivatives/localdiff participant --brain $study/derivatives/brain"
