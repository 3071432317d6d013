"""A certificate at work: it paints every volume's portrait, and says whether its promises hold there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from localdiff_cli.guarantees.certificate import Certificate, Verdict
from localdiff_cli.guarantees.interval_network import IntervalNetwork, distances
from localdiff_cli.guarantees.intervals import Band, limits
from localdiff_cli.guarantees.strangeness import Painter, is_strange, on_grid, p_value
from localdiff_cli.ood.backbone import Backbone


@dataclass(frozen=True, eq=False)
class Certified:
    """The ``certificate``, the network that portraits need, the ``bands`` to be written (None: none are) and the network
    that begins them (None: none does)."""

    certificate: Certificate
    backbone: Backbone
    bands: Mapping[str, Band | None] | None = None
    network: IntervalNetwork | None = None

    def painter(self) -> Painter:
        """Return a painter for one volume."""
        return Painter(self.backbone)

    def distances(self, condition: Tensor, ood_map: Tensor, image: Tensor) -> dict[str, Tensor]:
        """Return how far ``below`` and ``above`` the drawn slices the network's limits lie, each ``(N, 1, H, W)``; empty
        without a network."""
        if self.network is None:
            return {}
        return dict(zip(("below", "above"), distances(self.network, condition, ood_map, image).split(1, dim=1), strict=True))

    def band(
        self, image: NDArray[np.float32], source: NDArray[np.uint8], away: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the limits ``lo`` and ``hi`` around a slice in [0, 1] with its source labels; empty where no bands are
        written. ``away``: the slice's :meth:`distances`, on its own grid."""
        if self.bands is None:
            return {}
        begun = (image - away["below"], image + away["above"]) if away else None
        return dict(zip(("lo", "hi"), limits(image, source, self.bands, begun), strict=True))

    def verdict(self, painter: Painter, spacing: Sequence[float]) -> Verdict:
        """Return whether the certificate holds for the volume that ``painter`` has seen, with voxels of ``spacing`` mm."""
        certificate = self.certificate
        p = p_value(on_grid(painter.portrait(), spacing), certificate.portraits)
        return Verdict(certificate, p, is_strange(p, len(certificate.portraits), certificate.void_level))
