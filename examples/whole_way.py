"""The whole way of one person: DICOM → BIDS → ``localdiff-bids`` → report → Slicer's module → DICOM out, on the packaged patient.

``python -m examples.whole_way WORK`` makes two DICOM series of the patient in ``examples/data`` (a slab, skull-stripped), converts them
with dcm2niix into a BIDS dataset, and runs every command on them; it prints where each step's result lies. Needs ``localdiff[dicom]`` and
dcm2niix.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

PATIENT = Path(__file__).resolve().parent / "data" / "sub-openms19" / "sub-openms19"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ROOT = "1.2.826.0.1.3680043.10.1.1"
"""Below the root of nobody's device: these series exist in this example alone."""

Run = Callable[..., str]
"""A program and its arguments; what it prints. Raises where it fails."""


def program(*words: object) -> str:
    """Run an installed program."""
    print("$", " ".join(map(str, words)), flush=True)
    return subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True).stdout


def slab(contrast: str, slices: int) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """The middle slices inside the brain ``(I, J, K)`` as whole numbers, and their affine to DICOM's millimetres (LPS)."""
    image, brain = nib.load(f"{PATIENT}_{contrast}.nii.gz"), nib.load(f"{PATIENT}_brain.nii.gz")
    assert isinstance(image, nib.Nifti1Image)
    assert isinstance(brain, nib.Nifti1Image)
    first = max(0, (image.shape[2] - slices) // 2)
    turned = nib.as_closest_canonical(image.slicer[:, :, first : first + slices])
    inside = nib.as_closest_canonical(brain.slicer[:, :, first : first + slices])
    voxels = np.asanyarray(turned.dataobj) * (np.asanyarray(inside.dataobj) > 0)
    scaled = np.rint(voxels * (4095 / voxels.max())).astype(np.uint16)[::-1, ::-1]
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = np.array(scaled.shape[:2]) - 1
    return scaled, np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned.affine @ flip


def write_series(folder: Path, voxels: NDArray[np.uint16], affine: NDArray[np.float64], description: str, number: int) -> Path:
    """A classic MR series, one file a slice, of voxels ``(I, J, K)`` and their affine to DICOM's millimetres."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    along = affine[:3, :3] / spacing
    for k in range(voxels.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID(MR_IMAGE)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = UID(f"{ROOT}.{number}.{k + 1}")
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = ROOT, f"{ROOT}.{number}", f"{ROOT}.9"
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Example^Patient", "EXAMPLE", "", "O"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "20240102", "101112", "1", "", ""
        data.Modality, data.Manufacturer, data.SeriesNumber, data.InstanceNumber = "MR", "example", number, k + 1
        data.SeriesDescription, data.ProtocolName, data.PositionReferenceIndicator = description, description, ""
        data.ImageType, data.ScanningSequence, data.SequenceVariant, data.ScanOptions = ["ORIGINAL", "PRIMARY", "M", "ND"], "GR", "SP", ""
        data.MRAcquisitionType, data.EchoTime, data.RepetitionTime, data.EchoTrainLength = "3D", 3, 2300, 1
        data.SliceThickness, data.SpacingBetweenSlices = float(spacing[2]), float(spacing[2])
        data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        data.ImageOrientationPatient = [f"{v:.8f}"[:16] for v in (*along[:, 0], *along[:, 1])]
        data.ImagePositionPatient = [f"{v:.8f}"[:16] for v in (affine @ [0, 0, k, 1])[:3]]
        data.Rows, data.Columns, data.SamplesPerPixel = voxels.shape[1], voxels.shape[0], 1
        data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored, data.HighBit = "MONOCHROME2", 16, 16, 15
        data.PixelRepresentation, data.PixelData = 0, np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        data.save_as(folder / f"{k + 1:04d}.dcm", enforce_file_format=True)
    return folder


def to_bids(series: dict[str, Path], study: Path, run: Run) -> Path:
    """A BIDS dataset of one person from a series of each suffix, by dcm2niix."""
    anat = study / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for suffix, folder in series.items():
        run("dcm2niix", "-b", "y", "-z", "y", "-f", f"sub-01_{suffix}", "-o", anat, folder)
    (study / "dataset_description.json").write_text(json.dumps({"Name": "example", "BIDSVersion": "1.10.0", "DatasetType": "raw"}) + "\n")
    (study / "README.md").write_text("One person of an example, converted from DICOM by dcm2niix.\n")
    (study / "participants.tsv").write_text("participant_id\nsub-01\n")
    return study


@dataclass(frozen=True)
class Way:
    """Where the results of the steps lie."""

    study: Path
    derivatives: Path
    report: Path
    module: ET.Element
    slicer: Path
    derived: tuple[Path, ...]


def walk(work: Path, run: Run, *, model: str = "t1-to-flair", target: str = "FLAIR", slices: int = 8) -> Way:
    """Every step in turn; ``run`` carries out the commands. ``target`` is what the model translates to."""
    series = {}
    for number, (suffix, contrast) in enumerate((("T1w", "T1w"), (target, "FLAIR")), start=1):
        voxels, affine = slab(contrast, slices)
        description = "Ax T1 MPRAGE" if suffix == "T1w" else f"Ax {suffix}"
        series[suffix] = write_series(work / "dicom" / suffix, voxels, affine, description, number)
    study = to_bids(series, work / "study", run)
    derivatives = study / "derivatives" / "localdiff"
    run("localdiff-bids", study, derivatives, "participant", "--model", model)
    run("localdiff-bids", study, derivatives, "group", "--model", model)
    module = ET.fromstring(run("localdiff-slicer", "--xml"))
    source, slicer = study / "sub-01" / "anat" / "sub-01_T1w.nii.gz", work / "slicer.nrrd"
    run("localdiff-slicer", source, slicer, "--model", model)
    out, derived = work / "translated", work / "derived"
    run("localdiff", "translate", "--in", series["T1w"], "--out", out, "--model", model, "--suffix", target, "--dicom-out", derived)
    return Way(study, derivatives, next(derivatives.rglob("report.html")), module, slicer, tuple(sorted(derived.rglob("*.dcm"))))


def main() -> None:
    """Walk, and say where everything lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--slices", type=int, default=8)
    options = parser.parse_args()
    if shutil.which("dcm2niix") is None:
        parser.error("dcm2niix is not installed")
    way = walk(options.work, program, slices=options.slices)
    for name in ("study", "derivatives", "report", "slicer"):
        print(f"{name}: {getattr(way, name)}")
    print(f"derived series: {len(way.derived)} images in {way.derived[0].parent}")


if __name__ == "__main__":
    main()
