"""Derivatives' names and sidecars: what each output of a volume is called in BIDS, and what the JSON beside it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import Estimate, OnSlice, Outcome, VolumeWork
from localdiff_cli.bids.dataset import DESCRIPTIONS, RAW, uri
from localdiff_cli.bids.names import derived, parse_name
from localdiff_cli.errors import VolumeError
from localdiff_cli.roles import Role
from localdiff_cli.tasks.outputs import OutputPlan
from localdiff_cli.volumes.contrast import sidecar_path
from localdiff_cli.volumes.whole import write_text

DESC = {"image": "synthetic", "std": "syntheticstd", "map": "ood", "source": "source", "brain": "brain"}
SUFFIX = {"map": "probseg", "source": "dseg", "brain": "mask", "mask": "mask", "prob": "probseg"}
"""The BIDS suffix of each role; the others have the contrast's."""
MASK_TYPE = {"mask": "Lesion", "brain": "Brain"}
LESION_TEXT = {
    "mask": "Lesion mask found on the synthetic image, 1 = lesion",
    "prob": "Probability of a lesion, found on the synthetic image",
}


@dataclass(frozen=True)
class BidsItem(Item):
    """A volume of a dataset; ``raw`` is the acquired image on whose grid everything lies (a path below the source dataset).

    ``selection`` says why this one was taken from a visit with several, and which ``others`` were not.
    """

    raw: Path = Path()
    selection: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class BidsPlan(OutputPlan):
    """The outputs under BIDS names: ``space`` is the source's contrast, ``suffix`` the translation's; a lesion mask keeps
    its image's."""

    space: str = "T1w"

    def path(self, item: Item, role: Role) -> Path:
        """Return where one kind of output goes. Raise :class:`VolumeError` for an input without a BIDS name."""
        name = parse_name(item.relative.name)
        if name is None:
            raise VolumeError(f"{item.path}: found no BIDS name; expected sub-…_{self.space}.nii.gz", code="name")
        if role.name in LESION_TEXT:
            made = derived(name, SUFFIX[role.name], {"label": "lesion"})
        else:
            made = derived(name, SUFFIX.get(role.name, self.suffix or name.suffix), {"space": self.space, "desc": DESC[role.name]})
        return self.out / item.relative.with_name(str(made))

    def with_sidecars(self, item: Item) -> list[Path]:
        """Return all volumes, the main one first, and the sidecars of the others: the engine keeps, checks and replaces
        them alike."""
        main, *rest = self.outputs(item)
        return [main, *rest, *map(sidecar_path, rest)]


@dataclass(frozen=True, eq=False)
class BidsWork:
    """A command's work on one volume, with the sidecars that BIDS requires: each names its sources and its space."""

    inner: VolumeWork
    plan: BidsPlan

    @property
    def settings(self) -> dict[str, object]:
        """What decides the result."""
        return self.inner.settings

    @property
    def device(self) -> str:
        """Where the networks run."""
        return self.inner.device

    def companions(self, item: Item) -> list[Path]:
        """Return this volume's own files among those given."""
        return self.inner.companions(item)

    def lacking(self, items: Sequence[Item]) -> dict[Path, str]:
        """Return what was given and is not there, by the relative names of the items that would fail for it."""
        return self.inner.lacking(items)

    def smaller(self) -> BidsWork | None:
        """Return the same work with half the batch; None where the batch is one slice."""
        smaller = self.inner.smaller()
        return None if smaller is None else replace(self, inner=smaller)

    def estimate(self, shape: tuple[int, int, int]) -> Estimate:
        """Return what a volume of this shape, ``(slices, rows, columns)``, will cost."""
        return self.inner.estimate(shape)

    def __call__(self, item: Item, on_slice: OnSlice) -> Outcome:
        """Do the work, and write the sidecars of all outputs but the main one, which the engine writes last."""
        assert isinstance(item, BidsItem)
        outcome = self.inner(item, on_slice)
        main, *rest = self.plan.roles
        stripped = bool(outcome.facts.get("SkullStripped"))
        for role in rest:
            facts = sidecar_facts(item, role, stripped=stripped)
            write_text(sidecar_path(self.plan.path(item, role)), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        return replace(outcome, facts={**outcome.facts, **sidecar_facts(item, main, stripped=stripped)})


def sidecar_facts(item: BidsItem, role: Role, *, stripped: bool) -> dict[str, object]:
    """Return what BIDS requires about one output: sources and space as URIs, whether the skull is gone, what it is."""
    raw = uri(item.raw, RAW)
    sources = [raw] if item.relative == item.raw else [uri(item.relative), raw]
    facts: dict[str, object] = {
        "Description": LESION_TEXT.get(role.name) or DESCRIPTIONS[DESC[role.name]],
        "Sources": sources,
        "SpatialReference": raw,
    }
    if role.name in ("image", "std"):
        facts["SkullStripped"] = stripped
    if role.name in MASK_TYPE:
        facts["Type"] = MASK_TYPE[role.name]
    if item.selection:
        facts["Selection"] = {"Reason": item.selection, "Others": list(item.others)}
    return facts
