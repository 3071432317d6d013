"""A whole array in canonical order, for what is read slice by slice to be compared with."""

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.volumes.geometry import Frame


def to_canonical(frame: Frame, stored: NDArray) -> NDArray:
    """The canonical array of a whole stored one."""
    array = np.transpose(stored, frame.axes)
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in frame.flips)]
