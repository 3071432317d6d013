"""The text headers of MetaImage and NRRD: where the voxels lie, and whether SimpleITK can be trusted with the file.

SimpleITK's readers overrun their buffers on lines or numbers of axes beyond what they expect, which takes the process down;
nothing reaches them that they are known to fail on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.limits import MAX_DEFLATE_RATIO, check_promise

HEADER_BYTES = 1 << 16
TEXT = ("utf-8", "surrogateescape")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
NRRD_END = re.compile(rb"\r?\n\r?\n")

MAX_AXES = 10
MAX_FIELD = 900
MAX_NOTE = 8000
MAX_META_TEXT = 250
META_TEXTS = (
    "objecttype", "objectsubtype", "transformtype", "name", "comment", "acquisitiondate", "distanceunits", "anatomicalorientation",
    "modality", "elementtype",
)  # fmt: skip
TEXT_RATIO = 8
"""A voxel written as text takes at least one byte, in memory at most eight."""

_META_END = re.compile(rb"ElementDataFile\s*=[^\n]*\n?")
_META_LINE = re.compile(r"([^=:\x00-\x08\x0b-\x1f\x7f]+)[=:]([^\x00-\x08\x0b-\x1f\x7f]*)")
_NRRD_LINE = re.compile(r"([\w ]+?)\s*:(?!=)\s*(.*)")


@dataclass(frozen=True)
class Storage:
    """Where the voxels of an ITK image lie: header fields (lower-case keys), data file, offset of the data, how encoded."""

    fields: dict[str, str]
    file: Path
    offset: int
    zlib: bool
    raw: bool

    @property
    def size(self) -> int:
        """Bytes of the data file that hold voxels."""
        return self.file.stat().st_size - self.offset

    @property
    def ratio(self) -> int:
        """How many bytes of voxels one of them can stand for."""
        return MAX_DEFLATE_RATIO if self.zlib else 1 if self.raw else TEXT_RATIO


def is_nrrd(path: Path) -> bool:
    """Return whether the suffix says NRRD; the others are MetaImage."""
    return path.suffix.lower() in NRRD_SUFFIXES


def storage_of(path: Path) -> Storage:
    """Return what the header says of its voxels. Raise :class:`VolumeError` for a header that SimpleITK might not survive."""
    lines, offset = _lines(path)
    fields = _nrrd_fields(path, lines) if is_nrrd(path) else _meta_fields(path, lines)
    name = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile") or "LOCAL"
    local = name.upper() == "LOCAL"
    encoding = fields.get("encoding", "raw").lower()
    packed = fields.get("compresseddata", "").lower() == "true" or encoding in ("gzip", "gz")
    raw = not packed and encoding == "raw" and fields.get("binarydata", "true").lower() == "true"
    return Storage(fields, path if local else path.parent / name.removeprefix("./"), offset if local else 0, packed, raw)


def checked_storage(path: Path) -> Storage:
    """Do as :func:`storage_of`; raise :class:`VolumeError` also where the voxels are missing, or skip or claim what they
    cannot."""
    storage = storage_of(path)
    if storage.file.parent != path.parent:
        raise _refused(path, "a header that places the voxels in another folder", "a file of voxels beside it, named without folders")
    if not is_file(storage.file):
        raise VolumeError(
            f"{path}: found no file {str(storage.file)!r}, where its header places the voxels; expected one file of voxels. Copy it there",
            code="not-found",
        )
    skips = [key for key in ("line skip", "lineskip", "byte skip", "byteskip") if storage.fields.get(key, "0") != "0"]
    if skips and not storage.raw:
        raise _refused(path, f"{skips[0]!r} before voxels that are not raw", "voxels that start at once")
    claimed = storage.fields.get("compresseddatasize", "0")
    if not re.fullmatch("[0-9]{1,18}", claimed):
        raise _refused(path, f"CompressedDataSize {claimed[:40]!r}", "a number of bytes")
    check_promise(path, int(claimed), storage.size, 1)
    return storage


def is_file(path: Path) -> bool:
    """Return whether a file is there; False for a name that none can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _lines(path: Path) -> tuple[list[str], int]:
    """The header's lines without their ends, and where it ends."""
    with path.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    if is_nrrd(path) and not head.startswith(b"NRRD"):
        raise _refused(path, "no header", "one that starts with NRRD")
    end = (NRRD_END if is_nrrd(path) else _META_END).search(head)
    if end is None and (len(head) == HEADER_BYTES or not is_nrrd(path)):
        raise _refused(path, "a header without an end", f"one of less than {HEADER_BYTES:,} bytes")
    offset = end.end() if end else len(head)
    return [line.rstrip("\r") for line in head[:offset].decode(*TEXT).split("\n")], offset


def _nrrd_fields(path: Path, lines: list[str]) -> dict[str, str]:
    fields = {}
    for line in lines:
        limit = MAX_NOTE if line.startswith("#") or ":=" in line else MAX_FIELD
        if len(line) > limit or "\0" in line:
            raise _refused(path, f"a line of {len(line):,} characters, {line[:30]!r}…", f"at most {limit}")
        if match := _NRRD_LINE.fullmatch(line):
            fields[match[1].strip().lower()] = match[2].strip()
    return fields


def _meta_fields(path: Path, lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in filter(str.strip, lines):
        match = _META_LINE.fullmatch(line)
        if match is None:
            raise _refused(path, f"the line {line[:30]!r}", "lines of the form: Key = value")
        key, value = match[1].strip().lower(), match[2].strip()
        limit = MAX_META_TEXT if key in META_TEXTS else MAX_NOTE
        if len(key) > 100 or len(value) > limit:
            raise _refused(path, f"{key[:30]!r} of {len(value):,} characters", f"at most {limit}")
        if key in fields:
            raise _refused(path, f"{key!r} twice", "every field once")
        fields[key] = value
    axes = fields.get("ndims", "")
    if not re.fullmatch("[0-9]{1,3}", axes) or not 1 <= int(axes) <= MAX_AXES:
        raise _refused(path, f"NDims {axes[:30]!r}", f"1 to {MAX_AXES}")
    return fields


def _refused(path: Path, found: str, expected: str) -> VolumeError:
    kind = "NRRD" if is_nrrd(path) else "MetaImage"
    return VolumeError(
        f"{path}: found {found} in its {kind} header; expected {expected}. It is damaged or another kind of file", code="not-an-image"
    )


def data_files(path: Path) -> tuple[Path, ...]:
    """Return the header file and, where it names another file for the voxels that exists, that one."""
    try:
        file = storage_of(path).file
    except (VolumeError, FileNotFoundError):
        return (path,)
    return (path, file) if file != path and is_file(file) else (path,)
