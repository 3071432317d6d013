"""The group level: the evaluation report over all translations that have an acquired image of the same visit to be measured
against."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from localdiff_cli.batch.claims import STATE_FOLDER
from localdiff_cli.bids.choose import choose
from localdiff_cli.bids.dataset import REPORT
from localdiff_cli.bids.filters import read_filters
from localdiff_cli.bids.index import Scan, read_description, scan_dataset
from localdiff_cli.bids.participant import Selection
from localdiff_cli.bundle import open_bundle
from localdiff_cli.commands.evaluate import evaluate
from localdiff_cli.errors import NoInputError
from localdiff_cli.options import EvaluateOptions, RunOptions
from localdiff_cli.volumes.contrast import read_sidecar, sidecar_path

Visit = tuple[str, str | None]
"""Subject and session."""


@dataclass(frozen=True)
class GroupOptions:
    """The options of the group level: ``ref`` and ``truth`` are datasets with acquired images and lesion masks (None: the
    source, none)."""

    model: str
    selection: Selection = field(default_factory=Selection)
    ref: Path | None = None
    truth: Path | None = None
    segmenter: str | None = None
    resample_ref: bool = False
    fail_under: tuple[str, ...] = ()
    allow_missing: bool = False


def run_group(source: Path, shared: RunOptions, options: GroupOptions) -> int:
    """Write the report of all translations in ``shared.out``; return the exit code.

    Raise :class:`NoInputError` where there is no translation, or none has an acquired image.
    """
    read_description(source)
    bundle = open_bundle(options.model)
    contrast = bundle.target.contrast
    ours = list(_scans(shared.out, options.selection))
    made = {_visit(scan): scan.path for scan in ours if _is_translation(scan, contrast)}
    if not made:
        raise NoInputError(f"{shared.out}: found no synthetic {contrast}; run the participant level first", code="no-input")
    references = _acquired(options.ref or source, contrast, options.selection)
    if not made.keys() & references.keys():
        raise NoInputError(
            f"{options.ref or source}: found no acquired {contrast} of the {len(made)} visits; name a dataset that has it: --ref",
            code="no-pairs",
        )
    masks = {_visit(scan): scan.path for scan in _scans(options.truth, options.selection) if scan.name.suffix == "mask"}
    roles = {
        "translation": (contrast, made),
        "reference": (contrast, references),
        "condition": (bundle.condition.contrast, _conditions(source, made)),
        "truth": ("mask", masks),
        "ood": ("ood", {_visit(scan): scan.path for scan in ours if _is_map(scan) and _visit(scan) in made}),
    }
    with linked(roles, shared.out / STATE_FOLDER) as folders:
        asked = EvaluateOptions(
            ref=str(folders["reference"]),
            truth=str(folders["truth"]) if masks else None,
            condition=str(folders["condition"]) if "condition" in folders else None,
            ood=str(folders["ood"]) if "ood" in folders else None,
            segmenter=options.segmenter,
            resample_ref=options.resample_ref,
            fail_under=options.fail_under,
            allow_missing=options.allow_missing,
            affine_from=shared.affine_from,
        )
        return evaluate(replace(shared, source=str(folders["translation"]), out=shared.out / REPORT), asked)


def _visit(scan: Scan) -> Visit:
    return scan.name.subject, scan.name.session


def _scans(root: Path | None, selection: Selection) -> Iterator[Scan]:
    return iter(()) if root is None else scan_dataset(root, selection.participants, selection.sessions)


def _is_translation(scan: Scan, contrast: str) -> bool:
    return scan.name.suffix == contrast and scan.name.get("desc") == "synthetic"


def _is_map(scan: Scan) -> bool:
    return scan.name.suffix == "probseg" and scan.name.get("desc") == "ood"


def _acquired(root: Path, contrast: str, selection: Selection) -> dict[Visit, Path]:
    """One acquired image of every visit that has some, chosen among several as sources are."""
    filters = read_filters(selection.filter_file) if selection.filter_file else {}
    scans = (scan for scan in _scans(root, selection) if scan.name.get("desc") not in ("synthetic", "syntheticstd"))
    return {_visit(c.scan): c.scan.path for c in choose(scans, contrast, filters.get(contrast.lower(), {}))}


def _conditions(source: Path, made: Mapping[Visit, Path]) -> dict[Visit, Path]:
    """The source image of every translation, as its sidecar names it."""
    found = {}
    for visit, path in made.items():
        named = str(read_sidecar(path).get("SpatialReference", "")).partition(":")[2].partition(":")[2]
        if named and (source / named).exists():
            found[visit] = source / named
    return found


@contextmanager
def linked(roles: Mapping[str, tuple[str, Mapping[Visit, Path]]], within: Path) -> Iterator[dict[str, Path]]:
    """One folder of links for each role that has files, named by visit and the role's suffix alone; they go when the block
    ends."""
    within.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="group-", dir=within))
    try:
        for role, (suffix, files) in roles.items():
            for visit, path in files.items():
                _link(path, base / role, visit, suffix)
        yield {role: base / role for role, (_, files) in roles.items() if files}
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _link(path: Path, folder: Path, visit: Visit, suffix: str) -> None:
    subject, session = visit
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "") + f"_{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    extension = path.name[path.name.index(".") :]
    os.symlink(path.resolve(), folder / f"{stem}{extension}")
    if sidecar_path(path).is_file():
        os.symlink(sidecar_path(path).resolve(), folder / f"{stem}.json")
