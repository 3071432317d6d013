"""Where a training's figures go besides the terminal: TensorBoard's event files, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import UsageError


class Board(Protocol):
    """Takes a training's figures as they come."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one step by name, such as ``loss`` or ``validation/PSNR``."""

    def picture(self, step: int, name: str, image: NDArray[Any]) -> None:
        """A grey picture ``(H, W)`` in [0, 1]."""


class NoBoard:
    """Keeps nothing."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing is kept."""

    def picture(self, step: int, name: str, image: NDArray[Any]) -> None:
        """Nothing is kept."""


class TensorBoard:
    """Event files in a folder, for ``tensorboard --logdir``; each session of a training adds one."""

    def __init__(self, folder: Path) -> None:
        """Open a new event file. Raises :class:`UsageError` without the package tensorboard."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("--tensorboard needs a package: pip install 'localdiff[training]'", code="missing-extra") from error
        self._writer = SummaryWriter(str(folder))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Write it at once, for those who watch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, step: int, name: str, image: NDArray[Any]) -> None:
        """As 8-bit grey."""
        self._writer.add_image(name, np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), step, dataformats="HW")
