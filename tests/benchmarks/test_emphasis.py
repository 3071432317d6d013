"""The part on emphasis: what is drawn, by which map, and what the table says."""

import argparse
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from examples.benchmarks import emphasis, harm
from localdiff_cli.errors import UsageError
from localdiff_cli.ood.detector import from_map
from localdiff_cli.tasks.detection import DetectorBinding
from localdiff_cli.tasks.judged import ready_for
from localdiff_cli.training.people import people, slices_of
from tests.brains import brain, write_brain


class Corner:
    """A detector that marks a corner of the brain, whatever it sees."""

    def __call__(self, condition, brain):
        ood_map = torch.zeros(condition.shape)
        ood_map[:, :, :24, :20] = 1
        return from_map(ood_map * brain)


@pytest.fixture
def cohort(tmp_path):
    """A person with target and lesions, one with neither and one without lesions."""
    for number in (1, 2, 3):
        write_brain(tmp_path / f"sub-0{number}" / f"sub-0{number}_T1w.nii.gz", seed=number)
    for number in (1, 3):
        write_brain(tmp_path / f"sub-0{number}" / f"sub-0{number}_T2w.nii.gz", seed=number + 5)
    lesion = np.zeros(brain(1).shape, np.uint8)
    lesion[16:24, 16:26, 2:] = 1
    like = nib.load(tmp_path / "sub-01" / "sub-01_T1w.nii.gz")
    nib.save(nib.Nifti1Image(lesion, like.affine), tmp_path / "sub-01" / "sub-01_mask.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-01\tval\nsub-02\tval\nsub-03\tval\n")
    return tmp_path


@pytest.fixture
def options(cohort, bench):
    return argparse.Namespace(model=str(bench.bundle.path), data=[cohort], split="val", every=2, work=cohort / "work")


@pytest.fixture
def work(options):
    """The ordinary branch sees everything and nothing joint follows the fusion, so that each region is its branch's alone."""
    work = harm.load(options.model)
    local = replace(work.sample.local, context=1.0, fusion_step=0)
    return replace(work, bind=DetectorBinding(Corner(), torch.device("cpu")), sample=replace(work.sample, local=local))


def drawn(work, options, strengths):
    (first, *_) = people(options.data, "T1w", "T2w", "val")
    slices = slices_of(first, ready_for(work), options.work / "cache", pytest.fail)
    return slices, dict(emphasis.images(work, slices, range(len(slices.numbers)), strengths))


def test_each_map_changes_its_own_region_alone_and_no_emphasis_is_plain(work, options):
    slices, found = drawn(work, options, (0.0, 1.0))
    corner, lesion = np.zeros(slices.brain.shape, bool), slices.lesions != 0
    corner[:, :24, :20] = True
    for name, region in (("detector's map", corner), ("true mask", lesion)):
        changed = np.abs(found[f"{name}, emphasis 1"] - found["plain"]) > 1e-6
        assert changed[region].any(), name
        assert not changed[~region].any(), name
        np.testing.assert_allclose(found[f"{name}, emphasis 0"], found["plain"], atol=1e-5)
    assert np.array_equal(found["true target contrast"], np.asarray(slices.target / np.float32(65535), np.float32))


def test_the_true_mask_is_taken_as_a_map_that_the_user_brings(work):
    """What was chosen with the bundle's own detector does not hold for it."""
    chosen = work.bundle.metadata["defaults"] | {"peak": 0.5, "through_plane_mm": 6.0, "texture": 0.2}
    bundle = replace(work.bundle, metadata=dict(work.bundle.metadata) | {"defaults": chosen})
    brought = emphasis.by_true_mask(replace(work, bundle=bundle))
    assert (brought.mask.peak, brought.mask.through_plane_mm, brought.unknown.texture) == (0, 0, 0)
    assert brought.networks is work.networks


def test_a_table_of_those_with_target_and_lesions_and_nothing_measured_twice(options, monkeypatch):
    (table,) = emphasis.measure(options)
    labels = [line["row"] for line in table.rows]
    assert labels[:2] == ["true target contrast", "plain"]
    assert len(labels) == 2 + 2 * len(emphasis.EMPHASES)
    assert {line["patients"] for line in table.rows} == {"1"}
    assert table.rows[0]["contrast"].split(" ")[0] == table.rows[0]["contrast true"]
    monkeypatch.setattr(emphasis, "measure_person", lambda *a: pytest.fail("measured twice"))
    assert emphasis.measure(options)[0].rows == table.rows


def test_the_figure_is_drawn(options, tmp_path):
    from matplotlib.figure import Figure

    canvas = Figure()
    emphasis.measure(options)[0].draw(canvas)
    assert len(canvas.axes) == 2


@pytest.mark.parametrize("left", ["no mask", "an empty mask"])
def test_a_split_without_lesions_is_refused(options, left):
    for path in Path(options.data[0]).rglob("*_mask.nii.gz"):
        image = nib.load(path)
        path.unlink()
        if left == "an empty mask":
            nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    with pytest.raises(UsageError, match="and lesions"):
        emphasis.measure(options)
