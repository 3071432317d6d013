"""Hard negatives: what is changed, and what must stay as it is."""

import pytest
import torch

from localdiff_cli.training.hard_negatives import HardNegatives, blur, blur_on_card, deep_fluid, negatives_for, shade, spoil, widen_fluid

NONE = HardNegatives(widen=0, flat=0, blurred=0, soft=0, bright=0, shaded=0, residue=0)


def head():
    """A brain of 0.6 with a ventricle of 0.1 in its middle and a cistern at its rim: condition, brain, lesion, ``(2, 1, 96, 80)``."""
    brain = torch.zeros(2, 1, 96, 80)
    brain[:, :, 4:-4, 4:-4] = 1
    condition = 0.6 * brain
    condition[:, :, 40:56, 36:44] = 0.1
    condition[:, :, 4:10, 20:40] = 0.1
    return condition, brain, torch.zeros_like(brain)


def generator():
    return torch.Generator().manual_seed(2)


def test_fluid_is_what_is_dark_deep_in_the_brain_and_no_lesion():
    condition, brain, lesion = head()
    lesion[1, :, 40:48] = 1
    fluid = deep_fluid(condition, brain, lesion)
    assert fluid[0].sum() == 16 * 8
    assert fluid[1].sum() == 8 * 8
    assert not fluid[:, :, :12].any()


def test_a_chosen_ventricle_grows_and_the_others_stay_to_the_bit():
    condition, brain, lesion = head()
    images = torch.cat([condition, brain], dim=1)
    wide = widen_fluid(images, deep_fluid(condition, brain, lesion), torch.tensor([1.0, 0.0]), 8.0, generator())
    dark = (wide[:, 0] < 0.25).flatten(1).sum(dim=1)
    before = int((condition[0] < 0.25).sum())
    assert dark[0] > before + 20
    assert torch.equal(wide[1], images[1])
    assert torch.allclose(wide[0, :, :8], images[0, :, :8], atol=1e-4)  # far from the ventricle nothing moves


def test_nothing_chosen_changes_nothing():
    condition, brain, lesion = head()
    assert torch.equal(spoil(condition, brain, lesion, NONE, generator()), condition)


def test_the_blur_of_a_card_is_scipys():
    images, sigma = torch.rand(4, 2, 40, 36, generator=generator()), torch.tensor([0.0, 0.7, 2.0, 4.4])
    torch.testing.assert_close(blur_on_card(images, sigma), blur(images, sigma), rtol=0, atol=1e-5)
    assert torch.equal(blur_on_card(images, torch.zeros(4)), images)


@pytest.mark.parametrize("what", ["flat", "blurred"])
def test_patches_leave_a_lesion_and_its_margin_alone(what):
    condition, brain, lesion = head()
    condition = condition + 0.05 * torch.randn(condition.shape, generator=generator()) * brain
    condition = condition.clamp(0, 1)
    lesion[:, :, 20:80, 10:70] = 1
    spoilt = spoil(condition, brain, lesion, HardNegatives(**{**vars(NONE), what: 1.0}), generator())
    assert torch.equal(spoilt[lesion > 0], condition[lesion > 0])
    whole = spoil(condition, brain, torch.zeros_like(lesion), HardNegatives(**{**vars(NONE), what: 1.0}), generator())
    assert not torch.equal(whole, condition)
    assert not (whole * (1 - brain)).any()


def test_bright_rims_are_at_the_rim_and_soft_slices_lose_their_edges():
    condition, brain, lesion = head()
    bright = spoil(condition, brain, lesion, HardNegatives(**{**vars(NONE), "bright": 1.0}), generator())
    changed = bright != condition
    assert changed.any()
    assert not changed[:, :, 12:-12, 12:-12].any()
    soft = spoil(condition, brain, lesion, HardNegatives(**{**vars(NONE), "soft": 1.0}), generator())
    assert (soft[:, :, 40, 36:44].amax() - soft[:, :, 40, 36:44].amin()) > 0.01


def test_a_width_of_nothing_blurs_nothing():
    image = torch.rand(2, 1, 16, 16, generator=generator())
    found = blur(image, torch.tensor([0.0, 2.0]))
    assert torch.equal(found[0], image[0])
    assert found[1].std() < 0.5 * image[1].std()


def test_a_shade_lies_about_the_rim_and_darkens_smoothly():
    _, brain, _ = head()
    by = shade(brain.repeat(20, 1, 1, 1), generator())
    assert by.amin() >= 0
    deepest = by.flatten(1).max(dim=1)
    assert ((deepest.values >= 0.1) & (deepest.values <= 0.35)).all()
    rows, columns = deepest.indices // 80, deepest.indices % 80
    assert ((rows < 7) | (rows >= 89) | (columns < 7) | (columns >= 73)).all()
    assert (brain[0, 0, rows, columns] == 1).all()
    assert (by[:, :, 1:] - by[:, :, :-1]).abs().max() < 0.02
    assert len({tuple(at) for at in zip(rows.tolist(), columns.tolist(), strict=True)}) > 10


def test_shaded_slices_keep_their_texture_and_a_slice_without_brain_is_no_error():
    condition, brain, lesion = head()
    shaded = spoil(condition, brain, lesion, HardNegatives(**{**vars(NONE), "shaded": 1.0}), generator())
    assert (shaded <= condition).all()
    assert (shaded.sum(dim=(1, 2, 3)) < 0.99 * condition.sum(dim=(1, 2, 3))).all()
    assert (shaded >= 0.64 * condition).all()
    assert torch.isfinite(shade(torch.zeros_like(brain), generator())).all()


def test_residues_are_bright_at_the_rim_and_leave_a_lesion_alone():
    condition, brain, lesion = head()
    lesion[:, :, 4:20, 4:40] = 1
    spoilt = spoil(condition, brain, lesion, HardNegatives(**{**vars(NONE), "residue": 1.0}), generator())
    changed = spoilt != condition
    assert changed.any()
    assert (spoilt[changed] > condition[changed]).all()
    assert spoilt.max() > 0.7
    assert not changed[:, :, 20:-20, 20:-20].any()
    assert not changed[lesion > 0].any()


def test_where_lesions_are_bright_what_shines_at_the_rim_is_no_negative():
    assert negatives_for("T1w") == HardNegatives()
    assert negatives_for("FLAIR").residue == negatives_for("T2w").residue == 0
    assert negatives_for("FLAIR").widen == HardNegatives().widen
