"""Why BCa: with 14 patients it holds the truth of skewed figures more often than percentiles."""

from __future__ import annotations

from examples.benchmarks.coverage import coverage, worlds


def test_bca_holds_a_skewed_share_more_often_than_percentiles():
    world = next(each for each in worlds() if "plain" in each.name)
    found = {method: coverage(world, method, trials=200, resamples=300)[0] for method in ("percentile", "BCa")}
    assert found["BCa"] > found["percentile"]
