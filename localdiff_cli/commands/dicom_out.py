"""``--dicom-out``: write a command's outputs a second time, as DICOM series of the sources' patients and studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from localdiff_cli.batch.discover import Found, Item, check_apart, check_folders
from localdiff_cli.batch.engine import Tally
from localdiff_cli.batch.report import Reporter
from localdiff_cli.batch.work import VolumeRecipe, printable
from localdiff_cli.errors import EXIT_OK, EXIT_SOME_FAILED, UsageError, VolumeError
from localdiff_cli.volumes.contrast import read_sidecar
from localdiff_cli.volumes.files import stem
from localdiff_cli.volumes.formats import suffix_of
from localdiff_cli.volumes.formats.dicom.derived import Maker, write_derived
from localdiff_cli.volumes.formats.dicom.header import is_dicom
from localdiff_cli.volumes.formats.dicom.seg import need_highdicom, write_segmentation
from localdiff_cli.volumes.formats.dicom.series import open_stack
from localdiff_cli.volumes.intensity import DEFAULT_WINDOW
from localdiff_cli.volumes.written import scale_of


def check_dicom_out(source: str, folder: Path, found: Found) -> None:
    """Raise :class:`UsageError` where no series could be derived: another kind of input, a folder of inputs, missing packages."""
    need_highdicom()
    check_folders(source, folder, "--dicom-out")
    check_apart(source, folder, found, "--dicom-out")
    if any(suffix_of(item.path) is not None or not is_dicom(item.path) for item in found.items):
        raise UsageError(
            f"--dicom-out {folder}: a series can only be derived from a series; expected DICOM in --in {source}", code="no-series"
        )


def write_dicom(found: Found, tally: Tally, recipe: VolumeRecipe, out: Path, folder: Path, reporter: Reporter, *, overwrite: bool) -> int:
    """Derive a series from every volume that is done and has none yet; return the exit code."""
    done = {*tally.done, *tally.skipped}
    written = failed = 0
    for item in found.items:
        if printable(item.relative) not in done:
            continue
        try:
            written += _derive(item, recipe.outputs(item)[0], out, folder, overwrite=overwrite)
        except VolumeError as error:
            failed += 1
            reporter.problem(f"  no DICOM: {error}")
            reporter.event("dicom-failed", volume=printable(item.relative), code=error.code, reason=str(error))
    reporter.event("dicom-written", written=written, failed=failed)
    reporter.line(f"{written} DICOM series written to {folder}, {failed} failed")
    return EXIT_SOME_FAILED if failed else EXIT_OK


def _derive(item: Item, image: Path, out: Path, folder: Path, *, overwrite: bool) -> bool:
    facts = read_sidecar(image)
    mask = facts.get("Contrast") == "mask"
    name = image.relative_to(out).with_name(stem(image) + ("_lesions" if mask else ""))
    written: Any = nib.load(image)
    values = np.asarray(written.dataobj, dtype=np.float32)
    write: Callable[..., bool] = write_segmentation if mask else write_derived
    return write(open_stack(item.path), values > 0 if mask else values, folder / name, _maker(facts, image), overwrite=overwrite)


def _maker(facts: dict[str, Any], image: Path) -> Maker:
    settings = facts["Settings"]
    return Maker(
        version=facts["LocaldiffVersion"],
        bundle=settings["Bundle"],
        bundle_hash=settings["BundleHash"],
        content=facts["OutputSHA256"][image.name],
        contrast=facts["Contrast"],
        source_contrast=facts.get("SourceContrast") or facts.get("SegmentedContrast") or "MR",
        scale=scale_of(image, DEFAULT_WINDOW),
    )
