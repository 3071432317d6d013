"""BIDS file names: entities, suffix and extension, taken apart and put together in the order of the specification."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ENTITIES = {
    "sub": "subject", "tpl": "template", "ses": "session", "cohort": "cohort", "sample": "sample", "task": "task",
    "tracksys": "tracksys", "acq": "acquisition", "nuc": "nucleus", "voi": "volume", "ce": "ceagent", "trc": "tracer",
    "stain": "staining", "rec": "reconstruction", "dir": "direction", "run": "run", "mod": "modality", "echo": "echo",
    "flip": "flip", "inv": "inversion", "mt": "mtransfer", "part": "part", "proc": "processing", "hemi": "hemisphere",
    "space": "space", "split": "split", "recording": "recording", "chunk": "chunk", "atlas": "atlas", "seg": "segmentation",
    "scale": "scale", "res": "resolution", "den": "density", "label": "label", "desc": "description",
}  # fmt: skip
"""The entities in the order in which a name has them: as names write them, and their long names."""

_PAIR = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class BidsName:
    """A file name: its ``entities`` as (key, value) in the name's order, ``suffix`` (``T1w``) and ``extension`` (``.nii.gz``)."""

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str

    def get(self, key: str) -> str | None:
        """Return the value of an entity, by its short name."""
        return dict(self.entities).get(key)

    @property
    def subject(self) -> str:
        """``01`` of ``sub-01``."""
        return self.get("sub") or ""

    @property
    def session(self) -> str | None:
        """``a`` of ``ses-a``; None where there are no sessions."""
        return self.get("ses")

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{value}" for key, value in self.entities), self.suffix]) + self.extension


def parse_name(name: str) -> BidsName | None:
    """Return a file's name taken apart; None for one that is not of the form ``key-value_…_suffix.extension``."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    found = [_PAIR.fullmatch(pair) for pair in pairs]
    if not pairs or not suffix.isalnum() or not dot:
        return None
    entities = [(match[1], match[2]) for match in found if match]
    if len(entities) < len(pairs) or len(dict(entities)) < len(pairs):
        return None
    return BidsName(tuple(entities), suffix, dot + extension)


def derived(name: BidsName, suffix: str, added: Mapping[str, str]) -> BidsName:
    """Return the name of something made from ``name``: entities ``added`` (or replaced) at their place, another suffix."""
    order = list(ENTITIES)
    entities = dict(name.entities) | dict(added)
    known = sorted(entities, key=lambda key: order.index(key) if key in order else len(order))
    return BidsName(tuple((key, entities[key]) for key in known), suffix, name.extension)
