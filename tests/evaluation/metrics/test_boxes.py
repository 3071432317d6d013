from __future__ import annotations

import numpy as np

from localdiff_cli.evaluation.metrics.boxes import bounding_box


def test_box_holds_the_mask_and_is_cut_at_the_edge():
    mask = np.zeros((5, 6), bool)
    mask[1, 2] = mask[3, 4] = True
    assert bounding_box(mask, (0, 0)) == (slice(1, 4), slice(2, 5))
    assert bounding_box(mask, (2, 1)) == (slice(0, 5), slice(1, 6))


def test_empty_mask_has_no_box():
    assert bounding_box(np.zeros((3, 3, 3), bool), (1, 1, 1)) is None
