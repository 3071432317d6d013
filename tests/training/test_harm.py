"""What harm costs: which errors, on which contrast, where, and that it makes a lesion bolder and nothing else."""

import json

import pytest
import torch

from localdiff_cli.bundle import METADATA
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.harm import MARGIN
from localdiff_cli.training.expert import RegionSettings, expert_loss, lesion_slices
from localdiff_cli.training.harm import HarmSettings, harm_penalty, harm_settings
from localdiff_cli.training.loop import step_generator
from localdiff_cli.training.told import ToldSettings, told_loss
from localdiff_cli.training.translator import all_slices, healthy_slices, translator_loss
from tests.bundles import make_translator

from .data import slices
from .test_expert import OPTIONS, STILL, patient
from .test_fit import TRANSLATOR_OPTIONS, data, fit  # noqa: F401

X0 = torch.zeros(1, 1, 2, 2)
LESION = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])


def penalty(settings, predicted):
    cost = harm_penalty(settings, LESION)
    assert cost is not None
    return cost(predicted, X0)[0, 0]


def test_a_lesion_drawn_too_pale_costs_and_one_drawn_too_bright_does_not():
    predicted = torch.tensor([[[[-0.4, 0.4], [-0.4, -0.4]]]])
    assert torch.allclose(penalty(HarmSettings(1, erased=3.0), predicted), torch.tensor([[0.48, 0], [0, 0]]), atol=1e-6)


def test_disease_drawn_where_none_is_costs_beyond_the_margin():
    allowed = 2 * MARGIN
    predicted = torch.tensor([[[[0.4, 0.4], [allowed, allowed + 0.1]]]])
    assert torch.allclose(penalty(HarmSettings(1, invented=2.0), predicted), torch.tensor([[0, 0], [0, 0.02]]), atol=1e-6)


def test_where_disease_is_dark_everything_is_reversed():
    predicted = torch.tensor([[[[0.3, -0.3], [0.36, -0.36]]]])
    found = penalty(HarmSettings(-1, invented=1.0, erased=1.0), predicted)
    assert torch.allclose(found, torch.tensor([[0.09, 0], [0, 0.04]]), atol=1e-6)


def test_without_weights_nothing_costs_more_and_nothing_is_written_down():
    assert harm_penalty(HarmSettings(), LESION) is None
    assert HarmSettings().account() == {}
    assert HarmSettings(-1, invented=2.0).account() == {"invented": 2.0, "margin": MARGIN}
    assert HarmSettings(-1, erased=2.0).account() == {"erased": 2.0}
    assert harm_settings("PD", "epsilon", 0, 0) == HarmSettings()


def test_the_side_is_that_of_the_target_contrast():
    signs = {contrast: harm_settings(contrast, "sample", 1.0).sign for contrast in ("FLAIR", "T2w", "T1w")}
    assert signs == {"FLAIR": 1, "T2w": 1, "T1w": -1}


@pytest.mark.parametrize(("contrast", "prediction", "word"), [("CT", "sample", "CT"), ("FLAIR", "epsilon", "epsilon")])
def test_a_target_or_a_network_that_cannot_be_weighed_is_refused(contrast, prediction, word):
    with pytest.raises(UsageError, match=word):
        harm_settings(contrast, prediction, 1.0, 1.0)


class Constant(torch.nn.Module):
    """One value everywhere."""

    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_t, condition, t):
        return self.value.expand_as(x_t)


def settled(loss_of):
    network = Constant()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(150):
        optimiser.zero_grad()
        loss_of(network, step_generator(0, step)).backward()
        optimiser.step()
    return float(network.value.detach())


def find(condition, brain):
    return brain


@pytest.fixture
def losses():
    """The loss of every kind of training, by the settings of harm."""
    lesions, healthy, everything = (
        lesion_slices([patient("a")], None),
        healthy_slices([patient("a")], "train"),
        all_slices([slices("a")], "train"),
    )
    regions = RegionSettings(healthy_share=0.05, grow=0, stray=0)
    return {
        "translator": lambda harm: translator_loss(everything, Schedule(), STILL, 4, harm=harm),
        "expert": lambda harm: expert_loss(lesions, healthy, Schedule(), STILL, regions, 4, harm),
        "told": lambda harm: told_loss(lesions, healthy, Schedule(), STILL, ToldSettings(lesion=8.0), find, 4, harm),
    }  # fmt: skip


@pytest.mark.parametrize("training", ["expert", "told"])
def test_an_expert_that_pays_for_erasing_settles_on_the_side_of_disease(losses, training):
    plain, bright = (settled(losses[training](HarmSettings(1, erased=weight))) for weight in (0, 6))
    assert bright > plain + 0.02


def test_where_disease_is_dark_it_settles_on_the_dark_side(losses):
    plain, dark = (settled(losses["told"](HarmSettings(-1, erased=weight))) for weight in (0, 6))
    assert dark < plain - 0.02


@pytest.mark.parametrize("training", ["translator", "expert", "told"])
def test_a_network_that_pays_for_inventing_keeps_away_from_disease(losses, training):
    plain, wary, other = (settled(losses[training](HarmSettings(sign, invented=weight))) for sign, weight in ((1, 0), (1, 8), (-1, 8)))
    assert wary < plain - 0.005
    assert other > plain + 0.005


def test_the_weights_are_options_of_fit_and_stand_in_the_card(fit, models_folder, tmp_path):  # noqa: F811
    assert fit("translator", *TRANSLATOR_OPTIONS, "--invented-weight", 3).exit_code == 0
    made = json.loads((tmp_path / "bundle" / METADATA).read_text())
    assert made["training"]["translator"]["invented"] == 3
    base = make_translator(tmp_path / "base", detector=False)
    result = fit("expert", "--base", base.path, *OPTIONS, "--invented-weight", 1, "--erased-weight", 2, out=tmp_path / "other")
    assert result.exit_code == 0, result.output
    account = json.loads((tmp_path / "other" / METADATA).read_text())["training"]["expert"]
    assert (account["invented"], account["erased"]) == (1, 2)


@pytest.mark.parametrize("extra", [("--erased-weight", -1), ("--invented-weight", 21)])
def test_a_weight_out_of_range_is_refused(fit, models_folder, tmp_path, extra):  # noqa: F811
    base = make_translator(tmp_path / "base", detector=False)
    result = fit("expert", "--base", base.path, *OPTIONS, *extra)
    assert result.exit_code == 2
    assert extra[0] in result.output


def test_a_checkpoint_of_another_weight_is_refused(fit, models_folder, tmp_path):  # noqa: F811
    assert fit("translator", *TRANSLATOR_OPTIONS, "--work", tmp_path / "w").exit_code == 0
    again = fit("translator", *TRANSLATOR_OPTIONS, "--work", tmp_path / "w", "--invented-weight", 3)
    assert again.exit_code == 2
    assert "invented" in again.output


def test_a_network_of_another_prediction_is_refused_by_fit(fit, models_folder):  # noqa: F811
    result = fit("translator", *TRANSLATOR_OPTIONS, "--invented-weight", 3, "--prediction", "epsilon")
    assert result.exit_code == 2
    assert "--invented-weight" in result.output
    assert "epsilon" in result.output
