"""Bright tissue at the brain's rim that a mask left in: sinuses, dura, muscle, vessels after contrast agent.

Beside it, healthy brain looks darker than it is, and a lesion network takes a temporal pole for a tumour. A detector
therefore does not look at it. Only for contrasts on which lesions are dark: on others a bright spot at the rim may be one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

RIM_PIXELS = 3
"""A residue comes within this many pixels of the end of the brain mask, 3 mm on a grid of 1 mm."""
LEAST = 0.005
"""Share of a slice's brain that is bright where something was left in; veins and fat make up less."""
CONNECTED = np.ones((3, 3), bool)


def without_residue(condition: Tensor, brain: Tensor, bright: float) -> Tensor:
    """Return the brain of each slice, ``(N, 1, H, W)`` bool, without the regions, connected to its rim, where ``condition``
    ``(N, C, H, W)`` float32 in [0, 1] reaches ``bright``, on the same scale. A slice with hardly anything as bright stays as it
    is."""
    images, masks = condition.amax(dim=1).cpu().numpy(), brain[:, 0].cpu().numpy()
    kept = [_without(image, mask, bright) for image, mask in zip(images, masks, strict=True)]
    return torch.from_numpy(np.stack(kept)[:, None]).to(brain.device) if kept else brain


def _without(image: NDArray[np.float32], brain: NDArray[np.bool_], bright: float) -> NDArray[np.bool_]:
    shines = brain & (image >= bright)
    if shines.sum() <= LEAST * brain.sum():
        return brain
    rim = brain & ~ndimage.binary_erosion(brain, iterations=RIM_PIXELS)
    return brain & ~ndimage.binary_propagation(shines & rim, CONNECTED, mask=shines)
