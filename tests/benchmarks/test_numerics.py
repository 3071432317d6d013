"""Numerical variability: what the rows say, and the bounds that the help of --precision states, on a small network."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from examples.benchmarks.numerics import AS_IS, VARIANTS, alone, compared, compared_verdicts, dice, middle, path_of, through_the_commands
from localdiff_cli.bundle import load_translator, open_bundle
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.training.loop import ReducedPrecision
from localdiff_cli.training.pairs import Pair
from tests.brains import write_brain


def found(**changes):
    brain = np.ones((1, 1, 4, 4), bool)
    images = dict.fromkeys(("plain", "local"), np.zeros(brain.shape, np.float32))
    masks = dict.fromkeys(("mask", "lesions plain", "lesions local"), brain & False)
    return {"brain": brain, **images, **masks} | changes


def test_a_row_says_what_moved_and_by_how_much():
    mask = np.zeros((1, 1, 4, 4), bool)
    mask[..., 0, 0] = True
    row = compared("x", found(), found(mask=mask, local=np.full((1, 1, 4, 4), 0.25, np.float32), **{"lesions local": mask}))
    assert row["B decided otherwise, % of the brain"] == "6.2500"
    assert (row["plain: mean |Δ|"], row["local: mean |Δ|"], row["local: most"]) == ("0.00e+00", "2.50e-01", "2.50e-01")
    assert (row["lesions plain, Dice"], row["lesions local, Dice"]) == ("1.0000", "0.0000")


def test_dice_of_nothing_and_nothing_is_one():
    nothing, one = np.zeros(3, bool), np.ones(3, bool)
    assert (dice(nothing, nothing), dice(one, one), dice(one, nothing)) == (1.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def answers():
    """A random network's predictions by code path."""
    torch.manual_seed(0)
    network = TranslatorNetwork(NetworkSettings(space_to_depth=8, channels=(32, 64), num_res_blocks=1, attention_levels=(False, True)))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    x, condition, t = torch.randn(1, 1, 64, 64), torch.rand(1, 1, 64, 64), torch.tensor([500])

    def run(variant):
        with torch.inference_mode(), path_of(variant):
            return (ReducedPrecision(network) if variant == "bf16" else network)(x, condition, t)

    return {variant: run(variant) for variant in (AS_IS, "mkldnn off", "bf16")}


@pytest.mark.parametrize(("variant", "bound"), [("mkldnn off", 1e-5), ("bf16", 0.02)])
def test_a_prediction_moves_less_than_is_stated(answers, variant, bound):
    scale = float(answers[AS_IS].abs().mean())
    moved = float((answers[variant] - answers[AS_IS]).abs().mean()) / scale
    assert moved < bound
    if variant == "bf16":
        assert moved > 1e-4


def test_a_shipped_network_in_bf16_keeps_the_bound_that_the_help_of_precision_states():
    network = load_translator(open_bundle(str(Path(__file__).resolve().parents[2] / "models" / "t1-to-flair")), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    x, coarse = torch.randn(1, 1, 64, 64, generator=generator), torch.rand(1, 1, 5, 5, generator=generator)
    condition = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        full, half = (run(x, condition, torch.tensor([999])) for run in (network, ReducedPrecision(network)))
    moved = (full - half).abs() / 2  # the network's range is [-1, 1]
    assert 0 < moved.mean() < 0.001
    assert moved.max() < 0.01


def test_every_variant_is_a_process_that_says_how_it_differs():
    assert next(iter(VARIANTS)) == AS_IS
    assert VARIANTS["AVX2"]["ATEN_CPU_CAPABILITY"] == "avx2"


def test_lesions_of_one_mask_alone_are_counted_in_three_dimensions():
    ours = np.zeros((6, 6, 3), bool)
    ours[0, 0, 0] = ours[1, 1, 1] = ours[4, 4, :] = True  # two lesions: the first two voxels touch by a corner
    theirs = np.zeros_like(ours)
    theirs[1, 1, 1] = theirs[0, 5, 2] = True
    assert alone(ours, theirs) == (1, 2)
    assert alone(theirs, ours) == (1, 2)
    assert alone(ours & False, theirs) == (0, 0)


def test_reasons_to_review_are_compared_with_and_without_their_numbers():
    def said(*reasons, lesion=False):
        return {"a/reasons": np.array(reasons, dtype=str), "a/lesions": np.full((2, 2, 2), lesion)}

    ours = said("expert used: 3 slices", "OOD: 12 %")
    same = compared_verdicts(ours, ours)
    assert {key for key, value in same.items() if value != "0"} == {"patients"}
    other = compared_verdicts(ours, said("expert used: 4 slices", "OOD: 12 %", lesion=True))
    assert (other["reasons of one alone"], other["with other numbers"], other["of one alone"]) == ("0", "2", "1")
    silent = compared_verdicts(ours, said())
    assert (silent["review for one alone"], silent["reasons of one alone"]) == ("1", "2")


def test_the_middle_of_a_volume_is_where_it_was(tmp_path):
    whole = nib.load(write_brain(tmp_path / "a_T1w.nii.gz", 1))
    cut = nib.load(middle(tmp_path / "a_T1w.nii.gz", tmp_path / "b_T1w.nii.gz", 2))
    first = (whole.shape[2] - 2) // 2
    assert np.array_equal(cut.get_fdata(), whole.get_fdata()[:, :, first : first + 2])
    assert np.allclose(cut.affine[:3, 3], (whole.affine @ [0, 0, first, 1])[:3])


def test_the_commands_say_the_same_of_a_volume_without_onednn_and_nearly_so_in_bf16(models_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    pair, bundle = Pair("a", write_brain(tmp_path / "a_T1w.nii.gz", 1)), open_bundle("t1-to-t2")
    ours, off, half = (through_the_commands(variant, pair, bundle, 4) for variant in (AS_IS, "mkldnn off", "bf16"))
    assert ours["reasons"].tolist() == off["reasons"].tolist()
    assert np.array_equal(ours["lesions"], off["lesions"])
    assert half["lesions"].shape == ours["lesions"].shape
    assert bool(len(half["reasons"])) == bool(len(ours["reasons"]))
