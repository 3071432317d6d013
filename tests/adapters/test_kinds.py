"""Adapted networks in bundles: the command line runs them as it runs the project's own."""

import sys
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
import torch

from localdiff_cli.adapters.diffusers_unet import DiffusersUNetSettings
from localdiff_cli.adapters.kinds import bundle_metadata
from localdiff_cli.adapters.monai_unet import MonaiUNetSettings
from localdiff_cli.adapters.translator import Translator
from localdiff_cli.bundle import TRANSLATOR, Defaults, load_translator, open_bundle, save_bundle, schedule_of, verify
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import GivenSchedule, Schedule
from localdiff_cli.errors import ModelError
from tests.brains import write_brain

from .tiny import condition, noise, roughen

CPU = torch.device("cpu")
NATIVE = NetworkSettings(space_to_depth=1, channels=(32, 32), num_res_blocks=1, attention_levels=(False, True), num_head_channels=16)
MONAI = MonaiUNetSettings(
    2, 1, (1, 1), (32, 32), (False, True), num_head_channels=(16, 16), use_flash_attention=True
)  # fmt: skip
DIFFUSERS = DiffusersUNetSettings(
    2, 1, block_out_channels=(32, 32), layers_per_block=1,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)  # fmt: skip
BARS = GivenSchedule("given", 20, prediction="v_prediction", alpha_bars=(*tuple(0.99 - 0.05 * k for k in range(19)), 0.0))
BASE = {
    "task": "translate", "condition": {"contrast": "T1w", "window": [-6, 6]}, "target": {"contrast": "T2w", "window": [-4, 12]},
    "grid": {"plane": "axial", "spacing": 4.0, "shape": [48, 40]}, "brain": "required", "bias": "none",
    "defaults": asdict(Defaults(steps=3)),
}  # fmt: skip


def save(path, described, network):
    return save_bundle(path, BASE | described, {TRANSLATOR: network.state_dict()}, "card\n", storage="float32")


def made(settings):
    if isinstance(settings, DiffusersUNetSettings):
        pytest.importorskip("diffusers", reason="needs the extra diffusers")
    return roughen(settings.build())


@pytest.mark.parametrize("settings", [MONAI, DIFFUSERS], ids=["monai", "diffusers"])
def test_a_bundle_gives_back_network_and_schedule(settings, tmp_path):
    network = made(settings)
    bundle = save(tmp_path / "b", bundle_metadata(Translator(network, BARS)), network)
    assert schedule_of(bundle) == BARS
    again = load_translator(bundle, CPU)
    assert again.settings == settings
    assert verify(bundle)
    t = torch.tensor([7])
    assert torch.equal(again(noise(), condition(), t), network(noise(), condition(), t))


def test_the_command_line_writes_the_same_image_as_with_the_projects_own_network(cli, tmp_path):
    native = roughen(TranslatorNetwork(NATIVE))
    adapted = MONAI.build()
    adapted.load_state_dict(native.state_dict())
    schedule = Schedule(prediction="epsilon")
    save(tmp_path / "native", {"network": asdict(NATIVE), "schedule": asdict(schedule)}, native)
    save(tmp_path / "adapted", bundle_metadata(Translator(adapted, schedule)), adapted)
    image = write_brain(tmp_path / "a_T1w.nii.gz", shape=(40, 48, 2))
    source = nib.load(image)
    ood = np.zeros(source.shape, dtype=np.float32)
    ood[22:28, 24:30] = 1
    nib.save(nib.Nifti1Image(ood, source.affine), tmp_path / "ood.nii.gz")
    for name in ("native", "adapted"):
        result = cli(
            "translate", "--in", image, "--out", tmp_path / f"out-{name}", "--model", tmp_path / name, "--map", tmp_path / "ood.nii.gz"
        )
        assert result.exit_code == 0, result.output
    one, other = (np.asanyarray(nib.load(tmp_path / f"out-{name}" / image.name).dataobj) for name in ("native", "adapted"))
    assert one.std() > 0
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "python"},
        {"kind": ["monai"]},
        {"in_channels": 4},
        {"out_channels": 2},
        {"num_res_blocks": [10**6, 1]},
        {"num_res_blocks": 1},
        {"num_head_channels": [16, "16"]},
        {"condition_range": [0, 1, 2]},
        {"channels": [32] * 100},
        {"norm_num_groups": 7},
        {"spatial_dims": 2},
    ],
    ids=str,
)
def test_an_absurd_monai_network_is_refused(change, tmp_path):
    network = made(MONAI)
    described = bundle_metadata(Translator(network, BARS))
    bundle = save(tmp_path / "b", described | {"network": described["network"] | change}, network)
    with pytest.raises(ModelError, match="b: found"):
        load_translator(open_bundle(str(bundle.path)), CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]},
        {"down_block_types": [1]},
        {"layers_per_block": 10**6},
        {"attention_head_dim": "8"},
        {"act_fn": "eval"},
        {"resnet_time_scale_shift": "spatial"},
        {"block_out_channels": [10**9, 32]},
    ],
    ids=str,
)
def test_an_absurd_diffusers_network_is_refused(change, tmp_path):
    network = made(DIFFUSERS)
    described = bundle_metadata(Translator(network, BARS))
    bundle = save(tmp_path / "b", described | {"network": described["network"] | change}, network)
    with pytest.raises(ModelError, match="b: found"):
        load_translator(open_bundle(str(bundle.path)), CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha_bars": []},
        {"alpha_bars": [0.5, 0.9]},
        {"alpha_bars": ["a"] * 20},
        {"alpha_bars": 3},
        {"num_train_timesteps": 21},
        {"prediction": "epsilon"},
    ],
    ids=str,
)
def test_an_absurd_given_schedule_is_refused(change, tmp_path):
    network = made(MONAI)
    described = bundle_metadata(Translator(network, BARS))
    bundle = save(tmp_path / "b", described | {"schedule": described["schedule"] | change}, network)
    with pytest.raises(ModelError, match="b: found"):
        schedule_of(open_bundle(str(bundle.path)))


def test_where_diffusers_is_not_installed_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'localdiff\[diffusers\]'"):
        DIFFUSERS.build()
