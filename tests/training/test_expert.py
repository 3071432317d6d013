"""The OOD expert: which slices and regions it is taught, and that a bundle with one is made, verified and used."""

import json

import numpy as np
import pytest
import torch

from localdiff_cli.bundle import EXPERT, METADATA, TRANSLATOR
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.expert import RegionSettings, draw_regions, expert_loss, lesion_slices
from localdiff_cli.training.loop import step_generator
from localdiff_cli.training.translator import healthy_slices
from tests.bundles import make_translator

from .data import Spy, slices
from .test_fit import TRANSLATOR_OPTIONS, data, fit  # noqa: F401

STILL = AugmentSettings(rotation=0, scale=0, shift=0, contrast=0, gamma=0, noise=0)
OPTIONS = ("--steps", 2, "--batch-size", 2, "--device", "cpu")


def patient(name, split="train", masked=True):
    made = slices(name, split, masked=masked)
    made.lesion[-2:, 8:16, 8:16] = masked
    return made


def test_lesions_come_from_masked_training_patients_spread_over_their_order():
    patients = [patient("a"), patient("b", masked=False), patient("c", "val"), patient("d"), patient("e"), patient("f"), patient("g")]
    assert [p.name for p in lesion_slices(patients, None).patients] == ["a", "d", "e", "f", "g"]
    assert [p.name for p in lesion_slices(patients, 2).patients] == ["a", "g"]
    assert [rows.tolist() for rows in lesion_slices(patients, 1).rows] == [[4, 5]]
    with pytest.raises(UsageError, match="no lesions"):
        lesion_slices([patient("b", masked=False)], None)


def test_a_lesion_region_holds_the_lesion_and_a_healthy_one_holds_none():
    lesion = torch.zeros(40, 1, 32, 32)
    lesion[:, :, 10:14, 12:18] = 1
    healthy = (torch.arange(40) % 2 == 0).view(-1, 1, 1, 1)
    found = draw_regions(lesion, healthy, RegionSettings(grow=3, stray=0.0), step_generator(0, 0))
    assert not (found * lesion)[::2].any()
    assert torch.equal((found * lesion)[1::2], lesion[1::2])
    sizes = {int(one.sum()) for one in found[1::2]}
    assert sizes <= {24, 48, 80, 120}  # grown by 0, 1, 2, 3 pixels on every side
    assert len(sizes) > 1
    strayed = draw_regions(lesion, ~healthy & False, RegionSettings(grow=0, stray=1.0), step_generator(0, 0))
    assert all(one.sum() > 24 for one in strayed)


def test_the_expert_sees_condition_and_target_in_the_region_only():
    spy = Spy()
    lesions, healthy = lesion_slices([patient("a")], None), healthy_slices([patient("a")], "train")
    loss_of = expert_loss(lesions, healthy, Schedule(), STILL, RegionSettings(healthy_share=0.5), 16)
    loss = loss_of(spy, step_generator(0, 3))
    assert torch.isfinite(loss)
    shown = (spy.seen[0] > 0).flatten(1).sum(dim=1)
    whole = int((patient("a").brain[0]).sum())
    assert 0 < shown.float().mean() < 0.8 * whole
    assert torch.equal(loss, loss_of(spy, step_generator(0, 3)))


@pytest.fixture
def base(models_folder, tmp_path):
    return make_translator(tmp_path / "base", detector=False)


def test_an_expert_is_fitted_beside_the_base_and_used(cli, fit, base, folder, tmp_path):  # noqa: F811
    before = (base.path / METADATA).read_bytes()
    result = fit("expert", "--base", base.path, *OPTIONS, "--healthy-share", 0.4, "--patients", 1, "--detector", "segmenter", "--tau", 0.3)
    assert result.exit_code == 0, result.output
    assert (base.path / METADATA).read_bytes() == before
    made = json.loads((tmp_path / "bundle" / METADATA).read_text())
    assert made["expert"] == {"patients": 1, "healthy_share": 0.4, "told": False}
    assert made["defaults"] == json.loads(before)["defaults"] | {"detector": "segmenter", "threshold": 0.3}
    assert made["training"]["expert"]["patients"]["train"] == ["sub-01"]
    assert (tmp_path / "bundle" / TRANSLATOR).read_bytes() == (base.path / TRANSLATOR).read_bytes()
    assert "How the expert was made" in (tmp_path / "bundle" / "README.md").read_text()
    assert cli("models", "verify", tmp_path / "bundle").exit_code == 0
    assert fit("expert", "--base", base.path, *OPTIONS, out=base.path).exit_code == 0
    assert (base.path / EXPERT).is_file()


@pytest.mark.parametrize(
    ("extra", "code", "word"),
    [
        (("--base", "lesion-t2"), 4, "made to segment"),
        (("--base", "none-such"), 4, "none-such"),
        (("--base", "t1-to-t2", "--healthy-share", 1), 2, "--healthy-share"),
        (("--base", "t1-to-t2", "--detector", "moon"), 2, "--detector"),
    ],
)
def test_an_expert_that_cannot_be_is_refused(fit, extra, code, word):  # noqa: F811
    result = fit("expert", *extra, *OPTIONS)
    assert result.exit_code == code
    assert word in result.output


def test_the_base_is_the_start_of_its_expert(fit, base, tmp_path):  # noqa: F811
    from safetensors.torch import load_file

    assert fit("expert", "--base", base.path, *OPTIONS, "--rate", 1e-8).exit_code == 0
    own, expert = (load_file(tmp_path / "bundle" / name) for name in (TRANSLATOR, EXPERT))
    assert all(np.allclose(own[key].float(), expert[key].float(), atol=2e-3) for key in own)


def test_a_new_translator_puts_its_old_expert_out_and_the_same_one_keeps_it(fit, tmp_path):  # noqa: F811
    assert fit("translator", *TRANSLATOR_OPTIONS).exit_code == 0
    assert fit("expert", "--base", tmp_path / "bundle", *OPTIONS).exit_code == 0
    assert fit("translator", *TRANSLATOR_OPTIONS).exit_code == 0
    assert (tmp_path / "bundle" / EXPERT).is_file()
    result = fit("translator", *TRANSLATOR_OPTIONS, "--seed", 3, "--work", tmp_path / "again")
    assert "taught with earlier weights: expert; fit them again" in result.output
    made = json.loads((tmp_path / "bundle" / METADATA).read_text())
    assert "expert" not in made | made["training"]
    assert EXPERT not in made["files"]
    assert not (tmp_path / "bundle" / EXPERT).exists()
    assert "expert" not in (tmp_path / "bundle" / "README.md").read_text()


def test_an_expert_is_not_put_into_another_bundle(fit, base, models_folder, tmp_path):  # noqa: F811
    assert fit("translator", *TRANSLATOR_OPTIONS).exit_code == 0
    result = fit("expert", "--base", base.path, *OPTIONS)
    assert result.exit_code == 2
    assert "is not base" in result.output
