"""The yardsticks and small experts: each is trained on what it says, resumes, and is used in the place it names."""

import argparse
from dataclasses import replace

import pytest
import torch

from examples.benchmarks import mri, variants
from examples.benchmarks.variants import Variant
from localdiff_cli.bundle import EXPERT, load_expert, load_tensors, open_bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.training.augment import AugmentSettings
from localdiff_cli.training.translator import ChosenSlices
from tests.benchmarks.conftest import SHORT
from tests.training.data import slices


def test_each_variant_is_a_file_of_one_bundle_with_its_account(bench, made):
    bundle = open_bundle(str(made / bench.bundle.name))
    assert set(bundle.metadata["training"]) == set(SHORT)
    assert bundle.metadata["training"]["regression"]["slices"] == 4
    assert bundle.metadata["training"]["everything"]["slices"] == 7
    assert bundle.metadata["training"]["expert-5"]["patients"]["train"] == ["a"]
    assert "How the regression was made" in (bundle.path / "README.md").read_text()
    for name in SHORT:
        assert isinstance(variants.load(bench.bundle, name, made), torch.nn.Module)
    assert variants.load(bench.bundle, "share-0.5", made) is None


def test_an_expert_of_another_translator_is_not_taken(bench, made):
    files = bench.bundle.metadata["files"] | {"models/translator.safetensors": "0" * 64}
    other = replace(bench.bundle, metadata=bench.bundle.metadata | {"files": files})
    assert variants.load(other, "expert-5", made) is None
    assert variants.load(other, "regression", made) is not None


def test_a_regression_starts_where_its_translator_started(bench, made, tmp_path, monkeypatch):
    training = bench.bundle.metadata.get("training", {})
    begun = training | {"translator": training.get("translator", {}) | {"start": {"bundle": str(bench.bundle.path), "part": "translator"}}}
    base = replace(bench.bundle, metadata=bench.bundle.metadata | {"training": begun})
    monkeypatch.setattr(variants, "FOLDER", made)
    start = variants._start(base, SHORT["regression"], torch.device("cpu"))
    first = variants.load(bench.bundle, "regression", made)
    assert all(torch.equal(a, b) and a.requires_grad for a, b in zip(start.parameters(), first.parameters(), strict=True))
    begun["translator"]["start"]["part"] = "regression"
    anew = variants._start(base, SHORT["regression"], torch.device("cpu"))
    assert not all(torch.equal(a, b) for a, b in zip(anew.parameters(), first.parameters(), strict=True))
    begun["translator"]["start"]["part"] = "translator"
    monkeypatch.setattr(variants, "FOLDER", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no regression there"):
        variants._start(base, SHORT["regression"], torch.device("cpu"))


def test_rows_take_the_variant_in_the_place_they_name(bench, patient, made):
    able = replace(bench, variant=lambda name: variants.load(bench.bundle, name, made))
    assert not bench.can(mri.parse_row("regression"))
    assert able.can(mri.parse_row("regression"))
    chunk, target, lesion = mri.chunk_of(patient, 1)
    truth = torch.from_numpy(lesion)[:, None]
    local = "truth+expert,fusion_step=0"
    rows = ("regression", "none", "none,variant=everything", local, f"{local},variant=expert-5")
    images = {text: able.image(mri.parse_row(text), patient, chunk, target, truth) for text in rows}
    assert (images["regression"][~patient.brain] == 0).all()
    assert len({image.tobytes() for image in images.values()}) == len(images)
    own = load_expert(bench.bundle, torch.device("cpu")).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in load_tensors(bench.bundle, EXPERT).items()}


def test_the_regression_loss_falls_on_the_identity_map(bench):
    one = slices("a", n=2)
    pairs = ChosenSlices((replace(one, target=one.condition),), (one.lesion_free.nonzero()[0],))
    network = variants._start(bench.bundle, Variant("regression", 1, 1e-3), torch.device("cpu"))
    loss = variants.regression_loss(pairs, AugmentSettings(contrast=0, gamma=0, noise=0), 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    values = []
    for step in range(30):
        value = loss(network, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_the_command_reads_the_bases_contrasts_and_leaves_out_who_is_named(bench, tmp_path):
    table = tmp_path / "pairs.tsv"
    table.write_text("name\tcondition\ttarget\na\ta.nii\tb.nii\nb\tc.nii\td.nii\n")
    job = variants._job(bench.bundle, argparse.Namespace(data=[table], exclude=["a"], out=None, work=tmp_path), print)
    assert job.out == variants.FOLDER / bench.bundle.name
    assert job.contrasts == ("T1w", "T2w")
    assert [pair.name for pair in job.pairs] == ["b"]
