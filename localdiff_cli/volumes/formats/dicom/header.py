"""What the headers of DICOM files say: which series a file belongs to, and of each image plane its place, spacing and
scale.

Needs pydicom. Nothing that identifies a person leaves this module: a series is known by a label made from hashes of its
UIDs, messages name that label, and neither a library's words nor a path are quoted, for both may hold a patient's name.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from localdiff_cli.errors import LocaldiffError, UsageError, VolumeError
from localdiff_cli.volumes.intensity import Scale

MAGIC, MAGIC_AT = b"DICM", 128
SUFFIXES = ("", ".dcm", ".ima", ".dicom")
"""What a DICOM file's name may end in, beside a dot and digits."""
CLASSIC = "1.2.840.10008.5.1.4.1.1.4"
MULTIFRAME = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""MR Image Storage; Enhanced and Legacy Converted Enhanced MR Image Storage."""

TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ProtocolName",
    "Modality", "ImageType", "SyntheticData", "ContrastBolusAgent", "ComplexImageComponent", "InstanceNumber", "AcquisitionNumber",
    "TemporalPositionIdentifier", "EchoTime", "InversionTime", "DiffusionBValue", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness",
    "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "PatientID", "PatientName", "PatientBirthDate", "RealWorldValueMappingSequence",
)  # fmt: skip
TRAITS = ("EchoTime", "InversionTime", "TemporalPositionIdentifier", "DiffusionBValue", "ImageType", "AcquisitionNumber")
"""What may tell two images of one place apart."""
Z_LABEL = "LOCALDIFF_Z"
"""Label of the mapping from stored values to z in a series that was derived from a translation."""
Z_PARTS = ("Slope", "Intercept", "FirstValueMapped", "LastValueMapped")
"""Elements of that mapping, after ``RealWorldValue``."""
OWNERS = {"PatientID": "patients", "PatientName": "patients", "PatientBirthDate": "patients", "StudyInstanceUID": "studies"}
"""What all images of a series must agree in, and of how many it would else be; compared, never kept."""


@dataclass(frozen=True)
class Plane:
    """One image plane: its ``file`` and, in a multi-frame file, its ``frame`` from 0; geometry in LPS mm as DICOM states
    it.

    ``position`` of the first pixel's centre; ``orientation`` the directions of a row and of a column; ``spacing`` between
    rows and between columns; ``size`` rows and columns; ``thickness`` of a slice that has no neighbours; real value = slope
    · stored + intercept.
    """

    file: Path
    instance: str
    frame: int | None
    number: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    size: tuple[int, int]
    thickness: float
    slope: float
    intercept: float
    packed: bool
    traits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Series:
    """The MR images of one SeriesInstanceUID in one folder, and why they cannot be one volume (``fault``, empty where they
    may, and the ``kind`` of fault, the last part of its code). ``scale``: that of the voxels of a translation that localdiff
    derived; None for all other series."""

    study: str = field(repr=False)
    uid: str = field(repr=False)
    number: int
    words: str = field(repr=False)
    synthetic: bool
    enhanced: bool
    planes: tuple[Plane, ...] = field(repr=False)
    fault: str = ""
    kind: str = "kind"
    scale: Scale | None = None

    @property
    def label(self) -> str:
        """A name that says nothing of the person: ``study-1f0c9a3e/series-004-7be21c55``."""
        return f"study-{_digest(self.study)}/series-{self.number:03d}-{_digest(self.uid)}"

    @property
    def path(self) -> Path:
        """The file that stands for the series: the first by name."""
        return min(plane.file for plane in self.planes)


def _digest(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def is_dicom(path: Path) -> bool:
    """Return whether a file, by its name and its mark at byte 128, is DICOM and no DICOMDIR; False for one that cannot be
    read."""
    ending = path.suffix.lower()
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or (ending not in SUFFIXES and not ending[1:].isdigit()):
        return False
    try:
        with path.open("rb") as stream:
            stream.seek(MAGIC_AT)
            return stream.read(4) == MAGIC
    except OSError:
        return False


def need_pydicom(what: str) -> Any:
    """Return pydicom. Raise :class:`UsageError` where it is not installed."""
    try:
        import pydicom
    except ImportError as error:
        install = "pip install 'localdiff[dicom]'"
        raise UsageError(f"{what} needs pydicom and highdicom; install them with: {install}", code="no-dicom") from error
    return pydicom


@contextmanager
def discreet(label: str, doing: str = "its DICOM files cannot be read") -> Iterator[None]:
    """Turn whatever a library raises into a :class:`VolumeError` that quotes neither a header nor a path; what it warns of
    is not shown."""
    before = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)  # pydicom's and highdicom's loggers have children of their own
        with catch_warnings():
            simplefilter("ignore")
            yield
    except LocaldiffError:
        raise
    except Exception as error:  # pydicom, GDCM and highdicom quote values and paths in errors of many kinds
        raise VolumeError(f"{label}: {doing} ({type(error).__name__}). Copy or export the series again", code="dicom") from None
    finally:
        logging.disable(before)


def all_series(folder: Path) -> tuple[Series, ...]:
    """Return every MR series whose files lie in ``folder`` itself, by label.

    A file that cannot be read is a fault of every series beside it: it may be one of its slices.

    Raise :class:`UsageError` where pydicom is missing.
    """
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    stamps = tuple((folder / name).stat().st_mtime_ns for name in names)
    return _all_series(folder, tuple(names), stamps)


@lru_cache(maxsize=4)
def _all_series(folder: Path, names: tuple[str, ...], stamps: tuple[int, ...]) -> tuple[Series, ...]:
    """Read once for all the questions asked of a folder that has not changed since."""
    need_pydicom("Reading DICOM")
    found: dict[str, list[tuple[Path, Any]]] = {}
    damaged = []
    for number, path in enumerate((folder / name for name in names), start=1):
        try:
            if is_dicom(path) and (header := read_header(path)) is not None:
                found.setdefault(str(header.get("SeriesInstanceUID") or ""), []).append((path, header))
        except VolumeError:
            damaged.append((number, path))
    series = [_series(files) for files in found.values()]
    if damaged:
        fault = f"found {len(damaged)} DICOM files in its folder that cannot be read, the first is number {damaged[0][0]} by name; "
        fault += "expected whole files. Copy them again"
        series = [replace(one, fault=one.fault or fault) for one in series or [_unreadable(damaged[0][1], "")]]
    return tuple(sorted(series, key=lambda one: one.label))


def _content_start(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.sha256(stream.read(1 << 16)).hexdigest()


def read_header(path: Path, tags: tuple[str, ...] | None = TAGS) -> Any:
    """Return the dataset of an MR image without its pixels; None for another kind of object. ``tags``: only those, None:
    all."""
    pydicom = need_pydicom("Reading DICOM")
    with discreet("a DICOM file of the input"):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))
        kind = header.get("SOPClassUID") or header.file_meta.MediaStorageSOPClassUID
        return header if str(kind) in (CLASSIC, *MULTIFRAME) else None


def _series(files: list[tuple[Path, Any]]) -> Series:
    """The series of some files; one whose headers no series can be made of has that as its fault, so that it fails alone."""
    try:
        with discreet("a DICOM series of the input"):
            return _understood(files)
    except VolumeError as error:
        return _unreadable(files[0][0], str(error).partition(": ")[2])


def _understood(files: list[tuple[Path, Any]]) -> Series:
    _, first = files[0]
    study, uid, number = str(first.get("StudyInstanceUID") or ""), str(first.get("SeriesInstanceUID") or ""), first.get("SeriesNumber")
    words = f"{first.get('ProtocolName') or ''} {first.get('SeriesDescription') or ''}"
    facts = (int(number or 0), words, first.get("SyntheticData") == "YES", bool(first.get("ContrastBolusAgent")))
    planes, faults = [], [] if study and uid else ["found no StudyInstanceUID or SeriesInstanceUID; expected both in every image"]
    for path, header in files:
        faults.append(_unusable(header))
        planes += [] if faults[-1] else list(_planes(path, header))
    fault, mixed = next(filter(None, faults), ""), _mixed([header for _, header in files])
    series = Series(study, uid or _content_start(files[0][0]), *facts, tuple(planes) or (_placeholder(files[0][0]),), fault)
    scale = _scale_of_z(first)
    series = replace(series, scale=scale, synthetic=series.synthetic or scale is not None)
    return replace(series, fault=mixed, kind="mixed") if mixed else series


def _mixed(headers: list[Any]) -> str:
    """That the images of one series are of several patients or studies; empty where they are not. An element left out says
    nothing."""
    for name, of in OWNERS.items():
        said = {str(header.get(name)) for header in headers if header.get(name) not in (None, "")}
        if len(said) > 1:
            return f"found images of {len(said)} {of} in one series (by {name}); expected those of one. Split the series first"
    return ""


def _unreadable(file: Path, fault: str) -> Series:
    """Stands for a file of which nothing is known but that it cannot be used."""
    return Series("", _content_start(file), 0, "", False, False, (_placeholder(file),), fault)


def _placeholder(file: Path) -> Plane:
    """Stands for a file none of whose planes can be used: its series has a fault."""
    return Plane(file, "", None, 0, (), (), (), (0, 0), 0.0, 1.0, 0.0, False)


def _unusable(header: Any) -> str:
    """Why an image cannot be part of a volume; empty where it can."""
    kinds = tuple(map(str, header.get("ImageType") or ()))
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "found a colour image; expected one grey value per voxel"
    if str(header.get("PhotometricInterpretation", "MONOCHROME2")) != "MONOCHROME2":
        return f"found the photometric interpretation {header.PhotometricInterpretation}; expected MONOCHROME2"
    if "MOSAIC" in kinds:
        return "found a mosaic of slices in one image; expected one slice an image. Convert it with dcm2niix"
    if {"P", "PHASE", "PHASE MAP"} & set(kinds) or header.get("ComplexImageComponent") in ("PHASE", "REAL", "IMAGINARY", "MIXED"):
        return "found phase or complex images; expected magnitude"
    return ""


def _planes(path: Path, header: Any) -> Iterator[Plane]:
    if str(header.SOPClassUID) == CLASSIC:
        traits = tuple((name, str(header.get(name))) for name in TRAITS if header.get(name) not in (None, ""))
        yield _plane(path, header, None, header, header, header, traits)
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    for frame, own in enumerate(header.PerFrameFunctionalGroupsSequence):

        def group(name: str, own: Any = own) -> Any:
            """The frame's functional group, its own before the one shared by all."""
            found = own.get(name) or (shared.get(name) if shared is not None else None)
            return found[0] if found else {}

        geometry = {
            "ImagePositionPatient": group("PlanePositionSequence").get("ImagePositionPatient"),
            "ImageOrientationPatient": group("PlaneOrientationSequence").get("ImageOrientationPatient"),
        }
        yield _plane(
            path, header, frame, geometry, group("PixelMeasuresSequence"), group("PixelValueTransformationSequence"), _frame_traits(group)
        )


def _frame_traits(group: Any) -> tuple[tuple[str, str], ...]:
    content, echo, diffusion = group("FrameContentSequence"), group("MREchoSequence"), group("MRDiffusionSequence")
    found = {
        "EchoTime": echo.get("EffectiveEchoTime"),
        "TemporalPositionIdentifier": content.get("TemporalPositionIndex"),
        "DiffusionBValue": diffusion.get("DiffusionBValue"),
        "ImageType": group("MRImageFrameTypeSequence").get("FrameType"),
    }
    return tuple((name, str(value)) for name, value in found.items() if value is not None)


def _plane(
    path: Path, header: Any, frame: int | None, geometry: Any, measures: Any, scale: Any, traits: tuple[tuple[str, str], ...]
) -> Plane:
    def numbers(holder: Any, name: str) -> tuple[float, ...]:
        return tuple(map(float, holder.get(name) or ()))

    return Plane(
        file=path,
        instance=str(header.SOPInstanceUID),
        frame=frame,
        number=int(header.get("InstanceNumber") or 0) if frame is None else frame + 1,
        position=numbers(geometry, "ImagePositionPatient"),
        orientation=numbers(geometry, "ImageOrientationPatient"),
        spacing=numbers(measures, "PixelSpacing"),
        size=(int(header.Rows), int(header.Columns)),
        thickness=float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0),
        slope=_scale(scale.get("RescaleSlope"), 1.0),
        intercept=_scale(scale.get("RescaleIntercept"), 0.0),
        packed=bool(header.file_meta.TransferSyntaxUID.is_compressed),
        traits=traits,
    )


def _scale_of_z(header: Any) -> Scale | None:
    """The scale that a translation's mapping to z means for its voxels; None without such a mapping, or one of no sense."""
    mapping = next((each for each in header.get("RealWorldValueMappingSequence") or () if each.get("LUTLabel") == Z_LABEL), None)
    if mapping is None:
        return None
    slope, intercept = _scale(header.get("RescaleSlope"), 1.0), _scale(header.get("RescaleIntercept"), 0.0)
    try:
        steep, offset, first, last = (float(mapping.get(f"RealWorldValue{name}")) for name in Z_PARTS)
    except (TypeError, ValueError):  # an element was taken out, or its kind was lost, as it is where no VR is written
        return None
    sd, low, high = slope / steep if steep else 0.0, first * steep + offset, last * steep + offset
    return Scale(intercept - offset * sd, sd, (low, high)) if isfinite(sd) and sd > 0 and low < high else None


def _scale(value: Any, default: float) -> float:
    return default if value in (None, "") else float(value)
