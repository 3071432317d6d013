"""What a BIDS dataset holds: its anatomical images, found by reading folders only, so that 10,000 people take seconds.

Only the folders of the people asked for are read, and no file is opened. (pybids and bids2table index every file of a
dataset first; the tests compare this index with bids2table's.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.bids.names import BidsName, parse_name
from localdiff_cli.errors import NoInputError, UsageError

DESCRIPTION = "dataset_description.json"
READERS = 16
EXTENSIONS = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Scan:
    """An anatomical image of a dataset: its path below the dataset's ``root``, and its name taken apart."""

    root: Path
    relative: Path
    name: BidsName

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / self.relative


def read_description(root: Path) -> dict[str, object]:
    """Return a dataset's ``dataset_description.json``. Raise :class:`UsageError` for a folder that is no BIDS dataset."""
    file = root / DESCRIPTION
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{root}: found no {DESCRIPTION}; expected the root of a BIDS dataset", code="no-dataset") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); expected a JSON object. Run bids-validator-deno", code="no-dataset") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: found {type(found).__name__}; expected a JSON object. Run bids-validator-deno", code="no-dataset")
    return found


def labels(given: Sequence[str], prefix: str) -> tuple[str, ...]:
    """Return labels without their prefix, whichever way they were given: ``sub-01`` and ``01`` are the same.

    Raise :class:`UsageError` for an empty one, such as an unset shell variable leaves: it would mean everybody, or nobody.
    """
    found = tuple(dict.fromkeys(label.removeprefix(f"{prefix}-") for label in given))
    if "" in found:
        option = {"sub": "--participant-label", "ses": "--session-id"}[prefix]
        raise UsageError(f"{option}: found an empty label; expected one such as {prefix}-01, or leave the option out for all", code="label")
    return found


def scan_dataset(root: Path, subjects: Sequence[str] = (), sessions: Sequence[str] = ()) -> Iterator[Scan]:
    """Yield every image below ``sub-*/[ses-*/]anat``, ordered by name; only those of ``subjects`` and ``sessions``, where
    some are given.

    Links to files are listed whether or not their content is there: reading them says what is missing. Raise
    :class:`NoInputError` for people who are not in the dataset, :class:`UsageError` for a folder that cannot be read.
    """
    wanted, seen = labels(subjects, "sub"), labels(sessions, "ses")
    missing = [label for label in wanted if not (root / f"sub-{label}").is_dir()]
    if missing:
        raise NoInputError(f"{root}: found no {', '.join(f'sub-{m}' for m in missing)}; see --participant-label", code="no-participant")
    people = sorted(f"sub-{label}" for label in wanted) or _folders(root, "sub-")
    with ThreadPoolExecutor(READERS) as pool:  # a network disk answers slowly, but many at a time
        for images in pool.map(lambda person: _person(root, person, seen), people):
            yield from images


def _person(root: Path, person: str, sessions: tuple[str, ...]) -> list[Scan]:
    """One person's images, those without a session first."""
    folders = _folders(root / person)
    own = [Path(person, "anat")] if "anat" in folders and not sessions else []
    visits = [Path(person, visit, "anat") for visit in folders if visit.startswith("ses-") and (not sessions or visit[4:] in sessions)]
    return [scan for folder in (*own, *visits) for scan in _images(root, folder)]


def _folders(folder: Path, prefix: str = "") -> list[str]:
    return sorted(name for name, is_folder in _entries(folder) if is_folder and name.startswith(prefix))


def _images(root: Path, folder: Path) -> Iterator[Scan]:
    for name, is_folder in sorted(_entries(root / folder)):
        parsed = None if is_folder or not name.endswith(EXTENSIONS) else parse_name(name)
        if parsed is not None:
            yield Scan(root, folder / name, parsed)


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """The names in a folder, and which are folders; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir()) for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror}); change its permissions", code="unreadable") from error
