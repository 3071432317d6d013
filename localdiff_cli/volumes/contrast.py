"""Which contrast a file holds, by its sidecar or its name; never by guessing from voxels."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from localdiff_cli.volumes.files import absent_content, stem
from localdiff_cli.volumes.formats import suffix_of
from localdiff_cli.volumes.formats.dicom.header import Series, is_dicom
from localdiff_cli.volumes.formats.dicom.series import series_of
from localdiff_cli.volumes.names import ALIASES, ENHANCED, IMAGES, OTHER_WORDS, parse, shown_by

MAX_SIDECAR_BYTES = 16 << 20


@dataclass(frozen=True)
class Content:
    """What a file says it holds: ``contrast`` (BIDS suffix, mask, map, or None), contrast-enhanced, made by localdiff.

    An output of localdiff beside the main one that is no mask or map by name has its ending as ``contrast``, and so is
    never an image. ``problem``: why its sidecar cannot be read, so that what stands there is not known; empty where all is
    well.
    """

    contrast: str | None
    enhanced: bool = False
    synthetic: bool = False
    said_by: str = "nothing"
    problem: str = ""


@dataclass(frozen=True)
class Sidecar:
    """The values of a sidecar, and why there are none although the file is there."""

    values: dict[str, object] = field(default_factory=dict)
    problem: str = ""


def sidecar_path(path: Path) -> Path:
    """Return the BIDS-style JSON beside a volume."""
    return path.with_name(stem(path) + ".json")


def load_sidecar(path: Path) -> Sidecar:
    """Return the sidecar of a volume: empty where there is none; ``problem`` where it is there and cannot be read. A byte
    order mark is taken."""
    file = sidecar_path(path)
    try:
        if file.stat().st_size > MAX_SIDECAR_BYTES:
            return Sidecar(problem=f"the sidecar {file.name} is larger than {MAX_SIDECAR_BYTES >> 20} MiB")
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        absent = absent_content(file)
        return Sidecar(problem=f"the sidecar {file.name} {absent}" if absent else "")
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return Sidecar()  # no file can have that name
        absent = absent_content(file)
        return Sidecar(problem=f"the sidecar {file.name} {absent or f'cannot be read as JSON ({_short(error)})'}")
    if not isinstance(content, dict):
        return Sidecar(problem=f"the sidecar {file.name} holds no JSON object")
    return Sidecar(content)


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def read_sidecar(path: Path) -> dict[str, object]:
    """Return the sidecar's values; empty where there is none or it cannot be read: :func:`load_sidecar` says why."""
    return load_sidecar(path).values


def content_of(path: Path, relative: Path | None = None) -> Content:
    """Return what the volume holds. A sidecar's ``Contrast`` (with ``Synthetic``) outranks the name.

    ``relative``: its name below the folder that was searched, whose ``sub-…`` folders count.
    """
    if suffix_of(path) is None and is_dicom(path):
        return content_of_series(series_of(path))
    sidecar = load_sidecar(path)
    values = sidecar.values
    agent = any(values.get(key) for key in ("ContrastBolusIngredient", "ContrastBolusAgent"))
    said = values.get("Contrast")
    if isinstance(said, str) and said:
        return Content(said, agent, values.get("Synthetic") is True, "sidecar")
    name = parse(relative or Path(path.name))
    ending = stem(path).rpartition("_")[2].lower()
    ours = ALIASES.get(ending) not in IMAGES and _made_beside(path)
    contrast = ending if ours and ending not in ALIASES else shown_by(name, ours=ours)
    enhanced = agent or any(word in ENHANCED for word in _words(stem(path))) or any(key == "ce" for key, _ in name.entities)
    return Content(contrast, enhanced, values.get("Synthetic") is True, "name" if contrast else "nothing", sidecar.problem)


def content_of_series(series: Series) -> Content:
    """Return what a DICOM series holds, by the words of its protocol and, before them, of its description."""
    words = _words(series.words)
    telling = [word for word in words if word in ALIASES or word in OTHER_WORDS]
    contrast = ALIASES.get(telling[-1], telling[-1]) if telling else None
    enhanced = series.enhanced or any(word in ENHANCED for word in words)
    return Content(contrast, enhanced, series.synthetic, "series description" if contrast else "nothing")


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[_\-. ]+", text.lower()) if word]


def _made_beside(path: Path) -> bool:
    """Whether a localdiff sidecar lists this file among the outputs of its run."""
    head = stem(path).rpartition("_")[0]
    if not head:
        return False
    parent = path.with_name(head + path.name[len(stem(path)) :])
    outputs = [read_sidecar(p).get("OutputSHA256") for p in (parent, beside(parent, "ood"))]
    return any(isinstance(listed, dict) and path.name in listed for listed in outputs)


def renamed(relative: Path, suffix: str | None) -> Path:
    """Return the output's relative name: the input's, its BIDS suffix replaced where ``suffix`` is given."""
    if not suffix:
        return relative
    name, image = stem(relative), suffix_of(relative) or ""
    tail = relative.name[len(name) :] if image else ""
    found = re.fullmatch(r"(.+)([_\-])([^_\-]+)", name)
    if found and ALIASES.get(found[3].lower()) in IMAGES:
        return relative.with_name(f"{found[1]}{found[2]}{suffix}{tail}")
    return relative.with_name(f"{name}_{suffix}{tail}")


def beside(path: Path, ending: str) -> Path:
    """Return the companion of an output: ``<name>_<ending>`` with the same image suffix."""
    name = stem(path)
    return path.with_name(f"{name}_{ending}{path.name[len(name) :]}")
