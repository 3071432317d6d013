"""What a command may write: one kind of output, and the mark of the option that asks for it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One kind of output: its ``name`` in the code, the ``ending`` of its file name (the main output has none), type and
    header text."""

    name: str
    ending: str
    dtype: str
    description: str


@dataclass(frozen=True)
class Writes:
    """Marks an option: where its value is above ``above`` (true counts as 1, nothing given as none), this output is
    written."""

    role: Role
    above: float = 0.0

    def wanted(self, value: float | None) -> bool:
        """Return whether this value of the option asks for the output."""
        return value is not None and value > self.above
