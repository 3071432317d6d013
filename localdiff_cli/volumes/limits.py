"""What a file may ask of memory and time: no more than it can hold, and what is compressed no more than a stated limit."""

from __future__ import annotations

from pathlib import Path

from localdiff_cli.errors import VolumeError

MAX_DEFLATE_RATIO = 1040
"""DEFLATE cannot expand more than 1032 times: a header that promises more than that is wrong."""

UNPACKED_BYTES = 1 << 30
UNPACKED_RATIO = 100
"""A compressed file may unpack to UNPACKED_BYTES, or to UNPACKED_RATIO times its own size where that is more."""


def unpacked_limit(packed: int) -> int:
    """Return the bytes to which a compressed file of ``packed`` bytes may unpack."""
    return max(UNPACKED_BYTES, UNPACKED_RATIO * packed)


def check_promise(path: Path, promised: float, size: int, ratio: int) -> None:
    """Refuse a header that promises more than its ``size`` bytes can hold, before anything is allocated.

    ``ratio`` is how many bytes of voxels a stored byte can stand for; :data:`MAX_DEFLATE_RATIO` means that they are compressed.
    """
    room = max(size, 0) * ratio
    if promised > room:
        raise VolumeError(
            f"{path}: the header promises {promised:,.0f} bytes of voxels, the file holds at most {room:,.0f}; it is truncated or its "
            "header is wrong. Copy the file again",
            code="absurd-size" if promised > 64 * max(room, 1) else "truncated",
        )
    if ratio == MAX_DEFLATE_RATIO:
        check_unpacked(path, promised, size)


def check_unpacked(path: Path, unpacked: float, packed: int) -> None:
    """Refuse ``packed`` bytes that unpack, or promise to, beyond the limit."""
    if unpacked > unpacked_limit(packed):
        raise VolumeError(
            f"{path}: found {packed:,} bytes that unpack to {unpacked:,.0f} or more; expected at most {unpacked_limit(packed):,} (a "
            f"compressed file may unpack to {UNPACKED_BYTES >> 30} GiB, or to {UNPACKED_RATIO} times its size where that is more). "
            "If you trust it, unpack it yourself",
            code="absurd-size",
        )
