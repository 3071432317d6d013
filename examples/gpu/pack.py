"""Prepared slices of all patients in one file small enough to travel: ``python -m examples.gpu.pack --data cohort.tsv --out pack.npz``.

Slices are prepared as ``fit`` prepares them. Of each, the pixels inside the brain are kept (what lies outside is 0), as whole numbers of
``--bits`` bits spread over uint16, their differences compressed; the masks as bits. Where the file would be larger than ``--mib`` every
second, third, … slice is taken of the patients of the train split with the most; the val split is thinned likewise. Test patients are
never read. ``--rehearse`` packs the packaged patient, called by other names, to try the way.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.training.pairs import read_pairs
from localdiff_cli.training.slices import PatientSlices, load_slices
from localdiff_cli.volumes.prepare import PrepareSettings
from localdiff_cli.volumes.whole import whole_file

FAST = [{"id": lzma.FILTER_LZMA2, "preset": 4}]


def squeezed(values: NDArray[np.uint16], bits: int) -> bytes:
    """A row of values as ``bits``-bit numbers, their differences, high and low bytes apart, compressed."""
    numbers = (values >> (16 - bits)).astype(np.int32)
    steps = np.diff(numbers, prepend=0).astype(np.int16)
    folded = ((steps << 1) ^ (steps >> 15)).astype(np.uint16)
    planes = folded.view(np.uint8).reshape(-1, 2).T.tobytes()
    return lzma.compress(planes, format=lzma.FORMAT_RAW, filters=FAST)


def loosened(data: bytes, bits: int) -> NDArray[np.uint16]:
    """The values again, their lowest bits lost."""
    planes = np.frombuffer(lzma.decompress(data, format=lzma.FORMAT_RAW, filters=FAST), np.uint8)
    folded = np.ascontiguousarray(planes.reshape(2, -1).T).view(np.uint16)[:, 0].astype(np.int32)
    numbers = np.cumsum((folded >> 1) ^ -(folded & 1))
    # The highest number becomes 65535, so that what was 1 is 1 again.
    return np.rint(numbers * (65535 / (2**bits - 1))).astype(np.uint16)


def packed(patient: PatientSlices, bits: int) -> dict[str, NDArray[np.uint8]]:
    """One patient's slices as byte arrays."""
    inside = patient.brain
    images = {"condition": patient.condition} | ({} if patient.target is None else {"target": patient.target})
    made = {name: squeezed(np.asarray(image)[inside], bits) for name, image in images.items()}
    bits_of = {name: np.packbits(mask).tobytes() for name, mask in _masks(patient).items()}
    masks = {name: lzma.compress(data, format=lzma.FORMAT_RAW, filters=FAST) for name, data in bits_of.items()}
    return {name: np.frombuffer(data, np.uint8) for name, data in (made | masks).items()}


def _masks(patient: PatientSlices) -> dict[str, NDArray[np.bool_]]:
    return {"brain": np.asarray(patient.brain), "lesion": np.asarray(patient.lesion)}


def write_pack(patients: list[PatientSlices], path: Path, bits: int) -> int:
    """Write the file; its bytes."""
    arrays: dict[str, NDArray] = {}
    for number, patient in enumerate(patients):
        arrays |= {f"{number}.{name}": data for name, data in packed(patient, bits).items()}
    about = [{"name": p.name, "split": p.split, "masked": p.masked, "shape": list(p.condition.shape)} for p in patients]
    arrays["about"] = np.frombuffer(json.dumps({"bits": bits, "patients": about}).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with whole_file(path) as partial:
        partial.write_bytes(buffer.getvalue())
    return len(buffer.getvalue())


def read_pack(path: Path) -> list[PatientSlices]:
    """The patients of a pack."""
    with np.load(path) as arrays:
        about = json.loads(arrays["about"].tobytes())
        return [_patient(arrays, number, told, about["bits"]) for number, told in enumerate(about["patients"])]


def _patient(arrays: Any, number: int, told: dict[str, Any], bits: int) -> PatientSlices:
    shape = tuple(told["shape"])

    def mask(name: str) -> NDArray[np.bool_]:
        data = lzma.decompress(arrays[f"{number}.{name}"].tobytes(), format=lzma.FORMAT_RAW, filters=FAST)
        return np.unpackbits(np.frombuffer(data, np.uint8), count=int(np.prod(shape))).reshape(shape).astype(bool)

    def image(name: str) -> NDArray[np.uint16]:
        whole = np.zeros(shape, np.uint16)
        whole[inside] = loosened(arrays[f"{number}.{name}"].tobytes(), bits)
        return whole

    inside = mask("brain")
    target = image("target") if f"{number}.target" in arrays else None
    return PatientSlices(told["name"], told["split"], image("condition"), target, inside, mask("lesion"), told["masked"])


def thinned(patient: PatientSlices, most: int) -> PatientSlices:
    """At most ``most`` slices, evenly spread."""
    if len(patient.condition) <= most:
        return patient
    rows = np.linspace(0, len(patient.condition) - 1, most).round().astype(int)
    target = None if patient.target is None else patient.target[rows]
    return replace(patient, condition=patient.condition[rows], target=target, brain=patient.brain[rows], lesion=patient.lesion[rows])


def fitting(patients: list[PatientSlices], path: Path, bits: int, limit: int) -> tuple[int, int]:
    """Write what fits into ``limit`` bytes; the most slices that a patient has in it, and the bytes."""
    most = max(len(p.condition) for p in patients)
    while True:
        size = write_pack([thinned(p, most) for p in patients], path, bits)
        if size <= limit or most == 1:
            return most, size
        most = max(1, min(most - 1, int(most * 0.97 * limit / size)))


def rehearsed(folder: Path) -> list[PatientSlices]:
    """The packaged patient as four: two to learn from, two to watch, of each kind one without its lesions."""
    pairs = read_pairs([Path(__file__).resolve().parents[1] / "data"], "T1w", "FLAIR")
    settings = PrepareSettings(bias="none", shape=(208, 176))
    whole = thinned(load_slices(pairs, ("T1w", "FLAIR"), settings, folder / "cache", print)[0], 8)
    none = replace(whole, lesion=np.zeros_like(whole.lesion))
    return [replace(kind, name=f"{split}-{n}", split=split) for split in ("train", "val") for n, kind in enumerate((whole, none))]


def main() -> None:
    """Pack and say how much went in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, help="folders or TSVs of pairs, as for fit")
    parser.add_argument("--condition", default="T1w")
    parser.add_argument("--target", default="FLAIR")
    parser.add_argument("--healthy", action="append", default=[], help="a patient known to bear no lesion; repeatable")
    parser.add_argument("--exclude", action="append", default=[], help="a patient to leave out; repeatable")
    parser.add_argument("--bias", default="n4", choices=("n4", "none"))
    parser.add_argument("--bits", type=int, default=9, help="of a pixel, 1 to 15")
    parser.add_argument("--mib", type=float, default=30, help="the file's limit")
    parser.add_argument("--work", type=Path, default=Path("gpu.work"), help="folder of the prepared slices; that of a fit serves")
    parser.add_argument("--out", type=Path, default=Path("gpu.work/pack.npz"))
    parser.add_argument("--rehearse", action="store_true", help="pack the packaged patient")
    options = parser.parse_args()
    if options.rehearse:
        patients = rehearsed(options.work)
    else:
        contrasts, exclude = (options.condition, options.target), tuple(options.exclude)
        pairs = [p for p in read_pairs(options.data, *contrasts, print, exclude) if p.split != "test" and p.name not in exclude]
        settings = PrepareSettings(bias=options.bias, shape=(208, 176))
        patients = load_slices(pairs, contrasts, settings, options.work / "cache", print)
        patients = [p.known_healthy() if p.name in options.healthy else p for p in patients]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    most, size = fitting(patients, options.out, options.bits, int(options.mib * 2**20))
    held = sum(min(most, len(p.condition)) for p in patients)
    print(f"{options.out}: {size / 2**20:.1f} MiB, {held} of {sum(len(p.condition) for p in patients)} slices of {len(patients)} patients")


if __name__ == "__main__":
    main()
