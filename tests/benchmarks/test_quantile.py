"""Bands of an interval network beside bands of curves: both are held to the same promise, on the same people."""

import argparse

import numpy as np
import pytest

from examples.benchmarks import promise, quantile
from localdiff_cli.bundle import copy_bundle, open_bundle
from localdiff_cli.errors import ModelError, UsageError
from tests.brains import write_brain
from tests.bundles import add_interval


def test_limits_that_know_more_make_narrower_bands_at_the_same_promise():
    def person(number):
        random = np.random.default_rng(number)
        hard = random.random(2000) < 0.3
        spread = np.where(hard, 0.15, 0.02)
        true = np.clip(0.5 + spread * random.standard_normal(2000), 0, 1).astype(np.float32)
        image, source = np.full(2000, 0.5, np.float32), np.ones(2000, np.uint8)
        begun = (image - 1.6 * spread, image + 1.6 * spread)
        voxels = promise.Voxels(true, image, source, np.zeros(2000, bool), begun)
        return promise.Measured("glioma", {}, voxels, {})

    val, test = ([person(number) for number in numbers] for numbers in (range(20), range(40, 50)))
    lines = {
        line["band"]: line
        for name, way in promise.ways_of(val, test, {}).items()
        for line in promise.band_lines(name, way)
        if line["region"] == "ordinary" and line["people"] == "glioma"
    }
    widths = {name: float(line["width"].split()[0]) for name, line in lines.items()}
    assert all(87 < float(line["coverage %"].split()[0]) < 97 for line in lines.values())
    assert widths[promise.SHIPPED] < 0.85 * widths["constant by region"]
    bare = promise.plainly(val)[0].drawn
    assert bare.begun is None
    assert np.array_equal(bare.true, val[0].drawn.true)


@pytest.fixture
def site(tmp_path, models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    for number in range(12):
        for contrast in ("T1w", "T2w"):
            write_brain(tmp_path / f"sub-{number:02}" / f"sub-{number:02}_{contrast}.nii.gz", seed=number)
    splits = ["train"] * 3 + ["val"] * 8 + ["test"]
    rows = "\n".join(f"sub-{number:02}\t{split}" for number, split in enumerate(splits))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tsplit\n{rows}\n")
    return argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="test", every=3, work=tmp_path / "work")


def test_every_way_is_measured_on_val_and_on_the_others(site, tmp_path, models_folder):
    with pytest.raises(ModelError, match="no interval network"):
        quantile.measure(site)
    site.model = str(add_interval(copy_bundle(open_bundle("t1-to-t2"), tmp_path / "mine")).path)
    (table,) = quantile.measure(site)
    ways = {(line["band"], line["people"]) for line in table.rows}
    assert ways == {
        (name, split) for name in (quantile.SHIPPED, quantile.NETWORK, quantile.CURVES, quantile.CONSTANT) for split in ("val", "test")
    }
    site.split = "nobody"
    with pytest.raises(UsageError, match="splits val and nobody"):
        quantile.measure(site)
