"""A certificate at work: it paints every volume's portrait, and says whether its promises hold there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.guarantees.certificate import Certificate, Verdict
from localdiff_cli.guarantees.intervals import limits
from localdiff_cli.guarantees.strangeness import Painter, is_strange, on_grid, p_value
from localdiff_cli.ood.backbone import Backbone


@dataclass(frozen=True, eq=False)
class Certified:
    """The ``certificate``, and the network that portraits need."""

    certificate: Certificate
    backbone: Backbone

    def painter(self) -> Painter:
        """Return a painter for one volume."""
        return Painter(self.backbone)

    def band(self, image: NDArray[np.float32], source: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return the limits ``lo`` and ``hi`` around a slice in [0, 1] with its source labels; empty where the certificate
        has no intervals."""
        intervals = self.certificate.intervals
        return {} if intervals is None else dict(zip(("lo", "hi"), limits(image, source, intervals["bands"]), strict=True))

    def verdict(self, painter: Painter, spacing: Sequence[float]) -> Verdict:
        """Return whether the certificate holds for the volume that ``painter`` has seen, with voxels of ``spacing`` mm."""
        certificate = self.certificate
        p = p_value(on_grid(painter.portrait(), spacing), certificate.portraits)
        return Verdict(certificate, p, is_strange(p, len(certificate.portraits), certificate.void_level))
