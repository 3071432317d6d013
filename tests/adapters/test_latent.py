"""Local Diffusion on an autoencoder's grid, against the pixel version and against the method written out."""

import math

import pytest
import torch
from monai.networks.nets import AutoencoderKL

from localdiff_cli.adapters.latent import Autoencoder, from_monai_autoencoder, local_in_latents, plain_in_latents
from localdiff_cli.adapters.monai_unet import MonaiUNetSettings
from localdiff_cli.diffusion.branching import crop_around
from localdiff_cli.diffusion.fusion import LocalSettings, Region, local, plain
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import ModelError

from .tiny import condition, noise, process, roughen, square

SIDE, LATENT, CHANNELS, SCALE = 32, 8, 3, 0.7
ARGUMENTS = {
    "spatial_dims": 2, "channels": [32, 32, 32], "latent_channels": CHANNELS, "num_res_blocks": 1,
    "attention_levels": [False, False, False], "with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False,
}  # fmt: skip
SCHEDULE = Schedule(prediction="v_prediction")
UNET = MonaiUNetSettings(
    2 * CHANNELS, CHANNELS, (1, 1), (32, 32), (False, True), num_head_channels=(16, 16), condition_range=(0, 1)
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return roughen(AutoencoderKL(**ARGUMENTS), seed=4)


@pytest.fixture
def autoencoder(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "autoencoder.pt")
    config = {"autoencoder_def": {"_target_": "monai.networks.nets.AutoencoderKL"} | ARGUMENTS}
    return from_monai_autoencoder(tmp_path / "autoencoder.pt", config, scale=SCALE)


@pytest.fixture(scope="module")
def model():
    return roughen(UNET.build())


def latent_process(model, autoencoder, **more):
    return process(model, SCHEDULE, channels=CHANNELS, side=LATENT, space=autoencoder.space((SIDE, SIDE)), **more)


def written_out(network, model, region, settings, process):
    """The method of docs, step by step with DDIM: OOD and IND process, each alone, then fused."""
    c, B = condition(SIDE), region.mask
    z_B = torch.zeros(1, 1, LATENT, LATENT, dtype=torch.bool)
    for row, column in B[0, 0].nonzero().tolist():
        z_B[0, 0, row // 4, column // 4] = True

    def encode(image):
        return network.encode(image)[0] * SCALE

    background = encode(torch.full((1, 1, SIDE, SIDE), -1.0))
    conditions = [encode(2 * seen - 1) for seen in (c * B, torch.where(B, settings.context * c, c), c)]

    def step(z, branch, pair):
        now, then = (1.0 if t < 0 else float(SCHEDULE.alphas_cumprod[t]) for t in pair)
        v = model(z, conditions[branch], torch.tensor([pair[0]]))
        z0 = math.sqrt(now) * z - math.sqrt(1 - now) * v
        if branch == 0:
            z0 = torch.where(z_B, z0, background)
        epsilon = (z - math.sqrt(now) * z0) / math.sqrt(1 - now)
        return math.sqrt(then) * z0 + math.sqrt(1 - then) * epsilon

    ood = ind = noise(CHANNELS, LATENT)
    apart = len(process.pairs) - settings.fusion_step
    for pair in process.pairs[:apart]:
        ood, ind = step(ood, 0, pair), step(ind, 1, pair)
    z = torch.where(z_B, ood, ind)
    for pair in process.pairs[apart:]:
        z = step(z, 2, pair)
    return network.decode(z / SCALE).clamp(-1, 1)


@pytest.mark.parametrize("fusion_step", [0, 1, 3])
def test_it_is_the_method_written_out_on_latents(network, autoencoder, model, fusion_step):
    region, settings = square(SIDE, 9, 18), LocalSettings(fusion_step=fusion_step, context=0.5)
    run = latent_process(model, autoencoder)
    result = local_in_latents(run, autoencoder, condition(SIDE), noise(CHANNELS, LATENT), region, settings)
    assert result.shape == (1, 1, SIDE, SIDE)
    torch.testing.assert_close(result, written_out(network, model, region, settings, run), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(result, plain_in_latents(run, autoencoder, condition(SIDE), noise(CHANNELS, LATENT)), atol=1e-3)


def test_an_autoencoder_that_changes_nothing_gives_the_result_on_pixels():
    def model(x_t, c, t):
        return torch.tanh(x_t + c)

    nothing = Autoencoder(lambda image: image, lambda z: z, factor=1)
    space = nothing.space((SIDE, SIDE), condition=lambda c: c)
    arguments = (condition(SIDE), noise(side=SIDE), square(SIDE), LocalSettings())
    result = local_in_latents(process(model, Schedule(), side=SIDE, space=space), nothing, *arguments)
    assert torch.equal(result, local(process(model, Schedule(), side=SIDE), *arguments))


def test_a_latent_is_ood_where_one_of_its_pixels_is():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, 3, 4] = True
    region = Autoencoder(lambda image: image, lambda z: z, factor=4).region(Region(mask, 0.5 * mask))
    assert region.mask[0, 0].tolist() == [[False, True], [False, False]]
    assert region.map[0, 0].tolist() == [[0, 0.5], [0, 0]]


def test_a_mask_of_every_latent_but_not_of_every_pixel_still_hides_the_rest_of_the_condition(autoencoder, model):
    everything = square(SIDE, 0, SIDE)
    almost = everything.mask.clone()
    almost[..., ::4] = False
    run = latent_process(model, autoencoder)
    arguments = (autoencoder, condition(SIDE), noise(CHANNELS, LATENT))
    whole = local_in_latents(run, *arguments, everything, LocalSettings())
    assert torch.equal(whole, plain_in_latents(run, *arguments))
    assert not torch.equal(whole, local_in_latents(run, *arguments, Region(almost, almost.float()), LocalSettings()))


def test_latents_beyond_one_are_not_clipped(autoencoder, model):
    run = latent_process(model, autoencoder)
    assert plain(run, condition(SIDE), 3 * noise(CHANNELS, LATENT)).abs().max() > 1


def test_guided_timing_asks_with_decoded_images(autoencoder, model):
    shown = []

    def shows(x0):
        shown.append(x0)
        return False

    run = latent_process(model, autoencoder)
    arguments = (autoencoder, condition(SIDE), noise(CHANNELS, LATENT), square(SIDE))
    late = local_in_latents(run, *arguments, LocalSettings(fusion_step=2), shows)
    assert [image.shape for image in shown] == [(1, 1, SIDE, SIDE)] * 2
    assert torch.equal(late, local_in_latents(run, *arguments, LocalSettings(fusion_step=0)))


def test_an_ood_branch_that_pays_for_its_latents_only_changes_nothing_outside(autoencoder, model):
    run, settings = latent_process(model, autoencoder), LocalSettings(fusion_step=0)
    region = autoencoder.region(square(SIDE, 9, 18))
    crop = crop_around(region.mask, margin=1, multiple=2)
    cropped = Region(region.mask, region.map, crop, region.seen)
    z_T = noise(CHANNELS, LATENT)
    whole, window = (local(run, condition(SIDE), z_T, each, settings) for each in (region, cropped))
    outside = ~region.mask.expand_as(whole)
    torch.testing.assert_close(whole[outside], window[outside])  # other batches, other last bits
    assert not torch.allclose(whole, window, atol=1e-3)


def test_images_in_another_range_are_taken_there_and_back(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "a.pt")
    made = from_monai_autoencoder(tmp_path / "a.pt", ARGUMENTS, image_range=(0, 1))
    torch.testing.assert_close(made.encode(2 * condition(SIDE) - 1), network.encode(condition(SIDE))[0])
    z = noise(CHANNELS, LATENT)
    torch.testing.assert_close(made.decode(z), 2 * network.decode(z) - 1)


def test_slices_that_the_autoencoder_cannot_halve_and_other_networks_are_refused(autoencoder, tmp_path):
    with pytest.raises(ValueError, match="multiples of 4"):
        autoencoder.space((30, 32))
    for change in ({"spatial_dims": 3}, {"channels": 32}, {"colour": 1}, {"channels": [33, 33, 33]}, {"latent_channels": 5}):
        with pytest.raises(ModelError, match=r"AutoencoderKL|do not fit"):
            from_monai_autoencoder(tmp_path / "autoencoder.pt", ARGUMENTS | change)
