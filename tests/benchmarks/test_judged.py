"""Slice by slice: records by hand, the same noise whatever the other slices, nothing measured twice, means over patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from examples.benchmarks import judged
from examples.benchmarks.judged import Slices
from examples.benchmarks.mri import Row
from tests.benchmarks.test_mri import Threshold
from tests.bundles import make_segmenter

SEGMENTED = Row("segmenter", "segmenter", expert=True)


@pytest.fixture
def finder(bench, tmp_path, monkeypatch, models_folder):
    """The bench with a segmenter of the condition among the bundles."""
    make_segmenter(tmp_path / "more" / "lesion-t1", "T1w")
    monkeypatch.setenv("LOCALDIFF_MODELS", f"{tmp_path / 'more'}:{models_folder}")
    return bench


@pytest.fixture
def taken(patient):
    return judged.slices_of(patient, 1)


def test_records_say_what_is_marked_covered_and_how_it_stands_out(bench, taken):
    bench = replace(bench, segmenter=Threshold())
    target = np.where(taken.lesion, 0.95, 0.4).astype(np.float32) * taken.brain
    image = target.copy()
    image[3][taken.lesion[3]] = 0.5
    mask = np.zeros_like(taken.lesion)
    mask[2, 8:14] = taken.lesion[2, 8:14]
    seen, lost = judged.judge(bench, image[2:], mask[2:], replace(taken, target=target).with_lesion)
    assert (seen["dice"], seen["true_dice"], lost["dice"], lost["true_dice"]) == (1, 1, 0, 1)
    assert (seen["covered"], seen["elsewhere"], seen["flagged"], lost["flagged"]) == (0.5, 0, True, False)
    assert seen["image"] == pytest.approx(0.55, abs=1e-3)
    assert lost["image"] == pytest.approx(0.1, abs=1e-3)
    assert lost["target"] == pytest.approx(0.55, abs=1e-3)


def test_hosts_are_lesion_free_and_show_enough_brain(taken):
    brain = taken.brain.copy()
    brain[0, 6:] = False
    assert replace(taken, brain=brain).hosts.numbers == (1,)
    assert taken.with_lesion.numbers == (2, 3)


def test_a_slice_has_its_own_noise_whatever_comes_with_it(bench, taken):
    whole = judged.translate(bench, Row("plain", "none"), taken)[0]
    alone = judged.translate(bench, Row("plain", "none"), taken.with_lesion)[0]
    assert np.array_equal(whole[2:], alone)
    assert judged.translate(bench, Row("true", "true"), taken)[0] is taken.target


def test_a_local_row_takes_the_region_of_its_detector(bench, taken):
    image, mask = judged.translate(bench, Row("truth", "truth"), taken)
    plain = judged.translate(bench, Row("plain", "none"), taken)[0]
    assert np.array_equal(mask, taken.lesion)
    assert np.array_equal(image[:2], plain[:2])
    assert not np.array_equal(image[2:], plain[2:])


def test_nothing_is_measured_twice_and_other_slices_are_measured_anew(finder, taken, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    first = judged.judged(finder, SEGMENTED, taken.with_lesion, folder)
    monkeypatch.setattr(judged, "judge", lambda *_: [])
    assert judged.judged(finder, SEGMENTED, taken.with_lesion, folder) == first != []
    darker = replace(taken.with_lesion, condition=taken.with_lesion.condition / 2)
    assert judged.judged(finder, SEGMENTED, darker, folder) == []
    make_segmenter(tmp_path / "more" / "lesion-t1", "FLAIR")
    assert judged.judged(finder, SEGMENTED, taken.with_lesion, folder) == []


def test_without_an_expert_its_rows_are_left_out(bench):
    without = replace(bench, networks=replace(bench.networks, expert=None))
    assert judged.usable(without, judged.LOCAL_ROWS) == judged.LOCAL_ROWS[:1]
    assert judged.usable(bench, judged.LOCAL_ROWS) == judged.LOCAL_ROWS


def test_means_are_over_slices_and_resample_patients():
    records = [[{"v": 1.0}, {"v": 0.0}], [{"v": 1.0}, {"v": None}], [], [{"v": 0.0}]]
    mean = judged.mean(records, lambda r: r["v"], "none")
    assert (mean.estimate, mean.n) == (0.5, 3)
    assert 0 <= mean.low < 0.5 < mean.high <= 1
    assert judged.mean([[], []], lambda r: r["v"], "none").reason == "none"
    assert judged.count(records) == "5 / 3"


def test_slices_without_any_are_empty(taken):
    none = taken.only(np.zeros(4, bool))
    assert isinstance(none, Slices)
    assert none.numbers == ()
    assert judged.judged(None, SEGMENTED, none, None) == []
