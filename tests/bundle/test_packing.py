"""Weights on disk: what is packed, how closely it comes back, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from localdiff_cli.bundle import METADATA, TRANSLATOR, copy_bundle, load_tensors, load_translator, open_bundle, verify
from localdiff_cli.bundle.packing import SCALE, STORAGES, pack, unpack
from localdiff_cli.errors import ModelError
from localdiff_cli.volumes.files import file_hash

CPU = torch.device("cpu")


def tensors():
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(6, 4, 3, 3, generator=generator) * torch.tensor([1e-6, 0.1, 1, 10, 1e5, 0]).view(-1, 1, 1, 1)
    return {"conv.weight": wide, "norm.bias": torch.randn(6, generator=generator), "steps": torch.tensor([3, 4])}


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_packed_comes_back_as_float32_under_the_same_names(storage):
    before = tensors()
    after = unpack(pack(before, storage))
    assert after.keys() == before.keys()
    assert after["conv.weight"].dtype == torch.float32
    assert torch.equal(after["steps"], before["steps"])
    torch.testing.assert_close(after["norm.bias"], before["norm.bias"], rtol=1e-3, atol=1e-6)


def test_8_bits_err_by_half_a_step_of_their_filter_at_most():
    before = tensors()["conv.weight"]
    stored = pack(tensors(), "int8")
    assert stored["conv.weight"].dtype == torch.int8
    assert stored["norm.bias"].dtype == torch.float16
    error = (unpack(stored)["conv.weight"] - before).abs().amax(dim=(1, 2, 3))
    assert (error <= before.abs().amax(dim=(1, 2, 3)) / 254 * 1.001).all()
    assert not unpack(stored)["conv.weight"][5].any()


def test_packing_what_was_packed_changes_nothing_more():
    once = unpack(pack(tensors(), "int8"))
    torch.testing.assert_close(unpack(pack(once, "int8"))["conv.weight"], once["conv.weight"], rtol=1e-6, atol=0)


def test_a_network_that_has_a_scale_of_its_own_keeps_it():
    mine = {"conv": torch.ones(2, 2), "conv.scale": torch.full((2,), 7.0), "whole": torch.ones(2, 2, dtype=torch.int8)}
    after = unpack(pack(mine, "int8"))
    assert after.keys() == mine.keys()
    assert after["conv.scale"].tolist() == [7, 7]
    assert after["whole"].dtype == torch.int8


@pytest.mark.parametrize("scale", [torch.ones(3), torch.ones(2, 1), torch.ones(())])
def test_a_scale_that_does_not_fit_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        unpack({"conv": torch.ones(2, 2, dtype=torch.int8), "conv.scale": scale})


def test_models_pack_halves_a_bundle_that_then_computes_nearly_the_same(cli, models_folder, tmp_path):
    before = open_bundle(str(models_folder / "t1-to-t2"))
    mine = copy_bundle(before, tmp_path / "mine")
    done = cli("models", "pack", mine.path, "--to", tmp_path / "small")
    assert done.exit_code == 0, done.output
    small = open_bundle(str(tmp_path / "small"))
    assert verify(small)
    assert (small.path / TRANSLATOR).stat().st_size < 0.7 * (mine.path / TRANSLATOR).stat().st_size
    assert file_hash(mine.path / TRANSLATOR) == mine.metadata["files"][TRANSLATOR]  # the original is untouched
    assert small.metadata["storage"][TRANSLATOR] == "int8"
    assert "8 bits" in (small.path / "README.md").read_text()
    assert not small.metadata["results"]
    image, t = torch.rand(1, 1, *small.grid.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([500])
    outputs = [load_translator(bundle, CPU)(image, image, t) for bundle in (mine, small)]
    assert 0 < float((outputs[0] - outputs[1]).abs().max()) < 0.1 * float(outputs[0].std() + 1)


def test_packing_in_place_keeps_the_bundle_whole_and_a_second_time_the_same(cli, models_folder, tmp_path):
    mine = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "mine")
    assert cli("models", "pack", mine.path).exit_code == 0
    first = load_tensors(open_bundle(str(mine.path)), TRANSLATOR)
    assert cli("models", "pack", mine.path).exit_code == 0
    for name, values in load_tensors(open_bundle(str(mine.path)), TRANSLATOR).items():
        torch.testing.assert_close(values, first[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("largest", [1e-44, 3e38])
def test_the_smallest_and_largest_weights_stay_finite(largest):
    after = unpack(pack({"w": torch.full((2, 2), largest)}, "int8"))["w"]
    torch.testing.assert_close(after, torch.full((2, 2), largest), rtol=1e-6, atol=1e-37)


def test_a_weight_that_is_no_number_is_not_made_one():
    assert not torch.isfinite(unpack(pack({"w": torch.tensor([[1.0, torch.nan], [1, 2]])}, "int8"))["w"][0]).all()


def test_a_bundle_without_networks_has_nothing_to_pack(cli, models_folder, tmp_path):
    mine = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "mine")
    metadata = json.loads((mine.path / METADATA).read_text())
    kept = {name: digest for name, digest in metadata["files"].items() if "detector" in name}
    (mine.path / METADATA).write_text(json.dumps(metadata | {"files": kept}))
    done = cli("models", "pack", mine.path)
    assert done.exit_code == 4
    assert "no network" in done.output


def test_a_copy_that_is_there_already_is_refused(cli, models_folder, tmp_path):
    done = cli("models", "pack", models_folder / "t1-to-t2", "--to", tmp_path)
    assert done.exit_code == 2
    assert str(tmp_path) in done.output


def test_a_bundle_whose_scale_does_not_fit_is_damaged(models_folder, tmp_path):
    mine = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "mine")
    stored = pack(load_tensors(mine, TRANSLATOR), "int8")
    name = next(key for key in stored if key.endswith(SCALE))
    save_file(stored | {name: stored[name][:1].repeat(stored[name].numel() + 1)}, mine.path / TRANSLATOR)
    metadata = dict(mine.metadata) | {"files": {TRANSLATOR: file_hash(mine.path / TRANSLATOR)}}
    assert name in load_file(mine.path / TRANSLATOR)
    with pytest.raises(ModelError, match="scale"):
        load_tensors(type(mine)(**{**vars(mine), "metadata": metadata}), TRANSLATOR)
