"""Which mask, map or image belongs to a volume: one answer for every command and role, never a guess.

A partner agrees in every entity that it has, is of the requested kind by its name and by what it holds, and is the only
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from localdiff_cli.errors import UsageError, VolumeError
from localdiff_cli.volumes.contrast import Content, content_of
from localdiff_cli.volumes.files import files_of
from localdiff_cli.volumes.masks import content_of_mask
from localdiff_cli.volumes.names import ALIASES, IMAGES, LESION_WORDS, OTHER_TISSUE, REGION_WORDS, Name, parse, shown_by, unprefixed
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.walk import Walk, images_in

IMAGE, MASK, BRAIN, MAP = "image", "mask", "brain", "map"
"""Roles of a partner: an image; a mask of lesions; of the brain; an OOD map, or a lesion mask in its place."""
LOW, HIGH, SOURCE = "lo", "hi", "source"
"""Roles of what ``translate`` writes beside an image, named by the last word: the limits of an interval, and the source map."""
COMPANIONS = (LOW, HIGH, SOURCE)
NO_PARTNER = "no partner"
Owner = str | tuple[str, ...]
EXACT, GENERIC, SECOND, SILENT, NOT = 4, 3, 2, 1, 0
"""How well a name fits a role: says it; says mask; says something near it; says nothing, so that the voxels must; says
something else."""


@dataclass(frozen=True)
class Source:
    """A file or folder given for one role, the contrast that its images must have (None: any), and the option that named
    it.

    ``exact``: only names that say the role itself; a plain ``mask`` is no brain mask where lesion masks lie in the same
    folder.
    """

    given: str
    role: str
    contrast: str | None = None
    option: str = "--in"
    exact: bool = False


@dataclass(frozen=True)
class Candidate:
    """A file that may be a partner, with what its name says."""

    path: Path
    relative: Path
    name: Name

    @cached_property
    def content(self) -> Content:
        """What name and sidecar say it holds."""
        return content_of(self.path, self.relative)


def agrees(partner: Name, volume: Name, role: str) -> bool:
    """Return whether a partner belongs to the volume: it has no BIDS entity that the volume lacks or has with another
    value.

    Of a mask ``desc-`` and ``label-`` say what it shows, and ``space-T1w`` is where a T1w of no other ``space-`` lies.
    Names that are not BIDS have the same words apart from those of contrast and role, in the same or the outermost folder.
    """
    own, its = (dict(name.entities if role == IMAGE else name.of_scan) for name in (partner, volume))
    if role != IMAGE and "space" not in its and own.get("space") in ("orig", shown_by(volume)):
        del own["space"]  # the volume's own space
    if any(its.get(key) != value for key, value in own.items()):
        return False
    if partner.bids and volume.bids:
        return partner.owner in ((), volume.owner)
    if partner.bids or volume.bids:
        return "sub" in own and not (volume.owner or partner.owner)
    return partner.owner == volume.owner and _same_place(partner.folder, volume.folder, alone=not partner.owner)


def _same_place(partner: tuple[str, ...], volume: tuple[str, ...], *, alone: bool) -> bool:
    """Whether the folders of two names allow them to belong together; without an owner in the name (``alone``) they must be
    the same."""
    if alone:
        return partner == volume
    short, long = sorted((partner, volume), key=len)
    return not short or long[-len(short) :] == short


def fit(candidate: Candidate, source: Source, relative: Path) -> int:
    """Return how well a candidate's name and sidecar fit a role, for the volume at ``relative``."""
    content, same = candidate.content, candidate.relative == relative
    if source.role == IMAGE:
        return _fit_image(content, source.contrast)
    if source.role in COMPANIONS:
        return EXACT if candidate.name.words[-1:] == (source.role,) else SILENT if same else NOT
    if content.said_by == "sidecar" and content.contrast not in ("mask", "map"):
        return NOT
    level = _fit_mask(candidate.name, content, source.role)
    if source.exact:
        return level if level == EXACT else NOT
    return SILENT if level == NOT and same and content.said_by != "sidecar" else level


def _fit_image(content: Content, wanted: str | None) -> int:
    if content.contrast is None:
        return SILENT
    if content.contrast not in IMAGES or wanted not in (None, content.contrast):
        return NOT
    return SECOND if content.enhanced else EXACT


def _fit_mask(name: Name, content: Content, role: str) -> int:
    words = name.roles
    last = next((word for word in reversed(words) if word in ALIASES), "")
    if content.contrast == "map" or ALIASES.get(last) == "map":
        said = EXACT if content.said_by == "sidecar" and ALIASES.get(last) != "map" else NOT
        return {"ood": EXACT, "prob": GENERIC}.get(last, said) if role == MAP else NOT
    if content.contrast is None:
        return SILENT
    if ALIASES.get(last) != "mask" and content.contrast != "mask":
        return NOT
    if content.contrast != "mask" and last not in ("brain", "lesion", "lesions"):
        return NOT
    return _fit_region(words, last, role)


def _fit_region(words: tuple[str, ...], last: str, role: str) -> int:
    """For names that say mask: of what."""
    lesion = any(part in word for word in words for part in LESION_WORDS)
    brain = any(word in ("brain", "brainmask") for word in words)
    other = last == "source" or any(word in OTHER_TISSUE for word in words)
    if role == BRAIN:
        return NOT if lesion or other else EXACT if brain else NOT if any(word in REGION_WORDS for word in words) else GENERIC
    if (brain or other) and not lesion:
        return NOT
    return SECOND if last == "oodmask" else GENERIC


class Index:
    """The files of one role, found by relative name or by what their names share with the volume's.

    Raises :class:`UsageError` for a single file whose name or sidecar says that it is of another kind.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.walk: Walk = images_in(source.given, source.option)
        self._candidates = [Candidate(path, relative, parse(relative)) for path, relative in self.walk.images]
        self._by_owner: dict[Owner, list[Candidate]] = {}
        for candidate in self._candidates:
            self._by_owner.setdefault(_owner(candidate.name), []).append(candidate)
        if self.walk.named:
            self._check_named(self._candidates[0])

    @property
    def role(self) -> str:
        """What its files are to a volume."""
        return self._source.role

    @cached_property
    def paths(self) -> dict[Path, Path]:
        """Relative name → path of the files that may have the role."""
        return {c.relative: c.path for c in self._candidates if fit(c, self._source, Path()) != NOT}

    def __len__(self) -> int:
        return len(self.paths)

    def _check_named(self, candidate: Candidate) -> None:
        content, fitting = candidate.content, fit(candidate, self._source, candidate.relative) != NOT
        # Where the name says nothing the voxels are asked when they are read, with their values in the message.
        if fitting and (self._source.role in (IMAGE, *COMPANIONS) or content.contrast is None or _may_be(candidate)):
            return
        what = f"its {content.said_by} says {content.contrast}" if content.contrast else "its values are an image's"
        text = f"{self._source.option} {self._source.given}: {what}; expected {expected(self._source)}. Name another file"
        raise UsageError(text, code="wrong-contrast")

    def partner(self, relative: Path, beside: Path | None = None) -> tuple[Path | None, str]:
        """Return the file that belongs to the volume at ``relative``, and why there is none.

        ``beside``: the volume itself, which is never its own partner.
        """
        if self.walk.named:
            only = self._candidates[0]
            return (None, why) if (why := _of_another(only.name, parse(relative))) else (only.path, "")
        found = self._best(relative, beside)
        if len(found) == 1:
            return found[0].path, ""
        if not found:
            return None, NO_PARTNER
        names = ", ".join(_told_apart(found))
        return None, f"{len(found)} partners: {names}; expected one. Name the file itself, or take the others away"

    def _best(self, relative: Path, beside: Path | None) -> list[Candidate]:
        """The candidates of the best fit: by kind, by the entities shared, by the contrast named."""
        volume, role = parse(relative), self._source.role
        fitting = []
        for candidate in self._near(relative, volume):
            same = candidate.relative == relative
            if not (same or agrees(candidate.name, volume, role)) or _is_volume(candidate.path, beside):
                continue
            level = fit(candidate, self._source, relative)
            if role == BRAIN and level == GENERIC and self._lies_beside_images(relative, volume):
                continue  # there a plain mask is one of lesions
            if level != NOT and (role in (IMAGE, *COMPANIONS) or _may_be(candidate)):
                exact = same or candidate.name.of_scan == volume.of_scan
                fitting.append(((level, exact, _of_contrast(candidate, volume, role)), candidate))
        best = max((rank for rank, _ in fitting), default=None)
        return [candidate for rank, candidate in fitting if rank == best]

    def _lies_beside_images(self, relative: Path, volume: Name) -> bool:
        """Whether the folder also holds images of the same scan: by their names, and no masks under the names of images."""
        images = (c for c in self._near(relative, volume) if agrees(c.name, volume, IMAGE) and shown_by(c.name) in IMAGES)
        return any(c.content.contrast in IMAGES and not _may_be(c) for c in images)

    def _near(self, relative: Path, volume: Name) -> list[Candidate]:
        """The candidates that may agree with the volume."""
        same = [candidate for candidate in self._candidates if candidate.relative == relative]
        near = [c for owner in {_owner(volume), volume.owner} for c in self._by_owner.get(owner, []) if c not in same]
        return same + near


def _owner(name: Name) -> Owner:
    """The person of a name, or else the words that say whom it belongs to: partners have the same."""
    return name.of_scan.get("sub") or name.owner


def expected(source: Source) -> str:
    """Return what a role expects, for messages."""
    image = f"a {source.contrast} image" if source.contrast else "an image"
    brain = "a brain mask (beside images one whose name says brain)"
    limits = {LOW: "a lower limit", HIGH: "an upper limit", SOURCE: "a source map"}
    return {IMAGE: image, MASK: "a lesion mask", BRAIN: brain, MAP: "an OOD map or lesion mask", **limits}[source.role]


def _told_apart(found: list[Candidate]) -> list[str]:
    names = [c.path.name for c in found[:4]]
    return names if len(set(names)) == len(names) else [c.relative.as_posix() for c in found[:4]]


def _of_contrast(candidate: Candidate, volume: Name, role: str) -> bool:
    """Whether a mask's name says no contrast, or the volume's own: ``T1w_mask`` is rather the T1w's than ``FLAIR_mask``."""
    if role == IMAGE:
        return True
    told, its = ({ALIASES.get(unprefixed(word)) for word in name.words}.intersection(IMAGES) for name in (candidate.name, volume))
    return not told or bool(told & its)


def _may_be(candidate: Candidate) -> bool:
    """Whether the voxels allow a mask or map, asked where the name does not say it.

    Where the name says an image nothing but a mask will do: an image scaled to [0, 1] looks like a probability. A file that
    cannot be read stays a candidate, so that its damage is reported.
    """
    content = candidate.content
    if content.contrast in ("mask", "map"):
        return True
    try:
        found = content_of_mask(open_volume(candidate.path, "sform"))  # where it lies does not matter here
    except VolumeError as error:
        return error.code != "not-a-mask"
    return found.definite or content.contrast is None


def _is_volume(path: Path, volume: Path | None) -> bool:
    return volume is not None and path.exists() and any(part.exists() and path.samefile(part) for part in files_of(volume))


def _of_another(named: Name, volume: Name) -> str:
    """Why a file that was named alone cannot belong to a volume: both names say whom they are of, and not the same."""
    its, own = named.of_scan.get("sub"), volume.of_scan.get("sub")
    return f"the file named is of sub-{its}" if its and own and its != own else ""


def find_companion(source: Source, volume: Path, relative: Path, index: Index | None = None) -> Path:
    """Return the partner of ``volume`` in a file or folder, whose ``index`` may be at hand. Raise :class:`VolumeError`
    (``no-companion``) for none, or more than one."""
    if Path(source.given).is_file():
        why = "" if source.role == IMAGE else _of_another(parse(Path(Path(source.given).name)), parse(relative))
        if not why:
            return Path(source.given)
        text = f"{relative}: {source.option} {source.given}: {why}; expected its own. Name a folder of them"
        raise VolumeError(text, code="no-companion")
    found, why = (Index(source) if index is None else index).partner(relative, volume)
    if found is None:
        reason = f"nothing that is {expected(source)} and belongs to it" if why == NO_PARTNER else why
        raise VolumeError(
            f"{relative}: found in {source.option} {source.given} {reason}; expected one file whose name agrees in every entity (sub, ses, "
            "run, …) and differs in words of role or contrast only. Name the file itself",
            code="no-companion",
        )
    return found
