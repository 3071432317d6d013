"""Bundles on disk: found by name or folder, read and checked, written. The only place that touches a bundle's files.

Only JSON and safetensors are read, so a bundle cannot run code; every weight file's SHA-256 is checked before it is used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli.bundle.schema import (
    CALIBRATION,
    FORMAT,
    MEND,
    METADATA,
    Bundle,
    Defaults,
    SegmenterDefaults,
    damaged,
    parse,
    settings_of,
)
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.monai_bundle.metadata import INFERENCE, inference_config, monai_metadata
from localdiff_cli.volumes.files import file_hash

if TYPE_CHECKING:
    from torch import Tensor

    from localdiff_cli.bundle.packing import Storage

TRANSLATOR = "models/translator.safetensors"
EXPERT = "models/expert.safetensors"
DETECTOR = "models/detector.safetensors"
SEGMENTER = "models/segmenter.safetensors"
MAX_METADATA_BYTES = 4 << 20
MAX_WEIGHT_BYTES = 2 << 30
MAX_DEPTH = 32


def bundle_folders() -> list[Path]:
    """Return where bundles are looked for: ``LOCALDIFF_MODELS`` (several, separated as in PATH), the user's data folder,
    the shipped ones.

    The shipped ones lie inside the package; in a checkout, beside it. Beside an installed package lie other people's.
    """
    from platformdirs import user_data_path

    here = Path(__file__).resolve().parents[1]
    extra = [Path(os.path.expanduser(p)) for p in os.environ.get("LOCALDIFF_MODELS", "").split(os.pathsep) if p]
    checkout = [here.parent / "models"] if (here.parent / "pyproject.toml").is_file() else []
    shipped = [p for p in (here / "models", *checkout) if p.is_dir()][:1]
    return [*extra, user_data_path("localdiff") / "models", *shipped]


def bundle_paths() -> dict[str, Path]:
    """Return every bundle found, by name; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in bundle_folders():
        if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir():
            for path in sorted(folder.iterdir()):
                if _is_bundle(path):
                    found.setdefault(path.name, path)
    return dict(sorted(found.items()))


def _is_bundle(path: Path) -> bool:
    try:
        return (path / METADATA).is_file()
    except (OSError, ValueError):  # a name too long, or a folder that may not be entered
        return False


def open_bundle(name_or_path: str) -> Bundle:
    """Return a bundle by its name or folder, read once per process unless its metadata changes.

    Raise :class:`ModelError` where it is missing, damaged or of another format.
    """
    path = Path(os.path.expanduser(name_or_path))
    if not _is_bundle(path):
        known = bundle_paths()
        if name_or_path not in known:
            raise ModelError(
                f"model {name_or_path!r}: neither a bundle folder nor one of {', '.join(known) or 'none found'}. "
                "Name one of these, a folder with configs/metadata.json, or set LOCALDIFF_MODELS",
                code="no-model",
            )
        path = known[name_or_path]
    return _opened(path, _stamp(path / METADATA))


@functools.lru_cache(maxsize=32)
def _opened(path: Path, stamp: tuple[int, ...]) -> Bundle:
    """The bundle in ``path`` whose metadata bear this stamp."""
    return parse(path, read_metadata(path))


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes whenever a file is written or replaced; empty where it cannot be asked."""
    try:
        found = os.lstat(file)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of the bundle in ``path``, as JSON. Raise :class:`ModelError` where it is not a sensible JSON
    object."""
    file = inside(path, METADATA)
    try:
        with file.open("rb") as handle:
            raw = handle.read(MAX_METADATA_BYTES + 1)
        if len(raw) > MAX_METADATA_BYTES:
            raise damaged(file, f"more than {MAX_METADATA_BYTES:,} bytes", "less")
        metadata = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file, f"something not readable as JSON ({error})", "a JSON object") from error
    if not isinstance(metadata, dict):
        raise damaged(file, type(metadata).__name__, "a JSON object")
    if any(depth > MAX_DEPTH for depth in _depths(metadata)):
        raise damaged(file, f"JSON nested more than {MAX_DEPTH} deep", "less")
    return metadata


def _depths(value: Any) -> Iterator[int]:
    """The depth of every container in JSON, without recursion."""
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            yield depth
            waiting += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]


def inside(folder: Path, name: str) -> Path:
    """Return a file of a bundle. Raise :class:`ModelError` where its name or a link leads out of the folder, before it is
    touched."""
    path = folder / name
    try:
        within = folder.resolve() in path.resolve().parents and not path.is_symlink()
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a zero byte
        within = False
    if not within:
        raise damaged(path, "a name or link that leads elsewhere", "a file inside the bundle")
    return path


def weight_file(bundle: Bundle, name: str) -> Path:
    """Return a weight file of the bundle, its hash checked. Raise :class:`ModelError` where it is missing, changed or not
    inside."""
    files = bundle.metadata.get("files")
    expected = files.get(name) if isinstance(files, dict) else None
    path = inside(bundle.path, name)
    if not isinstance(expected, str) or not path.is_file():
        raise ModelError(
            f"{path}: found no such weights; expected the file with its hash in {METADATA}. "
            "Install the bundle again, or make them again as its README.md says",
            code="bundle",
        )
    if path.stat().st_size > MAX_WEIGHT_BYTES:
        raise damaged(path, f"{path.stat().st_size:,} bytes", f"at most {MAX_WEIGHT_BYTES:,}")
    found = file_hash(path)
    if found != expected:
        raise damaged(path, f"SHA-256 {found[:12]}…", f"{expected[:12]}…")
    return path


def save_bundle(
    path: Path, metadata: dict[str, Any], tensors: dict[str, dict[str, Tensor]], card: str, storage: Storage = "float16"
) -> Bundle:
    """Write (or update) a bundle: weight files given replace those of the same name, the metadata is merged and hashes renewed.

    ``storage``: how floating weights lie on disk (packing.py).
    """
    from safetensors.torch import save

    from localdiff_cli.bundle.packing import pack
    from localdiff_cli.volumes.whole import whole_file, write_text

    merged = (read_metadata(path) if (path / METADATA).is_file() else {}) | metadata
    files = dict(merged.get("files", {}))
    others = {name: how for name, how in merged.get("storage", {}).items() if name not in tensors}
    for name, values in tensors.items():
        raw = save(pack(values, storage))
        with whole_file(path / name) as partial:
            partial.write_bytes(raw)
        files[name] = hashlib.sha256(raw).hexdigest()
    merged |= {"format": FORMAT, "files": files, "name": path.name, "storage": others | dict.fromkeys(tensors, storage)}
    merged |= monai_metadata(merged)
    write_text(path / METADATA, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    write_text(path / INFERENCE, json.dumps(inference_config(merged), indent=1) + "\n")
    write_text(path / "README.md", card)
    return open_bundle(str(path))


def copy_bundle(bundle: Bundle, to: Path) -> Bundle:
    """Write the bundle's weights, metadata and card into the folder ``to``, nothing else of its folder; hashes are checked."""
    from localdiff_cli.volumes.whole import whole_file

    names = [*bundle.metadata.get("files", {}), "README.md", INFERENCE, CALIBRATION, METADATA]
    for name in names:
        source = weight_file(bundle, name) if name in bundle.metadata.get("files", {}) else inside(bundle.path, name)
        if source.is_file():
            with whole_file(to / name) as partial:
                partial.write_bytes(source.read_bytes())
    return open_bundle(str(to))


def with_defaults(bundle: Bundle, changes: Mapping[str, Any]) -> Bundle:
    """Store other defaults in the bundle; the weights stay, the hash changes. The card is left to its writer.

    Raise :class:`UsageError` for a setting that the bundle does not have or a value it cannot take.
    """
    from localdiff_cli.volumes.whole import write_text

    kind: Any = SegmenterDefaults if bundle.task == "segment" else Defaults
    known = sorted(each.name for each in fields(kind))
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise UsageError(f"model {bundle.name}: found {', '.join(unknown)}; expected one of {', '.join(known)}", code="choice")
    values = dict(bundle.metadata.get("defaults", {})) | dict(changes)
    try:
        made = settings_of(kind, values, bundle.path)
    except ModelError as error:
        told = ", ".join(f"{name}={value}" for name, value in changes.items())
        why = str(error).partition(f". {MEND}")[0].removeprefix(f"{bundle.path}: ")  # the bundle is well, the value is not
        raise UsageError(f"model {bundle.name}: {told}: {why}", code="range") from error
    if isinstance(made, Defaults) and made.branch_step + made.fusion_step > made.steps:
        raise UsageError(
            f"model {bundle.name}: branch_step {made.branch_step} and fusion_step {made.fusion_step} together exceed {made.steps} steps",
            code="range",
        )
    metadata = read_metadata(bundle.path) | {"defaults": asdict(made)}
    write_text(bundle.path / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    return open_bundle(str(bundle.path))


def drop_parts(bundle: Bundle, *parts: str) -> Bundle:
    """Take networks out of a bundle, ``expert`` or ``interval``: they belong to one that is no longer there. The card is left
    to its writer."""
    from localdiff_cli.volumes.whole import write_text

    metadata, dropped = read_metadata(bundle.path), {f"models/{part}.safetensors" for part in parts}
    for part in parts:
        metadata.pop(part, None)
    metadata["files"] = {name: digest for name, digest in metadata["files"].items() if name not in dropped}
    metadata["training"] = {part: account for part, account in metadata.get("training", {}).items() if part not in parts}
    write_text(bundle.path / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    for name in dropped:
        (bundle.path / name).unlink(missing_ok=True)
    return open_bundle(str(bundle.path))
