"""Bands by a network of their own: what it learns, and that both kinds of band are held to the same promise."""

import argparse

import numpy as np
import pytest
import torch

from examples.benchmarks import harm, promise, quantile
from examples.benchmarks.quantile import Scan
from localdiff_cli.errors import UsageError
from localdiff_cli.guarantees import intervals
from localdiff_cli.training.people import people
from tests.brains import write_brain


def scan(number, rows=32):
    """Drawn alike everywhere; the truth is spread widely where the condition is bright, narrowly elsewhere."""
    random = np.random.default_rng(number)
    condition = np.zeros((4, rows, 32), np.float32)
    condition[:, :, 16:] = 1
    true = np.clip(0.5 + (0.01 + 0.15 * condition) * random.standard_normal(condition.shape), 0, 1).astype(np.float32)
    source = np.ones(condition.shape, np.uint8)
    source[:, :2] = 0
    source[:, 8:12, 8:24] = 2
    half = np.full(condition.shape, 0.5, np.float32)
    return Scan(f"sub-{number}", "glioma", condition, np.zeros_like(half), half, true, source, source == 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantile") / "network.safetensors"
    fitted = quantile.fitted([scan(number, rows=32 + 8 * (number == 3)) for number in range(4)], path, steps=150)
    again = quantile.fitted([], path, steps=150)
    assert all(torch.equal(a, b) for a, b in zip(fitted.state_dict().values(), again.state_dict().values(), strict=True))
    return fitted


def test_pinball_loss_is_least_where_a_tail_lies_beyond_each_limit():
    true, ones = torch.linspace(0, 1, 1001), torch.ones(1001)

    def lost(low, high):
        return quantile.pinball(ones * low, ones * high, true, ones).item()

    assert lost(0.05, 0.95) < min(lost(0.02, 0.95), lost(0.08, 0.95), lost(0.05, 0.92), lost(0.05, 0.98))


def test_the_network_is_wide_where_the_condition_says_so(model):
    low, high = quantile.by_network(model, scan(9))
    width = high - low
    assert np.all(width > 0)
    assert width[:, 4:, 20:].mean() > 3 * width[:, 4:, :12].mean()


def test_both_kinds_are_held_to_the_same_promise_and_the_network_is_narrower(model):
    val, test = [scan(number) for number in range(20, 40)], [scan(number) for number in range(60, 66)]
    widths = {}
    for name, way in {"curves": lambda one: quantile.by_curves({}, one), "network": lambda one: quantile.by_network(model, one)}.items():
        own = [quantile.residuals(one, way(one)) for one in val]
        margins = {region: intervals.margin(own, region, 0.9) for region in ("ordinary", "drawn", "unknown")}
        assert margins["unknown"] is None
        found = [quantile.figures(one, way(one), margins) for one in test]
        by_region = {line["region"]: line for line in promise.region_lines(name, "test", found)}
        assert set(by_region) == {"brain", "ordinary", "drawn", "lesion"}
        assert all(88 < float(by_region[region]["coverage %"].split()[0]) <= 99 for region in ("brain", "ordinary", "drawn"))
        widths[name] = float(by_region["ordinary"]["width"].split()[0])
    assert widths["network"] < 0.9 * widths["curves"]


def test_what_nothing_is_promised_of_has_the_whole_range():
    one = scan(1)
    told = quantile.figures(one, (one.image, one.image), {"ordinary": 0.0, "drawn": None, "unknown": None})
    assert (told["width_drawn"], told["coverage_drawn"]) == (1.0, 1.0)
    assert told["width_ordinary"] == 0


def test_a_person_is_translated_once(tmp_path, models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    for contrast in ("T1w", "T2w"):
        write_brain(tmp_path / "sub-01" / f"sub-01_{contrast}.nii.gz", seed=1)
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-01\tval\n")
    options = argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="test", every=3, work=tmp_path / "work")
    work = harm.load("t1-to-t2")
    (one,) = quantile.scans(work, "val", options)
    assert one.seen(0, 2).shape == (2, 3, *one.image.shape[1:])
    assert np.abs(one.image[one.source == 0]).max() == 0
    monkeypatch.setattr(quantile, "draw", lambda *_: pytest.fail("translated again"))
    assert np.array_equal(quantile.scans(work, "val", options)[0].true, one.true)
    assert people([tmp_path], "T1w", "T2w", "train") == []
    with pytest.raises(UsageError, match="splits train, val"):
        quantile.measure(options)
