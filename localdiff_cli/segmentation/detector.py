"""The lesion network as an OOD detector: its probability is both the score and the map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from localdiff_cli.ood.detector import Detection, from_map
from localdiff_cli.segmentation.network import LesionNetwork, lesion_probability


@dataclass(frozen=True, eq=False)
class SegmenterDetector:
    """A :class:`localdiff_cli.ood.detector.Detector` that finds lesions as a segmenter does."""

    network: LesionNetwork

    def __call__(self, condition: Tensor, brain: Tensor) -> Detection:
        """Detect; shapes as in the protocol."""
        return from_map(lesion_probability(self.network, condition, brain).clamp(0, 1))
