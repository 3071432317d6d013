"""What the recipes of all commands with a network share: the outputs follow from the options alone, before any network is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.work import Say, Work
from localdiff_cli.tasks.outputs import OutputPlan, Role

BRAIN = Role("brain", "brain", "uint8", "localdiff brain mask")


@dataclass(frozen=True)
class NetworkRecipe(ABC):
    """How any process makes ready for a command; ``out`` is the folder of its outputs."""

    out: Path

    @abstractmethod
    def roles(self) -> list[tuple[bool, Role]]:
        """Every kind of output, the main one first, and whether it is wanted."""

    @abstractmethod
    def load(self, say: Say) -> Work:
        """Load bundle and networks. Raises :class:`LocaldiffError` where they cannot be used."""

    @property
    def suffix(self) -> str | None:
        """The BIDS suffix that the outputs' names get; None keeps the inputs'."""
        return None

    @cached_property
    def plan(self) -> OutputPlan:
        """What is written for a volume."""
        return OutputPlan(self.out, tuple(role for wanted, role in self.roles() if wanted), self.suffix)

    def outputs(self, item: Item) -> list[Path]:
        """All volumes written for an item, the main one first."""
        return self.plan.outputs(item)
