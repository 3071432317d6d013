"""What a file's name says: whom it belongs to, and what it shows. Names only; no file is opened here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from localdiff_cli.volumes.files import stem

IMAGES = ("T1w", "T2w", "FLAIR", "PDw")
ALIASES: dict[str, str] = {
    "t1w": "T1w", "t1": "T1w", "t1n": "T1w", "mprage": "T1w", "spgr": "T1w",
    "t1c": "T1w", "t1ce": "T1w", "t1gd": "T1w", "t1post": "T1w",
    "t2w": "T2w", "t2": "T2w",
    "flair": "FLAIR", "t2f": "FLAIR", "t2flair": "FLAIR", "darkfluid": "FLAIR",
    "pd": "PDw", "pdw": "PDw",
    "mask": "mask", "msk": "mask", "brain": "mask", "brainmask": "mask", "dseg": "mask", "seg": "mask", "truth": "mask",
    "label": "mask", "labels": "mask", "roi": "mask", "lesion": "mask", "lesions": "mask", "source": "mask", "oodmask": "mask",
    "segmentation": "mask", "parcellation": "mask", "wmh": "mask",
    "ood": "map", "score": "map", "std": "map", "prob": "map", "lo": "map", "hi": "map",
}  # fmt: skip
"""Words in a file's name that say what it holds (BIDS suffixes, BraTS 2013–2023, common usage)."""

AMBIGUOUS = ("brain", "std", "source", "score", "lesion", "lesions", "lo", "hi")
"""Words that end our own companions' names and, after a contrast, those of other tools' images."""

LAST_ONLY = ("lo", "hi")
"""Words that end our own companions' names and are anything elsewhere, a person's name too."""

ENHANCED = ("t1c", "t1ce", "t1gd", "t1post", "gadolinium", "gd", "contrast")
LESION_WORDS = ("lesion", "tumor", "tumour", "wmh", "stroke", "infarct")
REGION_WORDS = ("roi", "seg", "dseg", "truth", "oodmask")
OTHER_TISSUE = ("gm", "wm", "csf", "bg", "cortex", "aseg", "aparcaseg", "carpet", "ventricles", "head", "skull", "ribbon")

OTHER_SUFFIXES = frozenset(
    """
    2PE BF Chimap CARS CONF DF DIC FLASH FLUO IRT1 M0map MEGRE MESE MP2RAGE MPE MPM MTRmap MTS MTVmap MTsat MTw NLO OCT PC PDT2
    PDmap PDT2map PLI R1map R2map R2starmap RB1COR RB1map S0map SEM SPIM SR T1map T1rho T2map T2star T2starmap T2starw TB1AFI TB1DAM
    TB1EPI TB1RFM TB1SRGE TB1TFL TB1map TEM UNIT1 VFA angio asl aslcontext asllabeling blood bold boldref cbv cbf coil defacemask
    dwi sbref epi events fieldmap inplaneT1 inplaneT2 inplane m0scan magnitude magnitude1 magnitude2 mtt tmax mrsi mrsref svs unloc
    nirs noRF optodes pet phase phase1 phase2 phasediff physio photo stim swi SWImagandphase minIP uCT ct ncct cta ctp cect adc fa
    md rd ad trace b0 dti tensor qsm probseg thickness curv sulc inflated pial xfm warp regressors timeseries channels electrodes
    scans sessions bval bvec dir psir stir tof mra mrv pwi dsc dce perf eadc gre mip depth variance smoothwm dparc coverage
    """.lower().split()
)
"""Suffixes of BIDS (raw and derived) and words of common usage that name another kind of file than the four contrasts,
lower case."""

OTHER_WORDS = frozenset(
    """
    bold boldref dwi sbref epi asl cbf cbv mtt fieldmap phasediff magnitude magnitude1 magnitude2 swi qsm pet ct ncct cta ctp adc fa
    t1map t2map t2star t2starw t2starmap t1rho unit1 mp2rage inplanet1 inplanet2 angio tof mra dsc dce dti tensor probseg thickness
    warp xfm pwi psir stir swimagandphase minip m0scan flash pdmap mtrmap r1map r2map r2starmap
    localizer localiser scout survey ep2d diff
    """.split()  # noqa: SIM905 (a list of words reads best as words)
)
"""Those of them that are taken for what a file shows in names that are not BIDS; the others are ordinary words there."""

PLAIN_WORDS = frozenset(
    """
    scan image img volume vol anat mri mr head native orig raw data input mni mni152 mni305
    talairach template dark fluid
    """.split()  # noqa: SIM905 (a list of words reads best as words)
)
"""Words at the place of a suffix that say nothing about the contrast."""

ENTITIES = frozenset(
    """
    sub ses sample task tracksys acq nuc voi ce trc stain rec dir run mod echo flip inv mt part proc hemi space split recording
    chunk seg res den label desc from to mode atlas cohort tpl scale
    """.split()  # noqa: SIM905 (a list of words reads best as words)
)
ROLE_ENTITIES = ("desc", "label", "seg", "mod")
"""BIDS entities that say what a mask or map shows, not which scan it belongs to."""
VISIT = re.compile(r"(visit|tp|timepoint|session|ses|followup|fu)\d*|v\d|baseline", re.IGNORECASE)
"""A word that says which of a person's visits it was; ``v12`` and ``V01`` may be volunteers."""
PARTS = ("phase", "real", "imag")
"""Values of ``part-`` of images that are no magnitude, which alone shows a contrast."""
NUMBERED = ("run", "echo", "flip", "inv", "split", "chunk")

PLACED = ("to", "in", "on", "onto", "into")
"""Words after which a name says where an image lies: ``FLAIR_to_T1`` shows a FLAIR."""
MOVED = ("reg", "registered", "coreg", "coregistered", "aligned", "warped", "resampled", "space")
QUANTITIES = {"map": "map", "maps": "map", "mapping": "map", "star": "starw", "rho": "rho"}


@dataclass(frozen=True)
class Name:
    """A file's name taken apart.

    ``entities`` are BIDS key–value pairs, those of the folders ``sub-…/ses-…`` included; ``words`` what is left of a BIDS
    name, or all words of another, lower case; ``spelt`` the same as written. ``bids`` names begin with ``sub-``.
    ``folder``: the folders it lies in, below the searched one.
    """

    bids: bool
    entities: tuple[tuple[str, str], ...]
    spelt: tuple[str, ...]
    folder: tuple[str, ...] = ()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words in lower case."""
        return tuple(word.lower() for word in self.spelt)

    @cached_property
    def _middle(self) -> tuple[int, int]:
        last = len(self.words) - 1
        told = [i for i, word in enumerate(self.words) if not _is_kind(word) or (word in LAST_ONLY and i != last)]
        ends = [i for i in told if self.words[i] not in LESION_WORDS]
        return (told[0], ends[-1] + 1) if ends else (len(self.words), len(self.words))

    @cached_property
    def owner(self) -> tuple[str, ...]:
        """The words that say whom it belongs to beyond BIDS entities: all but those of contrast and role at both ends."""
        first, last = self._middle
        return self.words[first:last]

    @cached_property
    def owner_spelt(self) -> str:
        """The same as written, joined by underscores."""
        first, last = self._middle
        return "_".join(self.spelt[first:last])

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The words that may say what a mask shows: the values of ``desc-`` and ``label-``, and the words of the name's end."""
        first, last = self._middle
        told = [value.lower() for key, value in self.entities if key in ROLE_ENTITIES]
        return (*told, *(self.words[last:] or self.words[:first]))

    @cached_property
    def of_scan(self) -> dict[str, str]:
        """The BIDS entities that say which scan it belongs to."""
        return {key: value for key, value in self.entities if key not in ROLE_ENTITIES}


def _is_kind(word: str) -> bool:
    """Whether a word speaks of contrast, role or place, and not of a person."""
    known = (ALIASES, OTHER_WORDS, PLAIN_WORDS, PLACED, MOVED, QUANTITIES)
    return any(word in words for words in known) or unprefixed(word) in ALIASES or _before_place(word) in ALIASES


def unprefixed(word: str) -> str:
    """Turn ``rflair`` into ``flair``: an image contrast without the letters that SPM puts before what it moved or smoothed."""
    short = re.sub(r"^[rwsmu]{1,3}(?=[tfp])", "", word)
    return short if ALIASES.get(short) in IMAGES else word


def parse(relative: Path) -> Name:
    """Take a file's name apart; ``relative`` to the folder that was searched."""
    text, folder = stem(relative), relative.parent.parts
    inherited = {part.partition("-")[0]: part.partition("-")[2] for part in folder if re.fullmatch(r"(sub|ses)-[^_]+", part)}
    if not re.match(r"sub-[^_]+", text):
        return Name(False, tuple(inherited.items()), tuple(word for word in re.split(r"[_\-. ]+", text) if word), folder)
    entities, spelt = dict(inherited), []
    for part in text.split("_"):
        key, dash, value = part.partition("-")
        if dash and (key in ENTITIES or value.lower() not in ALIASES):
            entities[key] = str(int(value)) if key in NUMBERED and value.isdecimal() else value
        else:
            spelt += [word for word in re.split(r"[\-. ]+", part) if word]
    return Name(True, tuple(entities.items()), tuple(spelt), folder)


def shown_by(name: Name, *, ours: bool = False) -> str | None:
    """Return what the name says that the file shows: a contrast, mask, map, another suffix, ``T1w or FLAIR``, or None where
    it says nothing.

    ``ours``: a localdiff sidecar lists the file, so that ``T1w_brain`` is a mask and not another tool's skull-stripped image.
    """
    telling = [word for word in _without_places(name.words) if _kind(word, name)]
    if not telling:
        return name.spelt[-1] if name.bids and name.words and name.words[-1] not in PLAIN_WORDS else None
    if len(telling) > 1 and telling[-1] in AMBIGUOUS and _kind(telling[-2], name) in IMAGES and not ours:
        telling = telling[:-1]
    last = _kind(telling[-1], name)
    if last in ("mask", "map"):
        return last
    if (part := dict(name.entities).get("part")) in PARTS:
        return f"{part} image"
    shown = list(dict.fromkeys(kind for word in telling if (kind := _kind(word, name)) and kind not in ("mask", "map")))
    return "FLAIR" if sorted(shown) == ["FLAIR", "T2w"] else " or ".join(shown)


def _kind(word: str, name: Name) -> str | None:
    known = ALIASES.get(unprefixed(word))
    if known is None and word in (OTHER_SUFFIXES if name.bids else OTHER_WORDS):
        return name.spelt[-1] if name.words[-1] == word else word
    return known


def _without_places(words: tuple[str, ...]) -> list[str]:
    """The words without those that say where an image lies, and with ``T2 star`` and ``T1 map`` as the one word they mean."""
    kept: list[str] = []
    skip = False
    for word, following in zip(words, (*words, "")[1:], strict=True):
        images = [k for k in kept if ALIASES.get(unprefixed(k)) in IMAGES]
        if skip:
            skip = False
        elif word in PLACED or (word in MOVED and images):
            skip = ALIASES.get(following) in IMAGES
            if word == "space" and not skip and len(images) > 1:
                kept.remove(images[-1])
        elif word == "fluid" and kept and kept[-1] == "dark":
            kept[-1] = "flair"  # as Siemens names it
        elif word in QUANTITIES and kept and kept[-1] in images:
            kept[-1] = kept[-1].removesuffix("w") + QUANTITIES[word]
        else:
            kept.append(_before_place(word))
    return kept


def _before_place(word: str) -> str:
    """``flair2t1`` and ``t2tomni`` → what was moved."""
    if word in ALIASES or word in OTHER_SUFFIXES:
        return word
    cuts = (word[: m.start()] for m in re.finditer("2|to|in", word))
    return next((left for left in cuts if ALIASES.get(unprefixed(left)) in IMAGES), word)


def patient_of(relative: Path) -> str:
    """Return the BIDS subject where there is one, a BraTS case without its visit, else what the name or its folders say but
    for visits.

    >>> patient_of(Path("sub-01_ses-2_T2w.nii.gz")), patient_of(Path("BraTS-GLI-00003-001-t2w.nii.gz"))
    ('sub-01', 'BraTS-GLI-00003')
    >>> patient_of(Path("p01_visit2_T2w.nii.gz")), patient_of(Path("p01/v1/T2w.nii.gz")), patient_of(Path("v1.nii.gz"))
    ('p01', 'p01', 'v1')
    """
    name = parse(relative)
    subject = dict(name.entities).get("sub")
    if subject:
        return f"sub-{subject}"
    if case := re.match(r"BraTS-[A-Za-z]+-\d+(?=-\d+)", relative.name):
        return case[0]
    owner = [word for word in name.owner_spelt.split("_") if word]
    for words, joint in ((owner, "_"), (name.folder, "/")):
        if words:
            return joint.join([word for word in words if not VISIT.fullmatch(word)] or words)
    return relative.name
