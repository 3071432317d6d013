"""``localdiff translate`` from the outside: what a script can rely on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from localdiff_cli.app import app
from localdiff_cli.bundle import EXPERT, METADATA, TRANSLATOR, copy_bundle, load_tensors, open_bundle, save_bundle, with_defaults
from tests.brains import brain, write_brain
from tests.bundles import make_segmenter, make_translator

IMAGE = "sub-01/sub-01_T1w.nii.gz"


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_folder_in_gives_a_folder_out_with_sidecars_and_verdicts(cli, folder, tmp_path):
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--save-map", "--save-source", "--save-brain")
    assert result.exit_code == 0, result.output
    source, made = nib.load(folder / IMAGE), nib.load(tmp_path / "out" / IMAGE)
    assert np.array_equal(source.affine, made.affine)
    assert source.shape == made.shape
    assert made.get_data_dtype() == np.float32
    assert made.header["descrip"].item().decode() == "localdiff synthetic T2w"
    data = made.get_fdata()
    assert data.min() >= 0
    assert data.max() <= 1
    assert (data[source.get_fdata() == 0] == 0).all()
    sidecar = json.loads((tmp_path / "out" / "sub-01" / "sub-01_T1w.json").read_text())
    assert sidecar["Synthetic"] is True
    assert sidecar["Contrast"] == "T2w"
    assert sidecar["Settings"]["Sample"]["seed"] == 0
    assert len(sidecar["Settings"]["BundleHash"]) == 64
    assert sidecar["Verdict"] in ("pass", "review")
    for ending in ("ood", "source", "brain"):
        assert (tmp_path / "out" / "sub-01" / f"sub-01_T1w_{ending}.nii.gz").exists()
    assert {row.split("\t")[0] for row in (tmp_path / "out" / "qc.tsv").read_text().splitlines()[1:]} == {IMAGE, IMAGE.replace("01", "02")}
    assert "skipped 1 files of other kinds" in result.output
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_the_bytes_do_not_depend_on_batch_size_or_file_order(cli, folder, tmp_path):
    assert cli("translate", "--in", folder, "--out", tmp_path / "both").exit_code == 0
    results = [(tmp_path / "both" / IMAGE).read_bytes()]
    for size in (1, 3, 8):
        assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / f"b{size}", "--batch-size", size).exit_code == 0
        results.append((tmp_path / f"b{size}" / "sub-01_T1w.nii.gz").read_bytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIR"])
def test_the_voxels_do_not_depend_on_the_stored_orientation_or_format(cli, tmp_path, codes):
    write_brain(tmp_path / "a_T1w.nii.gz")
    image = nib.load(tmp_path / "a_T1w.nii.gz")
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    nib.save(turned, tmp_path / "b_T1w.nii")
    for name in ("a_T1w.nii.gz", "b_T1w.nii"):
        assert cli("translate", "--in", tmp_path / name, "--out", tmp_path / "out").exit_code == 0
    back = nib.load(tmp_path / "out" / "a_T1w.nii.gz").as_reoriented(turn)
    assert np.array_equal(np.asanyarray(back.dataobj), voxels(tmp_path / "out" / "b_T1w.nii"))


def test_plain_and_local_differ_only_where_and_when_they_should(cli, folder, tmp_path):
    mask = brain(1) * 0
    mask[18:30, 20:34, 2:4] = 1
    image = nib.load(folder / IMAGE)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), image.affine), tmp_path / "lesion.nii.gz")
    base, branching = ("--in", folder / IMAGE), ("--fusion-step", 0, "--lambda", 1, "--map", tmp_path / "lesion.nii.gz", "--save-source")
    assert cli("translate", *base, "--out", tmp_path / "local", *branching).exit_code == 0
    assert cli("translate", *base, "--out", tmp_path / "plain", "--mode", "plain").exit_code == 0
    local, plain = (voxels(tmp_path / mode / "sub-01_T1w.nii.gz") for mode in ("local", "plain"))
    changed = local != plain
    assert changed[..., 2:4].any()
    assert not changed[..., :2].any()
    assert not changed[..., 4:].any()
    assert not changed[mask == 0].any()
    labels = voxels(tmp_path / "local" / "sub-01_T1w_source.nii.gz")
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[(mask == 1) & (image.get_fdata() > 0)] == 2).all()


def test_an_empty_map_is_the_plain_sampler_to_the_bit(cli, folder, tmp_path):
    image = nib.load(folder / IMAGE)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), tmp_path / "none.nii.gz")
    assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "local", "--map", tmp_path / "none.nii.gz").exit_code == 0
    assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "plain", "--mode", "plain").exit_code == 0
    assert (tmp_path / "local" / "sub-01_T1w.nii.gz").read_bytes() == (tmp_path / "plain" / "sub-01_T1w.nii.gz").read_bytes()


def test_several_samples_give_their_mean_and_spread(cli, folder, tmp_path):
    for n in (1, 3):
        assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / str(n), "--samples", n, "--mode", "plain").exit_code == 0
    spread = voxels(tmp_path / "3" / "sub-01_T1w_std.nii.gz")
    assert spread.max() > 0
    assert not (tmp_path / "1" / "sub-01_T1w_std.nii.gz").exists()
    assert not np.array_equal(voxels(tmp_path / "1" / "sub-01_T1w.nii.gz"), voxels(tmp_path / "3" / "sub-01_T1w.nii.gz"))


@pytest.fixture(scope="module")
def once(models_folder, tmp_path_factory):
    """``once(*options)``: the voxels of sub-01 translated with these options, computed once for all tests that compare with them."""
    place = tmp_path_factory.mktemp("once")
    source = write_brain(place / "in" / "sub-01_T1w.nii.gz", seed=1)

    @cache
    def run(*options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOCALDIFF_MODELS", str(models_folder))
            patch.setenv("LOCALDIFF_JOBS", "0")
            out = place / str(run.cache_info().currsize)
            words = ("translate", "--in", source, "--out", out, *options)
            result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return voxels(out / "sub-01_T1w.nii.gz")

    return run


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", 1),
        ("--steps", 2),
        ("--sampler", "ddpm"),
        ("--sampler", "dpmpp"),
        ("--eta", 1),
        ("--noise", "independent"),
        ("--bias", "n4"),
    ],
)
def test_every_sampling_option_changes_the_result(once, option, value):
    assert not np.array_equal(once("--mode", "plain"), once("--mode", "plain", option, value))


@pytest.fixture(scope="module")
def ood_map(tmp_path_factory):
    """An OOD map that rises from 0.3 to 1 across a region of sub-01."""
    place = tmp_path_factory.mktemp("map")
    image = nib.load(write_brain(place / "sub-01_T1w.nii.gz", seed=1))
    values = np.zeros(image.shape, np.float32)
    values[16:30, 18:36, 1:5] = np.linspace(0.3, 1, 14, dtype=np.float32)[:, None, None]
    nib.save(nib.Nifti1Image(values, image.affine), place / "map.nii.gz")
    return place / "map.nii.gz"


@pytest.mark.parametrize(
    "extra",
    [
        ("--branch-step", 1),
        ("--fusion-step", 2),
        ("--lambda", 0.2),
        ("--soft",),
        ("--ood-crop",),
        ("--tau", 0.9),
        ("--dilate", 12),
        ("--open", 20),
    ],
)
def test_every_local_option_changes_the_result(once, ood_map, extra):
    base = ("--map", ood_map, "--fusion-step", 0)
    assert not np.array_equal(once(*base), once(*base, *extra))


def test_guided_timing_asks_the_classifier(cli, folder, tmp_path):
    result = cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out", "--guided", "--false-alarm", 0.3)
    assert result.exit_code == 0, result.output
    refused = cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out2", "--guided", "--classifier", "none-such")
    assert refused.exit_code == 2
    assert "classifier" in refused.output


def test_match_gives_the_units_of_the_reference(cli, folder, tmp_path):
    reference = folder / "sub-01" / "sub-01_T2w.nii.gz"
    assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "own", "--match", reference, "--mode", "plain").exit_code == 0
    assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "unit", "--mode", "plain").exit_code == 0
    own, unit = (voxels(tmp_path / kind / "sub-01_T1w.nii.gz") for kind in ("own", "unit"))
    inside = unit > 0
    slope, intercept = np.polyfit(unit[inside], own[inside], 1)
    reference_brain = voxels(reference)[voxels(reference) > 0].astype(float)
    median = np.median(reference_brain)
    assert slope == pytest.approx(16 * 1.4826 * np.median(abs(reference_brain - median)), rel=0.05)
    assert intercept + slope * 4 / 16 == pytest.approx(median, rel=0.05)


def test_the_spread_is_in_the_units_of_the_reference(cli, folder, tmp_path):
    run = ("translate", "--in", folder / IMAGE, "--mode", "plain", "--samples", 2)
    assert cli(*run, "--out", tmp_path / "own", "--match", folder / "sub-01" / "sub-01_T2w.nii.gz").exit_code == 0
    assert cli(*run, "--out", tmp_path / "unit").exit_code == 0
    own, unit, own_std, unit_std = (
        voxels(tmp_path / kind / f"sub-01_T1w{part}.nii.gz") for part in ("", "_std") for kind in ("own", "unit")
    )
    slope = np.polyfit(unit[unit > 0], own[unit > 0], 1)[0]
    np.testing.assert_allclose(own_std, slope * unit_std, rtol=1e-3, atol=1e-3)


@pytest.fixture
def other_reference(folder, tmp_path):
    """The T2w of sub-01 in other units."""
    image = nib.load(folder / "sub-01" / "sub-01_T2w.nii.gz")
    nib.save(nib.Nifti1Image(2 * image.get_fdata(dtype=np.float32), image.affine), tmp_path / "other_T2w.nii.gz")
    return tmp_path / "other_T2w.nii.gz"


def test_another_reference_is_another_setting(cli, folder, tmp_path, other_reference):
    run = ("translate", "--in", folder / IMAGE, "--mode", "plain", "--out", tmp_path / "out")
    assert cli(*run, "--match", folder / "sub-01" / "sub-01_T2w.nii.gz").exit_code == 0
    changed = cli(*run, "--match", other_reference)
    assert changed.exit_code == 1
    assert "Match" in changed.output


def test_another_way_to_prepare_is_another_setting(cli, folder, tmp_path):
    run = ("translate", "--in", folder / IMAGE, "--mode", "plain", "--out", tmp_path / "out")
    assert cli(*run).exit_code == 0
    changed = cli(*run, "--bias", "n4")
    assert changed.exit_code == 1
    assert "Prepare" in changed.output


def test_int16_keeps_the_values_within_its_step(cli, folder, tmp_path):
    for dtype in ("float32", "int16"):
        assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / dtype, "--dtype", dtype, "--mode", "plain").exit_code == 0
    image = nib.load(tmp_path / "int16" / "sub-01_T1w.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert np.abs(image.get_fdata() - voxels(tmp_path / "float32" / "sub-01_T1w.nii.gz")).max() < 1 / 32000


def test_suffix_renames_the_output_and_a_synthetic_sidecar_outranks_the_name(cli, folder, tmp_path):
    assert cli("translate", "--in", folder, "--out", tmp_path / "out", "--suffix", "T2w").exit_code == 0
    assert (tmp_path / "out" / "sub-01" / "sub-01_T2w.nii.gz").exists()
    assert cli("translate", "--in", folder, "--out", tmp_path / "kept").exit_code == 0
    again = cli("translate", "--in", tmp_path / "kept" / IMAGE, "--out", tmp_path / "again")
    assert again.exit_code == 1
    assert "synthetic T2w" in again.output


def test_a_second_run_does_nothing_and_changed_settings_are_an_error(cli, folder, tmp_path):
    run = ("translate", "--in", folder, "--out", tmp_path / "out")
    assert cli(*run).exit_code == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.nii.gz")}
    second = cli(*run)
    assert second.exit_code == 0
    assert "2 already done" in second.output
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.nii.gz")}
    changed = cli(*run, "--seed", 3)
    assert changed.exit_code == 1
    assert "--overwrite" in changed.output
    assert cli(*run, "--seed", 3, "--overwrite").exit_code == 0


def test_a_half_written_output_is_never_trusted(cli, folder, tmp_path):
    run = ("translate", "--in", folder / IMAGE, "--out", tmp_path / "out")
    assert cli(*run).exit_code == 0
    path = tmp_path / "out" / "sub-01_T1w.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert cli(*run).exit_code == 0
    assert path.read_bytes() == whole


def test_a_foreign_file_is_not_overwritten(cli, folder, tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copy(folder / IMAGE, tmp_path / "out" / "sub-01_T1w.nii.gz")
    result = cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert (tmp_path / "out" / "sub-01_T1w.nii.gz").read_bytes() == (folder / IMAGE).read_bytes()


def bad_inputs(folder):
    """Every kind of unusable input, with the stable code of its refusal."""
    good = nib.load(folder / IMAGE)
    data, affine = np.asanyarray(good.dataobj), good.affine

    def save(name, array, matrix=affine):
        nib.save(nib.Nifti1Image(array, matrix), folder / name)

    (folder / "text_T1w.nii.gz").write_text("hello")
    whole = (folder / IMAGE).read_bytes()
    (folder / "cut_T1w.nii.gz").write_bytes(whole[: len(whole) * 2 // 3])
    save("frames_T1w.nii.gz", np.stack([data, data], axis=-1))
    save("zero_T1w.nii.gz", data * 0)
    nan = data.astype(np.float32)
    nan[20, 20, 3] = np.nan
    save("nan_T1w.nii.gz", nan)
    save("complex_T1w.nii.gz", data.astype(np.complex64))
    colour = np.zeros(data.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save("colour_T1w.nii.gz", colour)
    flat = affine.copy()
    flat[:3, 0] = 0
    singular = nib.Nifti1Image(data, affine)
    singular.header.set_sform(flat, code=1)
    singular.header["qform_code"] = 0
    nib.save(singular, folder / "singular_T1w.nii")
    raw = bytearray((folder / "singular_T1w.nii").read_bytes())
    raw[280:328] = np.zeros(12, "<f4").tobytes()
    (folder / "singular_T1w.nii").write_bytes(raw)
    nib.save(good, folder / "absurd_T1w.nii")
    raw = bytearray((folder / "absurd_T1w.nii").read_bytes())
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (folder / "absurd_T1w.nii").write_bytes(raw)
    return {
        "text": "not-an-image", "cut": "truncated", "frames": "more-than-one-frame", "zero": "all-zero", "nan": "not-finite",
        "complex": "complex", "colour": "colour", "singular": "singular-affine", "absurd": "absurd-size",
    }  # fmt: skip


def test_each_bad_input_is_refused_with_its_reason_beside_good_ones(cli, folder, tmp_path):
    expected = bad_inputs(folder)
    result = cli("translate", "--in", folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    rows = [line.split("\t") for line in (tmp_path / "out" / "failures.tsv").read_text().splitlines()[1:]]
    assert {row[0].split("_")[0]: row[1] for row in rows} == expected
    assert all(row[0] in row[2] for row in rows)
    assert (tmp_path / "out" / IMAGE).exists()
    assert (tmp_path / "out" / IMAGE.replace("01", "02")).exists()


def test_not_a_number_may_be_accepted_as_zero(cli, folder, tmp_path):
    bad_inputs(folder)
    assert cli("translate", "--in", folder / "nan_T1w.nii.gz", "--out", tmp_path / "out", "--nan", "zero").exit_code == 0
    assert np.isfinite(voxels(tmp_path / "out" / "nan_T1w.nii.gz")).all()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--in", "{in}/none_such", "--out", "{out}"), 3, "no such file"),
        (("--in", "{in}/*.mha", "--out", "{out}"), 3, "no file matches"),
        (("--in", "{in}", "--out", "{in}"), 2, "input folder"),
        (("--in", "{in}/sub-01/sub-01_T2w.nii.gz", "--out", "{out}"), 1, "expected T1w"),
        (("--in", "{in}", "--out", "{in}/notes.txt"), 2, "is a file"),
        (("--in", "{in}", "--out", "{out}", "--model", "none-such"), 4, "none-such"),
        (("--in", "{in}", "--out", "{out}", "--model", "lesion-t2"), 4, "segment"),
        (("--in", "{in}", "--out", "{out}", "--device", "cuda:7"), 4, "CUDA devices"),
        (("--in", "{in}", "--out", "{out}", "--device", "toaster"), 4, "toaster"),
        (("--in", "{in}", "--out", "{out}", "--precision", "bf16", "--device", "cpu"), 4, "fp32"),
        (("--in", "{in}", "--out", "{out}", "--mode", "magic"), 2, "local, plain"),
        (("--in", "{in}", "--out", "{out}", "--steps", "0"), 2, "1 to 1000"),
        (("--in", "{in}", "--out", "{out}", "--fusion-step", "9"), 2, "--steps 3"),
        (("--in", "{in}", "--out", "{out}", "--lambda", "2"), 2, "0 to 1"),
        (("--in", "{in}", "--out", "{out}", "--map", "{in}/none.nii.gz"), 2, "no such file"),
        (("--in", "{in}", "--out", "{out}", "--brain", "{in}/none.nii.gz"), 2, "no such file"),
        (("--in", "{in}", "--out", "{out}", "--classifier", "lesion-t2"), 2, "--guided"),
        (("--in", "{in}", "--out", "{out}", "--sampler", "dpmpp", "--eta", "0.5"), 2, "belongs to ddim"),
        (
            (
                "--in",
                "{in}",
            ),
            2,
            "--out",
        ),
    ],
)
def test_wrong_usage_has_its_exit_code_and_says_what_to_do(cli, folder, tmp_path, arguments, code, word):
    filled = [a.replace("{in}", str(folder)).replace("{out}", str(tmp_path / "out")) for a in arguments]
    result = cli("translate", *filled)
    assert result.exit_code == code, result.output
    assert word in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_two_inputs_for_one_output_are_refused(cli, folder, tmp_path):
    nib.save(nib.load(folder / IMAGE), folder / "sub-01" / "sub-01_T1w.nii")
    result = cli("translate", "--in", folder, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "both write" in result.output


def test_the_json_log_tells_the_run_and_names_no_patient(cli, folder, tmp_path):
    image = nib.load(folder / IMAGE)
    image.header["descrip"] = b"DOE^JANE 1950"
    image.header["db_name"] = b"DOE^JANE"
    nib.save(image, folder / IMAGE)
    assert cli("translate", "--in", folder, "--out", tmp_path / "out", "--json-log", tmp_path / "log.jsonl").exit_code == 0
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["run-started", "volume-done", "volume-done", "run-finished"]
    for path in (tmp_path / "out").rglob("*"):
        raw = path.read_bytes() if path.is_file() else b""
        assert b"DOE" not in raw
        if path.name.endswith(".gz"):
            assert b"DOE" not in nib.load(path).header.binaryblock


def test_quiet_says_nothing_when_all_is_well(cli, folder, tmp_path):
    assert cli("translate", "--in", folder, "--out", tmp_path / "out", "--quiet").output == ""


def test_an_interrupted_run_leaves_whole_outputs_and_goes_on(cli, folder, tmp_path, models_folder):
    for i in range(3, 40):
        write_brain(folder / f"sub-{i:02d}_T1w.nii.gz", seed=i, shape=(40, 48, 2))
    command = [sys.executable, "-m", "localdiff_cli.app", "translate", "--in", str(folder), "--out", str(tmp_path / "out"), "--steps", "99"]
    process = subprocess.Popen(command, env={**os.environ, "LOCALDIFF_MODELS": str(models_folder)}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("sub-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "goes on where it stopped" in message
    assert not list((tmp_path / "out").rglob(".*partial*"))
    images = {p.name.removesuffix(".nii.gz") for p in (tmp_path / "out").rglob("*.nii.gz")}
    assert images >= {p.stem for p in (tmp_path / "out").glob("*.json")} - {"run"}
    assert 0 < len(images) < 39


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_int16_is_refused_where_the_format_stores_no_slope(cli, folder, tmp_path, suffix):
    import SimpleITK as sitk

    sitk.WriteImage(sitk.ReadImage(str(folder / IMAGE)), str(tmp_path / f"a_T1w{suffix}"))
    refused = cli("translate", "--in", tmp_path / f"a_T1w{suffix}", "--out", tmp_path / "out", "--dtype", "int16")
    assert refused.exit_code == 1
    assert "use float32" in refused.output
    assert cli("translate", "--in", tmp_path / f"a_T1w{suffix}", "--out", tmp_path / "out").exit_code == 0
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"a_T1w{suffix}"))).dtype == np.float32


def test_the_plain_sampler_refuses_options_of_the_ood_region(cli, folder, tmp_path):
    for extra in (("--save-map",), ("--tau", 0.4), ("--map", folder / IMAGE)):
        result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--mode", "plain", *extra)
        assert result.exit_code == 2, extra


@pytest.mark.parametrize(("value", "code"), [("auto", 0), ("2", 0), ("0", 2), ("many", 2)])
def test_the_batch_size_is_auto_or_a_number(cli, folder, tmp_path, value, code):
    assert cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out", "--batch-size", value).exit_code == code


def test_the_outputs_of_detect_are_a_map_for_translate_and_their_change_is_noticed(cli, folder, tmp_path):
    assert cli("detect", "--in", folder, "--out", tmp_path / "ood", "--save-mask", "--save-brain").exit_code == 0
    run = ("translate", "--in", folder, "--out", tmp_path / "out", "--map", tmp_path / "ood")
    assert cli(*run).exit_code == 0
    assert "2 already done" in cli(*run).output
    assert (
        cli(
            "detect", "--in", folder, "--out", tmp_path / "ood", "--save-mask", "--save-brain", "--false-alarm", 0.5, "--overwrite"
        ).exit_code
        == 0
    )
    assert cli(*run).exit_code == 1


@pytest.fixture
def with_expert(models_folder, tmp_path):
    """The tiny translator with an expert of other random weights."""
    bundle = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "with-expert")
    torch.manual_seed(5)
    weights = {key: value + 0.1 * torch.randn(value.shape) for key, value in load_tensors(bundle, TRANSLATOR).items()}
    return save_bundle(bundle.path, {"expert": {"patients": 1, "healthy_share": 0.5}}, {EXPERT: weights}, "tiny\n")


def test_the_expert_draws_inside_the_ood_region_alone_and_is_named(cli, folder, tmp_path, ood_map, with_expert):
    base = ("--in", folder / IMAGE, "--map", ood_map, "--fusion-step", 0, "--model", with_expert.path)
    for name, extra in (("auto", ()), ("none", ("--expert", "none")), ("named", ("--expert", with_expert.path))):
        assert cli("translate", *base, *extra, "--out", tmp_path / name).exit_code == 0
    without, auto = (voxels(tmp_path / name / "sub-01_T1w.nii.gz") for name in ("none", "auto"))
    changed = without != auto
    far = np.asanyarray(nib.load(ood_map).dataobj) == 0
    assert changed.any()
    assert not changed[:, :, 5][far[:, :, 5]].any()
    assert np.array_equal(auto, voxels(tmp_path / "named" / "sub-01_T1w.nii.gz"))
    sidecar = json.loads((tmp_path / "auto" / "sub-01_T1w.json").read_text())
    assert sidecar["Settings"]["Expert"] == f"{with_expert.name} {with_expert.hash}"
    assert json.loads((tmp_path / "none" / "sub-01_T1w.json").read_text())["Settings"]["Expert"] is None
    assert "expert used" in (tmp_path / "auto" / "qc.tsv").read_text()
    assert "expert used" not in (tmp_path / "none" / "qc.tsv").read_text()


def test_an_expert_of_another_kind_is_refused(cli, folder, tmp_path, models_folder):
    flair = make_translator(tmp_path / "t1-to-flair", detector=False, target="FLAIR")
    base = ("--in", folder, "--out", tmp_path / "out")
    for extra, code, word in (
        (("--expert", flair.path), 2, "T1w to FLAIR"),
        (("--expert", "lesion-t2"), 2, "expected the contrasts"),
        (("--expert", "t1-to-t2"), 4, "no OOD expert"),
        (("--expert", flair.path, "--mode", "plain"), 2, "no OOD branch"),
    ):
        refused = cli("translate", *base, *extra)
        assert refused.exit_code == code, refused.output
        assert word in refused.output


@pytest.fixture
def same_contrast(tmp_path):
    """A tiny T1w → T1w translator with one window."""
    path = make_translator(tmp_path / "t1-to-t1", detector=False, target="T1w").path
    metadata = json.loads((path / METADATA).read_text())
    (path / METADATA).write_text(json.dumps(metadata | {"target": metadata["condition"]}))
    return path


def test_the_ood_branch_may_be_a_copy_of_the_input_where_input_and_target_are_of_one_contrast(
    cli, folder, tmp_path, ood_map, same_contrast, monkeypatch
):
    base = ("--in", folder / IMAGE, "--map", ood_map, "--fusion-step", 0, "--model", same_contrast, "--suffix", "T1w")
    for kind in ("network", "copy", "mean"):
        made = cli("translate", *base, "--ood-branch", kind, "--out", tmp_path / kind)
        assert made.exit_code == 0, made.output
        assert json.loads((tmp_path / kind / "sub-01_T1w.json").read_text())["Settings"]["Sample"]["local"]["ood_branch"] == kind
    network, copy, mean = (voxels(tmp_path / kind / "sub-01_T1w.nii.gz") for kind in ("network", "copy", "mean"))
    inside = np.asanyarray(nib.load(ood_map).dataobj) > 0
    assert (network != copy)[inside].any()
    np.testing.assert_array_equal(network[:, :, 5][~inside[:, :, 5]], copy[:, :, 5][~inside[:, :, 5]])
    assert (mean != network)[inside].any()
    assert (mean != copy)[inside].any()
    again = cli("translate", *base, "--ood-branch", "mean", "--out", tmp_path / "copy")
    assert again.exit_code == 1
    assert "exists" in again.output


@pytest.mark.parametrize(
    ("model", "extra", "word"),
    [
        ("t1-to-t2", ("--ood-branch", "copy"), "only where both have one contrast"),
        ("t1-to-t2", ("--ood-branch", "mean"), "T1w"),
        (None, ("--ood-branch", "copy", "--expert", "t1-to-t2"), "uses no network"),
        (None, ("--ood-branch", "mean", "--mode", "plain"), "no OOD branch"),
        (None, ("--ood-branch", "paste"), "network, copy, mean"),
    ],
)
def test_a_copy_is_refused_where_it_is_no_answer(cli, folder, tmp_path, same_contrast, model, extra, word):
    refused = cli("translate", "--in", folder, "--out", tmp_path / "out", "--model", model or same_contrast, *extra)
    assert refused.exit_code == 2, refused.output
    assert word in refused.output


def test_one_contrast_in_two_windows_is_no_copy(cli, folder, tmp_path):
    other = make_translator(tmp_path / "windows", detector=False, target="T1w").path
    refused = cli("translate", "--in", folder, "--out", tmp_path / "out", "--model", other, "--ood-branch", "copy")
    assert refused.exit_code == 2
    assert "[-4.0, 12.0]" in refused.output


@pytest.fixture
def graded_map(folder, tmp_path):
    """A map of two plateaus on the first image: 0.9 on one side, 0.3 on the other."""
    image = nib.load(folder / IMAGE)
    values = np.zeros(image.shape, np.float32)
    values[14:19, 16:26, :], values[21:26, 16:26, :] = 0.9, 0.3
    path = tmp_path / "graded.nii.gz"
    nib.save(nib.Nifti1Image(values, image.affine), path)
    return path


def test_what_lies_between_the_cuts_is_unknown_and_stays_plain_or_is_left_blank(cli, folder, tmp_path, graded_map):
    base = ("--in", folder / IMAGE, "--map", graded_map, "--save-source")
    for name, extra in (
        ("default", ()), ("told", ("--unknown-tau", 0.2)), ("blank", ("--unknown-tau", 0.2, "--unknown", "blank")),
    ):  # fmt: skip
        result = cli("translate", *base, *extra, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    source = voxels(tmp_path / "told" / "sub-01_T1w_source.nii.gz")
    assert not (voxels(tmp_path / "default" / "sub-01_T1w_source.nii.gz") == 4).any()
    unknown = source == 4
    assert unknown.any()
    assert not (unknown & (np.asanyarray(nib.load(graded_map).dataobj) > 0.5)).any()
    plain, told, blank = (voxels(tmp_path / name / "sub-01_T1w.nii.gz") for name in ("default", "told", "blank"))
    assert np.array_equal(plain, told)
    assert (blank[unknown] == 0).all()
    assert np.array_equal(blank[~unknown], told[~unknown])
    sidecar = json.loads((tmp_path / "told" / "sub-01_T1w.json").read_text())
    zooms = nib.load(folder / IMAGE).header.get_zooms()
    assert sidecar["UnknownMillilitres"] == pytest.approx(unknown.sum() * np.prod(zooms) / 1000, abs=1e-3)
    assert sidecar["OODMillilitres"] == pytest.approx(np.isin(source, (2, 3)).sum() * np.prod(zooms) / 1000, abs=1e-3)
    assert "look like neither healthy tissue nor a lesion" in (tmp_path / "told" / "qc.tsv").read_text()
    assert "left blank" in (tmp_path / "blank" / "qc.tsv").read_text()
    assert "unknown:" not in (tmp_path / "default" / "qc.tsv").read_text()


def test_what_a_second_segmenter_finds_is_unknown_and_its_name_is_recorded(cli, folder, tmp_path, graded_map):
    finder = make_segmenter(tmp_path / "finder", "T1w", (-6, 6))
    base = ("--in", folder / IMAGE, "--map", graded_map, "--save-source", "--suspect-tau", 1e-6)
    assert cli("translate", *base, "--suspect", finder.path, "--out", tmp_path / "with").exit_code == 0
    assert cli("translate", *base[:-2], "--suspect", "none", "--out", tmp_path / "without").exit_code == 0
    found, without = (voxels(tmp_path / name / "sub-01_T1w_source.nii.gz") for name in ("with", "without"))
    drawn = np.isin(without, (2, 3))
    assert np.array_equal(np.isin(found, (2, 3)), drawn)
    assert (found[without == 1] == 4).mean() > 0.9
    settings = json.loads((tmp_path / "with" / "sub-01_T1w.json").read_text())["Settings"]["Unknown"]
    assert settings["finder"] == {"Bundle": "finder", "BundleHash": finder.hash}
    plain = [voxels(tmp_path / name / "sub-01_T1w.nii.gz") for name in ("with", "without")]
    assert np.array_equal(*plain)


def test_a_smooth_region_is_unknown_unless_the_user_brought_it(cli, folder, tmp_path, graded_map):
    base = ("--in", folder / IMAGE, "--map", graded_map, "--save-source")
    smooth = with_defaults(copy_bundle(open_bundle("t1-to-t2"), tmp_path / "smooth"), {"texture": 1.0})
    for name, extra in (("brought", ("--model", smooth.path)), ("asked", ("--texture", 1.0)), ("off", ("--texture", 0))):
        assert cli("translate", *base, *extra, "--out", tmp_path / name).exit_code == 0
    brought, asked, off = (voxels(tmp_path / name / "sub-01_T1w_source.nii.gz") for name in ("brought", "asked", "off"))
    assert np.array_equal(brought, off)
    assert (asked == 4).any()
    assert np.array_equal(asked == 4, np.isin(off, (2, 3)) & ~np.isin(asked, (2, 3)))


def test_a_faint_region_is_unknown_where_a_peak_is_asked_for(cli, folder, tmp_path, graded_map):
    base = ("--in", folder / IMAGE, "--map", graded_map, "--save-source", "--unknown-tau", 0.1, "--tau", 0.2)
    for name, extra in (("without", ()), ("with", ("--peak", 0.5))):
        assert cli("translate", *base, *extra, "--out", tmp_path / name).exit_code == 0
    faint = np.isclose(np.asanyarray(nib.load(graded_map).dataobj), 0.3)
    without, kept = (voxels(tmp_path / name / "sub-01_T1w_source.nii.gz") for name in ("without", "with"))
    assert set(np.unique(without[faint])) <= {0, 2, 3}
    assert set(np.unique(kept[faint])) <= {0, 4}
    assert (kept[faint] == 4).any()
    assert np.array_equal(np.isin(without, (2, 3)) & ~np.isin(kept, (2, 3)), faint & np.isin(without, (2, 3)))
    assert json.loads((tmp_path / "with" / "sub-01_T1w.json").read_text())["Settings"]["Mask"]["peak"] == 0.5


def test_a_map_is_taken_as_it_is_unless_it_is_to_be_averaged_through_the_slices(cli, folder, tmp_path):
    image = nib.load(folder / IMAGE)
    lesion = np.zeros(image.shape, np.float32)
    lesion[18:26, 20:28, [1, 2, 4]] = 1
    nib.save(nib.Nifti1Image(lesion, image.affine), tmp_path / "map.nii.gz")
    seen = with_defaults(copy_bundle(open_bundle("t1-to-t2"), tmp_path / "seen"), {"through_plane_mm": 20.0, "peak": 0.5})
    base = ("--in", folder / IMAGE, "--map", tmp_path / "map.nii.gz", "--tau", 0.2, "--save-map", "--save-source", "--model", seen.path)
    for name, extra in (("own", ()), ("asked", ("--through-plane", 20)), ("sure", ("--through-plane", 20, "--peak", 0.5))):
        assert cli("translate", *base, *extra, "--out", tmp_path / name).exit_code == 0
    own, asked, sure = (voxels(tmp_path / name / "sub-01_T1w_ood.nii.gz")[22, 24] for name in ("own", "asked", "sure"))
    assert own[3] == 0
    assert asked[3] == sure[3] == 1
    assert json.loads((tmp_path / "asked" / "sub-01_T1w.json").read_text())["Settings"]["Mask"]["through_plane_mm"] == 20
    drawn = np.isin(voxels(tmp_path / "sure" / "sub-01_T1w_source.nii.gz")[22, 24], (2, 3))
    assert drawn[3]


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        (("--peak", 1.5), "--peak"), (("--through-plane", -1), "--through-plane"), (("--unknown", "grey"), "--unknown"),
        (("--unknown-tau", 0.7), "below --tau"), (("--unknown-tau", 2), "--unknown-tau"),
        (("--emphasis", 11), "--emphasis"), (("--mode", "plain", "--emphasis", 2), "do not apply"),
        (("--mode", "plain", "--unknown", "blank"), "do not apply"), (("--mode", "plain", "--texture", 0.2), "do not apply"),
        (("--texture", 2), "--texture"), (("--suspect-tau", 0), "--suspect-tau"), (("--suspect-tau", 0.4), "--suspect"),
        (("--suspect", "lesion-t2"), "expected a segmenter of ('T1w'"), (("--suspect", "t1-to-t2"), "expected a segmenter of ('T1w'"),
    ],
)  # fmt: skip
def test_options_of_unknown_and_emphasis_that_cannot_be_are_refused(cli, folder, tmp_path, extra, word):
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", *extra)
    assert result.exit_code == 2
    assert word in result.output


def test_emphasis_moves_the_ood_region_away_from_plain_and_nothing_else(cli, folder, tmp_path, ood_map, with_expert):
    base = ("--in", folder / IMAGE, "--map", ood_map, "--fusion-step", 0, "--steps", 1, "--hard", "--model", with_expert.path)
    for name, extra in (("none", ("--emphasis", 0)), ("one", ()), ("two", ("--emphasis", 1.5))):
        result = cli("translate", *base, *extra, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    none, one, two = (voxels(tmp_path / name / "sub-01_T1w.nii.gz").astype(np.float64) for name in ("none", "one", "two"))
    moved = np.abs(one - none) > 1e-6
    assert moved.any()
    free = moved & (two > 1e-6) & (two < 1 - 1e-6) & (one > 1e-6) & (one < 1 - 1e-6)
    assert np.median(((two - none) / (one - none + 1e-12))[free]) == pytest.approx(1.5, abs=0.05)
    assert np.abs(two - one)[~moved].max() < 1e-5


def test_a_shared_reference_gives_the_same_scale_whoever_asks_first(cli, folder, tmp_path):
    """Brain masks of two people, one of a third of the brain: neither is that of the reference."""
    reference = write_brain(tmp_path / "pool" / "pool_T2w.nii.gz", seed=9)
    for number, share in ((1, 0.2), (2, 1.0)):
        image = nib.load(folder / f"sub-0{number}" / f"sub-0{number}_T1w.nii.gz")
        mask = np.asarray(image.dataobj) > 0
        mask[int(share * len(mask)) + 12 :] = False
        (tmp_path / "brain").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), image.affine), tmp_path / "brain" / f"sub-0{number}_brain.nii.gz")
    base = ("--match", reference, "--brain", tmp_path / "brain", "--mode", "plain", "--suffix", "T2w")
    assert cli("translate", "--in", folder, "--out", tmp_path / "all", *base).exit_code == 0
    assert cli("translate", "--in", folder / "sub-02" / "sub-02_T1w.nii.gz", "--out", tmp_path / "one", *base).exit_code == 0
    both, alone = (json.loads(next((tmp_path / name).rglob("sub-02_T2w.json")).read_text())["OutputScale"] for name in ("all", "one"))
    assert both == alone


def test_outputs_of_an_earlier_run_do_not_outlive_it(cli, folder, tmp_path):
    base = ("--in", folder / IMAGE, "--out", tmp_path / "out")
    assert cli("translate", *base, "--save-map", "--save-source", "--samples", 2).exit_code == 0
    made = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert len(made) == 4
    kept = tmp_path / "out" / "sub-01_T1w_std.nii.gz"
    kept.write_bytes(b"somebody has changed it")
    assert cli("translate", *base, "--mode", "plain", "--overwrite").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["sub-01_T1w.nii.gz", "sub-01_T1w_std.nii.gz"]


def test_the_background_of_matched_integers_is_zero(cli, folder, tmp_path):
    reference = folder / "sub-01" / "sub-01_T2w.nii.gz"
    base = ("--in", folder / IMAGE, "--match", reference, "--mode", "plain")
    assert cli("translate", *base, "--out", tmp_path / "i", "--dtype", "int16").exit_code == 0
    assert cli("translate", *base, "--out", tmp_path / "f").exit_code == 0
    whole, exact = (nib.load(tmp_path / name / "sub-01_T1w.nii.gz").get_fdata() for name in "if")
    assert np.array_equal(whole != 0, exact != 0)
    assert np.abs(whole - exact).max() < np.abs(exact).max() / 32000


@pytest.mark.parametrize("words", [["--lambda", 0.5], ["--fusion-step", 1], ["--branch-step", 0], ["--hard"], ["--ood-crop"], ["--guided"]])
def test_plain_sampling_refuses_what_only_branches_have(cli, folder, tmp_path, words):
    result = cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out", "--mode", "plain", *words)
    assert result.exit_code == 2
    assert words[0] in result.output


@pytest.mark.parametrize("suffix", ["a/b", "", "T2 w", ".."])
def test_a_suffix_is_a_word(cli, folder, tmp_path, suffix):
    result = cli("translate", "--in", folder / IMAGE, "--out", tmp_path / "out", "--suffix", suffix)
    assert result.exit_code == 2
    assert "--suffix" in result.output
