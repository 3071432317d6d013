"""A lesion mask as DICOM Segmentation (PS3.3 A.51) of the series it was found on, made by highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import UsageError, VolumeError
from localdiff_cli.volumes.formats.dicom.derived import NUMBER_OFFSET, Maker, frame_of_reference, is_there, new_uid
from localdiff_cli.volumes.formats.dicom.header import discreet, need_pydicom, read_header
from localdiff_cli.volumes.formats.dicom.stack import Stack
from localdiff_cli.volumes.whole import whole_folder

SEGMENT_OFFSET = 500


def need_highdicom() -> Any:
    """Return highdicom. Raise :class:`UsageError` where it, or pydicom, is not installed."""
    need_pydicom("--dicom-out")
    try:
        import highdicom
    except ImportError as error:
        raise UsageError("--dicom-out needs highdicom; install it with: pip install 'localdiff[dicom]'", code="no-dicom") from error
    return highdicom


def write_segmentation(stack: Stack, mask: NDArray[np.bool_], folder: Path, maker: Maker, *, overwrite: bool) -> bool:
    """Write a ``mask`` ``(columns, rows, slices)`` as one SEG file into ``folder``; False where it is there already.

    Raise :class:`VolumeError` for a folder that holds something else, unless ``overwrite``, and where it cannot be written.
    """
    highdicom = need_highdicom()
    series_uid = new_uid(stack.series.uid, maker.content, "seg")
    if is_there(folder, series_uid, overwrite=overwrite):
        return False
    files = list(dict.fromkeys(plane.file for plane in stack.planes))
    frames = mask.transpose(2, 1, 0).astype(np.uint8)
    if stack.planes[0].frame is not None:
        if len(files) > 1:
            raise VolumeError(f"{stack.series.label}: found {len(files)} multi-frame files; a SEG refers to one", code="dicom-kind")
        frames = frames[np.argsort([plane.frame or 0 for plane in stack.planes])]
    with whole_folder(folder) as partial, discreet(stack.series.label, "no SEG can be derived from it"):
        sources = [read_header(file, None) for file in files]
        _as_one_stack(sources)
        made = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_lesion(highdicom, maker)],
            series_instance_uid=series_uid,
            series_number=stack.series.number + NUMBER_OFFSET + SEGMENT_OFFSET,
            sop_instance_uid=new_uid(series_uid, 0),
            instance_number=1,
            manufacturer="localdiff",
            manufacturer_model_name="localdiff",
            software_versions=maker.version,
            device_serial_number=maker.bundle_hash[:12],
            content_label="LESIONS",
            content_description=f"Lesions on {'synthetic ' if stack.series.synthetic else ''}{maker.source_contrast}; research only",
            series_description=f"localdiff lesions on {maker.source_contrast} (research only)",
        )
        made.ContentQualification = "RESEARCH"
        if stack.series.synthetic:
            made.SyntheticData = "YES"
        made.save_as(partial / "0001.dcm", enforce_file_format=True)
    return True


def _as_one_stack(sources: list[Any]) -> None:
    """Give all images the first one's direction and space: highdicom asks for equal digits where the stack was found straight."""
    for source in sources:
        if "ImageOrientationPatient" in source:
            source.ImageOrientationPatient = sources[0].ImageOrientationPatient
        source.FrameOfReferenceUID = frame_of_reference(sources[0])


def _lesion(highdicom: Any, maker: Maker) -> Any:
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"localdiff segment, {maker.bundle}"[:64], version=maker.version, family=codes.DCM.ArtificialIntelligence
    )
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
