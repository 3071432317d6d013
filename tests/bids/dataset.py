"""A small raw BIDS dataset with all that real ones have: sessions, runs, contrast agent, links, derivatives, a person without T1w."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib

from tests.brains import write_brain

IMAGES = (
    ("01", "pre", "sub-01_ses-pre_run-1_T1w", 1),
    ("01", "pre", "sub-01_ses-pre_run-2_T1w", 2),
    ("01", "pre", "sub-01_ses-pre_ce-gd_run-1_T1w", 3),
    ("01", "pre", "sub-01_ses-pre_FLAIR", 4),
    ("01", "post", "sub-01_ses-post_acq-mprage_T1w", 5),
    ("02", "", "sub-02_T1w", 6),
    ("02", "", "sub-02_FLAIR", 7),
    ("03", "", "sub-03_FLAIR", 8),
)


def make_dataset(root: Path, images: tuple[tuple[str, str, str, int], ...] = IMAGES) -> Path:
    """The dataset in ``root``; the T1w of sub-02 is a link into an annex, as DataLad keeps it."""
    for subject, session, name, seed in images:
        folder = root / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
        path = write_brain(folder / f"{name}.nii.gz", seed)
        image = nib.load(path)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(nib.Nifti1Image(image.dataobj, image.affine, image.header), path)
        (folder / f"{name}.json").write_text(json.dumps({"MagneticFieldStrength": 3, "Manufacturer": "Synthetic"}))
    annexed = root / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    if annexed.exists():
        key = root / ".git" / "annex" / "objects" / "T1w.nii.gz"
        key.parent.mkdir(parents=True)
        annexed.rename(key)
        annexed.symlink_to(os.path.relpath(key, annexed.parent))
    other = root / "derivatives" / "other" / "sub-01" / "ses-pre" / "anat"
    write_brain(other / "sub-01_ses-pre_desc-preproc_T1w.nii.gz", 9)
    description = {"Name": "A small study", "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A. Person", "B. Person"]}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "derivatives" / "other" / "dataset_description.json").write_text(
        json.dumps(description | {"DatasetType": "derivative", "GeneratedBy": [{"Name": "other"}]})
    )
    (root / "README.md").write_text("Small synthetic brains, made for the tests of localdiff. " * 4)
    return root
