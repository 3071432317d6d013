"""What the viewer's page holds of a volume: 8 bits a voxel, cut, and within its budget."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest

from localdiff_cli.viewer.layers import BUDGET_BYTES, HEAT, IMAGE, LABELS, ViewCase, cut, fit, layer, shrink
from localdiff_cli.viewer.page import page
from tests.volumes.synthetic import brain_array


def case(seed=0, shape=(11, 26, 22), kinds=(IMAGE, IMAGE, HEAT, LABELS), name="sub-01"):
    array = brain_array(shape, seed)
    made = {IMAGE: array, HEAT: array / array.max(), LABELS: (array > 1200).astype(np.uint8)}
    layers = tuple(layer(f"{kind}-{number}", kind, made[kind]) for number, kind in enumerate(kinds))
    return ViewCase(name, layers, (3.0, 1.2, 1.0))


def test_eight_bits_stand_for_the_real_values_between_low_and_high():
    array = brain_array((11, 26, 22))
    made = layer("t1", IMAGE, array)
    assert made.low == 0
    back = made.low + made.data / 255 * (made.high - made.low)
    inside = array <= made.high
    assert np.abs(back - array)[inside].max() <= (made.high - made.low) / 510 + 1e-3
    assert (made.data[~inside] == 255).all()


def test_a_map_keeps_its_scale_and_labels_keep_their_numbers():
    assert (layer("m", HEAT, np.array([[[0.0, 0.6, 0.8]]])).data == [0, 153, 204]).all()
    assert layer("sd", HEAT, np.array([[[0.0, 0.02]]])).data.max() == 255
    assert (layer("s", LABELS, np.array([[[0, 1, 2, 3]]])).data == [0, 1, 2, 3]).all()


def test_what_is_not_a_number_is_shown_as_nothing():
    made = layer("t1", IMAGE, np.array([[[0.0, np.nan, 50.0, np.inf, 100.0]]]))
    assert made.data[0, 0, 1] == 0
    assert made.data[0, 0, 3] == 255


def test_the_empty_margin_is_cut_and_remembered():
    array = np.zeros((20, 30, 40))
    array[5:9, 10:20, 30:35] = 7
    shown = cut(ViewCase("x", (layer("a", LABELS, array),), (1.0, 1.0, 1.0)))
    assert (shown.start, shown.shape) == ((3, 8, 28), (8, 14, 9))
    whole = np.zeros_like(array)
    whole[3:11, 8:22, 28:37] = shown.layers[0].data
    np.testing.assert_array_equal(whole, array)


def test_shrinking_keeps_the_mean_of_an_image_and_every_label():
    labels = np.zeros((2, 8, 8))
    labels[1, 3, 3] = 2
    image = np.arange(128.0).reshape(2, 8, 8)
    small = shrink(ViewCase("x", (layer("i", IMAGE, image, (0.0, 255.0)), layer("l", LABELS, labels)), (3.0, 1.0, 1.0)), 2)
    assert small.layers[1].data[1, 1, 1] == 2
    assert small.layers[0].data[0, 0, 0] == round((0 + 1 + 8 + 9) / 4)
    assert small.spacing == (3.0, 2.0, 2.0)


@pytest.mark.parametrize("budget", [3_000, 30_000, 90_000])
def test_every_case_keeps_to_its_share_of_the_budget(budget):
    rng = np.random.default_rng(0)
    noisy = [ViewCase(f"c{n}", (layer("a", IMAGE, rng.normal(size=(5, 64, 64))),), (1.0, 1.0, 1.0)) for n in range(3)]
    fitted = fit(noisy, budget)
    assert sum(len(text) for _, texts in fitted for text in texts) <= budget
    assert {shown.shrunk for shown, _ in fitted} == {{3_000: 5, 30_000: 2, 90_000: 1}[budget]}


def test_the_page_holds_the_voxels_to_the_bit_and_asks_for_nothing():
    made = case()
    text = page([made], "<script>alert(1)</script>")
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])
    stored = [gzip.decompress(base64.b64decode(t)) for t in re.findall(r'<script type="text/plain" data-case="0">(.*?)</script>', text)]
    for data, one in zip(stored, cut(made).layers, strict=True):
        np.testing.assert_array_equal(np.frombuffer(data, np.uint8).reshape(told[0]["shape"]), one.data)
    assert "<script>alert" not in text
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", text)
    assert "default-src 'none'" in text
    assert page([made], "t") == page([case()], "t")


def test_the_budget_is_what_a_mail_takes():
    assert BUDGET_BYTES == 25_000_000
