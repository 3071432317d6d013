"""Synthetic anomalies and the part on scores that saw no lesion: what is changed and where, who is learnt from, what the table says."""

import argparse
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from examples.benchmarks import harm, unlabelled, weights
from examples.benchmarks.anomalies import CORRUPTIONS, anomaly_loss, corrupted, spots
from examples.benchmarks.detectors import Stored
from examples.benchmarks.unlabelled import cohort, is_healthy
from localdiff_cli.errors import UsageError
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.loop import LoopSettings, step_generator
from tests.brains import brain, write_brain

PARTICIPANTS = """participant_id\tsplit\tdisease
sub-01\ttrain\thealthy
sub-02\tval\thealthy, 50 to 80 years
sub-03\ttest\tglioma
sub-04\ttest\telderly
sub-05\ttrain\tglioma
sub-06\ttest\thealthy
sub-07\ttest\tstroke
"""


def smooth_slices(n=24):
    """Brains of ``(n, 1, 48, 48)`` with some texture, and their outlines."""
    inside = torch.zeros(n, 1, 48, 48)
    inside[..., 6:42, 6:42] = 1
    grain = torch.rand(n, 1, 48, 48, generator=step_generator(0, 0))
    return (0.5 + 0.2 * grain) * inside, inside


def test_a_spot_lies_in_the_brain_and_is_of_every_size():
    _, inside = smooth_slices(200)
    spot, middles = spots(inside, step_generator(0, 1))
    assert float((spot * (1 - inside)).max()) == 0
    assert all(inside[i, 0, int(row), int(column)] == 1 for i, (row, column) in enumerate(middles))
    sizes = (spot > 0.5).sum(dim=(1, 2, 3))
    assert sizes.min() < 30 < 200 < sizes.max()


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda each: each.__name__)
def test_every_corruption_changes_the_spot(corruption):
    images, inside = smooth_slices()
    spot, middles = spots(inside, step_generator(0, 1))
    other = corruption(images, spot, middles, step_generator(0, 2))
    assert other.shape == images.shape
    assert torch.isfinite(other).all()
    changed = ((other - images).abs() * (spot > 0.5)).sum(dim=(1, 2, 3)) / (spot > 0.5).sum(dim=(1, 2, 3)).clamp(min=1)
    assert (changed > 0.01).float().mean() > 0.6  # a foreign piece may be air, which is left out


def test_what_is_called_an_anomaly_was_changed_and_the_rest_was_not():
    images, inside = smooth_slices(64)
    result, anomaly = corrupted(images, inside, step_generator(0, 4))
    whole = anomaly.flatten(1).amax(dim=1) == 0
    untouched = (result == images).flatten(1).all(dim=1)
    assert float(untouched.float().mean()) > 0.2
    assert not anomaly[untouched].any()
    assert 0.25 < float(whole.float().mean()) < 0.7
    assert torch.equal(result * (1 - inside), torch.zeros_like(result))
    far = torch.nn.functional.max_pool2d(anomaly, 25, 1, 12) == 0
    assert float(((result - images).abs() * far)[~whole].max()) < 0.05
    near = ((result - images).abs() * anomaly).sum() / anomaly.sum()
    assert float(near) > 5 * float(((result - images).abs() * far).mean())
    again, same = corrupted(images, inside, step_generator(0, 4))
    assert torch.equal(result, again)
    assert torch.equal(anomaly, same)


def test_the_loss_is_that_of_the_step_and_can_be_learnt_from():
    images, inside = smooth_slices(4)
    people = [((images[:, 0].numpy() * 65535).astype(np.uint16), inside[:, 0].numpy() > 0)]
    torch.manual_seed(0)
    network = LesionNetwork(LesionNetworkSettings(channels=(8, 16)))
    loss_of = anomaly_loss(people, AugmentSettings(), 4)
    first = loss_of(network.eval(), step_generator(0, 0))
    assert torch.equal(first, loss_of(network, step_generator(0, 0)))
    first.backward()
    assert sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None) > 0


@pytest.fixture
def folder(tmp_path):
    """Three healthy people, two with a tumour of whom one is for training, an elderly one, and one of whom no mask tells."""
    for number in range(1, 8):
        write_brain(tmp_path / f"sub-0{number}" / f"sub-0{number}_T1w.nii.gz", seed=number)
    for number in (3, 5):
        like = tmp_path / f"sub-0{number}" / f"sub-0{number}_T1w.nii.gz"
        spot = np.zeros(brain(number).shape, np.uint8)
        middle = [size // 2 for size in spot.shape]
        spot[tuple(slice(at - 5, at + 5) for at in middle)] = 1
        nib.save(nib.Nifti1Image(spot, nib.load(like).affine), like.with_name(f"sub-0{number}_mask.nii.gz"))
    (tmp_path / "participants.tsv").write_text(PARTICIPANTS)
    return tmp_path


@pytest.fixture
def options(folder, models_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    monkeypatch.setattr(unlabelled, "LOOP", LoopSettings(steps=2, batch_size=2))
    monkeypatch.setattr(unlabelled, "FIT", unlabelled.FIT | {"coreset_size": 20, "max_patches": 200})
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "none")
    return argparse.Namespace(model="t1-to-t2", data=[folder], split="test", every=4, work=folder / "work")


def test_only_healthy_people_of_the_train_split_are_learnt_from(options):
    work = harm.load("t1-to-t2")
    learnt = cohort(work, options.data, "train", options.work, is_healthy)
    assert [person.name for person, _ in learnt] == ["sub-01"]
    assert "sub-01" in unlabelled.training_of(work, learnt).about


def test_the_table_has_tumours_beside_what_is_flagged_in_others(options):
    (table,) = unlabelled.measure(options)
    names = [row["score"] for row in table.rows]
    assert names[1:3] == ["patchcore, healthy people", "synthetic anomalies"]
    for row in table.rows:
        assert row["pixel AUROC"].startswith(("0.", "1"))
        assert row["ml flagged, elderly"] != "n/a" != row["ml flagged, healthy"]
        assert row["ml flagged, multiple sclerosis"].startswith("n/a")
    assert table.settings["learnt from"] == ["sub-01"]
    assert table.settings["cut by"] == ["sub-02"]
    assert sorted(table.settings["people"]) == ["sub-03", "sub-04", "sub-06"]
    assert json.loads(json.dumps(table.settings))["tau_a"].keys() == set(names)


def test_without_healthy_people_the_part_says_what_it_found(options, folder):
    (folder / "participants.tsv").write_text(PARTICIPANTS.replace("healthy", "elderly"))
    with pytest.raises(UsageError, match="0 healthy people of the train split"):
        unlabelled.measure(options)


def test_a_mask_is_opened_and_grown_as_the_bundle_does_it(options):
    work = harm.load("t1-to-t2")
    score, inside = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    score[..., 8:20, 8:20] = 1
    mask = unlabelled.mask_of(work, score, 0.5, inside)
    assert mask[0, 8:20, 8:20].mean() > 0.9
    assert mask.sum() >= 140
    assert not unlabelled.mask_of(work, score, 1.0, inside).any()


def test_the_cut_is_that_of_healthy_val_people_and_a_score_that_knows_finds_the_tumour(options):
    work = harm.load("t1-to-t2")
    others, everybody = (
        [unlabelled.seen(p, each, 1, 1.0) for p, each in cohort(work, options.data, split, options.work, wanted)]
        for split, wanted in (("val", is_healthy), ("test", unlabelled.is_judged))
    )
    assert [each.person.name for each in others] == ["sub-02"]

    def knows(condition, brain):
        (each,) = [each for each in [*others, *everybody] if torch.equal(each.condition, condition)]
        noise = 0.5 * torch.rand(condition.shape, generator=step_generator(0, 1))
        score = torch.maximum(noise, torch.from_numpy(each.lesion)[:, None].float()) * brain
        return score, score.flatten(1).amax(dim=1)

    line, cut = unlabelled.line_of(work, Stored(knows, options.work / "scores"), others, everybody)
    assert cut == pytest.approx(0.49, abs=0.005)
    assert line["pixel AUROC"].startswith("1.000")
    assert float(line["lesion covered %"].split(" ")[0]) > 60


def test_the_network_sees_the_same_slices_when_it_learns_and_when_it_judges(options):
    work = harm.load("t1-to-t2")
    ((_, slices),) = cohort(work, options.data, "train", options.work, is_healthy)
    learnt, inside = unlabelled.learnt_images(slices, 16)
    shown = []

    class Spy(LesionNetwork):
        def forward(self, image):
            shown.append(image)
            return torch.zeros_like(image)

    spy = Spy(LesionNetworkSettings(channels=(8, 16, 16, 16)))
    condition = torch.from_numpy(slices.condition / np.float32(65535)).float()[:, None]
    unlabelled.anomaly_scorer(spy)(condition, torch.from_numpy(slices.brain)[:, None])
    judged = [each[0, 0].numpy() for each in shown]
    for image, outline in zip(learnt, inside, strict=True):
        assert any(np.allclose(each, image / 65535, atol=2e-5) for each in judged)
        assert not image[~outline].any()
