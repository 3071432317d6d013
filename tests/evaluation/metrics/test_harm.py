"""What was drawn that is not there: blobs of known millilitres, in scenes made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from localdiff_cli.evaluation.metrics import harm as figures
from localdiff_cli.evaluation.metrics.harm import Drawn, Lesion, Scene
from localdiff_cli.volumes.looks import LOOKS

SHAPE = (4, 40, 40)
FLAIR = Scene(LOOKS["FLAIR"], (-6.0, 8.0), 0.2, 1.0, 0.002)
"""A pixel of 1 mm × 1 mm stands for a slice of 2 mm, as 2 µl."""
NORMAL, BRIGHT, DARK = 0.43, 0.75, 0.1
BLOB = (slice(1, 3), slice(5, 15), slice(5, 15))
BLOB_ML = 2 * 10 * 10 * 0.002
ELSEWHERE = (slice(1, 3), slice(22, 32), slice(5, 15))


def image(*places, value=BRIGHT, rest=NORMAL):
    made = np.full(SHAPE, rest, np.float32)
    for place in places:
        made[place] = value
    return made


def mask(*places):
    return image(*places, value=1, rest=0) > 0


@pytest.fixture
def drawn():
    """A healthy person without a target, translated without a fault."""
    normal = image()
    return Drawn(None, normal, normal, normal * 0, mask(), mask(...), mask().astype(np.int16), None)


def test_a_drawn_blob_gives_its_own_millilitres(drawn):
    assert figures.false_ml(drawn, FLAIR) == 0
    assert figures.false_ml(replace(drawn, local=image(BLOB)), FLAIR) == pytest.approx(BLOB_ML)
    assert figures.invented_ml(image(BLOB), drawn, FLAIR) == pytest.approx(BLOB_ML)


def test_what_the_true_target_shows_is_no_harm(drawn):
    told = replace(drawn, true=image(BLOB), local=image(BLOB, ELSEWHERE))
    assert figures.false_ml(told, FLAIR) == pytest.approx(BLOB_ML)
    assert figures.invented_ml(told.local, told, FLAIR) == pytest.approx(BLOB_ML)
    assert figures.invented_ml(told.true, told, FLAIR) == 0


def test_outside_the_brain_and_in_what_is_called_unknown_nothing_counts(drawn):
    painted = replace(drawn, local=image(BLOB))
    assert figures.false_ml(replace(painted, brain=~mask(BLOB)), FLAIR) == 0
    called = replace(painted, unknown=mask(BLOB))
    assert figures.false_ml(called, FLAIR) == 0
    assert figures.unknown_ml(called, FLAIR) == pytest.approx(BLOB_ML)


def test_a_network_that_invents_by_itself_is_seen_although_plain_does_too(drawn):
    both = replace(drawn, plain=image(BLOB), local=image(BLOB))
    assert figures.false_ml(both, FLAIR) == 0
    assert figures.invented_ml(both.plain, both, FLAIR) == pytest.approx(BLOB_ML)


def test_a_difference_below_the_margin_is_none(drawn):
    assert figures.false_ml(replace(drawn, local=image(BLOB, value=NORMAL + 0.07)), FLAIR) == 0
    assert figures.false_ml(replace(drawn, local=image(BLOB, value=NORMAL + 0.09)), FLAIR) == pytest.approx(BLOB_ML)


def test_bright_means_two_and_a_half_robust_deviations_above_the_median(drawn):
    below, above = (8.4 / 14, 8.6 / 14)
    assert figures.invented_ml(image(BLOB, value=below), drawn, FLAIR) == 0
    assert figures.invented_ml(image(BLOB, value=above), drawn, FLAIR) == pytest.approx(BLOB_ML)


def test_on_t1_disease_is_dark(drawn):
    scene = replace(FLAIR, look=LOOKS["T1w"], window=(-6.0, 6.0))
    true = image(rest=0.5)
    dark = replace(drawn, true=true, plain=true, local=image(BLOB, value=DARK, rest=0.5))
    assert figures.false_ml(dark, scene) == pytest.approx(BLOB_ML)
    assert figures.invented_ml(dark.local, dark, scene) == pytest.approx(BLOB_ML)
    assert figures.false_ml(replace(dark, local=image(BLOB, rest=0.5)), scene) == 0
    assert figures.false_ml(replace(dark, true=dark.local), scene) == 0


def test_what_brings_a_wrong_plain_nearer_to_the_truth_is_told_from_what_leads_away(drawn):
    dark = replace(FLAIR, look=LOOKS["T1w"], window=(-6.0, 6.0))
    true = image(rest=0.5)
    mended = replace(drawn, true=true, plain=image(BLOB, value=0.7, rest=0.5), local=image(BLOB, value=0.45, rest=0.5))
    assert figures.false_ml(mended, dark) == pytest.approx(BLOB_ML)
    assert figures.farther_ml(mended, dark) == 0
    overdone = replace(mended, local=image(BLOB, value=0.25, rest=0.5))
    assert figures.farther_ml(overdone, dark) == figures.false_ml(overdone, dark) == pytest.approx(BLOB_ML)
    unknown_truth = replace(mended, true=None)
    assert figures.farther_ml(unknown_truth, dark) == pytest.approx(BLOB_ML)


def test_without_a_target_fluid_is_not_told_from_disease_on_t2(drawn):
    assert figures.invented_ml(image(BLOB), drawn, replace(FLAIR, look=LOOKS["T2w"])) is None


def test_ventricles_are_compared_with_plain(drawn):
    assert figures.ventricle_change(drawn) is None
    filled = replace(drawn, ventricles=mask(BLOB), plain=image(BLOB, value=0.1), local=image(BLOB, value=0.4))
    assert figures.ventricle_change(filled) == pytest.approx(0.3)
    assert figures.ventricle_change(replace(filled, brain=~mask(BLOB))) is None


def test_flagged_is_where_the_map_reaches_tau(drawn):
    flagged = image(BLOB, value=0.2, rest=0.19) + image(ELSEWHERE, value=0.5, rest=0)
    assert figures.flagged_ml(replace(drawn, ood_map=np.float32(flagged)), replace(FLAIR, tau=0.2)) == pytest.approx(2 * BLOB_ML)


def test_a_lesion_is_kept_with_half_its_contrast(drawn):
    lesions = (mask(BLOB) + 2 * mask(ELSEWHERE)).astype(np.int16)
    local = image(BLOB, value=NORMAL + 0.2)
    local[ELSEWHERE] = NORMAL + 0.1
    told = replace(drawn, true=image(BLOB, ELSEWHERE, value=NORMAL + 0.3), local=local, lesions=lesions)
    first, second = figures.lesions_of(told, FLAIR)
    assert (first.true, first.plain, first.local) == pytest.approx((0.3, 0, 0.2), abs=1e-5)
    assert second.local == pytest.approx(0.1, abs=1e-5)
    assert [figures.share_kept([first, second], way) for way in ("plain", "local")] == [(0, 2), (1, 2)]
    whole = figures.whole_contrast(told, FLAIR)
    assert (whole.true, whole.local) == pytest.approx((0.3, 0.15), abs=1e-5)


def test_a_lesion_mostly_called_unknown_is_answered_though_not_drawn(drawn):
    half = mask((slice(1, 3), slice(5, 15), slice(5, 12)))
    told = replace(drawn, true=image(BLOB), lesions=mask(BLOB).astype(np.int16), unknown=half)
    lesions = figures.lesions_of(told, FLAIR)
    assert {way: figures.share_kept(lesions, way) for way in ("plain", "local", "unknown", "answered")} == {
        "plain": (0, 1), "local": (0, 1), "unknown": (1, 1), "answered": (1, 1),
    }  # fmt: skip
    less = replace(told, unknown=mask((slice(1, 3), slice(5, 15), slice(5, 9))))
    assert figures.share_kept(figures.lesions_of(less, FLAIR), "answered") == (0, 1)


def test_a_lesion_that_the_true_target_does_not_show_does_not_count(drawn):
    told = replace(drawn, true=image(BLOB, value=NORMAL + 0.05), lesions=mask(BLOB).astype(np.int16))
    assert figures.share_kept(figures.lesions_of(told, FLAIR), "local") == (0, 0)
    assert figures.lesions_of(replace(told, true=None), FLAIR) == []


def test_the_ring_of_a_lesion_holds_no_other_lesion(drawn):
    beside = (slice(1, 3), slice(5, 15), slice(17, 20))
    lesions = (mask(BLOB) + figures.IGNORED * mask(beside)).astype(np.int16)
    (lesion,) = figures.lesions_of(replace(drawn, true=image(BLOB, beside), lesions=lesions), FLAIR)
    assert lesion.true == pytest.approx(BRIGHT - NORMAL, abs=1e-5)


def test_lesions_are_told_apart_by_their_faces_and_the_small_are_ignored():
    volume = np.zeros((3, 20, 20), bool)
    volume[:, :10, :10] = True
    volume[:2, 10:15, 10:20] = True
    volume[0, 18, 0] = True
    labels = figures.labelled(volume, 0.003)
    assert [int((labels == label).sum()) for label in (1, 2, figures.IGNORED, 0)] == [300, 100, 1, 1200 - 401]
    assert Lesion(0.2, 0, 0.1, unknown=False).kept(0.1)


def test_a_lesion_free_slice_is_spotted_by_one_piece_of_more_than_thirty_square_millimetres(drawn):
    large, small = (slice(0, 1), slice(2, 8), slice(2, 8)), (slice(1, 2), slice(2, 7), slice(2, 8))
    speckled = np.zeros(SHAPE, bool)
    speckled[2, ::2, ::2] = True
    local = image(large, small)
    local[speckled] = BRIGHT
    told = replace(drawn, local=local)
    assert figures.spotted_slices(told, FLAIR) == (1, 4)
    assert figures.spotted_slices(replace(told, lesions=mask(large).astype(np.int16)), FLAIR) == (0, 3)
    assert figures.spotted_slices(replace(told, brain=~mask((slice(3, 4),))), FLAIR) == (1, 3)


def test_a_lesion_is_covered_up_to_the_cut_that_leaves_half_of_it():
    ood_map = np.linspace(0, 0.9, 10, dtype=np.float32)[None, None, :]
    brain, lesions = np.ones((1, 1, 10), bool), np.array([[[1, 1, 1, 1, 0, 2, 2, 2, 0, figures.IGNORED]]], np.int16)
    scene = Drawn(None, ood_map, ood_map, ood_map, ~brain, brain, lesions, None)
    assert figures.covered_up_to(scene) == pytest.approx([0.2, 0.6])
    assert figures.covered_up_to(replace(scene, lesions=lesions * 0)) == []
