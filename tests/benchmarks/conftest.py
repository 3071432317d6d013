"""One bench of tiny bundles for all measurements, and a patient to measure them on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.benchmarks import mri, variants
from examples.benchmarks.variants import Variant
from localdiff_cli.bundle import EXPERT, TRANSLATOR, copy_bundle, load_tensors, open_bundle, save_bundle
from localdiff_cli.training.board import NoBoard
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
    return lesioned()


def lesioned():
    """Four slices; a lesion lies in the last two."""
    made = slices("a", n=4)
    made.lesion[2:, 8:20, 8:20] = True
    return made


SHORT = {
    "regression": Variant("regression", 3, 1e-3),
    "everything": Variant("everything", 3, 1e-3),
    "expert-5": Variant("expert", 3, 1e-3, 1),
}


class Told:
    """A job whose patients are given."""

    def __init__(self, out: Path, work: Path, patients: list) -> None:
        self.out, self.work, self.command, self.device = out, work, "made here", torch.device("cpu")
        self.said, self._patients, self.board = [], patients, NoBoard()

    def say(self, text):
        self.said.append(text)

    def patients(self):
        return self._patients


@pytest.fixture(scope="session")
def trained(loaded, tmp_path_factory):
    """A folder with the bundle of variants, each trained for three steps, and beside it the translator that they are variants of."""
    place, bundle = tmp_path_factory.mktemp("variants"), loaded.bundle
    patients = [replace(lesioned(), name="a", split="train"), replace(slices("b", n=3), split="train")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "VARIANTS", SHORT)
        for name in SHORT:
            variants.fit(bundle, name, Told(place / "bench" / bundle.name, place / "work", patients), "fp32")
    shutil.copytree(bundle.path, place / bundle.name)
    return place


@pytest.fixture
def made(trained, bench, tmp_path, monkeypatch):
    """The folder of variants, to do with as a test likes."""
    monkeypatch.setattr(variants, "VARIANTS", SHORT)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "bench"
