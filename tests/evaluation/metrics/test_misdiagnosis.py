from __future__ import annotations

import numpy as np
import pytest

from localdiff_cli.evaluation.metrics.misdiagnosis import (
    MisdiagnosisSettings,
    SliceCounts,
    SliceEvidence,
    collect_evidence,
    judge_slices,
    patient_missed,
    relative_reduction,
    tally,
)

SETTINGS = MisdiagnosisSettings()


def evidence(**columns) -> SliceEvidence:
    n = len(next(iter(columns.values())))
    each = {"brain_pixels": 1000, "truth_pixels": 100, "segmented_pixels": 0, "dice": 0.0, "reference_dice": 1.0}
    plain = {name: [value] * n for name, value in each.items()}
    return SliceEvidence(**{name: np.array(values) for name, values in (plain | columns).items()})


def test_lesion_bearing_is_more_than_the_share_of_the_brain():
    verdicts = judge_slices(evidence(truth_pixels=[0, 1, 20, 21]), SETTINGS)
    assert verdicts.lesion_bearing.tolist() == [False, False, False, True]
    assert verdicts.lesion_free.tolist() == [True, False, False, False]


def test_found_at_delta_missed_below_it():
    verdicts = judge_slices(evidence(dice=[0.1, 0.0999, 0.0, 0.0], reference_dice=[0.1, 0.1, 0.0999, 1.0]), SETTINGS)
    assert verdicts.found.tolist() == [True, True, False, True]
    assert verdicts.missed.tolist() == [False, True, False, True]


def test_invented_is_more_than_the_pixels_on_a_truth_free_brain_slice():
    case = evidence(truth_pixels=[0, 0, 1, 0], segmented_pixels=[30, 31, 500, 500], brain_pixels=[1000, 1000, 1000, 0])
    assert judge_slices(case, SETTINGS).invented.tolist() == [False, True, False, False]


def test_all_three_can_be_set():
    case = evidence(truth_pixels=[0, 50], segmented_pixels=[5, 50], dice=[0.0, 0.4], reference_dice=[1.0, 0.9])
    strict = MisdiagnosisSettings(delta=0.5, lesion_share=0.01, invented_pixels=4)
    assert tally(judge_slices(case, strict)) == SliceCounts(1, 1, 1, 1, 1)
    assert tally(judge_slices(case, SETTINGS)) == SliceCounts(1, 1, 0, 1, 0)
    assert tally(judge_slices(case, MisdiagnosisSettings(lesion_share=0.05))).lesion_bearing == 0


def test_a_sweep_takes_another_delta():
    case = evidence(dice=[0.3], reference_dice=[0.8])
    assert [judge_slices(case, SETTINGS, delta).missed[0] for delta in (0.2, 0.3, 0.5, 0.9)] == [False, False, True, False]


def test_evidence_comes_from_the_masks():
    brain, truth = np.ones((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    truth[0, :2] = True
    found = collect_evidence(truth & (np.arange(4) < 2), truth, truth, brain)
    assert found.brain_pixels.tolist() == [16, 16]
    assert found.truth_pixels.tolist() == [8, 0]
    assert found.segmented_pixels.tolist() == [4, 0]
    assert found.dice == pytest.approx([2 * 4 / 12, 1])
    assert found.reference_dice == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("bearing", "dice", "reference_dice", "expected"),
    [(1, 0.05, 0.8, (True, True)), (1, 0.1, 0.8, (True, False)), (1, 0.0, 0.05, (False, False)), (0, 0.0, 1.0, (False, False))],
)
def test_a_patient_counts_when_bearing_and_found(bearing, dice, reference_dice, expected):
    assert patient_missed(SliceCounts(bearing, 0, 0, 0, 0), dice, reference_dice, 0.1) == expected


def test_relative_reduction():
    assert relative_reduction(0.2, 0.5) == pytest.approx(0.6)
    assert relative_reduction(0.75, 0.5) == pytest.approx(-0.5)
    assert relative_reduction(0.0, 0.0) is None
