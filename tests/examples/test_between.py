"""Weights between two bundles' of the same network."""

from __future__ import annotations

import shutil

import pytest
import torch

from examples.training.between import between, main
from localdiff_cli.bundle import open_bundle, read_metadata, save_bundle
from localdiff_cli.bundle.load import load_tensors
from localdiff_cli.bundle.schema import CALIBRATION
from localdiff_cli.errors import UsageError
from tests.bundles import add_interval, make_segmenter

NAME = "models/translator.safetensors"
ACCOUNT = {"command": "localdiff fit translator", "slices": 7, "seconds": 60, "patients": {"train": ["sub-1"]}}


@pytest.fixture
def first(models_folder, tmp_path):
    """A bundle with all that belongs to its weights."""
    bundle = add_interval(open_bundle(str(shutil.copytree(models_folder / "t1-to-t2", tmp_path / "first"))))
    (bundle.path / CALIBRATION).write_text("{}")
    metadata = {
        "results": {"PSNR": {"command": "x", "note": "", "rows": []}},
        "training": bundle.metadata["training"] | {"translator": ACCOUNT},
    }
    return save_bundle(bundle.path, metadata, {}, "tiny\n")


@pytest.fixture
def second(first, tmp_path):
    """The first, trained on: every weight is larger by one."""
    path = shutil.copytree(first.path, tmp_path / "second")
    start = {"bundle": "first", "part": "translator", "weights": first.metadata["files"][NAME], "patients": ["sub-1"]}
    training = first.metadata["training"] | {"translator": ACCOUNT | {"slices": 9, "start": start}}
    return save_bundle(
        path, {"training": training}, {NAME: {name: value + 1 for name, value in load_tensors(first, NAME).items()}}, "tiny\n"
    )


def test_a_share_is_of_the_second():
    assert between({"a": torch.zeros(2)}, {"a": torch.ones(2)}, 0.25)["a"].tolist() == [0.25, 0.25]


def test_the_bundle_is_the_first_with_other_weights_and_without_what_belonged_to_the_former(first, second, tmp_path):
    main([str(first.path), str(second.path), "--share", "0.25", "--out", str(tmp_path / "made")])
    made = open_bundle(str(tmp_path / "made"))
    for name, value in load_tensors(first, NAME).items():
        torch.testing.assert_close(load_tensors(made, NAME)[name], value + 0.25, atol=4e-3, rtol=4e-3)
    assert not made.has_interval
    assert made.calibration is None
    assert made.metadata["results"] == {}
    assert made.metadata["defaults"] == first.metadata["defaults"]


def test_segmenters_too_and_only_what_is_there(models_folder, first, tmp_path):
    segmenter = make_segmenter(tmp_path / "segmenter", "T1w", (-6, 6))
    name = "models/segmenter.safetensors"
    start = {"bundle": "segmenter", "part": "segmenter", "weights": segmenter.metadata["files"][name], "patients": []}
    path = shutil.copytree(segmenter.path, tmp_path / "later")
    later = {key: value + 1 for key, value in load_tensors(segmenter, name).items()}
    save_bundle(path, {"training": {"segmenter": ACCOUNT | {"start": start}}}, {name: later}, "tiny\n")
    main([str(segmenter.path), str(path), "--part", "segmenter", "--share", "0.5", "--out", str(tmp_path / "made")])
    for key, value in load_tensors(segmenter, name).items():
        torch.testing.assert_close(load_tensors(open_bundle(str(tmp_path / "made")), name)[key], value + 0.5, atol=4e-3, rtol=4e-3)
    with pytest.raises(UsageError, match="has no segmenter"):
        main([str(first.path), str(path), "--part", "segmenter", "--out", str(tmp_path / "none")])


def test_the_card_says_what_the_weights_are(first, second, tmp_path):
    main([str(first.path), str(second.path), "--share", "0.25", "--out", str(tmp_path / "made")])
    made = tmp_path / "made"
    assert "- weights: 0.75 of those at its start and 0.25 of those at its end" in (made / "README.md").read_text()
    account = read_metadata(made)["training"]["translator"]
    assert account["slices"] == 9
    assert account["between"] == {"first": first.metadata["files"][NAME], "second": second.metadata["files"][NAME], "share": 0.25}


@pytest.mark.parametrize("order", ["both the same", "the wrong way round"])
def test_a_network_that_did_not_begin_as_the_first_is_refused(first, second, tmp_path, order):
    given = [first, first] if order == "both the same" else [second, first]
    with pytest.raises(UsageError, match="its translator began as random weights; expected"):
        main([*(str(bundle.path) for bundle in given), "--out", str(tmp_path / "made")])


@pytest.mark.parametrize("share", ["-0.1", "1.5"])
def test_a_share_beyond_one_is_refused(first, second, tmp_path, share):
    with pytest.raises(UsageError, match="expected 0 to 1"):
        main([str(first.path), str(second.path), "--share", share, "--out", str(tmp_path / "made")])


def test_nothing_is_written_over(first, second, tmp_path):
    with pytest.raises(UsageError, match="is there already"):
        main([str(first.path), str(second.path), "--out", str(tmp_path)])
