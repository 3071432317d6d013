"""What is fuzzed: for each kind of file, how a hostile one is made and what localdiff then does with it."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch

from localdiff_cli.batch.claims import Claims, key_of
from localdiff_cli.batch.records import Records, tables
from localdiff_cli.bundle import (
    DETECTOR,
    METADATA,
    SEGMENTER,
    TRANSLATOR,
    Bundle,
    load_detector,
    load_segmenter,
    load_translator,
    open_bundle,
    schedule_of,
    verify,
)
from localdiff_cli.errors import LocaldiffError
from localdiff_cli.volumes.contrast import content_of, sidecar_path
from localdiff_cli.volumes.files import file_hash
from localdiff_cli.volumes.reader import SliceReader, open_volume

from .mutators import damaged, damaged_fields, damaged_json, damaged_lines, damaged_value

CPU = torch.device("cpu")
LAYOUTS = {kind: kind.header_class.template_dtype for kind in (nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair)}
DTYPES = ("uint8", "int16", "float32", "float64", ">i2", ">f4")
BLOCK = bytes(1 << 24)
"""What a gzip bomb is made of."""


@dataclass(frozen=True)
class Case:
    """Hostile files by their names below a folder, and the bytes that they honestly hold (unpacked, if they are packed)."""

    files: dict[str, bytes]
    honest: int = 0

    @property
    def size(self) -> int:
        """Bytes that may be asked of memory ten times."""
        return max(self.honest, sum(map(len, self.files.values())))


@dataclass(frozen=True)
class Target:
    """A kind of file: its share of all cases, how one is made, and what is done with it; ``use`` says what came of it."""

    share: int
    make: Callable[[Random, Path], Case]
    use: Callable[[Path, Case], str]
    confined: bool = False


# --- volumes ---


@lru_cache(maxsize=256)
def _nifti(kind: type, dtype: str, sideways: bool, extended: bool) -> tuple[bytes, bytes]:
    """The bytes of an honest NIfTI: header file and, for a pair, image file."""
    array = np.arange(8 * 7 * 5).reshape(8, 7, 5).astype(dtype)
    affine = np.diag([-1.0, -1.2, 3.0, 1.0])[[2, 0, 1, 3]].T if sideways else np.diag([-1.0, -1.2, 3.0, 1.0])
    header = kind.header_class(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(dtype)
    image = kind(array, affine, header)
    if extended:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a remark of forty bytes or so"))
    if kind in (nib.Nifti1Image, nib.Nifti2Image):
        return image.to_bytes(), b""
    parts = {"header": BytesIO(), "image": BytesIO()}
    image.to_file_map({name: nib.fileholders.FileHolder(fileobj=part) for name, part in parts.items()})
    return parts["header"].getvalue(), parts["image"].getvalue()


def _honest_nifti(rng: Random, kind: type) -> tuple[bytes, bytes]:
    return _nifti(kind, rng.choice(DTYPES), rng.random() < 0.4, rng.random() < 0.3)


def _bad_header(rng: Random, raw: bytes, kind: type) -> bytes:
    """A header with absurd fields, or with damage anywhere in it, its extensions included."""
    layout = LAYOUTS[kind]
    if rng.random() < 0.6:
        big = raw[0] == 0
        raw = damaged_fields(rng, raw, layout.newbyteorder(">" if big else "<"))
    return damaged(rng, raw, 0, layout.itemsize + 64) if rng.random() < 0.5 else raw


def make_nifti(rng: Random, folder: Path) -> Case:
    """A plain ``.nii`` with a hostile header."""
    kind = rng.choice((nib.Nifti1Image, nib.Nifti2Image))
    return Case({"v.nii": _bad_header(rng, _honest_nifti(rng, kind)[0], kind)})


def make_pair(rng: Random, folder: Path) -> Case:
    """A ``.hdr`` and its ``.img``, one or both hostile, named by either."""
    kind = rng.choice((nib.Nifti1Pair, nib.Nifti2Pair))
    header, image = _honest_nifti(rng, kind)
    image = damaged(rng, image) if rng.random() < 0.3 else image
    files = {"v.hdr": _bad_header(rng, header, kind), "v.img": image}
    return Case(files if rng.random() < 0.5 else dict(reversed(files.items())))


@lru_cache(maxsize=64)
def _packed_block(level: int) -> bytes:
    return gzip.compress(BLOCK, level, mtime=0)


def _bomb(rng: Random) -> bytes:
    """A short volume and many megabytes of zeros, which the header owns up to or not."""
    header = bytearray(_honest_nifti(rng, nib.Nifti1Image)[0][:352])
    if rng.random() < 0.5:
        header[40:56] = np.array([3, *rng.choices((1, 64, 1000, 2000, 32767), k=3), 1, 1, 1, 1], "<i2").tobytes()
    if rng.random() < 0.2:
        header[108:112] = struct.pack("<f", rng.choice((1e9, 2e9, 1e6)))
    if rng.random() < 0.3:
        header[348:352] = b"\1\0\0\0"
        header += struct.pack("<ii", rng.choice((0, 1, -8, 2**31 - 16, 1 << 28)), 6)
    return gzip.compress(bytes(header), mtime=0) + _packed_block(6) * rng.choice((1, 1, 4, 100))


def make_gzip(rng: Random, folder: Path) -> Case:
    """A ``.nii.gz`` whose stream is flipped, cut, in many members, followed by rubbish, or a bomb."""
    if rng.random() < 0.02:
        return Case({"v.nii.gz": _bomb(rng)})
    kind = rng.choice((nib.Nifti1Image, nib.Nifti2Image))
    raw = _honest_nifti(rng, kind)[0]
    raw = _bad_header(rng, raw, kind) if rng.random() < 0.4 else raw
    cut = rng.randrange(len(raw) + 1)
    parts = rng.choice(([raw], [raw], [raw[:cut], raw[cut:]], [raw, raw], [b"", raw], [raw, b"\0" * 9999]))
    packed = b"".join(gzip.compress(part, rng.choice((0, 1, 9)), mtime=0) for part in parts)
    kind_of_damage = rng.randrange(5)
    if kind_of_damage <= 1:
        packed = damaged(rng, packed)
    elif kind_of_damage == 2:
        packed = damaged(rng, packed, 0, 20)
    elif kind_of_damage == 3:
        packed += rng.choice((b"\0" * rng.randrange(1, 5000), rng.randbytes(50), packed[:10], b"\x1f\x8b", b"\x1f\x8b\x08" + b"\xff" * 20))
    return Case({"v.nii.gz": packed}, sum(map(len, parts)))


ITK_LINES = {
    ".mha": (
        b"CompressedData = True", b"CompressedData = False", b"CompressedDataSize = 99999999999", b"CompressedDataSize = -5",
        b"BinaryData = False", b"BinaryDataByteOrderMSB = True", b"NDims = 2", b"NDims = 9", b"NDims = 999999", b"NDims = -1",
        b"DimSize = 3 3 3", b"DimSize = 2000000000 2000000000 1", b"DimSize = 600 600 600", b"DimSize = 5000000 1 1",
        b"ElementNumberOfChannels = 3", b"ElementNumberOfChannels = 100000000", b"ElementType = MET_STRING", b"ElementType = MET_DOUBLE",
        b"ElementType = MET_LONG_LONG", b"ElementType = MET_FLOAT_ARRAY", b"HeaderSize = -1", b"HeaderSize = 99999999999",
        b"HeaderSize = 100", b"ElementDataFile = LIST", b"ElementDataFile = LIST 2", b"ElementDataFile = v%02d.raw 1 5 1",
        b"ElementDataFile = LOCAL", b"ElementDataFile = v.mha", b"ElementDataFile = ", b"ElementDataFile = /dev/zero",
        b"ElementDataFile = ../v.mha", b"ElementSpacing = 0 0 0", b"TransformMatrix = 0 0 0 0 0 0 0 0 0", b"Offset = nan nan nan",
        b"ObjectType = Tube", b"ObjectSubType = Image", b"Modality = MET_MOD_MR", b"Name = " + b"x" * 10_000, b"Color = 1 2 3 4 5 6",
        b"AnatomicalOrientation = RAIRAIRAI", b"CenterOfRotation = 1", b"SequenceID = 1 2 3 4 5", b"ElementMin = x", b"Comment = \xff\xfe",
        b"ElementSize = 1 1 1", b"ElementToIntensityFunctionSlope = 1e300",
    ),
    ".nrrd": (
        b"encoding: gzip", b"encoding: raw", b"encoding: ascii", b"encoding: hex", b"encoding: bzip2", b"encoding: zrl", b"encoding: gz",
        b"encoding: RAW", b"line skip: 5", b"line skip: 2000000000", b"byte skip: -1", b"byte skip: 100000", b"byte skip: -5",
        b"byteskip: 16", b"data file: v.nrrd", b"data file: LIST", b"data file: v%02d.raw 1 5 1", b"datafile: /dev/zero",
        b"data file: LOCAL", b"dimension: 2", b"dimension: 16", b"dimension: 17", b"dimension: 4", b"dimension: -3", b"sizes: 3 3 3",
        b"sizes: 5000000 1 1", b"sizes: 2000000000 2000000000 1", b"sizes: 600 600 600", b"sizes: 0 0 0", b"sizes: 1 2 3 4 5 6 7 8 9",
        b"type: block", b"block size: 1000000000", b"type: double", b"type: unsigned char", b"type: int64", b"type: float16",
        b"endian: big", b"kinds: RGB-color domain domain", b"kinds: complex domain domain", b"kinds: vector domain domain",
        b"kinds: 3D-matrix space space", b"space: left-posterior-superior", b"space: scanner-xyz-time", b"space: nonsense",
        b"space dimension: 3", b"space dimension: 8", b"space directions: none (1,0,0) (0,1,0)",
        b"space directions: (0,0,0) (0,0,0) (0,0,0)", b"space directions: (1e999,0,0)", b"space origin: (nan,nan,nan)",
        b"spacings: 0 0 0", b"spacings: nan 1 1", b"thicknesses: 1 1 1", b"centerings: cell node ???", b"axis mins: 1 2 3", b"number: 5",
        b"content: " + b"x" * 10_000, b"key:=value", b"encoding:=gzip", b"sizes:=9 9 9", b"# \xff\xfe",
        b"measurement frame: (1,0,0) (0,1,0) (0,0,1)", b"old min: 5", b"min: 3", b'units: "mm" "mm', b'labels: "a" "b" "c"',
        b"sample units: x",
    ),
}  # fmt: skip


@lru_cache(maxsize=256)
def _itk(folder: Path, suffix: str, dtype: str, packed: bool, flat: bool) -> tuple[bytes, dict[str, bytes]]:
    """The header text of an honest ITK image, and its voxels by the name of their file (empty: in the same file)."""
    place = folder / "seeds"
    place.mkdir()
    array = np.arange(6 * 5 * 4).reshape(4, 5, 6).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array[0] if flat else array), str(place / f"v{suffix}"), useCompression=packed)
    raw = (place / f"v{suffix}").read_bytes()
    others = {path.name: path.read_bytes() for path in place.iterdir() if path.name != f"v{suffix}"}
    shutil.rmtree(place)
    end = raw.index(b"\n\n") + 1 if suffix == ".nrrd" else raw.index(b"\n", raw.find(b"ElementDataFile")) if suffix == ".mha" else len(raw)
    return raw[:end], others or {"": raw[end:]}


def make_itk(rng: Random, folder: Path) -> Case:
    """A MetaImage or NRRD, in one file or two, with hostile lines in its header or damage anywhere."""
    suffix = rng.choice((".mha", ".mha", ".nrrd", ".nrrd", ".mhd", ".nhdr"))
    header, data = _itk(folder, suffix, rng.choice(("uint8", "int16", "float32", "float64")), rng.random() < 0.5, rng.random() < 0.15)
    nrrd = suffix in (".nrrd", ".nhdr")
    if rng.random() < 0.8:
        header = damaged_lines(rng, header, ITK_LINES[".nrrd" if nrrd else ".mha"], b":" if nrrd else b"=")
    if rng.random() < 0.15:
        header = damaged(rng, header)
    name, voxels = next(iter(data.items()))
    voxels = damaged(rng, voxels) if rng.random() < 0.3 else voxels
    return Case({f"v{suffix}": header} | {name: voxels} if name else {f"v{suffix}": header + voxels}, 6 * 5 * 4 * 8)


def read_volume(folder: Path, case: Case) -> str:
    """Hash, open and read every slice, as ``translate`` does; then ask what contrast it holds."""
    path = folder / next(iter(case.files))
    file_hash(path)
    for _, image in SliceReader(open_volume(path)):
        if image.ndim != 2:
            raise AssertionError(f"a slice of shape {image.shape}")
    return "read"


# --- small JSON files ---


def make_sidecar(rng: Random, folder: Path) -> Case:
    """The sidecar of a volume."""
    said = {
        "Contrast": "T2w", "Synthetic": True, "ContrastBolusIngredient": "GADOLINIUM", "LocaldiffVersion": "1", "Sources": ["a", "b"],
        "OutputSHA256": {"sub-1_T1w_brain.nii.gz": "0" * 64}, "Model": {"Name": "m", "Hash": "0" * 64}, "SourceContrast": "T1w",
    }  # fmt: skip
    return Case({"sub-1_T1w.json": damaged_json(rng, said)})


def read_contrast(folder: Path, case: Case) -> str:
    """Ask what the volume beside the sidecar holds, and one that the sidecar may list."""
    said = content_of(folder / "sub-1_T1w.nii.gz")
    made = content_of(folder / "sub-1_T1w_brain.nii.gz")
    if sidecar_path(folder / "sub-1_T1w.nii.gz").name not in case.files:
        raise AssertionError("another sidecar")
    json.dumps([said.contrast, made.contrast])
    return f"said by {said.said_by}"


RECORD = {
    "volume": "sub-1_T1w.nii.gz", "state": "done", "code": "", "reason": "", "attempts": 1, "seconds": 3.5, "device": "cpu",
    "peak_mb": 800.5, "finished": "2024-01-01T00:00:00", "output": "out.txt", "source_sha256": "0" * 64,
    "output_sha256": {"a": "0" * 64}, "review": ["dark"], "slices": [{"slice": 1, "score": "0.5"}, {"slice": 0, "score": "0.1"}],
}  # fmt: skip


def make_record(rng: Random, folder: Path) -> Case:
    """A record of an output folder, beside an honest one."""
    state = rng.choice(("done", "failed", "busy", "open"))
    return Case({"a.json": damaged_json(rng, RECORD | {"state": state}), "b.json": json.dumps(RECORD | {"volume": "b"}).encode()})


def read_records(folder: Path, case: Case) -> str:
    """Read all records of an output folder and make its tables."""
    records = Records(folder / "out")
    records.folder.mkdir(parents=True, exist_ok=True)
    (folder / "out" / "out.txt").touch()
    for name, raw in case.files.items():
        (records.folder / name).write_bytes(raw)
    known = records.all()
    if "b" not in known:
        raise AssertionError("an honest record was lost")
    records.write_tables(["sub-1_T1w.nii.gz", "c"], {"Command": "x"}, wait=False)
    return f"{len(tables(known, (), {})['runs.tsv'].splitlines()) - 1} rows"


@lru_cache
def _claims(folder: Path) -> tuple[Claims, dict[str, Any]]:
    claims = Claims(folder)
    claims.path(key_of("v")).unlink(missing_ok=True)
    claim = claims.take(key_of("v"), "v")
    assert claim is not None
    said = json.loads(claim.path.read_text())
    claims.release(claim)
    return claims, said


def make_claim(rng: Random, folder: Path) -> Case:
    """The claim of a process: this one, or one that is gone."""
    said = _claims(folder / "claims")[1]
    if rng.random() < 0.5:
        said = said | {"Owner": said["Owner"] | {"pid": rng.choice((2**22 - 1, 1, 0, -1, 2**31, 2**63, 10**30))}}
    return Case({"claim.json": damaged_json(rng, said)})


def take_claim(folder: Path, case: Case) -> str:
    """Ask who holds it, clear it if it is stale, take it if it can be taken."""
    claims, _ = _claims(folder / "claims")
    key = key_of("v")
    claims.path(key).write_bytes(case.files["claim.json"])
    claims.holder(key)
    claims.clear_stale(key)
    claim = claims.take(key, "v")
    if claim is not None:
        claims.release(claim)
    return "held" if claim is None else "taken over" if claim.inherited else "taken"


# --- bundles ---

WEIGHTS = {"t1-to-t2": (TRANSLATOR, DETECTOR), "lesion-t2": (SEGMENTER,)}


@lru_cache(maxsize=64)
def _original(folder: Path, name: str) -> bytes:
    return (folder / "bundles" / name).read_bytes()


def make_metadata(rng: Random, folder: Path) -> Case:
    """A bundle with hostile metadata."""
    bundle = rng.choice(tuple(WEIGHTS))
    return Case({f"{bundle}/{METADATA}": damaged_json(rng, json.loads(_original(folder, f"{bundle}/{METADATA}")))}, _whole(folder, bundle))


def _whole(folder: Path, bundle: str) -> int:
    return sum(len(_original(folder, f"{bundle}/{weights}")) for weights in WEIGHTS[bundle])


def _bad_safetensors(rng: Random, raw: bytes) -> bytes:
    size = int.from_bytes(raw[:8], "little")
    kind = rng.randrange(5)
    if kind == 0:
        return damaged(rng, raw)
    if kind == 1:
        return damaged(rng, raw, 0, 8 + size)
    if kind == 2:
        return struct.pack("<Q", rng.choice((0, 1, 2**63, 2**64 - 1, size - 1, size + 1, len(raw), 99_999_999))) + raw[8:]
    header = json.loads(raw[8 : 8 + size])
    text = damaged_json(rng, header) if kind == 3 else json.dumps(_one_tensor_other(rng, header)).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + size :]


def _one_tensor_other(rng: Random, header: dict[str, Any]) -> dict[str, Any]:
    """One tensor's data type, shape or place changed."""
    name = rng.choice(sorted(header))
    types = ("F16", "F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4", "nonsense")
    return header | {name: damaged_value(rng, header[name]) | {"dtype": rng.choice(types)}} if isinstance(header[name], dict) else header


def make_weights(rng: Random, folder: Path) -> Case:
    """A bundle with a hostile weight file, nearly always with the hash that makes it look right."""
    bundle = rng.choice(tuple(WEIGHTS))
    name = rng.choice(WEIGHTS[bundle])
    raw = _bad_safetensors(rng, _original(folder, f"{bundle}/{name}"))
    metadata = json.loads(_original(folder, f"{bundle}/{METADATA}"))
    if rng.random() < 0.98:
        metadata["files"][name] = hashlib.sha256(raw).hexdigest()
    return Case({f"{bundle}/{METADATA}": json.dumps(metadata).encode(), f"{bundle}/{name}": raw}, _whole(folder, bundle))


def load_bundle(folder: Path, case: Case) -> str:
    """Open the bundle and load all that it has, each part even where another was refused; the first refusal counts."""
    root = folder / "bundles"
    try:
        for name, raw in case.files.items():
            (root / name).write_bytes(raw)
        bundle = open_bundle(str(root / next(iter(case.files)).partition("/")[0]))
        refusals = [error for error in (_refusal(load, bundle) for load in _loaders(bundle)) if error is not None]
        if refusals:
            raise refusals[0]
    finally:
        for name in case.files:
            (root / name).write_bytes(_original(folder, name))
    return "loaded"


def _loaders(bundle: Bundle) -> list[Callable[[Bundle], Any]]:
    if bundle.task == "segment":
        return [lambda b: b.segmenter_defaults, lambda b: load_segmenter(b, CPU), lambda b: b.hash, verify]
    return [
        lambda b: b.defaults,
        schedule_of,
        lambda b: load_translator(b, CPU),
        lambda b: load_detector(b, 0.05, CPU),
        lambda b: b.hash,
        verify,
    ]


def _refusal(load: Callable[[Bundle], Any], bundle: Bundle) -> LocaldiffError | None:
    try:
        load(bundle)
    except LocaldiffError as error:
        return error
    return None


TARGETS = {
    "nifti": Target(32, make_nifti, read_volume),
    "pair": Target(8, make_pair, read_volume),
    "gzip": Target(16, make_gzip, read_volume),
    "itk": Target(16, make_itk, read_volume),
    "sidecar": Target(10, make_sidecar, read_contrast),
    "record": Target(4, make_record, read_records),
    "claim": Target(4, make_claim, take_claim),
    "metadata": Target(6, make_metadata, load_bundle, confined=True),
    "safetensors": Target(4, make_weights, load_bundle, confined=True),
}
