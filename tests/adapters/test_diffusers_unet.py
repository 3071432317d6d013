"""A diffusers folder through the adapter: the same result as by hand and as diffusers' own loop, and reasons for refusals."""

import json

import pytest
import torch

from localdiff_cli.diffusion.fusion import LocalSettings, local, plain
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import ModelError

from .tiny import condition, noise, process, roughen, square

diffusers = pytest.importorskip("diffusers", reason="needs the extra diffusers")

from localdiff_cli.adapters.diffusers_unet import diffusers_schedule, from_diffusers  # noqa: E402


@pytest.fixture(scope="module")
def unet():
    made = diffusers.UNet2DModel(
        in_channels=2, out_channels=1, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return roughen(made)


@pytest.fixture
def save(unet, tmp_path):
    def saved(scheduler):
        unet.save_pretrained(tmp_path / "unet")
        scheduler.save_pretrained(tmp_path / "scheduler")
        return tmp_path

    return saved


def test_local_diffusion_is_bit_for_bit_that_of_the_model_wrapped_by_hand(unet, save):
    adapted = from_diffusers(save(diffusers.DDPMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear")))

    def by_hand(x_t, c, t):
        return unet(torch.cat([x_t, 2 * c - 1], dim=1), t).sample

    schedule = Schedule(name="scaled_linear_beta", prediction="v_prediction")
    arguments = (condition(), noise(), square(), LocalSettings())
    result = local(process(adapted.model, adapted.schedule, space=adapted.space), *arguments)
    assert torch.equal(result, local(process(by_hand, schedule), *arguments))
    assert not torch.equal(result, plain(process(by_hand, schedule), *arguments[:2]))


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
        {"trained_betas": [1e-4 * 1.2**k for k in range(40)], "num_train_timesteps": 40, "clip_sample": False},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
    ids=lambda settings: next(iter(settings)) + "-" + str(settings.get("beta_schedule", "")),
)
def test_the_plain_sampler_is_diffusers_own(unet, save, settings):
    theirs = diffusers.DDIMScheduler(timestep_spacing="trailing", **settings)
    adapted = from_diffusers(save(theirs))
    ours = plain(process(adapted.model, adapted.schedule, steps=8, space=adapted.space), condition(), noise())
    theirs.set_timesteps(8)
    x = noise()
    for t in theirs.timesteps:
        prediction = unet(torch.cat([x, 2 * condition() - 1], dim=1), t).sample
        x = theirs.step(prediction, t, x, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_the_condition_enters_where_and_as_the_network_learnt_it(unet, save):
    adapted = from_diffusers(save(diffusers.DDPMScheduler()), condition_range=(0, 1), condition_first=True)
    t = torch.tensor([9])
    assert torch.equal(adapted.model(noise(), condition(), t), unet(torch.cat([condition(), noise()], dim=1), t).sample)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "another network"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"num_class_embeds": 3}, "num_class_embeds"),
        ({"center_input_sample": True}, "center_input_sample"),
        ({"in_channels": 1}, "conditional network"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "SkipDownBlock2D"),
        ({"colour": 1}, "colour"),
        ({"layers_per_block": 2}, "do not fit"),
    ],
    ids=str,
)
def test_a_network_that_is_no_translator_is_refused_with_the_reason(save, change, reason):
    path = save(diffusers.DDPMScheduler()) / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=reason):
        from_diffusers(path.parents[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ({"prediction_type": "flow"}, "flow"),
        ({"variance_type": "learned_range"}, "learned_range"),
        ({"thresholding": True}, "dynamic thresholds"),
        ({"clip_sample_range": 2.0}, "another range"),
        ({"beta_schedule": "mine"}, "mine"),
        ({"trained_betas": [0.1, 0.0]}, "do not fall"),
        ({"rescale_betas_zero_snr": True}, "at least"),
    ],
    ids=str,
)
def test_a_scheduler_that_cannot_be_followed_is_refused_with_the_reason(change, reason):
    with pytest.raises(ModelError, match=reason):
        diffusers_schedule(dict(diffusers.DDPMScheduler().config) | {"_class_name": "DDPMScheduler"} | change)


def test_weights_that_could_run_code_are_not_looked_at(unet, save):
    folder = save(diffusers.DDPMScheduler())
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match="no usable network"):
        from_diffusers(folder)
