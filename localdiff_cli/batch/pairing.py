"""Pair a translation with its reference, masks and maps: by relative name, else by what BIDS names share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localdiff_cli.batch.discover import candidates
from localdiff_cli.volumes.contrast import ALIASES, IMAGES, content_of
from localdiff_cli.volumes.reader import stem

IMAGE, MASK, MAP = "image", "mask", "map"


def entity(relative: Path) -> str:
    """What a file's name says about whom it belongs to: its stem without contrast and role words at the end.

    ``sub-01/anat/sub-01_T1w_ood.nii.gz`` → ``sub-01``; a name of nothing but such words keeps its folder's name.
    """
    words = stem(relative).split("_")
    while len(words) > 1 and words[-1].lower() in ALIASES:
        words.pop()
    return "_".join(words)


@dataclass(frozen=True)
class Source:
    """A file or folder given for one role of an evaluation, and the contrast that its images must have (None: any)."""

    given: str
    role: str
    contrast: str | None = None


def _fits(path: Path, source: Source) -> bool:
    content = content_of(path)
    if source.role == MASK:
        return content.contrast in (None, "mask") or content.said_by == "name"
    if source.role == MAP:
        return content.contrast in (None, "map") and not path.name.lower().split(".")[0].endswith(("score", "std"))
    if content.contrast not in (None, *IMAGES):
        return False
    return source.contrast is None or content.contrast in (None, source.contrast)


class Index:
    """The files of one role, found by relative name or entity."""

    def __init__(self, source: Source) -> None:
        found, self._single = candidates(source.given)
        self.paths = {relative: path for path, relative in found if _fits(path, source)}
        self._by_entity: dict[str, list[Path]] = {}
        for relative, path in sorted(self.paths.items()):
            self._by_entity.setdefault(entity(relative), []).append(path)
        self._role = source.role

    def __len__(self) -> int:
        return len(self.paths)

    def partner(self, relative: Path) -> tuple[Path | None, str]:
        """The file that belongs to ``relative``, and why there is none."""
        if self._single and len(self.paths) == 1:
            return next(iter(self.paths.values())), ""
        if relative in self.paths:
            return self.paths[relative], ""
        found = self._by_entity.get(entity(relative), [])
        if self._role == MASK and len(found) > 1:
            found = [path for path in found if content_of(path).contrast == "mask"] or found
        if len(found) == 1:
            return found[0], ""
        return None, "no partner" if not found else f"{len(found)} partners: {', '.join(path.name for path in found[:4])}"
