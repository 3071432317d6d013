"""The auxiliary classifier of guided fusion: a lesion network asked whether an estimate still shows the anomaly."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from localdiff_cli.diffusion.fusion import ShowsAnomaly
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability

MIN_SHARE = 0.25
"""The anomaly shows when the classifier finds a lesion in at least this share of B."""


def lesion_shows(network: LesionNetwork, threshold: float) -> Callable[[Tensor, Tensor, Tensor], ShowsAnomaly]:
    """Return a classifier for one slice, given its condition, B and brain, each ``(1, 1, H, W)``."""

    def for_slice(condition: Tensor, ood_mask: Tensor, brain: Tensor) -> ShowsAnomaly:
        def shows(x0: Tensor) -> bool:
            image = ((x0 + 1) / 2).clamp(0, 1) * brain
            found = lesion_probability(network, image, brain) >= threshold
            return bool((found & ood_mask).sum() >= MIN_SHARE * ood_mask.sum())

        return shows

    return for_slice
