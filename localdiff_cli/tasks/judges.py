"""The frozen networks that judge images: the lesion segmenter, and the features that FID and KID use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.threads import apart
from localdiff_cli.volumes.brain import Brain
from localdiff_cli.volumes.intensity import Scale
from localdiff_cli.volumes.prepare import prepare_read
from localdiff_cli.volumes.reader import SliceReader

if TYPE_CHECKING:
    from localdiff_cli.bundle import SegmenterDefaults
    from localdiff_cli.segmentation.network import LesionNetwork

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Segmenter:
    """The frozen segmenter of an evaluation, loaded once per process."""

    def __init__(self, name: str) -> None:
        import torch

        from localdiff_cli.bundle import load_segmenter, open_bundle
        from localdiff_cli.tasks.slices import prepare_settings

        self.device = torch.device("cpu")
        self.bundle = open_bundle(name)
        self.network: LesionNetwork = load_segmenter(self.bundle, self.device)
        self.cut: SegmenterDefaults = self.bundle.segmenter_defaults
        self.prepare = prepare_settings(self.bundle, brain="none", bias=None, nan="refuse", multiple=self.network.settings.multiple)

    def __call__(self, reader: SliceReader, brain: Brain, written: Scale | None = None) -> Mask:
        """Return the lesion mask of an image whose brain is known, canonical ``(slices, rows, columns)``; ``written``: the
        scale that it was written with, where that is known."""
        from localdiff_cli.tasks.segmentation import segment_prepared

        return segment_prepared(self.network, self.device, prepare_read(reader, self.prepare, brain=brain, written=written), self.cut)


class SliceFeatures:
    """The packaged ImageNet network that FID and KID use, loaded once per process."""

    def __init__(self) -> None:
        from localdiff_cli.ood.backbone import load_backbone

        self.backbone = load_backbone()

    def __call__(self, image: Array, brain: Mask) -> Array:
        """Return one row of features for each slice that shows brain, ``(slices, 112)``."""
        import torch

        slices = (torch.from_numpy(image[k])[None, None] for k in np.flatnonzero(brain.any(axis=(1, 2))))
        return torch.cat(apart(lambda each: self.backbone(each)[1].mean(dim=(2, 3)), slices)).numpy()
