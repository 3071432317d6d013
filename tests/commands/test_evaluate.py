"""``localdiff evaluate`` from the outside: pairing, refusals, the same numbers everywhere."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from tests.brains import brain, write_brain


@pytest.fixture
def study(cli, folder, tmp_path):
    """Two subjects translated (local and plain), with true T2w and lesion masks."""
    for mode in ("local", "plain"):
        assert cli("translate", "--in", folder, "--out", tmp_path / mode, "--suffix", "T2w", "--mode", mode, "--save-brain").exit_code == 0
    for i in (1, 2):
        write_brain(tmp_path / "ref" / f"sub-0{i}" / f"sub-0{i}_T2w.nii.gz", seed=20 + i)
        image = nib.load(tmp_path / "ref" / f"sub-0{i}" / f"sub-0{i}_T2w.nii.gz")
        lesion = np.zeros(image.shape, np.uint8)
        lesion[22:30, 24:32, 2:5] = 1
        lesion[brain(20 + i) == 0] = 0
        (tmp_path / "truth" / f"sub-0{i}").mkdir(parents=True)
        nib.save(nib.Nifti1Image(lesion, image.affine), tmp_path / "truth" / f"sub-0{i}" / f"sub-0{i}_mask.nii.gz")
    return tmp_path


def run(cli, study, *extra):
    return cli("evaluate", "--in", study / "local", "--ref", study / "ref", "--out", study / "report", "--resamples", 200, *extra)


def rows(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_one_command_gives_the_report_and_the_same_numbers_in_every_file(cli, study):
    result = run(cli, study, "--truth", study / "truth", "--baseline", study / "plain", "--segmenter", "lesion-t2")
    assert result.exit_code == 0, result.output
    summary = json.loads((study / "report" / "summary.json").read_text())
    table = rows(study / "report" / "metrics.tsv")
    assert summary["n_patients"] == 2
    for volume, row in zip(summary["volumes"], table, strict=True):
        assert float(row["psnr_brain"]) == volume["metrics"]["psnr_brain"]
    page = (study / "report" / "report.html").read_text()
    assert "For research only" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_psnr_is_the_one_a_person_would_compute(cli, study):
    assert run(cli, study, "--bias", "none").exit_code == 0
    made = nib.load(study / "local" / "sub-01" / "sub-01_T2w.nii.gz").get_fdata()
    true = nib.load(study / "ref" / "sub-01" / "sub-01_T2w.nii.gz").get_fdata()
    inside = nib.load(study / "local" / "sub-01" / "sub-01_T2w_brain.nii.gz").get_fdata() > 0
    values = true[inside]
    sd = 1.4826 * np.median(abs(values - np.median(values)))
    scaled = np.clip(((true - np.median(values)) / sd + 4) / 16, 0, 1)
    expected = 10 * np.log10(1 / np.mean((scaled - made)[inside] ** 2))
    found = float(rows(study / "report" / "metrics.tsv")[0]["psnr_brain"])
    assert found == pytest.approx(expected, abs=0.05)


def test_a_perfect_translation_has_no_error(cli, study):
    """A matched reference evaluated against itself, as another tool's output would be."""
    result = cli("evaluate", "--in", study / "ref", "--ref", study / "ref", "--out", study / "self", "--resamples", 200, "--bias", "none")
    assert result.exit_code == 0, result.output
    table = rows(study / "self" / "metrics.tsv")
    assert all(float(row["mae_brain"]) == 0 for row in table)
    assert all(row["psnr_brain"] == "n/a" and row["psnr_brain_reason"] for row in table)


def test_realism_counts_the_slices_and_names_its_features(cli, study):
    assert run(cli, study, "--realism", "--baseline", study / "plain").exit_code == 0
    found = json.loads((study / "report" / "summary.json").read_text())["realism"]
    assert "not comparable with Inception" in found["features"]
    for arm in found["arms"].values():
        assert arm["slices"] == arm["reference_slices"] > 0
        assert arm["kid"]["value"] is not None
        assert "needs at least 113 slices" in arm["fid"]["reason"]


def test_a_missing_partner_is_listed_in_both_directions(cli, study):
    (study / "ref" / "sub-02" / "sub-02_T2w.nii.gz").unlink()
    write_brain(study / "ref" / "sub-07" / "sub-07_T2w.nii.gz", seed=7)
    result = run(cli, study)
    assert result.exit_code == 0
    summary = json.loads((study / "report" / "summary.json").read_text())
    text = json.dumps(summary["unpaired"])
    assert "sub-02" in text
    assert "sub-07" in text
    assert "not evaluated" in result.output


def test_another_grid_is_refused_unless_resampled(cli, study):
    path = study / "ref" / "sub-01" / "sub-01_T2w.nii.gz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += (2, 0, 0)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), path)
    refused = run(cli, study)
    assert refused.exit_code == 1
    assert "same grid" in refused.output
    accepted = run(cli, study, "--resample-ref")
    assert accepted.exit_code == 0, accepted.output
    assert json.loads((study / "report" / "summary.json").read_text())["run"]["evaluation"]["resample_ref"] is True


def test_an_empty_mask_and_a_constant_reference_give_reasons_not_nan(cli, study):
    truth = study / "truth" / "sub-01" / "sub-01_mask.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((40, 48, 6), np.uint8), nib.load(truth).affine), truth)
    constant = study / "ref" / "sub-02" / "sub-02_T2w.nii.gz"
    nib.save(nib.Nifti1Image(np.full((40, 48, 6), 7, np.int16), nib.load(constant).affine), constant)
    result = run(cli, study, "--truth", study / "truth", "--segmenter", "lesion-t2")
    assert result.exit_code == 1
    assert "sub-02" in result.output
    for row in rows(study / "report" / "metrics.tsv"):
        for column, value in row.items():
            assert value.lower() != "nan"
            if value == "n/a" and not column.endswith("_reason"):
                assert row[f"{column}_reason"]


def test_fail_under_sets_the_exit_code_and_says_why(cli, study):
    assert run(cli, study, "--fail-under", "psnr_brain=1").exit_code == 0
    missed = run(cli, study, "--fail-under", "psnr_brain=90")
    assert missed.exit_code == 5
    assert "limit is at least 90" in missed.output
    unknown = run(cli, study, "--fail-under", "beauty=1")
    assert unknown.exit_code == 2


@pytest.mark.parametrize(
    ("extra", "code", "word"),
    [
        (("--segmenter", "lesion-t2", "--seg", "{s}/truth"), 2, "do not apply"),
        (("--baseline-seg", "{s}/truth"), 2, "--baseline"),
        (("--truth", "{s}/nowhere"), 3, "no such file"),
        (("--delta", "3"), 2, "0 to 1"),
    ],
)
def test_wrong_usage_is_refused(cli, study, extra, code, word):
    result = run(cli, study, *[e.replace("{s}", str(study)) for e in extra])
    assert result.exit_code == code
    assert word in result.output


def test_several_processes_give_the_same_table(cli, study):
    assert run(cli, study, "--truth", study / "truth").exit_code == 0
    alone = (study / "report" / "metrics.tsv").read_bytes()
    assert run(cli, study, "--truth", study / "truth", "--jobs", 2).exit_code == 0
    assert (study / "report" / "metrics.tsv").read_bytes() == alone
