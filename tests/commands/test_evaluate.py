"""``localdiff evaluate`` from the outside: pairing, refusals, the same numbers everywhere."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from examples.benchmarks.chromium import BROWSER, found_in
from localdiff_cli.app import app
from tests.brains import brain, contradict, write_brain
from tests.bundles import make_segmenter
from tests.volumes.synthetic import canonical

TOOLS = (Path(__file__).parents[1] / "viewer" / "tools.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(models_folder, tmp_path_factory):
    """Two subjects translated once (local and plain), with true T2w and lesion masks."""
    place = tmp_path_factory.mktemp("study")
    for i in (1, 2):
        write_brain(place / "in" / f"sub-0{i}" / f"sub-0{i}_T1w.nii.gz", seed=i)
        write_brain(place / "ref" / f"sub-0{i}" / f"sub-0{i}_T2w.nii.gz", seed=20 + i)
        image = nib.load(place / "ref" / f"sub-0{i}" / f"sub-0{i}_T2w.nii.gz")
        lesion = np.zeros(image.shape, np.uint8)
        lesion[22:30, 24:32, 2:5] = 1
        lesion[brain(20 + i) == 0] = 0
        (place / "truth" / f"sub-0{i}").mkdir(parents=True)
        nib.save(nib.Nifti1Image(lesion, image.affine), place / "truth" / f"sub-0{i}" / f"sub-0{i}_mask.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALDIFF_MODELS", str(models_folder))
        patch.setenv("LOCALDIFF_JOBS", "0")
        for mode in ("local", "plain"):
            asked = ("translate", "--in", place / "in", "--out", place / mode, "--suffix", "T2w", "--mode", mode, "--save-brain")
            assert CliRunner().invoke(app, [str(each) for each in asked]).exit_code == 0
    return place


@pytest.fixture
def study(made, tmp_path):
    """A copy of the study, to do with as a test likes."""
    shutil.copytree(made, tmp_path / "study")
    return tmp_path / "study"


def run(cli, study, *extra):
    """The study evaluated; without the bias correction, which takes half of the time, where a test does not ask for it."""
    base = ("--in", study / "local", "--ref", study / "ref", "--out", study / "report", "--resamples", 200, "--bias", "none")
    return cli("evaluate", *base, *extra)


def rows(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_one_command_gives_the_report_and_the_same_numbers_in_every_file(cli, study):
    asked = ("--truth", study / "truth", "--baseline", study / "plain", "--segmenter", "lesion-t2", "--bias", "n4")
    result = run(cli, study, *asked)
    assert result.exit_code == 0, result.output
    summary = json.loads((study / "report" / "summary.json").read_text())
    table = rows(study / "report" / "metrics.tsv")
    assert summary["n_patients"] == 2
    for volume, row in zip(summary["volumes"], table, strict=True):
        assert float(row["psnr_brain"]) == volume["metrics"]["psnr_brain"]
    page = (study / "report" / "report.html").read_text()
    assert "For research only" in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_the_report_holds_its_cases_to_scroll_through_unless_it_is_told_not_to(cli, study):
    assert run(cli, study, "--truth", study / "truth", "--baseline", study / "plain", "--condition", study / "in").exit_code == 0
    page = (study / "report" / "report.html").read_text()
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert {case["name"].rsplit(" ", 1)[1] for case in told} == {"(worst)", "(best)"}
    assert [each["name"] for each in told[0]["layers"]] == ["condition", "plain", "local", "truth", "lesions"]
    assert len(page) < 25_000_000
    assert run(cli, study, "--no-viewer").exit_code == 0
    assert "<script" not in (study / "report" / "report.html").read_text()


@pytest.mark.parametrize("asked", ["qform", "sform"])
def test_figures_and_viewer_of_volumes_whose_forms_contradict_each_other_are_of_the_form_that_is_named(cli, study, asked):
    plainly = run(cli, study, "--truth", study / "truth")
    assert plainly.exit_code == 0, plainly.output
    expected = rows(study / "report" / "metrics.tsv")
    for path in study.rglob("*.nii.gz"):
        contradict(path, (-1, 1, 1))
    refused = run(cli, study, "--truth", study / "truth")
    assert refused.exit_code != 0
    assert "--affine-from" in refused.output
    result = run(cli, study, "--truth", study / "truth", "--affine-from", asked)
    assert result.exit_code == 0, result.output
    assert "not in the viewer" not in result.output
    page = (study / "report" / "report.html").read_text()
    assert [each["name"] for each in json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])[0]["layers"]]
    found = rows(study / "report" / "metrics.tsv")
    assert [float(row["psnr_brain"]) for row in found] == pytest.approx([float(row["psnr_brain"]) for row in expected], abs=1e-6)


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH: apt-get install chromium")
def test_the_viewer_in_the_report_shows_the_voxels_of_the_translation(cli, study, tmp_path):
    run(cli, study, "--truth", study / "truth")
    script = (
        TOOLS
        + """
      press("1");
      const name = root.querySelector("select").selectedOptions[0].textContent;
      return {picture: pixels(0), name, wide: document.documentElement.scrollWidth > innerWidth};"""
    )
    found, console = found_in((study / "report" / "report.html").read_text(), script, tmp_path)
    assert "error" not in found, found
    assert [line for line in console if "Multiple readback" not in line] == []
    assert not found["wide"]
    path = study / "local" / found["name"].removesuffix(" (worst)")
    volume = canonical(path)
    low, high = np.percentile(volume[volume != 0], (0.5, 99.5))
    box = [np.flatnonzero((volume != 0).any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    picture = np.array(found["picture"]["red"]).reshape(found["picture"]["rows"], found["picture"]["columns"])
    expected = np.clip(np.rint((np.where(volume == 0, low, volume) - low) * 255 / (high - low)), 0, 255)
    slices = [plane for plane in expected if plane.any()]
    inner = [p[box[1][0] : box[1][-1] + 1, box[2][0] : box[2][-1] + 1].astype(int) for p in slices]
    assert any(_holds(picture, part) for part in inner)


def _holds(picture, part):
    """Whether ``part`` is somewhere in ``picture``, to one grey level."""
    rows, columns = (n - m + 1 for n, m in zip(picture.shape, part.shape, strict=True))
    places = [(r, c) for r in range(max(rows, 0)) for c in range(max(columns, 0))]
    return any(np.abs(picture[r : r + part.shape[0], c : c + part.shape[1]] - part).max() <= 1 for r, c in places)


def test_the_psnr_is_the_one_a_person_would_compute(cli, study):
    assert run(cli, study).exit_code == 0
    made = nib.load(study / "local" / "sub-01" / "sub-01_T2w.nii.gz").get_fdata()
    true = nib.load(study / "ref" / "sub-01" / "sub-01_T2w.nii.gz").get_fdata()
    inside = nib.load(study / "local" / "sub-01" / "sub-01_T2w_brain.nii.gz").get_fdata() > 0
    values = true[inside]
    sd = 1.4826 * np.median(abs(values - np.median(values)))
    scaled = np.clip(((true - np.median(values)) / sd + 4) / 16, 0, 1)
    expected = 10 * np.log10(1 / np.mean((scaled - made)[inside] ** 2))
    found = float(rows(study / "report" / "metrics.tsv")[0]["psnr_brain"])
    assert found == pytest.approx(expected, abs=0.05)


def test_a_case_without_the_brain_asked_for_is_left_out_and_one_without_a_lesion_mask_says_so(cli, study):
    for number in ("01", "02"):
        (study / "brain").mkdir(exist_ok=True)
        shutil.copy(study / "local" / f"sub-{number}" / f"sub-{number}_T2w_brain.nii.gz", study / "brain" / f"sub-{number}_brain.nii.gz")
    (study / "truth" / "sub-02" / "sub-02_mask.nii.gz").unlink()
    asked = ("--truth", study / "truth", "--brain", study / "brain", "--no-viewer")
    said = run(cli, study, *asked).output
    assert "sub-02/sub-02_T2w.nii.gz: no truth belongs to it" in " ".join(said.split())
    (study / "brain" / "sub-02_brain.nii.gz").unlink()
    said = run(cli, study, *asked).output
    assert "not evaluated: sub-02/sub-02_T2w.nii.gz: brain: no partner" in " ".join(said.split())
    assert [row["name"] for row in rows(study / "report" / "metrics.tsv")] == ["sub-01/sub-01_T2w.nii.gz"]


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


def test_a_segmenter_of_another_contrast_is_refused_before_any_work(cli, study, tmp_path):
    make_segmenter(tmp_path / "lesion-flair", "FLAIR")
    refused = run(cli, study, "--segmenter", tmp_path / "lesion-flair")
    assert refused.exit_code == 2
    assert "it was trained on FLAIR, the translations hold T2w" in refused.output
    assert not (study / "report").exists()


def renamed_without_contrast(folder):
    for path in sorted(folder.rglob("*.nii.gz")):
        path.rename(path.with_name(path.name.replace("_T2w", "")))
    for path in folder.rglob("*.json"):
        path.unlink()


def test_a_contrast_that_nobody_says_must_be_said_before_a_segmenter_runs(cli, study):
    """Another tool's files, named by patient alone."""
    shutil.rmtree(study / "local")
    shutil.copytree(study / "ref", study / "local")
    for folder in ("local", "ref"):
        renamed_without_contrast(study / folder)
    refused = run(cli, study, "--segmenter", "lesion-t2")
    assert refused.exit_code == 2
    assert "--contrast" in refused.output
    accepted = run(cli, study, "--segmenter", "lesion-t2", "--contrast", "T2w")
    assert accepted.exit_code == 0, accepted.output
    summary = json.loads((study / "report" / "summary.json").read_text())
    assert summary["run"]["given"]["contrast"] == "T2w"
    assert all("own robust z" in volume["used"]["translation"] for volume in summary["volumes"])


def test_a_contrast_that_contradicts_the_files_is_refused(cli, study):
    refused = run(cli, study, "--contrast", "FLAIR")
    assert refused.exit_code == 2
    assert "hold T2w" in refused.output


def test_settings_are_reported_as_given_and_as_used_without_places(cli, study):
    """The references are stored in another orientation and are z-scored: N4 is asked for and cannot be."""
    for path in sorted((study / "ref").rglob("*.nii.gz")):
        image = nib.load(path)
        array = image.get_fdata()
        scored = np.where(array > 0, (array - array[array > 0].mean()) / array[array > 0].std(), 0).astype(np.float32)
        nib.save(nib.Nifti1Image(scored[::-1], image.affine @ np.array([[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])), path)
    assert run(cli, study, "--bias", "n4", "--truth", study / "truth").exit_code == 0
    text = (study / "report" / "summary.json").read_text()
    summary = json.loads(text)
    assert summary["run"]["given"] == summary["run"]["given"] | {"bias": "n4", "ref": "ref", "truth": "truth", "resample_ref": False}
    assert str(study) not in text
    for volume in summary["volumes"]:
        assert "bias none (z-scored already)" in volume["used"]["reference"]
        assert "stored in another orientation" in volume["used"]["reference"]
    assert "z-scored already" in (study / "report" / "report.html").read_text()


def add_limits(study):
    """Beside each translation what ``translate --interval --save-source`` writes, as its sidecar lists it."""
    for path in sorted((study / "local").rglob("*_T2w.nii.gz")):
        image = nib.load(path)
        array = image.get_fdata(dtype=np.float32)
        made = {"lo": np.clip(array - 0.3, 0, 1), "hi": np.where(array > 0, np.clip(array + 0.3, 0, 1), 0), "source": array > 0}
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        told = json.loads(sidecar.read_text())
        for ending, values in made.items():
            companion = path.with_name(path.name.replace(".nii.gz", f"_{ending}.nii.gz"))
            nib.save(nib.Nifti1Image(values.astype(np.uint8 if ending == "source" else np.float32), image.affine), companion)
            told["OutputSHA256"][companion.name] = "0"
        sidecar.write_text(json.dumps(told))


def test_limits_beside_the_translations_are_measured_and_never_taken_for_translations(cli, study):
    add_limits(study)
    local = study / "local"
    result = run(cli, study, "--truth", study / "truth", "--lo", local, "--hi", local, "--source-map", local)
    assert result.exit_code == 0, result.output
    summary = json.loads((study / "report" / "summary.json").read_text())
    assert len(summary["volumes"]) == 2
    for key in ("coverage_brain", "width_brain", "coverage_lesion", "coverage_ordinary"):
        assert 0 < summary["metrics"][key]["mean"]["estimate"] <= 1
    table = rows(study / "report" / "metrics.tsv")
    assert float(table[0]["coverage_brain"]) == summary["volumes"][0]["metrics"]["coverage_brain"]
    assert "Interval coverage, inside the lesion" in (study / "report" / "report.html").read_text()
    assert run(cli, study, "--lo", local, "--hi", local, "--fail-under", "coverage_brain=0.01").exit_code == 0
    (local / "sub-01" / "sub-01_T2w_hi.nii.gz").unlink()
    half = run(cli, study, "--lo", local, "--hi", local)
    assert "sub-01/sub-01_T2w.nii.gz" in str(json.loads((study / "report" / "summary.json").read_text())["volumes"][0]["name"])
    assert half.exit_code == 0
    assert json.loads((study / "report" / "summary.json").read_text())["volumes"][0]["metrics"]["coverage_brain"] is None


@pytest.mark.parametrize(("option", "word"), [("--lo", "--hi"), ("--hi", "--lo"), ("--source-map", "--lo")])
def test_half_an_interval_is_refused(cli, study, option, word):
    refused = run(cli, study, option, study / "local")
    assert refused.exit_code == 2
    assert word in refused.output


def metrics_of(study):
    return json.loads((study / "report" / "summary.json").read_text(encoding="utf-8"))["metrics"]


def test_a_bundle_with_a_window_of_its_own_is_measured_on_the_common_one(cli, study):
    """The same voxels, once as they are and once as a bundle of another window would have written them."""
    assert run(cli, study).exit_code == 0
    common = metrics_of(study)["psnr_brain"]["mean"]["estimate"]
    for image in (study / "local").rglob("*_T2w.nii.gz"):
        sidecar = image.with_name(image.name.replace(".nii.gz", ".json"))
        told = json.loads(sidecar.read_text())
        assert told["OutputWindow"] == [-4.0, 12.0]
        nifti = nib.load(image)
        wider = np.where(nifti.get_fdata() == 0, 0, (nifti.get_fdata() * 16 - 4 + 6) / 20)
        nib.save(nib.Nifti1Image(wider.astype(np.float32), nifti.affine, nifti.header), image)
        sidecar.write_text(json.dumps(told | {"OutputWindow": [-6.0, 14.0]}))
    assert run(cli, study).exit_code == 0
    assert metrics_of(study)["psnr_brain"]["mean"]["estimate"] == pytest.approx(common, abs=1e-3)
    assert "window [-6.0, 14.0] to [-4.0, 12.0]" in (study / "report" / "summary.json").read_text()


def test_lesions_outside_the_brain_mask_count_nowhere_and_are_said(cli, study):
    for truth in (study / "truth").rglob("*.nii.gz"):
        image = nib.load(truth)
        mask = np.asarray(image.dataobj).copy()
        mask[1:4, 1:4, 2] = 1
        nib.save(nib.Nifti1Image(mask, image.affine), truth)
    result = run(cli, study, "--truth", study / "truth", "--seg", study / "truth", "--ref-seg", study / "truth")
    assert result.exit_code == 0, result.output
    assert "of the truth lies outside the brain mask and is left out" in result.output
    assert metrics_of(study)["dice"]["mean"]["estimate"] == 1
    counted = rows(study / "report" / "metrics.tsv")
    assert [(float(row["lesions"]), float(row["lesions_invented"]), float(row["lesion_precision"])) for row in counted] == [(1, 0, 1)] * 2


def test_a_file_of_another_subject_is_no_partner_although_it_was_named(cli, study):
    result = run(cli, study, "--truth", study / "truth" / "sub-02" / "sub-02_mask.nii.gz")
    assert result.exit_code == 0, result.output
    assert "truth: the file named is of sub-02" in result.output
    used = {row["name"]: row["lesion_mask"] for row in rows(study / "report" / "metrics.tsv")}
    assert [value == "expert mask" for value in used.values()] == [False, True]


def test_the_report_does_not_say_where_a_failed_case_lies(cli, study):
    bad = study / "ref" / "sub-02" / "sub-02_T2w.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), bad)
    assert run(cli, study).exit_code == 1
    for name in ("summary.json", "report.html"):
        text = (study / "report" / name).read_text(encoding="utf-8")
        assert "sub-02_T2w.nii.gz" in text
        assert str(study) not in text


def test_visits_of_a_person_are_one_patient(cli, study):
    for kind in ("local", "ref"):
        for visit in (1, 2):
            for ending in (".nii.gz", ".json"):
                source = study / kind / f"sub-0{visit}" / f"sub-0{visit}_T2w{ending}"
                if source.exists():
                    (study / "visits" / kind).mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, study / "visits" / kind / f"p01_v{visit}_T2w{ending}")
    visits = study / "visits"
    assert cli("evaluate", "--in", visits / "local", "--ref", visits / "ref", "--out", study / "report", "--bias", "none").exit_code == 0
    assert json.loads((study / "report" / "summary.json").read_text())["n_patients"] == 1
