"""The colour experiment on drawn parts: shifts of equal luminance, seen in RGB alone, lost by a grey network and kept by a copy."""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import pytest
import torch

from examples.benchmarks import colour, photographs
from examples.benchmarks import super_resolution as sr
from tests.benchmarks.test_photographs import folder  # noqa: F401
from tests.benchmarks.test_super_resolution import Blur, fused_at_the_end


class Grey(torch.nn.Module):
    """A network that has never seen colour: it answers with the blurred grey of its condition in all channels."""

    def forward(self, x_t, condition, t):
        return Blur()(x_t, condition.mean(dim=1, keepdim=True).expand_as(condition), t)


LOCAL = ("local, true mask, network", "local, true mask, copy", "local, true mask, mean", "condition pasted into plain, true mask")


@pytest.fixture
def in_colour(folder):  # noqa: F811
    return photographs.read_photographs(folder, colour=True)


def test_photographs_are_read_in_colour_or_luminance(folder, in_colour):  # noqa: F811
    grey = photographs.read_photographs(folder)
    assert {p.image.shape for p in in_colour} == {(3, 64, 64)}
    assert {p.image.shape for p in grey} == {(1, 64, 64)}
    for colourful, pale in zip(in_colour, grey, strict=True):
        torch.testing.assert_close(photographs.luminance(colourful.image), pale.image, atol=1e-6, rtol=0)
        assert torch.equal(colourful.mask, pale.mask)


@pytest.mark.parametrize("towards", ["red", "green"])
def test_a_planted_shift_changes_colour_inside_its_ellipse_and_no_brightness(in_colour, towards):
    usual = in_colour[0]
    made = colour.shifted(usual, towards, colour.Shifting())
    torch.testing.assert_close(photographs.luminance(made.image), photographs.luminance(usual.image), atol=1e-5, rtol=0)
    assert torch.equal(made.image[:, ~made.mask[0]], usual.image[:, ~made.mask[0]])
    channel = {"red": 0, "green": 1}[towards]
    assert ((made.image - usual.image)[channel][made.mask[0]] > 0.02).all()
    assert 0.05 < made.mask.float().mean() < 0.1
    assert 0 <= made.image.min() <= made.image.max() <= 1
    assert made.defective


def test_the_kept_share_is_one_for_the_truth_none_for_the_usual_and_half_between():
    usual = np.zeros((3, 4, 4))
    true, inside = usual.copy(), np.eye(4, dtype=bool)
    true[0, inside], true[1, inside] = 0.3, -0.1
    assert colour.kept_share(true, usual, true, inside) == pytest.approx(1)
    assert colour.kept_share(usual, usual, true, inside) == pytest.approx(0)
    assert colour.kept_share((usual + true) / 2, usual, true, inside) == pytest.approx(0.5)


def test_the_network_of_colour_has_three_channels_and_other_noise_in_each():
    settings = photographs.NETWORK
    network = sr.ColourRefiner(settings)
    assert network(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.zeros(1)).shape == (1, 3, 32, 32)

    class Noise(torch.nn.Module):
        def forward(self, x_t, condition, t):
            return 0.1 * x_t

    same = torch.full((1, 3, 16, 16), 0.5)
    made = sr.upsample(Noise(), sr.Sampling(2), same, np.array([3]), None, None, 1)
    alone = sr.upsample(Noise(), sr.Sampling(2), same[:, :1], np.array([3]), None, None, 1)
    assert torch.equal(made[:, :1], alone)
    assert not torch.equal(made[:, 0], made[:, 1])


def test_shifts_are_detected_in_colour_alone_lost_by_a_grey_network_and_kept_by_a_copy(folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(photographs, "obtain", lambda *_: Grey())
    named = {"true photograph", "condition alone", "plain", *LOCAL}
    monkeypatch.setattr(colour, "SHIFTED", tuple(fused_at_the_end(row) for row in colour.SHIFTED if row.label in named))
    monkeypatch.setattr(photographs.sr, "Sampling", partial(sr.Sampling, steps=4))
    options = argparse.Namespace(data=[folder], split="test", most=None, work=tmp_path / "work")
    grey = photographs.read_photographs(folder)
    table = colour._shift_table(photographs.read_photographs(folder, colour=True), grey, options)
    rows = {line["row"]: line for line in table.rows}
    kept = {name: float(line["shift kept"].split(" ")[0]) for name, line in rows.items()}
    assert kept["true photograph"] == pytest.approx(1)
    assert kept["condition alone"] == pytest.approx(1, abs=0.1)
    assert kept["plain"] == pytest.approx(0, abs=0.2)
    assert kept["local, true mask, network"] == pytest.approx(0, abs=0.2)
    assert kept["local, true mask, copy"] == pytest.approx(kept["condition pasted into plain, true mask"], abs=1e-6)
    assert kept["local, true mask, copy"] == pytest.approx(1, abs=0.1)
    assert kept["plain"] < kept["local, true mask, mean"] < kept["local, true mask, copy"]
    assert float(rows["plain"]["pixel AUROC, RGB"].split(" ")[0]) > 0.8
    assert float(rows["plain"]["pixel AUROC, RGB"].split(" ")[0]) > float(rows["plain"]["pixel AUROC, luminance"].split(" ")[0]) + 0.1
    assert rows["plain"]["shifts restored to usual %"] == "100.0"
    assert table.settings["split"] == "test"
