"""Weights between two bundles' of the same network."""

from __future__ import annotations

import shutil

import pytest
import torch

from examples.training.between import between, main
from localdiff_cli.bundle import open_bundle
from localdiff_cli.bundle.load import load_tensors
from localdiff_cli.errors import UsageError
from tests.bundles import add_interval

NAME = "models/translator.safetensors"


@pytest.fixture
def first(models_folder, tmp_path):
    return add_interval(open_bundle(str(shutil.copytree(models_folder / "t1-to-t2", tmp_path / "first"))))


def test_a_share_is_of_the_second():
    made = between({"a": torch.zeros(2)}, {"a": torch.ones(2)}, 0.25)
    assert made["a"].tolist() == [0.25, 0.25]


def test_different_networks_are_refused():
    with pytest.raises(UsageError, match="different networks"):
        between({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, 0.5)


def test_the_bundle_is_the_first_with_other_weights_and_without_what_belonged_to_the_former(first, tmp_path):
    out = tmp_path / "made"
    main([str(first.path), str(first.path), "--share", "1", "--out", str(out)])
    made = open_bundle(str(out))
    assert made.has_expert == first.has_expert
    assert not made.has_interval
    assert made.hash != first.hash
    for name, value in load_tensors(first, NAME).items():
        torch.testing.assert_close(load_tensors(made, NAME)[name], value, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("share", ["-0.1", "1.5"])
def test_a_share_beyond_one_is_refused(first, tmp_path, share):
    with pytest.raises(UsageError, match="expected 0 to 1"):
        main([str(first.path), str(first.path), "--share", share, "--out", str(tmp_path / "made")])


def test_nothing_is_written_over(first, tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        main([str(first.path), str(first.path), "--out", str(tmp_path)])
