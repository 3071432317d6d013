"""The files that make an output folder a BIDS derivative dataset."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

from localdiff_cli.bids.index import DESCRIPTION, read_description
from localdiff_cli.errors import UsageError
from localdiff_cli.volumes.whole import write_text

BIDS_VERSION = "1.10.0"
RAW = "raw"
"""The source dataset's name in BIDS URIs: ``bids:raw:sub-01/anat/sub-01_T1w.nii.gz``."""
REPORT = "report"
IGNORED = ("runs.tsv", "run.json", "qc.tsv", "slices.tsv", "failures.tsv", REPORT)
"""Our own tables, which BIDS does not know."""
CODE_URL = "https://pypi.org/project/localdiff/"
DESCRIPTIONS = {
    "synthetic": "Drawn by a network from another contrast of the same visit, or found on such an image; not acquired",
    "syntheticstd": "Standard deviation of the synthetic image over samples, voxel by voxel",
    "ood": "Probability that the source image is, there, unlike anything seen in training",
    "source": "Who drew each voxel: 1 the ordinary process, 2 the out-of-distribution branch, 3 both, 4 unknown",
    "brain": "The brain mask that was used; outside it the synthetic image is 0",
}
"""Every ``desc-`` of our names."""
README = """# Synthetic MRI contrasts by localdiff

These images are **synthetic**: a network drew them from another contrast of the same visit. They are for research use and not for
diagnosis. `descriptions.tsv` says what each `desc-` is, the JSON beside every image from what and with which settings it was made,
`qc.tsv` which volumes a person has to look at, and `failures.tsv` (where there is one) what could not be done. `report/`, made by
the group level, measures the images against acquired ones.
"""


def link_to(source: Path, out: Path) -> str:
    """Return the source dataset as a URI relative to the output: it holds wherever both are moved together."""
    return quote(Path(os.path.relpath(source.resolve(), out.resolve())).as_posix() + "/")


def uri(relative: Path, dataset: str = "") -> str:
    """Return the BIDS URI of a file of a linked ``dataset``, or of this one."""
    return f"bids:{dataset}:{relative.as_posix()}"


def description(source: Path, out: Path, version: str) -> dict[str, object]:
    """Return ``dataset_description.json`` of the derivatives of ``source``. Raise :class:`UsageError` where that is no
    dataset."""
    raw, link = read_description(source), link_to(source, out)
    origin = {"DOI": raw["DatasetDOI"]} if raw.get("DatasetDOI") else {"URL": link}
    inherited = {key: raw[key] for key in ("License", "Authors", "Acknowledgements", "EthicsApprovals") if raw.get(key)}
    made_by = {"Name": "localdiff", "Version": version, "CodeURL": CODE_URL, "Description": "localdiff-bids"}
    return {
        "Name": f"Synthetic MRI contrasts of {raw.get('Name') or 'a BIDS dataset'}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **inherited,
        "GeneratedBy": [made_by],
        "SourceDatasets": [origin],
        "DatasetLinks": {RAW: link},
    }


def write_dataset(source: Path, out: Path, version: str) -> None:
    """Make ``out`` a derivative dataset of ``source``; what is there and the same is not touched.

    Raise :class:`UsageError` where ``out`` is another dataset.
    """
    if source.resolve() == out.resolve():
        raise UsageError(
            f"{out}: is the dataset itself; expected another folder, such as {out / 'derivatives/localdiff'}", code="in-is-out"
        )
    if (out / DESCRIPTION).exists() and not _is_ours(read_description(out), link_to(source, out)):
        raise UsageError(f"{out}: holds another dataset, or the derivatives of another one; choose another OUT_DIR", code="not-ours")
    rows = "".join(f"desc-{name}\t{text}\n" for name, text in DESCRIPTIONS.items())
    texts = {
        DESCRIPTION: _json(description(source, out, version)),
        "descriptions.tsv": f"desc_id\tdescription\n{rows}",
        "descriptions.json": _json({"description": {"Description": "What the desc- entity of a file's name stands for."}}),
        ".bidsignore": "".join(f"{name}\n" for name in IGNORED),
        "README.md": README,
    }
    for name, text in texts.items():
        file = out / name
        if not file.exists() or (name == DESCRIPTION and file.read_text(encoding="utf-8") != text):
            write_text(file, text)


def _is_ours(found: dict[str, object], link: str) -> bool:
    makers = found.get("GeneratedBy")
    ours = isinstance(makers, list) and any(isinstance(maker, dict) and maker.get("Name") == "localdiff" for maker in makers)
    links = found.get("DatasetLinks")
    return ours and isinstance(links, dict) and links.get(RAW) == link


def _json(values: dict[str, object]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
