"""The OOD maps that a told expert learns from: those of whole volumes, as ``translate`` would show them to it.

A lesion network may know those from whom it learnt better than anybody else, and an expert that is shown its maps of them
may learn to trust a map more than it deserves. Of several networks each person's map is therefore made by one that did not
learn from that person.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.bundle import Bundle, Defaults, load_segmenter
from localdiff_cli.ood.residue import without_residue
from localdiff_cli.ood.through_plane import seen_from_the_side
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability
from localdiff_cli.training.job import FitJob, learnt_from
from localdiff_cli.training.slices import PatientSlices
from localdiff_cli.training.told import ToldSettings
from localdiff_cli.training.translator import ChosenSlices, draw_rows, planes_of
from localdiff_cli.volumes.reader import open_volume

Maps = Mapping[str, NDArray[np.uint8]]
"""A person's name → M of all slices, ``(S, H, W)``, 255 = 1."""


@dataclass(frozen=True)
class Told:
    """A told expert's settings, and the lesion networks whose maps it is told: each person's by the first that did not learn
    from that person; by the first of all where each did."""

    settings: ToldSettings
    finders: tuple[Bundle, ...]

    def account(self, base: Bundle) -> dict[str, Any]:
        """Return what decides the maps, for the card and a checkpoint's identity."""
        seen = _seen_by(base)
        settings = {"residue": seen.residue, "peak": seen.peak, "through_plane_mm": seen.through_plane_mm}
        return {"finders": [f"{finder.name} {finder.hash}" for finder in self.finders]} | settings

    def stranger_to(self, name: str) -> int | None:
        """Return the first of ``finders`` that did not learn from the person of that name; None where each did, or does not
        say from whom it learnt."""
        people = (learnt_from(finder, "segmenter") for finder in self.finders)
        return next((i for i, known in enumerate(people) if known and name not in known), None)


@dataclass(frozen=True)
class MappedSlices:
    """Slices of which each is drawn with its map."""

    slices: ChosenSlices
    maps: Maps

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return a random batch: condition, target, brain, lesion, M, each ``(n, 1, H, W)`` float32."""
        drawn = draw_rows(self.slices, n, generator)
        ood_map = np.stack([self.maps[patient.name][row] for patient, row in drawn])
        return *planes_of(drawn), torch.from_numpy(ood_map.astype(np.float32) / 255)[:, None]


def _seen_by(base: Bundle) -> Defaults:
    """The defaults of a translator; its residue, peak and average through the slices are for a segmenter's maps alone."""
    return base.defaults if base.defaults.detector == "segmenter" else Defaults()


def found_maps(job: FitJob, told: Told, base: Bundle, patients: Iterable[PatientSlices]) -> Maps:
    """Return the maps of everybody, as the ``base`` would show them (residue, seen from the side), and report who made them.

    The slices next to one another are those with enough brain to be learnt from. Raise :class:`VolumeError` where a volume
    cannot be opened any more, and :class:`ModelError` for a finder without weights.
    """
    defaults = _seen_by(base)
    everybody = {person.name: person for person in patients}
    makers = {name: told.stranger_to(name) for name in everybody}
    strangers = sum(maker is not None for maker in makers.values())
    job.say(f"making the maps of {len(makers)} people, {strangers} of them with a lesion network that did not learn from them")
    networks = [load_segmenter(finder, job.device) for finder in told.finders]
    apart = slice_distances(job, makers)
    bright = base.condition.on_scale(defaults.residue) if defaults.residue else None
    return {
        name: map_of(networks[makers[name] or 0], person, defaults.through_plane_mm / apart[name], defaults.peak, bright)
        for name, person in everybody.items()
    }


def slice_distances(job: FitJob, names: Container[str]) -> dict[str, float]:
    """Return the distance of the slices of the people of these names, mm. Raise :class:`VolumeError` where a volume cannot be
    opened."""
    volumes = {pair.name: open_volume(pair.condition, job.prepare.affine_from) for pair in job.pairs if pair.name in names}
    return {name: float(volume.frame.spacing[0]) for name, volume in volumes.items()}


@torch.inference_mode()
def map_of(network: LesionNetwork, person: PatientSlices, sigma: float, peak: float, bright: float | None = None) -> NDArray[np.uint8]:
    """Return M of a person's slices, ``(S, H, W)``, 255 = 1; ``sigma`` in slices (0: each by itself) and ``peak`` as for
    :func:`seen_from_the_side`, ``bright`` as for :func:`without_residue` (None: everything is looked at)."""
    device = next(network.parameters()).device
    brain = torch.from_numpy(np.ascontiguousarray(person.brain))[:, None]
    condition = torch.from_numpy(person.condition.astype(np.float32) / 65535)[:, None]
    looked_at = brain if bright is None else without_residue(condition, brain, bright)
    found = torch.cat([
        lesion_probability(network, (some * inside).to(device), inside.to(device).float()).cpu()
        for some, inside in zip(condition.split(16), looked_at.split(16), strict=True)
    ])  # fmt: skip
    if sigma > 0:
        found = seen_from_the_side(found, looked_at, sigma, peak)
    return (found[:, 0] * 255).round().to(torch.uint8).numpy()
