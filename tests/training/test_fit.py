"""``localdiff fit`` from the outside: small brains in, a bundle out that verifies and translates."""

import json
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from localdiff_cli.app import app
from localdiff_cli.bundle import DETECTOR, METADATA, TRANSLATOR, load_detector, load_translator, open_bundle
from localdiff_cli.commands import fit as command
from localdiff_cli.errors import UsageError
from localdiff_cli.options import DetectorFit, TranslatorFit
from localdiff_cli.training.detector import _healthy_only
from localdiff_cli.training.job import check_held_out

from .data import slices, write_patient

TRANSLATOR_OPTIONS = ("--steps", 3, "--batch-size", 2, "--channels", "32,32", "--space-to-depth", 8, "--bias", "none", "--device", "cpu")


@pytest.fixture
def data(tmp_path):
    """Three patients with lesions on half of their slices (train, train, val), one test patient that is no image at all."""
    return make_data(tmp_path / "data")


def make_data(folder):
    for i in (1, 2, 3):
        write_patient(folder, f"sub-0{i}", i, shape=(40, 48, 4))
    for contrast in ("T1w", "T2w"):
        (folder / f"sub-04_{contrast}.nii.gz").write_text("never to be read")
    (folder / "participants.tsv").write_text("participant_id\tsplit\nsub-01\ttrain\nsub-02\ttrain\nsub-03\tval\nsub-04\ttest\n")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a translator was fitted once, its data beside it, and what the command said."""
    place = tmp_path_factory.mktemp("trained")
    words = ["fit", "translator", "--data", make_data(place / "data"), "--out", place / "bundle", *TRANSLATOR_OPTIONS]
    return place, CliRunner().invoke(app, [str(word) for word in (*words, "--licence", "CC BY 4.0")])


@pytest.fixture
def translator(trained, data, tmp_path):
    """That translator and its work folder, in the test's own place."""
    for name in ("bundle", "bundle.work"):
        shutil.copytree(trained[0] / name, tmp_path / name)
    return trained[1]


@pytest.fixture
def fit(cli, data, tmp_path, monkeypatch):
    """``fit("translator", …)``: the command line with the data and an absolute ``--out``, as a user types it."""

    def run(part, *extra, out=tmp_path / "bundle"):
        arguments = ["fit", part, "--data", str(data), "--out", str(out), *map(str, extra)]
        monkeypatch.setattr(sys, "argv", ["localdiff", *arguments])
        return cli(*arguments)

    return run


def metadata(tmp_path):
    return json.loads((tmp_path / "bundle" / METADATA).read_text())


def test_a_translator_and_its_detector_are_fitted_verified_and_used(cli, fit, data, translator, tmp_path):
    result = translator
    assert result.exit_code == 0, result.output
    assert "preparing 3 patients (1 test patients left alone)" in result.output
    assert "4 lesion-free slices of 2 patients" in result.output
    assert "step 3/3" in result.output
    weights = (tmp_path / "bundle" / TRANSLATOR).read_bytes()
    result = fit("detector", "--coreset", 50, "--bias", "none", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "bundle" / TRANSLATOR).read_bytes() == weights
    verified = cli("models", "verify", tmp_path / "bundle")
    assert verified.exit_code == 0, verified.output
    bundle = open_bundle(str(tmp_path / "bundle"))
    assert (bundle.task, bundle.condition.contrast, bundle.target.contrast, bundle.bias) == ("translate", "T1w", "T2w", "none")
    assert len(load_file(tmp_path / "bundle" / DETECTOR)["embeddings"]) == 50
    account = bundle.metadata["training"]
    assert account["translator"]["patients"] == account["detector"]["patients"] == {"train": ["sub-01", "sub-02"], "val": ["sub-03"]}
    assert (account["detector"]["slices"], account["detector"]["held_out_slices"]) == (4, 2)
    made = cli("translate", "--in", data / "sub-01_T1w.nii.gz", "--out", tmp_path / "out", "--model", tmp_path / "bundle", "--steps", 2)
    assert made.exit_code == 0, made.output
    source, image = nib.load(data / "sub-01_T1w.nii.gz"), nib.load(tmp_path / "out" / "sub-01_T1w.nii.gz")
    assert image.shape == source.shape
    assert (np.asanyarray(image.dataobj)[source.get_fdata() == 0] == 0).all()
    assert list((tmp_path / "bundle.work").glob("bundle-samples-*.png"))


def test_a_fit_puts_its_figures_on_tensorboard(fit, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit("translator", *TRANSLATOR_OPTIONS, "--accumulate", 2, "--tensorboard", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    events = EventAccumulator(str(tmp_path / "runs")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "rate", "validation/PSNR of the mean, dB"}
    curve = metadata(tmp_path)["training"]["translator"]["curve"]
    assert [[e.step, pytest.approx(e.value)] for e in events.Scalars("loss")] == curve
    picture = events.Images("samples: condition, mean, target")[0]
    assert (picture.step, picture.height) == (3, 3 * 208)
    assert metadata(tmp_path)["training"]["translator"]["loop"]["accumulate"] == 2


def test_the_card_tells_the_command_and_the_patients_and_nothing_of_the_machine(fit, tmp_path):
    assert fit("translator", *TRANSLATOR_OPTIONS, "--licence", "CC BY 4.0", f"--work={tmp_path / 'w'}").exit_code == 0
    card, text = (tmp_path / "bundle" / "README.md").read_text(), (tmp_path / "bundle" / METADATA).read_text()
    assert "localdiff fit translator --data data --out bundle --steps 3" in card
    assert "--work" not in card
    for word in ("sub-01", "sub-03", "CC BY 4.0", "Translates T1w to T2w", "208 × 176", "not for diagnosis"):
        assert word in card
    for private in (str(tmp_path), "/tmp", "/root", "/home", "sub-04"):
        assert private not in card
        assert private not in text


def test_what_is_added_later_keeps_the_licence_and_drops_numbers_measured_before(fit, translator, tmp_path):
    path = tmp_path / "bundle" / METADATA
    path.write_text(json.dumps(metadata(tmp_path) | {"results": {"test": {"rows": [{"PSNR": 99}]}}}))
    assert fit("detector", "--coreset", 50, "--bias", "none", "--device", "cpu").exit_code == 0
    assert metadata(tmp_path)["licence"] == "CC BY 4.0"
    assert "What it measured" not in (tmp_path / "bundle" / "README.md").read_text()
    assert not metadata(tmp_path)["results"]


@pytest.mark.parametrize(("own", "expected"), [(None, "CC0"), ("somebody else", "somebody else")])
def test_other_terms_are_the_copyright_too_unless_it_was_somebodys_own(fit, translator, tmp_path, own, expected):
    path = tmp_path / "bundle" / METADATA
    assert metadata(tmp_path)["copyright"] == "CC BY 4.0"
    path.write_text(json.dumps(metadata(tmp_path) | ({"copyright": own} if own else {})))
    assert fit("detector", "--coreset", 50, "--bias", "none", "--device", "cpu", "--licence", "CC0").exit_code == 0
    assert (metadata(tmp_path)["licence"], metadata(tmp_path)["copyright"]) == ("CC0", expected)


@pytest.mark.parametrize(
    ("extra", "word"), [(("--bias", "n4"), "bias"), (("--bias", "none", "--condition", "T2w"), "condition")], ids=["bias", "contrast"]
)
def test_a_part_made_for_other_inputs_is_not_added_to_a_bundle(fit, translator, tmp_path, extra, word):
    before = (tmp_path / "bundle" / METADATA).read_bytes()
    result = fit("detector", "--coreset", 50, *extra)
    assert result.exit_code == 2
    assert word in result.output
    assert "choose another --out" in result.output
    assert fit("segmenter", "--condition", "T1w", "--steps", 1).exit_code == 2
    assert (tmp_path / "bundle" / METADATA).read_bytes() == before


def test_the_same_fit_again_does_not_train_again_and_another_one_is_refused(fit, translator, tmp_path):
    before = metadata(tmp_path)
    again = fit("translator", *TRANSLATOR_OPTIONS)
    assert again.exit_code == 0
    assert "step 3/3" not in again.output
    assert metadata(tmp_path)["files"] == before["files"]
    other = fit("translator", *TRANSLATOR_OPTIONS, "--prediction", "epsilon")
    assert other.exit_code == 2
    assert "schedule" in other.output
    assert "--work" in other.output


def test_a_segmenter_is_fitted_and_used(cli, fit, data, tmp_path):
    result = fit(
        "segmenter", "--condition", "T1w", "--steps", 2, "--batch-size", 2, "--channels", "8,16", "--bias", "none", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert "Dice of slices of held-out patients" in result.output
    assert cli("models", "verify", tmp_path / "bundle").exit_code == 0
    made = cli("segment", "--in", data / "sub-01_T1w.nii.gz", "--out", tmp_path / "out", "--model", tmp_path / "bundle")
    assert made.exit_code == 0, made.output
    assert set(np.unique(np.asanyarray(nib.load(tmp_path / "out" / "sub-01_T1w.nii.gz").dataobj))) <= {0, 1}


def test_a_detector_never_takes_a_patient_without_a_mask_for_healthy_unless_told(fit, data):
    for name in ("sub-01", "sub-02"):
        (data / f"{name}_mask.nii.gz").unlink()
    options = ("--coreset", 50, "--bias", "none", "--device", "cpu")
    refused = fit("detector", *options)
    assert refused.exit_code == 2
    assert "0 healthy training and 2 held-out slices" in refused.output
    told = fit("detector", *options, "--healthy", "sub-02")
    assert told.exit_code == 0, told.output
    assert "memory bank from 4 slices" in told.output
    unknown = fit("detector", *options, "--healthy", "sub-77")
    assert unknown.exit_code == 2
    assert "sub-77" in unknown.output


def test_healthy_slices_of_a_detector_bear_no_lesion():
    patients = [slices("a"), slices("b", masked=False), slices("c", "val")]
    found = _healthy_only(patients, "train", 1)
    assert len(found) == 5
    assert all(condition.shape == brain.shape == (1, 32, 32) and brain.dtype == torch.bool for condition, brain in found)
    assert len(_healthy_only(patients, "train", 2)) == 3


@pytest.mark.parametrize(
    ("part", "extra", "word"),
    [
        ("translator", ("--channels", "33"), "multiple of 32"), ("translator", ("--channels", "a"), "whole numbers"),
        ("translator", ("--channels", "32,32,32,32"), "multiples of 32"), ("translator", ("--channels", "-32"), "--channels"),
        ("translator", ("--steps", 0), "--steps"), ("translator", ("--rate", 5), "--rate"), ("translator", ("--seed", -1), "--seed"),
        ("translator", ("--prediction", "mood"), "epsilon"), ("translator", ("--schedule", "x"), "cosine"),
        ("translator", ("--region-augment", 2), "--region-augment"), ("translator", ("--target", "../T2w"), "BIDS suffix"),
        ("translator", ("--bias", "magic"), "--bias"), ("translator", ("--batch-size", 0), "--batch-size"),
        ("segmenter", ("--channels", "8"), "2 to 8 numbers"), ("segmenter", ("--channels", "8,8,8,8,8"), "multiples of 32"),
        ("segmenter", ("--threshold", 2), "--threshold"), ("segmenter", ("--min-volume", -1), "--min-volume"),
        ("detector", ("--coreset", 1), "--coreset"), ("detector", ("--backbone", "oracle"), "oracle"),
        ("detector", ("--backbone", "resnet18"), "state-dict"), ("detector", ("--input-scale", 1000), "input scale"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_before_any_patient_is_prepared(fit, tmp_path, part, extra, word):
    result = fit(part, *extra)
    assert result.exit_code == 2, result.output
    assert word in result.output
    assert "preparing" not in result.output
    assert "Traceback" not in result.output


def test_an_output_that_is_a_file_is_refused_at_once(fit, tmp_path):
    (tmp_path / "file").write_text("x")
    result = fit("translator", *TRANSLATOR_OPTIONS, out=tmp_path / "file")
    assert result.exit_code == 2
    assert "is a file" in result.output


def test_no_training_pairs_is_no_input(fit, data):
    assert fit("translator", "--target", "FLAIR").exit_code == 3


def test_a_translator_starts_from_anothers_weights_and_says_so(data, tmp_path):
    still = command.TrainOptions(steps=1, batch_size=2, rate=1e-8, seed=0)
    network = {"prediction": "sample", "schedule": "cosine", "channels": "32,64", "space_to_depth": 2, "region_augment": 0.0}
    small = {"spacing": 4.0, "shape": "48,48"}
    assert command.fit_translator(options(data, tmp_path, **small), command.TrainOptions(3, 2, 1e-3, 0), TranslatorFit(**network)) == 0
    first, second = str(tmp_path / "bundle"), options(data, tmp_path / "second", **small)
    assert command.fit_translator(second, still, TranslatorFit(**network, start=first)) == 0
    begun, made = (load_translator(open_bundle(str(path)), torch.device("cpu")) for path in (first, second.out))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(begun.parameters(), made.parameters(), strict=True))
    told = open_bundle(str(second.out)).metadata["training"]["translator"]["start"]
    weights = open_bundle(first).metadata["files"]["models/translator.safetensors"]
    learnt = open_bundle(first).metadata["training"]["translator"]["patients"]["train"]
    assert told == {"bundle": "bundle", "part": "translator", "weights": weights, "patients": learnt}
    assert f"started from the translator of bundle, which learnt from ({len(learnt)})" in (second.out / "README.md").read_text()
    with pytest.raises(UsageError, match="now in the val split"):
        check_held_out([slices(learnt[0], "val")], told)
    with pytest.raises(UsageError, match="no such weights"):
        command.fit_translator(options(data, tmp_path / "third", **small), still, TranslatorFit(**network, start=f"{first}:expert-5"))
    named = TranslatorFit(**network, start=f"{first}:translator")
    assert command.fit_translator(options(data, tmp_path / "third", **small), still, named) == 0
    other = TranslatorFit(**(network | {"channels": "32,32"}), start=first)
    with pytest.raises(UsageError, match="--start bundle"):
        command.fit_translator(options(data, tmp_path / "fourth", **small), still, other)


def options(data, tmp_path, **more):
    return command.FitOptions((data,), tmp_path / "bundle", "T1w", "T2w", None, (), (), "none", "cpu", "unstated", **more)


def test_a_grid_of_ones_own_is_trained_stored_and_used(cli, data, tmp_path):
    train = command.TrainOptions(steps=2, batch_size=2, rate=1e-3, seed=0)
    network = {"prediction": "v_prediction", "schedule": "cosine", "channels": "32,64", "space_to_depth": 2, "region_augment": 0.5}
    assert command.fit_translator(options(data, tmp_path, spacing=4.0, shape="48,48"), train, TranslatorFit(**network)) == 0
    bundle = open_bundle(str(tmp_path / "bundle"))
    assert (bundle.grid.spacing, bundle.grid.shape) == (4.0, (48, 48))
    assert bundle.metadata["schedule"]["prediction"] == "v_prediction"
    assert load_translator(bundle, torch.device("cpu")).settings.channels == (32, 64)
    result = cli(
        "translate", "--in", data / "sub-01_T1w.nii.gz", "--out", tmp_path / "out", "--model", tmp_path / "bundle", "--mode", "plain"
    )
    assert result.exit_code == 0, result.output
    detector = {"backbone": "efficientnet-lite0", "backbone_weights": None, "input_scale": 1.0, "coreset": 20, "every": 1, "seed": 0}
    with pytest.raises(UsageError, match="grid"):
        command.fit_detector(options(data, tmp_path), DetectorFit(**detector))
    assert command.fit_detector(options(data, tmp_path, spacing=4.0, shape="48,48"), DetectorFit(**detector)) == 0
    assert load_detector(open_bundle(str(tmp_path / "bundle")), 0.1, torch.device("cpu")).tau_a > 0


@pytest.mark.parametrize(
    ("grid", "word"),
    [
        ({"spacing": 0.0}, "--spacing"),
        ({"shape": "48"}, "--shape"),
        ({"shape": "50,48"}, "multiples of 4"),
        ({"shape": "8,8"}, "--shape"),
    ],
)
def test_a_grid_that_the_network_cannot_have_is_refused(data, tmp_path, grid, word):
    train = command.TrainOptions(steps=2, batch_size=2, rate=1e-3, seed=0)
    network = {"prediction": "sample", "schedule": "cosine", "channels": "32,64", "space_to_depth": 2, "region_augment": 0.0}
    with pytest.raises(UsageError, match=word):
        command.fit_translator(options(data, tmp_path, **grid), train, TranslatorFit(**network))


def test_three_training_people_are_enough_to_say_what_is_typical_and_two_are_not(cli, fit, data, tmp_path):
    options = ("--coreset", 20, "--bias", "none", "--device", "cpu")
    assert fit("detector", *options, out=tmp_path / "two").exit_code == 0
    assert open_bundle(str(tmp_path / "two")).typical is None
    write_patient(data, "sub-05", 5, shape=(40, 48, 4))
    table = data / "participants.tsv"
    table.write_text(table.read_text() + "sub-05\ttrain\n")
    assert fit("detector", *options, out=tmp_path / "three").exit_code == 0
    typical = open_bundle(str(tmp_path / "three")).typical
    assert typical.limit == 8.0
    assert list(typical.median) == sorted(typical.median)
    assert cli("models", "verify", tmp_path / "three").exit_code == 0
