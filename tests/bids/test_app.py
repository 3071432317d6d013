"""``localdiff-bids``: the derivative dataset, judged by the BIDS validator; resume, shards, the group's report, refusals."""

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.bids.app import spread
from tests.bids.dataset import make_dataset
from tests.brains import contradict

PRE = "sub-01/ses-pre/anat/sub-01_ses-pre_run-1_space-T1w_"


def sidecar(out, name):
    return json.loads((out / f"{name}.json").read_text())


def images(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz"))


@pytest.fixture
def small(tmp_path):
    """A dataset of one person with two sessions."""
    return make_dataset(tmp_path / "small", (("01", "a", "sub-01_ses-a_T1w", 1), ("01", "b", "sub-01_ses-b_T1w", 2)))


def test_the_raw_dataset_of_the_tests_is_valid(study, validator):
    assert [issue for issue in validator(study[0]) if issue[0] == "error"] == []


def test_the_derivatives_are_valid_and_every_file_is_described(study, validator):
    issues = validator(study[0] / "derivatives" / "localdiff")
    assert [issue for issue in issues if issue[0] == "error"] == []
    assert {code for _, code, location in issues if "sub-" in (location or "")} == set()


def test_all_images_of_a_visit_have_bids_names_and_lie_on_the_grid_of_the_source(study):
    out = study[0] / "derivatives" / "localdiff"
    endings = ("desc-synthetic_FLAIR", "desc-syntheticstd_FLAIR", "desc-ood_probseg", "desc-source_dseg", "desc-brain_mask")
    assert len(images(out)) == 3 * 6
    raw = nib.load(study[0] / "sub-01/ses-pre/anat/sub-01_ses-pre_run-1_T1w.nii.gz")
    for ending in (*endings, "label-lesion_desc-synthetic_mask"):
        made = nib.load(out / f"{PRE}{ending}.nii.gz")
        assert made.shape == raw.shape
        assert np.array_equal(made.affine, raw.affine)


def test_sidecars_say_from_what_and_in_which_space(study):
    out = study[0] / "derivatives" / "localdiff"
    raw = "bids:raw:sub-01/ses-pre/anat/sub-01_ses-pre_run-1_T1w.nii.gz"
    image = sidecar(out, f"{PRE}desc-synthetic_FLAIR")
    assert (image["Sources"], image["SpatialReference"], image["SkullStripped"], image["Synthetic"]) == ([raw], raw, True, True)
    assert image["Selection"]["Reason"] == "the first run, of 3 images of this visit"
    assert len(image["Selection"]["Others"]) == 2
    mask = sidecar(out, f"{PRE}label-lesion_desc-synthetic_mask")
    assert (mask["Sources"], mask["SpatialReference"], mask["Type"]) == ([f"bids::{PRE}desc-synthetic_FLAIR.nii.gz", raw], raw, "Lesion")
    assert sidecar(out, f"{PRE}desc-ood_probseg")["Sources"] == [raw]
    assert sidecar(out, f"{PRE}desc-brain_mask")["Type"] == "Brain"


def test_links_of_the_derivative_dataset_lead_to_the_source(study):
    out = study[0] / "derivatives" / "localdiff"
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "localdiff"
    assert (out / description["DatasetLinks"]["raw"]).resolve() == study[0].resolve()
    assert str(study[0]) not in (out / "dataset_description.json").read_text()
    described = {row.split("\t")[0] for row in (out / "descriptions.tsv").read_text().splitlines()[1:]}
    used = {part for name in images(out) for part in name.split("_") if part.startswith("desc-")}
    assert used <= described


def test_which_image_of_several_was_taken_is_said(study):
    assert "run-1_T1w.nii.gz: taken as the first run, of 3 images of this visit" in study[1].stderr


def test_the_same_command_again_does_nothing(study, bids_app):
    out = study[0] / "derivatives" / "localdiff"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("sub-*/**/*") if path.is_file()}
    again = bids_app(study[0], out, "participant", "--save-source", "--save-brain", "--samples", 2)
    assert again.exit_code == 0
    assert again.stderr.count("0 done, 3 already done") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_sidecar_that_was_lost_is_made_again(study, bids_app, tmp_path):
    root = shutil.copytree(study[0], tmp_path / "copy", symlinks=True)
    out = root / "derivatives" / "localdiff"
    lost = out / f"{PRE}desc-ood_probseg.json"
    expected = lost.read_text()
    lost.unlink()
    again = bids_app(root, out, "participant", "--save-source", "--save-brain", "--samples", 2, "--participant-label", "01")
    assert again.exit_code == 0, again.output
    assert "1 done, 1 already done" in again.stderr
    assert lost.read_text() == expected


def test_shards_share_the_visits_and_give_the_same_files(small, bids_app, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert bids_app(small, whole, "participant", "--mode", "plain").exit_code == 0
    counts = []
    for shard in ("1/2", "2/2"):
        assert bids_app(small, parts, "participant", "--mode", "plain", "--shard", shard).exit_code == 0
        counts.append(len(images(parts)))
    assert counts[-1] == 4
    assert images(parts) == images(whole)
    for name in images(whole):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_people_sessions_and_the_filter_narrow_the_run(study, bids_app, tmp_path):
    rules = tmp_path / "filter.json"
    rules.write_text(json.dumps({"t1w": {"run": 2}}))
    arguments = ("--participant-label", "01", "--session-id", "pre", "post", "--bids-filter-file", rules, "--dry-run")
    result = bids_app(study[0], tmp_path / "out", "participant", *arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split("\t")[:2] for line in result.stdout.splitlines()[1:]]
    assert rows == [["sub-01/ses-pre/anat/sub-01_ses-pre_run-2_T1w.nii.gz", "open"]]
    assert not (tmp_path / "out").exists()


def test_a_person_whose_content_is_not_here_fails_alone(small, bids_app, tmp_path):
    image = small / "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz"
    image.unlink()
    image.symlink_to("../../../.git/annex/objects/aa/bb/SHA256E-s1--0.nii.gz/SHA256E-s1--0.nii.gz")
    result = bids_app(small, tmp_path / "out", "participant", "--mode", "plain")
    assert result.exit_code == 1
    assert len(images(tmp_path / "out")) == 2
    assert "ses-b" in (tmp_path / "out" / "failures.tsv").read_text()


def test_the_group_level_measures_visits_with_an_acquired_image(study, bids_app, validator):
    out = study[0] / "derivatives" / "localdiff"
    result = bids_app(study[0], out, "group", "--segmenter", "lesion-flair")
    assert result.exit_code == 0, result.output
    rows = (out / "report" / "metrics.tsv").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows[1:]] == ["sub-01", "sub-02"]
    assert '"OOD map"' in (out / "report" / "report.html").read_text(encoding="utf-8")
    assert not list((out / ".localdiff").glob("group-*"))
    assert [issue for issue in validator(out) if issue[0] == "error"] == []


def test_expert_masks_of_another_dataset_are_the_truth(study, bids_app, tmp_path):
    experts = tmp_path / "experts"
    (experts / "sub-02" / "anat").mkdir(parents=True)
    shape = nib.load(study[0] / "sub-02/anat/sub-02_T1w.nii.gz")
    mask = np.zeros(shape.shape, np.uint8)
    mask[20:26, 20:26, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, shape.affine), experts / "sub-02" / "anat" / "sub-02_label-lesion_mask.nii.gz")
    copy = shutil.copytree(study[0], tmp_path / "copy", symlinks=True)
    out = copy / "derivatives" / "localdiff"
    result = bids_app(copy, out, "group", "--truth", experts, "--participant-label", "02")
    assert result.exit_code == 0, result.output
    header, row = (line.split("\t") for line in (out / "report" / "metrics.tsv").read_text().splitlines())
    assert dict(zip(header, row, strict=True))["lesion_mask"] == "expert mask"


def test_a_limit_on_a_figure_that_a_visit_lacks_is_missed_unless_asked_otherwise(study, bids_app, tmp_path):
    copy = shutil.copytree(study[0], tmp_path / "copy", symlinks=True)
    out = copy / "derivatives" / "localdiff"
    experts = tmp_path / "experts"
    (experts / "sub-02" / "anat").mkdir(parents=True)
    image = nib.load(copy / "sub-02/anat/sub-02_T1w.nii.gz")
    mask = np.zeros(image.shape, np.uint8)
    mask[20:26, 20:26, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), experts / "sub-02" / "anat" / "sub-02_label-lesion_mask.nii.gz")
    asked = (copy, out, "group", "--truth", experts, "--fail-under", "psnr_lesion=0")
    refused = bids_app(*asked)
    assert refused.exit_code == 5, refused.output
    assert "psnr_lesion: missing for" in refused.stderr
    assert "sub-01_ses-pre_FLAIR.nii.gz" in refused.stderr
    allowed = bids_app(*asked, "--allow-missing")
    assert allowed.exit_code == 0, allowed.output


def test_contradicting_headers_are_read_as_asked_at_both_levels(bids_app, tmp_path):
    root = make_dataset(tmp_path / "study", (("01", None, "sub-01_T1w", 1), ("01", None, "sub-01_FLAIR", 2)))
    for path in root.rglob("*.nii.gz"):
        contradict(path, (-1, 1, 1))
    out = tmp_path / "out"
    refused = bids_app(root, out, "participant", "--mode", "plain")
    assert refused.exit_code == 1, refused.output
    assert "--affine-from" in (out / "failures.tsv").read_text()
    for asked in ("qform", "sform"):
        out = tmp_path / asked
        made = bids_app(root, out, "participant", "--mode", "plain", "--affine-from", asked)
        assert made.exit_code == 0, made.output
        source = nib.load(root / "sub-01/anat/sub-01_T1w.nii.gz")
        translated = nib.load(next(out.rglob("*_desc-synthetic_FLAIR.nii.gz")))
        np.testing.assert_array_equal(translated.get_qform(), source.get_qform())
        np.testing.assert_array_equal(translated.get_sform(), source.get_sform())
        assert json.loads(next(out.rglob("*_desc-synthetic_FLAIR.json")).read_text())["ReviewReasons"]
        report = bids_app(root, out, "group", "--affine-from", asked)
        assert report.exit_code == 0, report.output


def test_the_group_level_says_what_is_missing(small, bids_app, tmp_path):
    (tmp_path / "out").mkdir()
    assert "run the participant level first" in bids_app(small, tmp_path / "out", "group").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("study", "out", "subject"), 2, "expected one of participant, group"),
        (("study", "study", "participant"), 2, "is the dataset itself"),
        (("study", "out", "participant", "--participant-label", "9"), 3, "found no sub-9"),
        (("study", "out", "participant", "--model", "no-such"), 4, "neither a bundle folder"),
        (("study", "out", "participant", "--segmenter", "t1-to-flair"), 2, "made to translate"),
        (("study", "study/derivatives/other", "participant"), 2, "holds another dataset"),
        (("empty", "out", "participant"), 3, "found no T1w"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(study, bids_app, tmp_path, arguments, code, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "dataset_description.json").write_text('{"Name": "e", "BIDSVersion": "1.10.0"}')
    places = {
        "study": study[0],
        "out": tmp_path / "out",
        "empty": tmp_path / "empty",
        "study/derivatives/other": study[0] / "derivatives/other",
    }
    result = bids_app(*(places.get(word, word) for word in arguments))
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_validate_stops_at_an_invalid_dataset(small, bids_app, tmp_path, validator):
    assert validator(small)
    assert bids_app(small, tmp_path / "out", "participant", "--validate", "--dry-run").exit_code == 0
    (small / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T9w.nii.gz").write_bytes(b"")
    result = bids_app(small, tmp_path / "out", "participant", "--validate", "--dry-run")
    assert result.exit_code == 2
    assert "sub-01_ses-a_T9w" in result.stderr


def test_several_labels_may_follow_one_option():
    words = ["data", "out", "participant", "--participant-label", "01", "02", "--jobs", "2", "--session-id", "a"]
    expected = ["data", "out", "participant", "--participant-label", "01", "--participant-label", "02", "--jobs", "2", "--session-id", "a"]
    assert spread(words) == expected


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from localdiff_cli.bids.app import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "heavy = {'torch', 'monai', 'nibabel', 'SimpleITK', 'pandas', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "COLUMNS": "200"})


@pytest.mark.parametrize("words", [["--participant-label"], ["--participant-label", "--session-id", "a"], ["--session-id", ""]])
def test_an_option_that_lost_its_word_does_not_mean_everybody(small, bids_app, tmp_path, words):
    result = bids_app(small, tmp_path / "out", "participant", *words)
    assert result.exit_code == 2
    assert f"{words[0]}: found an empty label" in result.output
    assert not (tmp_path / "out").exists()


def test_a_phase_image_is_not_translated(bids_app, tmp_path):
    root = make_dataset(tmp_path / "phase", (("01", "", "sub-01_part-phase_T1w", 1), ("02", "", "sub-02_T1w", 2)))
    result = bids_app(root, tmp_path / "out", "participant", "--mode", "plain")
    assert result.exit_code == 0, result.output
    assert [name for name in images(tmp_path / "out") if name.startswith("sub-01")] == []
    assert [name for name in images(tmp_path / "out") if name.startswith("sub-02")] != []


def test_a_dry_run_refuses_what_the_run_refuses(small, bids_app, tmp_path):
    (small / "dataset_description.json").unlink()
    for words in (["--dry-run"], []):
        result = bids_app(small, tmp_path / "out", "participant", *words)
        assert result.exit_code == 2
        assert "no dataset_description.json" in result.output


def test_our_own_brain_masks_are_taken_as_given(study, bids_app, tmp_path):
    root, _ = study
    result = bids_app(root, tmp_path / "out", "participant", "--mode", "plain", "--brain", root / "derivatives" / "localdiff")
    assert result.exit_code == 0, result.output


def test_the_clash_of_two_targets_in_one_folder_names_the_file_that_is_there(small, bids_app, tmp_path):
    out = tmp_path / "out"
    assert bids_app(small, out, "participant", "--participant-label", "01", "--session-id", "a").exit_code == 0
    for path in out.rglob("*synthetic_FLAIR*"):
        path.unlink()
    (failed,) = bids_app(small, out, "participant", "--session-id", "a", "--quiet").output.strip().splitlines()[:1]
    assert "desc-ood_probseg.nii.gz: exists without the sidecar" in failed + (out / "failures.tsv").read_text()
