"""One bench of tiny bundles for all measurements, and a patient to measure them on."""

from __future__ import annotations

import pytest
import torch

from examples.benchmarks import mri
from localdiff_cli.bundle import EXPERT, TRANSLATOR, copy_bundle, load_tensors, open_bundle, save_bundle
from tests.training.data import slices


@pytest.fixture(scope="session")
def loaded(models_folder, tmp_path_factory):
    """The tiny translator with an expert of other random weights, and the tiny segmenter; only to be looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALDIFF_MODELS", str(models_folder))
        bundle = copy_bundle(open_bundle("t1-to-t2"), tmp_path_factory.mktemp("bench") / "t1-to-t2")
        torch.manual_seed(5)
        weights = {key: value + 0.1 * torch.randn(value.shape) for key, value in load_tensors(bundle, TRANSLATOR).items()}
        training = {"translator": {"polynomial": [1.0, 0.0]}}
        save_bundle(bundle.path, {"expert": {"patients": 1, "healthy_share": 0.5}, "training": training}, {EXPERT: weights}, "tiny\n")
        return mri.load(str(bundle.path), "lesion-t2", None)


@pytest.fixture
def bench(loaded, models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    return loaded


@pytest.fixture
def patient():
    made = slices("a", n=4)
    made.lesion[2:, 8:20, 8:20] = True
    return made
