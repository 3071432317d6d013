"""``localdiff-bids``: which level of the analysis is asked for."""

from __future__ import annotations

from pathlib import Path

from localdiff_cli.bids.group import GroupOptions, run_group
from localdiff_cli.bids.participant import ParticipantOptions, run_participants
from localdiff_cli.declared import check_choice
from localdiff_cli.options import RunOptions

LEVELS = ("participant", "group")


def run_level(level: str, source: Path, shared: RunOptions, participant: ParticipantOptions, group: GroupOptions) -> int:
    """Carry out one level; return the exit code."""
    check_choice("analysis level", level, LEVELS)
    if level == "group":
        return run_group(source, shared, group)
    return run_participants(source, shared, participant)
