"""The interval network's training: what it is shown, what it learns, and which bundle it is put into."""

import json

import numpy as np
import pytest
import torch

from localdiff_cli.bundle import INTERVAL, METADATA, load_interval, open_bundle
from localdiff_cli.guarantees.interval_network import IntervalNetwork, IntervalSettings, distances
from localdiff_cli.training.interval import ONE, Translated, interval_loss, pinball
from localdiff_cli.training.loop import LoopSettings, step_generator, train
from tests.bundles import make_translator

from .test_fit import TRANSLATOR_OPTIONS, data, fit  # noqa: F401

OPTIONS = ("--steps", 2, "--batch-size", 2, "--every", 1, "--channels", "8,8", "--device", "cpu")


def people(folder, number=4, rows=32):
    """Drawn alike everywhere; the truth is spread widely where the condition is bright, narrowly elsewhere."""
    random, files = np.random.default_rng(0), []
    for k in range(number):
        planes = np.zeros((4, 5, rows + 8 * (k == 2), 32))
        planes[:, 0, :, 16:] = 1
        planes[:, 2] = 0.5
        planes[:, 3] = np.clip(0.5 + (0.01 + 0.15 * planes[:, 0]) * random.standard_normal(planes[:, 0].shape), 0, 1)
        planes = np.rint(planes * ONE)
        planes[:, 4] = 1
        planes[:, 4, :2] = 0
        files.append(folder / f"{k}.npy")
        np.save(files[-1], planes.astype(np.uint16))
    return Translated(tuple(f"sub-{k}" for k in range(number)), tuple(files), 5)


def test_pinball_loss_is_least_where_half_of_the_rest_lies_beyond_each_limit():
    true, ones = torch.linspace(0, 1, 1001), torch.ones(1001)

    def lost(low, high):
        return pinball(ones * low, ones * high, true, ones, 0.9).item()

    assert lost(0.05, 0.95) < min(lost(0.02, 0.95), lost(0.08, 0.95), lost(0.05, 0.92), lost(0.05, 0.98))


def test_slices_are_drawn_with_their_labels_mirrored_at_times_and_cut_to_the_grid(tmp_path):
    translated = people(tmp_path)
    found = translated.draw(40, (32, 32), step_generator(0, 0))
    assert translated.slices == 16
    assert found.shape == (40, 5, 32, 32)
    assert set(found[:, 4].unique().tolist()) == {0, 1}
    bright = found[:, 0, 16, 31]
    assert 8 < bright.sum() < 32
    assert torch.equal(found[:, 0, 16, 0], 1 - bright)
    assert torch.equal(found, translated.draw(40, (32, 32), step_generator(0, 0)))


def test_the_network_is_wide_where_the_condition_says_so(tmp_path):
    torch.manual_seed(0)
    network, settings = IntervalNetwork(IntervalSettings(space_to_depth=1, channels=(8, 8))), LoopSettings(120, 8, 1e-2, warmup=5, ema=0.9)
    loss = interval_loss(people(tmp_path), (32, 32), 0.9, 8)
    trained, curve = train(network, loss, settings, tmp_path / "w.pt", lambda _: None)
    assert curve[-1][1] < curve[0][1]
    condition, half = torch.zeros(1, 1, 32, 32), torch.full((1, 1, 32, 32), 0.5)
    condition[..., 16:] = 1
    width = distances(trained, condition, torch.zeros_like(half), half).sum(dim=1)[0]
    assert width[4:-4, 20:-2].mean() > 3 * width[4:-4, 2:12].mean()


@pytest.fixture
def base(models_folder, tmp_path):
    return make_translator(tmp_path / "base")


def test_a_network_is_fitted_beside_the_base_from_training_people_alone(cli, fit, base, tmp_path):  # noqa: F811
    before = json.loads((base.path / METADATA).read_text())
    result = fit("interval", "--base", base.path, *OPTIONS, "--level", 0.8)
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "bundle" / METADATA).read_text())
    assert made["interval"] == {"space_to_depth": 2, "channels": [8, 8], "level": 0.8}
    account = made["training"]["interval"]
    assert (account["patients"], account["slices"], account["every"]) == ({"train": ["sub-01", "sub-02"]}, 8, 1)
    assert {name: made["files"][name] for name in before["files"]} == before["files"]
    assert "How the interval network was made" in (tmp_path / "bundle" / "README.md").read_text()
    assert cli("models", "verify", tmp_path / "bundle").exit_code == 0
    assert cli("models", "pack", tmp_path / "bundle").exit_code == 0
    packed = open_bundle(str(tmp_path / "bundle"))
    assert packed.metadata["storage"][INTERVAL] == "int8"
    assert load_interval(packed, torch.device("cpu")).settings.channels == (8, 8)


def test_the_same_fit_in_place_again_neither_translates_nor_trains_again(fit, base):  # noqa: F811
    assert "translated sub-01" in fit("interval", "--base", base.path, *OPTIONS, out=base.path).output
    first = open_bundle(str(base.path))
    again = fit("interval", "--base", base.path, *OPTIONS, out=base.path)
    assert again.exit_code == 0, again.output
    assert "translated" not in again.output
    assert "step 2/2" not in again.output
    assert open_bundle(str(base.path)).metadata["files"] == first.metadata["files"]
    assert first.drawing_hash == open_bundle(str(base.path)).drawing_hash != first.hash


def test_a_patient_who_is_left_out_needs_no_split(fit, base, data):  # noqa: F811
    table = data / "participants.tsv"
    table.write_text(table.read_text().replace("sub-03\tval", "sub-03\t"))
    assert fit("interval", "--base", base.path, *OPTIONS).exit_code == 2
    assert fit("interval", "--base", base.path, *OPTIONS, "--exclude", "sub-03").exit_code == 0


def test_what_was_measured_stays_since_the_network_draws_nothing(fit, base):  # noqa: F811
    path = base.path / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | {"results": {"test": {"rows": [{"PSNR": 20}]}}}))
    assert fit("interval", "--base", base.path, *OPTIONS, out=base.path).exit_code == 0
    assert json.loads(path.read_text())["results"] == {"test": {"rows": [{"PSNR": 20}]}}


def test_a_network_taught_with_earlier_weights_is_taken_out(fit, tmp_path):  # noqa: F811
    own = tmp_path / "bundle"
    assert fit("translator", *TRANSLATOR_OPTIONS).exit_code == 0
    assert fit("detector", "--coreset", 50, "--bias", "none", "--device", "cpu").exit_code == 0
    assert fit("interval", "--base", own, *OPTIONS).exit_code == 0
    result = fit("expert", "--base", own, "--steps", 1, "--batch-size", 2, "--device", "cpu")
    assert "taught with earlier weights: interval" in " ".join(result.output.split())
    assert INTERVAL not in json.loads((own / METADATA).read_text())["files"]
    assert fit("interval", "--base", own, *OPTIONS, "--work", tmp_path / "other").exit_code == 0
    result = fit("translator", *TRANSLATOR_OPTIONS, "--seed", 3, "--work", tmp_path / "again")
    assert "expert, interval; fit them again" in " ".join(result.output.split())
    made = json.loads((own / METADATA).read_text())
    assert "interval" not in made | made["training"]
    assert not (own / INTERVAL).exists()


@pytest.mark.parametrize(
    ("extra", "code", "word"),
    [
        (("--base", "lesion-t2"), 4, "made to segment"),
        (("--base", "t1-to-t2", "--level", 1), 2, "--level"),
        (("--base", "t1-to-t2", "--channels", "8"), 2, "--channels"),
        (("--base", "t1-to-t2", "--every", 0), 2, "--every"),
    ],
)
def test_a_network_that_cannot_be_is_refused(fit, extra, code, word):  # noqa: F811
    result = fit("interval", *OPTIONS, *extra)
    assert result.exit_code == code
    assert word in result.output


def test_it_is_not_put_into_another_bundle_and_needs_people_with_a_target(fit, base, tmp_path):  # noqa: F811
    other = make_translator(tmp_path / "other")
    result = fit("interval", "--base", base.path, *OPTIONS, out=other.path)
    assert result.exit_code == 2
    assert "is not base" in " ".join(result.output.split())
    nobody = fit("interval", "--base", base.path, *OPTIONS, "--exclude", "sub-01", "--exclude", "sub-02")
    assert nobody.exit_code == 2
    assert "train split" in " ".join(nobody.output.split())
