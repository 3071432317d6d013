"""What to do about a volume that cannot be used: a hint names only options that the command has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """The way out where the brain is not found, and where voxels in the brain are not finite."""

    brain: str = "Give the brain mask with --brain FILE, or use --brain none"
    nan: str = "Accept them as 0 with --nan zero"


VOLUMES = Advice()
EVALUATE = Advice("Give the brain mask with --brain", "Set them to 0 in the file first")
FIT = Advice(
    "Name a brain mask: in the table's column brain, or as a _brain file beside the image",
    "Set them to 0 in the file, or leave the patient out with --exclude",
)
