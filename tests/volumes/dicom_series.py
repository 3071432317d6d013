"""Generated DICOM series of a person with a name, as scanners and archives write them: classic and enhanced MR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PERSON = {
    "PatientName": "Quuxborough^Zephyrine",
    "PatientID": "MRN-77123456",
    "PatientBirthDate": "19610304",
    "PatientSex": "F",
    "PatientAddress": "14 Wobblethorpe Lane",
    "OtherPatientIDs": "SSN-999-12-3456",
    "ReferringPhysicianName": "Grumblesnatch^Ignatius",
    "AccessionNumber": "ACC8842019",
    "InstitutionName": "Snorkelby General",
    "StudyDescription": "Brain of Quuxborough",
    "StationName": "WOBBLE3T",
    "DeviceSerialNumber": "SER55512",
    "OperatorsName": "Plonk^Olga",
}
"""What must never leave the series for anything but a series derived from it."""
SECRETS = (
    "Quuxborough", "Zephyrine", "77123456", "19610304", "Wobblethorpe", "999-12-3456", "Grumblesnatch", "8842019", "Snorkelby", "WOBBLE3T",
    "SER55512", "Plonk",
)  # fmt: skip

ROW, COLUMN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
OBLIQUE = ((0.98480775, 0.17364818, 0.0), (-0.16317591, 0.92541658, -0.34202014))


def geometry(k: int, origin=(-90.5, -110.25, -60.0), step=3.0, directions=(ROW, COLUMN), shear=(0.0, 0.0, 0.0)):
    """The position of slice ``k``."""
    normal = np.cross(*directions)
    return [float(v) for v in np.asarray(origin) + k * (step * normal + np.asarray(shear))]


def base(uid: str, description: str, number: int, sop_class: str, *, study: str = "1.2.3.4.5") -> object:
    """A dataset with a person, a study and a series."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    for name, value in PERSON.items():
        setattr(data, name, value)
    data.StudyInstanceUID, data.SeriesInstanceUID = study, uid
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = f"{study}.9", ""
    data.StudyID, data.StudyDate, data.StudyTime = "7", "20240102", "101112"
    data.SeriesNumber, data.SeriesDescription, data.ProtocolName, data.Modality = number, description, description, "MR"
    data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = "Acme", "Tesla Three", "v1"
    data.BodyPartExamined, data.PatientPosition = "BRAIN", "HFS"
    return data


def pixels(data: object, array: np.ndarray) -> None:
    """Unsigned 16-bit pixels ``([frames,] rows, columns)``."""
    data.Rows, data.Columns = array.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = np.ascontiguousarray(array, dtype="<u2").tobytes()


def classic(
    folder: Path, array: np.ndarray, *, uid: str = "1.2.3.4.5.6", description: str = "Sag MPRAGE T1", number: int = 4, step: float = 3.0,
    directions=(ROW, COLUMN), shear=(0.0, 0.0, 0.0), spacing=(1.25, 1.5), slope: float | None = None, study: str = "1.2.3.4.5",
    order=None, change=None, first: int = 0,
) -> Path:  # fmt: skip
    """One file for each slice of ``array`` (slices, rows, columns), named in an order unlike the slices'; ``change(k, dataset)``."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in order or range(len(array)):
        data = base(uid, description, number, "1.2.840.10008.5.1.4.1.1.4", study=study)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1 + first}"
        data.ImageType, data.InstanceNumber, data.AcquisitionNumber = ["ORIGINAL", "PRIMARY", "M", "ND"], k + 1, 1
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "GR", "SP", "", "3D"
        data.EchoTime, data.RepetitionTime, data.InversionTime, data.EchoTrainLength = 2.9, 2300, 900, 1
        data.MagneticFieldStrength, data.FlipAngle = 3, 9
        data.PixelSpacing, data.SliceThickness, data.SpacingBetweenSlices = list(spacing), step, step
        data.ImageOrientationPatient = [*directions[0], *directions[1]]
        data.ImagePositionPatient = [f"{v:.8f}"[:16] for v in geometry(k, step=step, directions=directions, shear=shear)]
        if slope is not None:
            data.RescaleSlope, data.RescaleIntercept, data.RescaleType = slope, -8, "US"
        pixels(data, array[k])
        if change is not None:
            change(k, data)
        data.save_as(folder / f"IM{(k * 7) % 100:04d}{first or ''}", enforce_file_format=True)
    return folder


def enhanced(
    folder: Path, array: np.ndarray, *, uid: str = "1.2.3.4.5.7", description: str = "3D FLAIR", number: int = 5, step: float = 3.0,
    directions=(ROW, COLUMN), spacing=(1.25, 1.5), order=None, slopes=None,
) -> Path:  # fmt: skip
    """One multi-frame file, its frames in ``order``; ``slopes`` by slice."""
    from pydicom.dataset import Dataset

    def item(**values) -> Dataset:
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    folder.mkdir(parents=True, exist_ok=True)
    order = list(order or range(len(array)))
    data = base(uid, description, number, "1.2.840.10008.5.1.4.1.1.4.1")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1"
    data.ImageType, data.InstanceNumber, data.NumberOfFrames = ["ORIGINAL", "PRIMARY", "M", "NONE"], 1, len(array)
    data.ComplexImageComponent, data.ContentQualification, data.AcquisitionDateTime = "MAGNITUDE", "PRODUCT", "20240102101112"
    measures = item(PixelSpacing=list(spacing), SliceThickness=step, SpacingBetweenSlices=step)
    direction = item(ImageOrientationPatient=[*directions[0], *directions[1]])
    data.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[direction])]
    frames = []
    for number_in_stack, k in enumerate(order, start=1):
        position = [f"{v:.8f}"[:16] for v in geometry(k, step=step, directions=directions)]
        content = item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1], FrameAcquisitionNumber=number_in_stack)
        scale = item(RescaleSlope=slopes[k] if slopes else 1, RescaleIntercept=0, RescaleType="US")
        frames.append(
            item(
                FrameContentSequence=[content],
                PlanePositionSequence=[item(ImagePositionPatient=position)],
                PixelValueTransformationSequence=[scale],
            )
        )
    data.PerFrameFunctionalGroupsSequence = frames
    pixels(data, array[order])
    data.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder


def head(shape=(12, 20, 16), seed: int = 0) -> np.ndarray:
    """A skull-stripped brain ``(slices, rows, columns)`` of whole numbers without symmetry."""
    from tests.volumes.synthetic import brain_array

    return brain_array(shape, seed).astype(np.uint16)
