"""The recipes of ``translate`` and ``segment`` with BIDS names and sidecars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import Say, VolumeWork
from localdiff_cli.bids.outputs import BidsPlan, BidsWork
from localdiff_cli.bundle import open_bundle
from localdiff_cli.recipes.segment import SegmentRecipe
from localdiff_cli.recipes.translate import TranslateRecipe


@dataclass(frozen=True)
class BidsTranslateRecipe(TranslateRecipe):
    """How any process gets ready to translate a dataset's images."""

    @cached_property
    def plan(self) -> BidsPlan:
        """What is written for a volume."""
        bundle = open_bundle(self.options.model)
        return BidsPlan(self.out, self.roles, bundle.target.contrast, bundle.condition.contrast)

    def outputs(self, item: Item) -> list[Path]:
        """Return all files written for an item, the translation first."""
        return self.plan.with_sidecars(item)

    def load(self, say: Say) -> VolumeWork:
        """Load bundle, networks and detector. Raise :class:`LocaldiffError` where they cannot be used."""
        return BidsWork(super().load(say), self.plan)


@dataclass(frozen=True)
class BidsSegmentRecipe(SegmentRecipe):
    """How any process gets ready to find lesions on the translations."""

    @cached_property
    def plan(self) -> BidsPlan:
        """What is written for a volume."""
        return BidsPlan(self.out, self.roles)

    def outputs(self, item: Item) -> list[Path]:
        """Return all files written for an item, the mask first."""
        return self.plan.with_sidecars(item)

    def load(self, say: Say) -> VolumeWork:
        """Load the bundle. Raise :class:`LocaldiffError` where it cannot be used."""
        return BidsWork(super().load(say), self.plan)
