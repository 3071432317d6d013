"""An expert that is told M: what it sees, what counts, and that a bundle with one is made, verified and used."""

import json
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from localdiff_cli.bundle import EXPERT, METADATA, load_expert, load_tensors, open_bundle
from localdiff_cli.bundle.store import with_defaults
from localdiff_cli.diffusion.network import NetworkSettings, TranslatorNetwork, told_network
from localdiff_cli.diffusion.schedule import Schedule
from localdiff_cli.training import told_maps
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.expert import lesion_slices
from localdiff_cli.training.loop import step_generator
from localdiff_cli.training.told import ToldSettings, first_or_any, made_map, region_weight, told_loss
from localdiff_cli.training.told_maps import MappedSlices, Told, map_of
from localdiff_cli.training.translator import healthy_slices
from tests.bundles import NETWORK, make_segmenter, make_translator

from .data import Spy
from .test_expert import OPTIONS, patient
from .test_fit import data, fit  # noqa: F401

STILL = AugmentSettings(rotation=0, scale=0, shift=0, contrast=0, gamma=0, noise=0)


def test_a_told_network_begins_as_the_one_it_is_made_from_and_can_learn_to_listen():
    torch.manual_seed(0)
    base = TranslatorNetwork(NetworkSettings(**{**vars(NETWORK)}))
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    told = told_network(base).eval()
    x, c, t = torch.randn(1, 1, 48, 40), torch.rand(1, 1, 48, 40), torch.tensor([500])
    ood_map = torch.rand(1, 1, 48, 40)
    with torch.inference_mode():
        assert torch.allclose(told(x, torch.cat([c, ood_map], dim=1), t), base.eval()(x, c, t), atol=1e-5)
    told(x, torch.cat([c, ood_map], dim=1), t).sum().backward()
    assert told.unet.conv_in.conv.weight.grad[:, -(NETWORK.space_to_depth**2) :].abs().sum() > 0


def test_made_maps_cover_the_lesion_mostly_and_are_soft():
    lesion = torch.zeros(64, 1, 48, 48)
    lesion[:, :, 16:32, 16:32] = 1
    maps = made_map(lesion, step_generator(0, 0))
    assert maps.min() >= 0
    assert maps.max() <= 1
    inside = (maps * lesion).sum(dim=(1, 2, 3)) / lesion.sum(dim=(1, 2, 3))
    assert inside.mean() > 0.35
    assert inside.std() > 0.05
    outside = ((maps > 0.1) & (lesion == 0)).flatten(1).any(dim=1)
    assert outside.float().mean() > 0.5


def test_a_slice_without_a_lesion_gets_an_island_in_half_of_the_cases():
    maps = made_map(torch.zeros(200, 1, 48, 48), step_generator(0, 1))
    share = float((maps.flatten(1).amax(dim=1) > 0).float().mean())
    assert 0.35 < share < 0.65


def test_the_region_of_the_map_counts_fully_and_a_lesion_more():
    ood_map, lesion, inside = torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40), torch.ones(1, 1, 40, 40)
    ood_map[..., 10:12, 10:12], lesion[..., 30:32, 30:32] = 0.8, 1
    inside[..., :2] = 0
    weight = region_weight(ood_map, lesion, inside, ToldSettings(reach=3, elsewhere=0.1, lesion=2.0))[0, 0]
    assert weight[11, 11] == weight[13, 13] == weight[28, 28] == pytest.approx(1)
    assert weight[31, 31] == pytest.approx(2)
    assert weight[20, 20] == pytest.approx(0.1)
    assert weight[20, 0] == pytest.approx(0.025)


def test_the_last_timestep_has_its_share():
    times = first_or_any(1000, 1000, 0.4, step_generator(0, 0))
    assert 0.35 < float((times == 999).float().mean()) < 0.46
    assert times.min() < 50


def test_the_expert_is_shown_the_whole_condition_and_the_finders_map():
    spy = Spy()

    def find(condition, brain):
        return 0.7 * brain

    patients = [patient("a")]
    settings = ToldSettings(found=1.0)
    loss_of = told_loss(lesion_slices(patients, None), healthy_slices(patients, "train"), Schedule(), STILL, settings, find, 8)
    loss = loss_of(spy, step_generator(0, 3))
    assert torch.isfinite(loss)
    condition, ood_map = spy.seen[0].split(1, dim=1)
    brain = torch.from_numpy(patients[0].brain[0]).float()
    assert torch.allclose(ood_map, 0.7 * brain.expand_as(ood_map), atol=1e-6)
    assert ((condition > 0).flatten(1).sum(dim=1) > 0.9 * brain.sum()).all()
    assert torch.equal(loss, loss_of(spy, step_generator(0, 3)))


@pytest.fixture
def base(models_folder, tmp_path):
    make_segmenter(models_folder / "lesion-t1", "T1w", (-6, 6))
    return make_translator(tmp_path / "base", detector=False)


def test_a_told_expert_is_fitted_verified_and_listens_to_the_map(cli, fit, base, folder, tmp_path):  # noqa: F811
    result = fit("expert", "--base", base.path, *OPTIONS, "--told", "lesion-t1", "--healthy-share", 0.3)
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "bundle" / METADATA).read_text())
    assert made["expert"] == {"patients": 2, "healthy_share": 0.3, "told": True}
    assert made["training"]["expert"]["maps"]["finders"][0].startswith("lesion-t1 ")
    assert (tmp_path / "bundle" / EXPERT).is_file()
    assert cli("models", "verify", tmp_path / "bundle").exit_code == 0
    assert load_expert(open_bundle(str(tmp_path / "bundle")), torch.device("cpu")).settings.told
    image = folder / "sub-01" / "sub-01_T1w.nii.gz"
    source = nib.load(image)
    results = []
    for level in (0.6, 0.9):
        values = np.zeros(source.shape, np.float32)
        values[14:24, 16:28, :] = level
        nib.save(nib.Nifti1Image(values, source.affine), tmp_path / f"map-{level}.nii.gz")
        run = cli("translate", "--in", image, "--out", tmp_path / f"out-{level}", "--model", tmp_path / "bundle",
                  "--map", tmp_path / f"map-{level}.nii.gz", "--hard", "--fusion-step", 0)  # fmt: skip
        assert run.exit_code == 0, run.output
        results.append(np.asanyarray(nib.load(tmp_path / f"out-{level}" / "sub-01_T1w.nii.gz").dataobj))
    assert not np.array_equal(*results)  # the mask is the same: only the map it is told differs


def test_a_training_goes_on_from_the_expert_of_another_bundle(fit, base, tmp_path):  # noqa: F811
    assert fit("expert", "--base", base.path, *OPTIONS, "--told", "lesion-t1").exit_code == 0
    first = (tmp_path / "bundle").rename(tmp_path / "first")
    told = ("expert", "--base", base.path, *OPTIONS, "--told", "lesion-t1")
    begun = load_tensors(open_bundle(str(first)), EXPERT)
    assert fit(*told, "--start", first, "--rate", 1e-8, "--work", tmp_path / "second").exit_code == 0
    ended = load_tensors(open_bundle(str(tmp_path / "bundle")), EXPERT)
    assert all(torch.allclose(begun[name], ended[name], atol=1e-5) for name in begun)
    account = json.loads((tmp_path / "bundle" / METADATA).read_text())["training"]["expert"]["start"]
    assert (account["part"], account["weights"]) == ("expert", open_bundle(str(first)).metadata["files"][EXPERT])


def test_an_expert_of_another_kind_is_no_start(fit, base, tmp_path):  # noqa: F811
    told = ("--told", "lesion-t1")
    without = fit("expert", "--base", base.path, *OPTIONS, *told, "--start", base.path)
    assert (without.exit_code, "no such weights" in without.output) == (2, True)
    assert fit("expert", "--base", base.path, *OPTIONS, *told).exit_code == 0
    first = (tmp_path / "bundle").rename(tmp_path / "first")
    untold = fit("expert", "--base", base.path, *OPTIONS, "--start", first)
    assert (untold.exit_code, "no expert of this network and schedule without --told" in untold.output) == (2, True)


def test_a_map_of_another_contrast_is_refused(fit, base, models_folder):  # noqa: F811
    make_segmenter(models_folder / "lesion-t2", "T2w")
    result = fit("expert", "--base", base.path, *OPTIONS, "--told", "lesion-t2")
    assert result.exit_code == 2
    assert "made to segment on T2w" in result.output


def knows(path, *names, contrast="T1w", window=(-6, 6)):
    """A segmenter that says it learnt from these people."""
    made = make_segmenter(path, contrast, window)
    metadata = json.loads((path / METADATA).read_text())
    metadata["training"] = {"segmenter": {"patients": {"train": list(names[:1])}, "start": {"patients": list(names[1:])}}}
    (path / METADATA).write_text(json.dumps(metadata))
    return open_bundle(str(made.path))


def test_a_map_comes_from_the_first_finder_that_does_not_know_the_person(tmp_path):
    finders = knows(tmp_path / "one", "a", "b"), knows(tmp_path / "two", "b", "c")
    told = Told(ToldSettings(), finders)
    assert [told.stranger_to(name) for name in "abcd"] == [1, None, 0, 0]
    unsaid = make_segmenter(tmp_path / "three", "T1w", (-6, 6))
    assert Told(ToldSettings(), (unsaid,)).stranger_to("d") is None
    assert Told(ToldSettings(), finders[:1]).stranger_to("a") is None


def test_slices_are_drawn_with_their_maps():
    people = [patient("a"), patient("b")]
    maps = {p.name: np.stack([np.full(p.brain.shape[1:], 10 * k + i, np.uint8) for i in range(len(p.brain))]) for k, p in enumerate(people)}
    slices = lesion_slices(people, None)
    *planes, ood_map = MappedSlices(slices, maps).draw(6, step_generator(0, 1))
    assert all(torch.equal(one, two) for one, two in zip(planes, slices.draw(6, step_generator(0, 1)), strict=True))
    drawn = (255 * ood_map).round().flatten(1)
    assert (drawn == drawn[:, :1]).all()
    assert {int(value) for value in drawn[:, 0]} <= {4, 5, 14, 15}  # the last two slices of each person bear a lesion


def test_the_map_of_a_slice_without_a_finder_is_the_one_drawn_with_it():
    spy, people = Spy(), [patient("a")]
    maps = {"a": np.full(people[0].brain.shape, 51, np.uint8)}
    mapped = MappedSlices(lesion_slices(people, None), maps), MappedSlices(healthy_slices(people, "train"), maps)
    told_loss(*mapped, Schedule(), STILL, ToldSettings(found=1.0), None, 4)(spy, step_generator(0, 3))
    ood_map = spy.seen[0][:, 1:2]
    assert torch.allclose(ood_map, 0.2 * torch.from_numpy(people[0].brain[0]).float().expand_as(ood_map), atol=1e-6)


class Sure(torch.nn.Module):
    """A lesion network that is sure of whatever is brighter than 0.5."""

    settings = SimpleNamespace(multiple=1)

    def __init__(self):
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        return 40 * (image - 0.5) + self.none


def test_a_persons_map_is_as_translate_shows_it():
    """A spot in one slice alone is a suspicion; what goes on through the slices stays."""
    made = patient("a")
    condition = np.zeros((9, *made.brain.shape[1:]), np.uint16)
    condition[4, 4:8, 4:8] = condition[:, 20:26, 20:26] = 65535
    person = replace(made, condition=condition, brain=np.ones(condition.shape, bool), target=None, lesion=np.zeros(condition.shape, bool))
    alone, seen = (map_of(Sure(), person, sigma, 0.65) for sigma in (0, 1.0))
    assert (alone[4, 4:8, 4:8] == 255).all()
    assert alone[3, 4:8, 4:8].max() == 0
    assert seen[4, 4:8, 4:8].max() == round(255 * 0.15)
    assert (seen[:, 20:26, 20:26] == 255).all()


def test_two_finders_make_the_maps_of_each_others_people(fit, base, models_folder, tmp_path):  # noqa: F811
    knows(models_folder / "half-1", "sub-01")
    knows(models_folder / "half-2", "sub-02")
    result = fit("expert", "--base", base.path, *OPTIONS, "--told", "half-1", "--told", "half-2")
    assert result.exit_code == 0, result.output
    assert "the maps of 2 people, 2 of them with a lesion network that did not learn from them" in " ".join(result.output.split())
    maps = json.loads((tmp_path / "bundle" / METADATA).read_text())["training"]["expert"]["maps"]
    assert [word.split()[0] for word in maps["finders"]] == ["half-1", "half-2"]
    assert (maps["residue"], maps["peak"], maps["through_plane_mm"]) == (0.0, 0.0, 0.0)


def test_the_maps_are_made_as_the_base_shows_them(fit, base, models_folder, tmp_path, monkeypatch):  # noqa: F811
    knows(models_folder / "half-1", "sub-09")
    with_defaults(base, {"detector": "segmenter", "residue": 3.0, "peak": 0.6, "through_plane_mm": 4.0})
    asked = []
    monkeypatch.setattr(told_maps, "map_of", lambda network, person, *rest: asked.append(rest) or np.zeros(person.brain.shape, np.uint8))
    assert fit("expert", "--base", base.path, *OPTIONS, "--told", "half-1").exit_code == 0
    spacing = nib.load(next((tmp_path / "data").glob("**/sub-01_T1w.nii.gz"))).header.get_zooms()[2]
    assert asked == [(pytest.approx(4.0 / spacing), 0.6, pytest.approx(9 / 12))] * 2


def test_a_checkpoint_that_was_shown_other_maps_is_not_gone_on_from(fit, base, models_folder, tmp_path):  # noqa: F811
    for name, known in (("half-1", "sub-01"), ("half-2", "sub-02")):
        knows(models_folder / name, known)
    told = ("expert", "--base", base.path, *OPTIONS, "--told", "half-1")
    assert fit(*told).exit_code == 0
    again = fit(*told, "--told", "half-2")
    assert (again.exit_code, "a checkpoint of another training" in " ".join(again.output.split())) == (2, True)


def test_where_the_only_finder_knows_everybody_it_is_said(fit, base, models_folder):  # noqa: F811
    knows(models_folder / "lesion-t1", "sub-01", "sub-02")
    result = fit("expert", "--base", base.path, *OPTIONS, "--told", "lesion-t1")
    assert (result.exit_code, "the maps of 2 people, 0 of them" in " ".join(result.output.split())) == (0, True)
