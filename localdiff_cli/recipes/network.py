"""What the recipes of all commands with a network share: the outputs follow from the options alone, before any network is
loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import Say, VolumeWork
from localdiff_cli.bundle import Bundle
from localdiff_cli.declared import asked_for
from localdiff_cli.errors import UsageError
from localdiff_cli.options import DetectOptions, SegmentOptions, TranslateOptions
from localdiff_cli.roles import Role
from localdiff_cli.tasks.outputs import OutputPlan

if TYPE_CHECKING:
    from localdiff_cli.volumes.prepare import PrepareSettings


@dataclass(frozen=True)
class NetworkRecipe(ABC):
    """How any process gets ready for a command; ``out`` is the folder of its outputs."""

    out: Path
    options: DetectOptions | TranslateOptions | SegmentOptions

    @property
    @abstractmethod
    def main(self) -> Role:
        """The main output; the options ask for others."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """Every kind of output that is wanted, the main one first."""
        return self.main, *asked_for(self.options)

    @abstractmethod
    def load(self, say: Say) -> VolumeWork:
        """Load bundle and networks. Raise :class:`LocaldiffError` where they cannot be used."""

    @property
    def suffix(self) -> str | None:
        """The BIDS suffix that the outputs' names get; None keeps the inputs'."""
        return None

    def made_ready(self, bundle: Bundle, multiple: int) -> PrepareSettings:
        """Return how volumes are prepared for a bundle's network, rows and columns a multiple of ``multiple``."""
        from localdiff_cli.tasks.slices import prepare_settings

        asked = self.options
        settings = prepare_settings(
            bundle, brain=asked.brain, bias=asked.bias, nan=asked.nan, multiple=multiple, affine_from=asked.affine_from, cache=asked.cache
        )
        settings.kept.check()
        return settings

    @cached_property
    def plan(self) -> OutputPlan:
        """What is written for a volume."""
        return OutputPlan(self.out, self.roles, self.suffix)

    def outputs(self, item: Item) -> list[Path]:
        """Return all volumes written for an item, the main one first."""
        return self.plan.outputs(item)


def batch_of(value: str, automatic: int) -> int:
    """Return ``--batch-size``: auto or a whole number of at least 1. Raise :class:`UsageError` for anything else."""
    if value == "auto":
        return automatic
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--batch-size {value}: expected auto or a whole number of at least 1", code="range")
    return int(value)


def announce(say: Say, bundle: Bundle, device: object) -> None:
    """Say which model and device run."""
    say(f"model {bundle.name} ({bundle.hash[:12]}), device {device}")
