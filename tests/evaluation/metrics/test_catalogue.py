from __future__ import annotations

import pytest

from localdiff_cli.evaluation.metrics.catalogue import METRICS, in_table_order, split_arm


def test_keys_split_into_arm_and_figure():
    assert split_arm("dice")[0] == ""
    assert split_arm("baseline_dice") == ("baseline_", METRICS["dice"])
    assert split_arm("reference_contrast") == ("reference_", METRICS["contrast"])
    with pytest.raises(KeyError):
        split_arm("baseline_nothing")


def test_the_arms_of_a_figure_stand_side_by_side():
    assert in_table_order({"baseline_dice", "psnr_whole", "dice", "reference_dice"}) == [
        "psnr_whole", "dice", "baseline_dice", "reference_dice",
    ]  # fmt: skip
