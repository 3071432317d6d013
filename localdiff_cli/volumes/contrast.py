"""Which contrast a file holds, by its sidecar or its name; never by guessing from voxels."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localdiff_cli.volumes.dicom import series_of
from localdiff_cli.volumes.dicom_header import Series, is_dicom
from localdiff_cli.volumes.reader import stem, suffix_of

ALIASES: dict[str, str] = {
    "t1w": "T1w", "t1": "T1w", "t1n": "T1w", "mprage": "T1w", "spgr": "T1w",
    "t1c": "T1w", "t1ce": "T1w", "t1gd": "T1w", "t1post": "T1w",
    "t2w": "T2w", "t2": "T2w",
    "flair": "FLAIR", "t2f": "FLAIR", "t2flair": "FLAIR",
    "pd": "PDw", "pdw": "PDw",
    "mask": "mask", "brain": "mask", "dseg": "mask", "seg": "mask", "truth": "mask", "label": "mask", "labels": "mask", "roi": "mask",
    "ood": "map", "oodmask": "mask", "score": "map", "std": "map", "source": "mask", "prob": "map", "lesion": "mask",
}  # fmt: skip
"""Words in a file's name that say what it holds (BIDS suffixes, BraTS 2013–2023, common usage)."""

AMBIGUOUS = ("brain", "std", "source", "score", "lesion")
"""Words that end our own companions' names and, after a contrast, those of other tools' images."""

ENHANCED = ("t1c", "t1ce", "t1gd", "t1post", "gadolinium", "gd", "contrast")
IMAGES = ("T1w", "T2w", "FLAIR", "PDw")
MAX_SIDECAR_BYTES = 16 << 20


@dataclass(frozen=True)
class Content:
    """What a file says it holds: ``contrast`` (BIDS suffix, mask, map, or None), contrast-enhanced, made by localdiff."""

    contrast: str | None
    enhanced: bool = False
    synthetic: bool = False
    said_by: str = "nothing"


def sidecar_path(path: Path) -> Path:
    """The BIDS-style JSON beside a volume."""
    return path.with_name(stem(path) + ".json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """The sidecar of a volume; empty where there is none or it is not a JSON object."""
    file = sidecar_path(path)
    try:
        if file.stat().st_size > MAX_SIDECAR_BYTES:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.split(r"[_\-. ]+", name) if word]


def content_of(path: Path) -> Content:
    """What the volume holds. A sidecar's ``Contrast`` (with ``Synthetic``) outranks the name; the name's last telling word wins."""
    if suffix_of(path) is None and is_dicom(path):
        return content_of_series(series_of(path))
    sidecar = read_sidecar(path)
    said = sidecar.get("Contrast")
    if isinstance(said, str) and said:
        return Content(said, False, sidecar.get("Synthetic") is True, "sidecar")
    words = _words(stem(path))
    contrast = _said_by(words, path)
    enhanced = any(word in ENHANCED for word in words) or bool(sidecar.get("ContrastBolusIngredient"))
    return Content(contrast, enhanced, False, "name" if contrast else "nothing")


def content_of_series(series: Series) -> Content:
    """What a DICOM series holds, by the words of its protocol and, before them, of its description."""
    words = _words(series.words)
    telling = [word for word in words if word in ALIASES]
    contrast = ALIASES[telling[-1]] if telling else None
    enhanced = series.enhanced or any(word in ENHANCED for word in words)
    return Content(contrast, enhanced, series.synthetic, "series description" if contrast else "nothing")


def _said_by(words: list[str], path: Path) -> str | None:
    """The last telling word; an ambiguous one after a contrast, such as FSL's ``T1w_brain``, is ours only where our sidecar says so."""
    telling = [word for word in words if word in ALIASES]
    if len(telling) > 1 and telling[-1] in AMBIGUOUS and ALIASES[telling[-2]] in IMAGES and not _made_beside(path):
        return ALIASES[telling[-2]]
    return ALIASES[telling[-1]] if telling else None


def _made_beside(path: Path) -> bool:
    """Whether a localdiff sidecar lists this file among the outputs of its run."""
    parent = path.with_name(stem(path).rpartition("_")[0] + path.name[len(stem(path)) :])
    outputs = [read_sidecar(p).get("OutputSHA256") for p in (parent, beside(parent, "ood"))]
    return any(isinstance(listed, dict) and path.name in listed for listed in outputs)


def renamed(relative: Path, suffix: str | None) -> Path:
    """The output's relative name: the input's, its BIDS suffix replaced where ``suffix`` is given."""
    if not suffix:
        return relative
    name, image = stem(relative), suffix_of(relative) or ""
    tail = relative.name[len(name) :] if image else ""
    head, _, last = name.rpartition("_")
    base = head if head and ALIASES.get(last.lower()) in IMAGES else name
    return relative.with_name(f"{base}_{suffix}{tail}")


def beside(path: Path, ending: str) -> Path:
    """The companion of an output: ``<name>_<ending>`` with the same image suffix."""
    name = stem(path)
    return path.with_name(f"{name}_{ending}{path.name[len(name) :]}")
