"""From a cohort on disk to a certificate, and a translation under it: what is promised, refused and said."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from localdiff_cli.app import app
from localdiff_cli.bundle import copy_bundle, open_bundle, save_bundle, with_defaults
from tests.brains import brain, contradict, write_brain
from tests.bundles import add_interval

PATIENTS = 12
PROMISE = ("--max-harm", 0.3, "--harm-ml", 2000, "--taus", 0.5, "--every", 3, "--interval", 0.8)
"""Twelve patients prove 17.5 % at best, and nobody's brain holds two litres of anything."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Twelve patients with both contrasts, half of them with a lesion mask."""
    folder = tmp_path_factory.mktemp("site") / "cohort"
    for number in range(PATIENTS):
        base = folder / f"sub-{number:02}" / f"sub-{number:02}"
        for contrast in ("T1w", "T2w"):
            path = write_brain(base.with_name(f"{base.name}_{contrast}.nii.gz"), seed=20 + number)
        if number % 2:
            dark = (brain(20 + number) > 0) & (brain(20 + number) <= 130)
            nib.save(nib.Nifti1Image(dark.astype(np.uint8), nib.load(path).affine), base.with_name(f"{base.name}_mask.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def certificate(cohort, models_folder):
    """The path of a certificate of the cohort, and what the command said."""
    out = cohort.parent / "site.json"
    words = ["calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", out, *PROMISE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALDIFF_MODELS", str(models_folder))
        result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return out, result.output


def test_a_certificate_names_what_it_is_of_and_nobody(certificate, cohort, cli):
    path, said = certificate
    content = json.loads(path.read_text())
    assert "12 patients can buy 17.5% at best; 0 whole errors are affordable" in said
    assert "12 patients, 6 with a lesion mask" in said
    assert (content["bundle"], content["tau"], content["cohort"]["patients"]) == ("t1-to-t2", 0.5, PATIENTS)
    (promise,) = content["promises"]
    assert (promise["risk"], promise["level"], promise["measured"]) == ("harm", 0.3, 0)
    assert "sub-" not in path.read_text()
    again = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", path, *PROMISE)
    assert "measured" not in again.output.replace("measured 0.0%", "")
    assert json.loads(path.read_text()) == content


def test_a_translation_under_a_certificate_says_so_and_is_void_for_others(certificate, cohort, cli):
    path, _ = certificate
    alike = write_brain(cohort.parent / "in" / "sub-90_T1w.nii.gz", seed=40)
    result = cli("translate", "--in", alike, "--out", cohort.parent / "alike", "--calibration", path, "--interval", 0.8)
    assert result.exit_code == 0, result.output
    told = json.loads((cohort.parent / "alike" / "sub-90_T1w.json").read_text())
    assert told["Calibration"]["CertificateHash"] == json.loads(path.read_text())["hash"]
    assert told["Calibration"]["Promises"][0]["AtMost"] == 0.3
    assert told["Calibration"]["Void"] is (told["Calibration"]["PValue"] <= 1 / (PATIENTS + 1))
    image, low, high = (np.asarray(nib.load(cohort.parent / "alike" / f"sub-90_T1w{end}.nii.gz").dataobj) for end in ("", "_lo", "_hi"))
    assert (low <= image).all()
    assert (image <= high).all()
    assert ((high - low)[image > 0] > 0).all()
    assert told["Calibration"]["Intervals"]["patients"] == PATIENTS
    write_brain(cohort.parent / "in" / "sub-91_T1w.nii.gz", seed=41, spacing=(3, 3, 12))
    other = cli("translate", "--in", cohort.parent / "in" / "sub-91_T1w.nii.gz", "--out", cohort.parent / "other", "--calibration", path)
    assert other.exit_code == 0, other.output
    assert json.loads((cohort.parent / "other" / "sub-91_T1w.json").read_text())["ReviewReasons"][0].startswith("certificate void")
    assert "certificate void" in (cohort.parent / "other" / "qc.tsv").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--steps", 2), "Sample"),
        (("--tau", 0.3), "--tau"),
        (("--emphasis", 2), "--emphasis"),
        (("--interval", 0.9), "the interval 0.8"),
        (("--mode", "plain"), "plain"),
        (("--dilate", 4), "Mask"),
    ],
)
def test_other_settings_are_refused(certificate, cohort, cli, options, told):
    path, _ = certificate
    source = cohort / "sub-00" / "sub-00_T1w.nii.gz"
    result = cli("translate", "--in", source, "--out", cohort.parent / "x", "--calibration", path, *options)
    assert result.exit_code == 2
    assert told in result.output


def test_nothing_certified_is_an_exit_code_of_its_own_and_no_file(certificate, cohort, cli):
    out = cohort.parent / "none.json"
    result = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", out, "--max-harm", 0.1)
    assert result.exit_code == 6
    assert "17.5%" in result.output
    assert "Nothing was run" in result.output
    words = ("--max-missed", 0.5, "--taus", 0.5, "--every", 3, "--work", cohort.parent / "site.json.work")
    failed = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", out, *words)
    assert failed.exit_code == 6
    assert "no certificate was written" in failed.output
    assert not out.exists()


def test_a_cohort_whose_headers_contradict_themselves_is_read_by_the_form_that_is_named(cohort, tmp_path, cli):
    shutil.copytree(cohort, tmp_path / "cohort")
    for path in (tmp_path / "cohort").rglob("*.nii.gz"):
        contradict(path, (1, 1, 2))
    words = ("calibrate", "--model", "t1-to-t2", "--data", tmp_path / "cohort", *PROMISE)
    refused = cli(*words, "--out", tmp_path / "none.json")
    assert refused.exit_code != 0
    assert "--affine-from" in refused.output
    assert not (tmp_path / "none.json").exists()
    named = cli(*words, "--out", tmp_path / "site.json", "--affine-from", "qform")
    assert named.exit_code == 0, named.output
    assert json.loads((tmp_path / "site.json").read_text())["cohort"]["patients"] == PATIENTS


def test_patients_that_the_bundle_has_seen_are_refused(cohort, cli):
    bundle = copy_bundle(open_bundle("t1-to-t2"), cohort.parent / "seen")
    save_bundle(bundle.path, {"training": {"translator": {"patients": {"train": ["sub-00"], "val": ["sub-01_ses-1"]}}}}, {}, "tiny\n")
    arguments = ("calibrate", "--model", bundle.path, "--data", cohort, "--out", cohort.parent / "seen.json", *PROMISE)
    for extra in ((), ("--with-val",)):
        result = cli(*arguments, *extra)
        assert result.exit_code == 2
        assert "sub-00: used to train" in " ".join(result.output.split())
    save_bundle(bundle.path, {"training": {"translator": {"patients": {"train": ["sub-77"], "val": ["sub-01_ses-1"]}}}}, {}, "tiny\n")
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "sub-01: used to choose a setting" in " ".join(result.output.split())


def test_people_who_chose_a_setting_are_taken_in_on_request_and_that_is_said(cohort, cli):
    bundle = copy_bundle(open_bundle("t1-to-t2"), cohort.parent / "chose")
    save_bundle(bundle.path, {"training": {"translator": {"patients": {"train": ["sub-77"], "val": ["sub-01"]}}}}, {}, "tiny\n")
    out = bundle.path / "configs" / "calibration.json"
    words = ("--data", cohort, "--out", out, "--with-val", "--every", 3, "--taus", 0.5, "--work", cohort.parent / "site.json.work")
    result = cli("calibrate", "--model", bundle.path, *words, "--interval", 0.8)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["cohort"]["chose_settings"] == 1
    assert "configs/calibration.json: from 12 people" in cli("models", "verify", bundle.path).output
    source = cohort / "sub-00" / "sub-00_T1w.nii.gz"
    translated = cli("translate", "--model", bundle.path, "--in", source, "--out", cohort.parent / "shipped", "--interval", 0.8)
    assert translated.exit_code == 0, translated.output
    assert (cohort.parent / "shipped" / "sub-00_T1w_hi.nii.gz").is_file()
    told = json.loads((cohort.parent / "shipped" / "sub-00_T1w.json").read_text())["Calibration"]
    assert (told["ChoseSettings"], told["Promises"]) == (1, [])
    other = cli("translate", "--model", bundle.path, "--in", source, "--out", cohort.parent / "x", "--interval", 0.8, "--steps", 2)
    assert other.exit_code == 2
    assert "calibration.json: made for other settings" in " ".join(other.output.split())
    with_defaults(open_bundle(str(bundle.path)), {"steps": 4})
    assert "of another state of this bundle" in cli("models", "verify", bundle.path).output
    out.write_text("{}")
    damaged = cli("models", "verify", bundle.path)
    assert damaged.exit_code == 4
    assert "calibration cannot be used" in damaged.output


def test_bands_begin_with_the_bundles_network_and_are_the_same_whatever_the_batch(cohort, tmp_path, cli):
    bundle = add_interval(copy_bundle(open_bundle("t1-to-t2"), tmp_path / "mine"))
    words = ("--data", cohort, "--every", 3, "--taus", 0.5, "--work", cohort.parent / "site.json.work", "--interval", 0.8)
    result = cli("calibrate", "--model", bundle.path, "--out", tmp_path / "a.json", *words)
    assert result.exit_code == 0, result.output
    assert "about the limits of the interval network, 12 patients" in " ".join(result.output.split())
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["intervals"]["network"], content["cohort"]["bands_from"]) == (True, 2)
    source = cohort / "sub-00" / "sub-00_T1w.nii.gz"
    run = ("translate", "--model", bundle.path, "--in", source, "--calibration", tmp_path / "a.json", "--interval", 0.8)
    for name, size in (("one", 1), ("all", 16)):
        assert cli(*run, "--out", tmp_path / name, "--batch-size", size).exit_code == 0
    ends = ("", "_lo", "_hi")
    one, other = ([np.asarray(nib.load(tmp_path / name / f"sub-00_T1w{end}.nii.gz").dataobj) for end in ends] for name in ("one", "all"))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert (one[1] <= one[0]).all()
    assert json.loads((tmp_path / "one" / "sub-00_T1w.json").read_text())["Calibration"]["Intervals"]["network"] is True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("localdiff_cli.recipes.translate.load_interval", lambda *_: pytest.fail("no band is asked for"))
        bare = run[:-2]
        assert cli(*bare, "--out", tmp_path / "bare", "--jobs", 0).exit_code == 0
    assert not (tmp_path / "bare" / "sub-00_T1w_lo.nii.gz").exists()
    add_interval(with_defaults(bundle, {"steps": 4}))
    assert cli(*run, "--out", tmp_path / "x").exit_code == 2


def test_bands_take_their_shape_from_other_people_only(cohort, tmp_path, cli):
    for number in range(4):
        for contrast in ("T1w", "T2w"):
            write_brain(tmp_path / "others" / f"sub-{50 + number}" / f"sub-{50 + number}_{contrast}.nii.gz", seed=60 + number)
    words = ("--data", cohort, "--every", 3, "--taus", 0.5, "--work", cohort.parent / "site.json.work", "--interval", 0.8)
    result = cli("calibrate", "--model", "t1-to-t2", "--out", tmp_path / "a.json", *words, "--bands-from", tmp_path / "others")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["cohort"]["bands_from"] == 4
    assert "about the curves of --bands-from, 12 patients" in " ".join(result.output.split())
    shaped = [band["curve"] for band in content["intervals"]["bands"].values() if band and band["curve"]]
    assert shaped
    assert all(len(curve["low"]) == len(curve["high"]) == 21 for curve in shaped)
    same = cli("calibrate", "--model", "t1-to-t2", "--out", tmp_path / "b.json", *words, "--bands-from", cohort)
    assert same.exit_code == 2
    assert "in --bands-from and in the cohort" in " ".join(same.output.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "nothing to promise"),
        (("--max-missed", 1.5), "--max-missed"),
        (("--max-harm", 0.5, "--confidence", 0.2), "--confidence"),
        (("--max-harm", 0.5, "--taus", "a"), "--taus"),
        (("--max-harm", 0.5, "--taus", 2), "--taus"),
        (("--max-harm", 0.5, "--emphases", "bold"), "--emphases"),
        (("--max-harm", 0.5, "--emphases", "1,11"), "--emphases"),
        (("--max-harm", 0.5, "--harm-ml", -1), "--harm-ml"),
        (("--max-harm", 0.5, "--void-below", 0.9), "--void-below"),
        (("--max-harm", 0.5, "--split", "all"), "--split"),
        (("--max-harm", 0.5, "--exclude", "sub-77"), "sub-77"),
        (("--interval", 0.3), "--interval"),
        (("--max-harm", 0.5, "--bands-from", "."), "--interval"),
    ],
)
def test_options_that_mean_nothing_are_refused(cohort, cli, options, told):
    result = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", cohort.parent / "site.json", *options)
    assert result.exit_code == 2
    assert told in result.output


def test_too_few_patients_for_an_interval_get_no_certificate(certificate, cohort, cli):
    out = cohort.parent / "bands.json"
    words = ("--taus", 0.5, "--every", 3, "--work", cohort.parent / "site.json.work")
    result = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", out, "--interval", 0.95, *words)
    assert result.exit_code == 6
    assert "found 12 patients with a true target; expected at least 19" in result.output
    assert not out.exists()


def test_of_several_emphases_one_is_certified_and_then_drawn_with(certificate, cohort, cli):
    out = cohort.parent / "bold.json"
    words = ("--max-harm", 0.35, "--harm-ml", 2000, "--taus", 0.5, "--every", 3, "--emphases", "2,1,2")
    result = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", out, *words)
    assert result.exit_code == 0, result.output
    assert "emphasis 2, 1" in result.output
    content = json.loads(out.read_text())
    assert (content["emphasis"], content["emphases"]) == (2, [2, 1])
    assert content["promises"][0]["p_value"] <= 0.05  # half of the error for each
    source = cohort / "sub-00" / "sub-00_T1w.nii.gz"
    drawn = cli("translate", "--in", source, "--out", cohort.parent / "bold", "--calibration", out)
    assert drawn.exit_code == 0, drawn.output
    told = json.loads((cohort.parent / "bold" / "sub-00_T1w.json").read_text())
    assert told["Calibration"]["Emphasis"] == 2
    assert told["Settings"]["Sample"]["local"]["emphasis"] == 2


def test_an_interval_of_a_bundle_without_a_calibration_is_refused(cohort, cli):
    result = cli("translate", "--in", cohort, "--out", cohort.parent / "x", "--interval", 0.9)
    assert result.exit_code == 2
    assert "--calibration" in result.output


def test_two_visits_of_one_patient_are_refused(tmp_path, cli):
    for visit in (1, 2):
        write_brain(tmp_path / "sub-00" / f"sub-00_ses-{visit}_T1w.nii.gz", seed=3)
    result = cli("calibrate", "--model", "t1-to-t2", "--data", tmp_path, "--out", tmp_path / "site.json", *PROMISE)
    assert result.exit_code == 2
    assert "sub-00: several visits" in result.output


def test_a_synthetic_target_is_no_truth(cohort, cli, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "cohort")
    (copy / "sub-03" / "sub-03_T2w.json").write_text('{"Synthetic": true, "Contrast": "T2w"}')
    result = cli("calibrate", "--model", "t1-to-t2", "--data", copy, "--out", tmp_path / "site.json", *PROMISE)
    assert result.exit_code == 2
    assert "says it is synthetic" in result.output
    assert not (tmp_path / "site.json").exists()


def test_a_target_is_paired_as_for_a_training(cohort, cli, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "cohort")
    for path in list(copy.rglob("*_T1w.nii.gz")):
        path.rename(path.with_name(path.name.replace("_T1w", "_acq-mprage_T1w")))
    result = cli("calibrate", "--model", "t1-to-t2", "--data", copy, "--out", tmp_path / "site.json", *PROMISE)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "site.json").read_text())["intervals"]["patients"] == PATIENTS


def test_visits_of_one_patient_are_refused_whatever_they_are_called(cli, tmp_path):
    table = "name\tcondition\n"
    for visit in range(3):
        path = write_brain(tmp_path / f"BraTS-GLI-00001-00{visit}-t1n.nii.gz", seed=visit)
        table += f"BraTS-GLI-00001-00{visit}\t{path}\n"
    (tmp_path / "cohort.tsv").write_text(table)
    result = cli("calibrate", "--model", "t1-to-t2", "--data", tmp_path / "cohort.tsv", "--out", tmp_path / "site.json", "--max-harm", 0.9)
    assert result.exit_code == 2
    assert "BraTS-GLI-00001: several visits of one patient" in result.output


def test_a_file_that_is_no_certificate_is_not_overwritten(cohort, cli):
    other = cohort.parent / "dataset_description.json"
    other.write_text('{"Name": "study"}')
    result = cli("calibrate", "--model", "t1-to-t2", "--data", cohort, "--out", other, *PROMISE)
    assert result.exit_code == 2
    assert "is no certificate" in result.output
    assert other.read_text() == '{"Name": "study"}'
