"""A translation as a DICOM series of the source's patient and study: new UIDs, the source named, marked as synthetic and
for research.

Every file is an MR Image (PS3.3 A.4) on the place of one source plane. UIDs follow from the source's and from the content,
so the same translation gives the same bytes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.formats.dicom.header import CLASSIC, Z_LABEL, Plane, discreet, need_pydicom, read_header
from localdiff_cli.volumes.formats.dicom.stack import Stack
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.whole import whole_folder

STEPS = 32000
NUMBER_OFFSET = 9000
"""Added to the source's series number: derived series come after all others of the study."""

REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
"""Of type 2: present in every image, empty where the source does not know."""
OPTIONAL = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "OtherPatientIDs", "PatientAge", "PatientSize", "PatientWeight",
    "PatientIdentityRemoved", "DeidentificationMethod", "StudyDescription", "StudyInstanceUID", "FrameOfReferenceUID", "PatientPosition",
    "BodyPartExamined", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""Carried over where the source has them."""
EMPTY = ("ScanOptions", "MRAcquisitionType", "EchoTime", "RepetitionTime", "EchoTrainLength")
"""Of type 2: how an image was acquired that never was."""
SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True)
class Maker:
    """Who made a derived series: localdiff's version, the bundle and its hash; ``content`` is the SHA-256 of what was made,
    ``scale`` that of a translation's voxels (None where it has none)."""

    version: str
    bundle: str
    bundle_hash: str
    content: str
    contrast: str
    source_contrast: str
    scale: Scale | None = None

    @property
    def account(self) -> str:
        """One sentence for DerivationDescription."""
        by = f"by localdiff {self.version}, model {self.bundle} ({self.bundle_hash[:12]})"
        return f"Synthetic {self.contrast} estimated from {self.source_contrast} {by}. For research use; not for diagnosis."


def new_uid(*parts: object) -> str:
    """Return a UID derived from a UUID (PS3.5 B.2) that is a function of ``parts``."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, parts))).int}"


def stored(values: NDArray[np.float32]) -> tuple[NDArray[np.uint16], str, str]:
    """Return values as unsigned 16-bit with slope and intercept as DICOM writes them; [0, 1] is stored in steps of 1/32000."""
    from pydicom.valuerep import format_number_as_ds

    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    slope, intercept = format_number_as_ds(max(high - low, 1e-6) / STEPS), format_number_as_ds(low)
    return np.clip(np.rint((values.astype(np.float64) - float(intercept)) / float(slope)), 0, 65535).astype(np.uint16), slope, intercept


def write_derived(stack: Stack, values: NDArray[np.float32], folder: Path, maker: Maker, *, overwrite: bool) -> bool:
    """Write ``values`` ``(columns, rows, slices)`` as a series into ``folder``; False where it is there already.

    Raise :class:`VolumeError` for a folder that holds something else, unless ``overwrite``, and where it cannot be written.
    """
    pydicom = need_pydicom("Writing DICOM")
    series_uid = new_uid(stack.series.uid, maker.content, "image", *([] if maker.scale is None else [Z_LABEL]))
    if is_there(folder, series_uid, overwrite=overwrite):
        return False
    pixels, slope, intercept = stored(values)
    headers: dict[Path, Any] = {}
    with whole_folder(folder) as partial, discreet(stack.series.label, "no DICOM series can be derived from it"):
        for k, plane in enumerate(stack.planes):
            source = headers[plane.file] if plane.file in headers else read_header(plane.file, None)
            headers = {plane.file: source}
            image = _image(source, stack, k, maker, series_uid)
            image.RescaleSlope, image.RescaleIntercept, image.RescaleType = slope, intercept, "US"
            image.WindowCenter = pydicom.valuerep.format_number_as_ds(float(intercept) + STEPS * float(slope) / 2)
            image.WindowWidth = pydicom.valuerep.format_number_as_ds(STEPS * float(slope))
            if maker.scale is not None:
                image.RealWorldValueMappingSequence = [_mapping_to_z(maker.scale, float(slope), float(intercept))]
            _set_pixels(image, pixels[:, :, k].T)
            image.save_as(partial / f"{k + 1:04d}.dcm", enforce_file_format=True)
    return True


def is_there(folder: Path, series_uid: str, *, overwrite: bool) -> bool:
    """Return whether a series was written before. Raise :class:`VolumeError` for something else in its place, unless
    ``overwrite``."""
    if not folder.exists():
        return False
    first = next(iter(sorted(folder.glob("*.dcm"))), None)
    if first is not None:
        with discreet(str(folder), "its files cannot be read"):
            header = need_pydicom("Writing DICOM").dcmread(first, specific_tags=["SeriesInstanceUID"])
            if header.get("SeriesInstanceUID") == series_uid:
                return True
    if overwrite:
        return False
    raise VolumeError(f"{folder}: exists, and is another series; replace it with --overwrite, or choose another --dicom-out", code="exists")


def carry_over(source: Any, image: Any) -> None:
    """Patient, study and place of a source image; elements are taken as they are, valid or not."""
    for name in (*REQUIRED, *OPTIONAL):
        if name in source:
            image[name] = source[name]
    for name in REQUIRED:
        if name not in image:
            setattr(image, name, "")
    image.FrameOfReferenceUID = frame_of_reference(source)


def frame_of_reference(source: Any) -> str:
    """Return the UID of the space in which a source image lies; of one that does not say it, one of its own series."""
    return str(source.get("FrameOfReferenceUID") or new_uid(source.SeriesInstanceUID, "frame of reference"))


def _image(source: Any, stack: Stack, k: int, maker: Maker, series_uid: str) -> Any:
    """The dataset of slice ``k`` but for its pixels."""
    from pydicom.dataset import Dataset

    plane, image = stack.planes[k], Dataset()
    carry_over(source, image)
    _identify(image, series_uid, stack, k, maker)
    _place(image, stack, plane)
    _refer(image, source, stack, plane)
    for name in EMPTY:
        setattr(image, name, "" if name != "EchoTrainLength" else None)
    image.ScanningSequence, image.SequenceVariant = "RM", "NONE"
    return image


def _identify(image: Any, series_uid: str, stack: Stack, k: int, maker: Maker) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    image.SOPClassUID, image.SOPInstanceUID = CLASSIC, new_uid(series_uid, k)
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = new_uid("localdiff")
    image.SeriesInstanceUID, image.SeriesNumber, image.InstanceNumber = series_uid, stack.series.number + NUMBER_OFFSET, k + 1
    image.Modality, image.ImageType = "MR", ["DERIVED", "SECONDARY", "OTHER"]
    image.SyntheticData, image.ContentQualification, image.BurnedInAnnotation = "YES", "RESEARCH", "NO"
    image.SeriesDescription = f"localdiff synthetic {maker.contrast} (research only)"[:64]
    image.DerivationDescription = image.ImageComments = maker.account
    image.Manufacturer = image.ManufacturerModelName = "localdiff"
    image.SoftwareVersions = maker.version


def _mapping_to_z(scale: Scale, slope: float, intercept: float) -> Any:
    """How a stored value becomes z (PS3.3 C.7.6.16.2.11), between those of the window's ends; for readers such as ours, which
    take the scale of a translation from it."""
    from pydicom.dataset import Dataset

    mapping, unit = Dataset(), Dataset()
    ends = ((end * scale.sd + scale.median - intercept) / slope for end in scale.window)
    first, last = (int(np.clip(round(end), 0, 65535)) for end in ends)
    mapping.add_new("RealWorldValueFirstValueMapped", "US", first)
    mapping.add_new("RealWorldValueLastValueMapped", "US", last)
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope / scale.sd, (intercept - scale.median) / scale.sd
    mapping.LUTLabel, mapping.LUTExplanation = Z_LABEL, "robust z about the median of the brain, in SDs"
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "1", "UCUM", "no units"
    mapping.MeasurementUnitsCodeSequence = [unit]
    return mapping


def _place(image: Any, stack: Stack, plane: Plane) -> None:
    from pydicom.valuerep import format_number_as_ds

    def texts(values: tuple[float, ...]) -> list[str]:
        return [format_number_as_ds(value) for value in values]

    image.PixelSpacing, image.ImagePositionPatient = texts(plane.spacing), texts(plane.position)
    image.ImageOrientationPatient = texts(plane.orientation)
    step = float(np.linalg.norm(stack.affine[:3, 2]))
    image.SliceThickness = image.SpacingBetweenSlices = format_number_as_ds(round(step, 6))


def _refer(image: Any, source: Any, stack: Stack, plane: Plane) -> None:
    """Name the source image, and its series (PS3.3 C.12.2)."""
    from pydicom.dataset import Dataset

    reference, purpose, instance, series = Dataset(), Dataset(), Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = SOURCE_IMAGE
    for item in (reference, instance):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, plane.instance
    if plane.frame is not None:
        reference.ReferencedFrameNumber = plane.frame + 1
    reference.PurposeOfReferenceCodeSequence, reference.SpatialLocationsPreserved = [purpose], "YES"
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = stack.series.uid, [instance]
    image.SourceImageSequence, image.ReferencedSeriesSequence = [reference], [series]


def _set_pixels(image: Any, pixels: NDArray[np.uint16]) -> None:
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()
