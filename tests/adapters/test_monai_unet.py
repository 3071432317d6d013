"""MONAI's U-Net through the adapter: the same result as natively, and reasons for what it cannot be."""

import json

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from safetensors.torch import save_file

from localdiff_cli.adapters.monai_unet import from_monai, monai_schedule
from localdiff_cli.diffusion.fusion import LocalSettings, local, plain
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import ModelError

from .tiny import UNET, condition, noise, process, roughen, square

NATIVE = NetworkSettings(space_to_depth=1, channels=(32, 32), num_res_blocks=1, attention_levels=(False, True), num_head_channels=16)
CONFIG = {
    "spatial_dims": 2,
    "image_channels": 1,
    "unet": {"levels": [False, True]},
    "network_def": {"_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": "@spatial_dims"}
    | UNET
    | {"out_channels": "@image_channels", "attention_levels": "@unet::levels"},
    "noise_scheduler": {
        "_target_": "monai.networks.schedulers.DDIMScheduler", "_requires_": ["$import monai"], "schedule": "scaled_linear_beta",
        "num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195, "clip_sample": False,
    },
    "sampler": "$monai.inferers.DiffusionInferer(@noise_scheduler)",
}  # fmt: skip


@pytest.fixture(scope="module")
def native():
    return roughen(TranslatorNetwork(NATIVE))


@pytest.fixture
def weights(native, tmp_path):
    torch.save({"state_dict": native.unet.state_dict()}, tmp_path / "model.pt")
    save_file(native.unet.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_local_diffusion_is_bit_for_bit_that_of_the_projects_own_network(native, weights, name):
    schedule = Schedule(prediction="v_prediction")
    adapted = from_monai(weights / name, {"spatial_dims": 2} | UNET, schedule=schedule)
    arguments = (condition(), noise(), square(), LocalSettings())
    result = local(process(adapted.model, adapted.schedule, space=adapted.space), *arguments)
    assert torch.equal(result, local(process(native, schedule), *arguments))
    assert not torch.equal(result, plain(process(native, schedule), *arguments[:2]))


def test_a_bundles_configuration_is_read_with_its_references_and_scheduler(native, weights, tmp_path):
    (tmp_path / "inference.json").write_text(json.dumps(CONFIG))
    adapted = from_monai(weights / "model.pt", tmp_path / "inference.json")
    theirs = DDIMScheduler(1000, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0195)
    assert torch.equal(adapted.schedule.alphas_cumprod, theirs.alphas_cumprod.double())
    assert adapted.schedule.prediction == "epsilon"
    assert (adapted.clip, adapted.space.clip) == (False, False)
    t = torch.tensor([400])
    assert torch.equal(adapted.model(noise(), condition(), t), native(noise(), condition(), t))


def test_the_condition_enters_where_and_as_the_network_learnt_it(native, weights):
    adapted = from_monai(weights / "model.pt", UNET, schedule=Schedule(), condition_range=(0, 1), condition_first=True)
    t = torch.tensor([9])
    assert torch.equal(adapted.model(noise(), condition(), t), native.unet(torch.cat([condition(), noise()], dim=1), timesteps=t))


@pytest.mark.parametrize("name", ["linear_beta", "scaled_linear_beta", "sigmoid_beta", "cosine"])
def test_every_noise_schedule_of_monai_is_its_own(name):
    scheduler = {"_target_": "DDPMScheduler", "schedule": name, "num_train_timesteps": 500, "prediction_type": "sample"}
    schedule, clip = monai_schedule({"scheduler": scheduler})
    assert torch.equal(schedule.alphas_cumprod, DDPMScheduler(500, name).alphas_cumprod.double())
    assert (schedule.prediction, clip) == ("sample", True)


def test_weights_of_monai_generative_are_renamed(native, weights, tmp_path):
    def old(name):
        attention = name.replace(".attn.to_", ".to_").replace(".attn.out_proj.", ".proj_attn.")
        return attention.replace("postconv", "conv") if "postconv" in name else attention

    tensors = {old(name): value for name, value in native.unet.state_dict().items()}
    assert any(".proj_attn." in name for name in tensors)
    torch.save(tensors, tmp_path / "old.pt")
    config = {("num_channels" if key == "channels" else key): value for key, value in UNET.items()}
    adapted = from_monai(tmp_path / "old.pt", config, schedule=Schedule())
    t = torch.tensor([400])
    assert torch.equal(adapted.model(noise(), condition(), t), native(noise(), condition(), t))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"spatial_dims": 3}, "spatial_dims = 3"),
        ({"with_conditioning": True, "cross_attention_dim": 8}, "with_conditioning"),
        ({"num_class_embeds": 4}, "num_class_embeds"),
        ({"in_channels": 1}, "conditional network"),
        ({"in_channels": 3}, "do not fit"),
        ({"channels": [64, 32]}, "do not fit"),
        ({"colour": 1}, "colour"),
        ({"channels": "$[32, 32]"}, "MONAI would run"),
        ({"channels": "@nowhere::there"}, "does not hold"),
        ({"channels": "@network_def::channels"}, "go round"),
    ],
    ids=str,
)
def test_a_network_that_is_no_translator_is_refused_with_the_reason(weights, change, reason):
    with pytest.raises(ModelError, match=reason):
        from_monai(weights / "model.pt", CONFIG | {"network_def": CONFIG["network_def"] | change})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_target_": "monai.networks.schedulers.RFlowScheduler"}, "0 DDPM and DDIM schedulers"),
        ({"prediction_type": "flow"}, "prediction"),
        ({"schedule": "mine"}, "mine"),
        ({"sig_range": 5}, "sig_range"),
        ({"clip_sample": True, "clip_sample_min": 0}, "another range"),
    ],
    ids=str,
)
def test_a_scheduler_that_cannot_be_followed_is_refused_with_the_reason(weights, change, reason):
    with pytest.raises(ModelError, match=reason):
        from_monai(weights / "model.pt", CONFIG | {"noise_scheduler": CONFIG["noise_scheduler"] | change})


def test_two_networks_in_one_configuration_are_not_guessed_between(weights):
    with pytest.raises(ModelError, match="several: network_def, other"):
        from_monai(weights / "model.pt", CONFIG | {"other": CONFIG["network_def"]})


def test_only_tensors_that_fit_are_loaded(native, tmp_path):
    path = tmp_path / "model.pt"
    tensors = native.unet.state_dict()
    for contents, reason in (
        (native.unet, "no readable weights"),
        ({"conv_in": "text"}, "something else"),
        ({name: value for name, value in tensors.items() if name != "out.2.conv.bias"}, "do not fit"),
        (tensors | {"out.2.conv.bias": torch.tensor([float("nan")])}, "not finite"),
    ):
        torch.save(contents, path)
        with pytest.raises(ModelError, match=reason):
            from_monai(path, UNET, schedule=Schedule())
    path.write_bytes(b"PK damaged")
    with pytest.raises(ModelError, match="no readable weights"):
        from_monai(path, UNET, schedule=Schedule())
