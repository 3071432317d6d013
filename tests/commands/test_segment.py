"""``localdiff segment`` from the outside."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.tasks.judges import Segmenter
from localdiff_cli.volumes.brain import brain_from_file
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.written import scale_of
from tests.brains import write_brain
from tests.bundles import make_segmenter


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_the_segmenter_is_chosen_by_the_name_and_writes_a_mask_on_the_inputs_grid(cli, folder, tmp_path):
    result = cli("segment", "--in", folder / "sub-01" / "sub-01_T2w.nii.gz", "--out", tmp_path / "out", "--save-prob", "--save-brain")
    assert result.exit_code == 0, result.output
    source, made = nib.load(folder / "sub-01" / "sub-01_T2w.nii.gz"), nib.load(tmp_path / "out" / "sub-01_T2w.nii.gz")
    assert np.array_equal(source.affine, made.affine)
    assert made.get_data_dtype() == np.uint8
    assert set(np.unique(voxels(tmp_path / "out" / "sub-01_T2w.nii.gz"))) <= {0, 1}
    probability = voxels(tmp_path / "out" / "sub-01_T2w_prob.nii.gz")
    assert np.array_equal(probability >= 0.5, made.get_fdata() == 1)
    assert (probability[source.get_fdata() == 0] == 0).all()
    sidecar = json.loads((tmp_path / "out" / "sub-01_T2w.json").read_text())
    assert sidecar["Contrast"] == "mask"
    assert sidecar["LesionVolumeMm3"] == made.get_fdata().sum() * 4 * 4 * 20


def test_a_translation_is_segmented_by_its_sidecar_whatever_its_name(cli, folder, tmp_path):
    assert cli("translate", "--in", folder, "--out", tmp_path / "t2").exit_code == 0
    result = cli("segment", "--in", tmp_path / "t2", "--out", tmp_path / "lesions")
    assert result.exit_code == 0, result.output
    assert "model lesion-t2" in result.output
    assert len(list((tmp_path / "lesions").rglob("*_T1w.nii.gz"))) == 2


def test_a_translation_is_read_on_the_scale_that_it_was_written_with(cli, folder, tmp_path):
    """As evaluate reads it; without its sidecar it is an image like any other, and is stretched to its own spread."""
    assert cli("translate", "--in", folder / "sub-01", "--out", tmp_path / "t2", "--suffix", "T2w").exit_code == 0
    made = tmp_path / "t2" / "sub-01_T2w.nii.gz"
    (tmp_path / "bare").mkdir()
    shutil.copy(made, tmp_path / "bare")
    for name, path in (("told", made), ("own", tmp_path / "bare" / made.name)):
        assert cli("segment", "--in", path, "--out", tmp_path / name, "--save-prob", "--save-brain", "--bias", "n4").exit_code == 0
    told, own = (json.loads((tmp_path / name / "sub-01_T2w.json").read_text()) for name in ("told", "own"))
    assert (told["IntensityScale"], told["Bias"]) == ("as its translation was written", "none")
    assert (own["IntensityScale"], own["Bias"]) == ("robust z of its brain", "n4")
    low, high = json.loads(made.with_name("sub-01_T2w.json").read_text())["OutputWindow"]
    assert told["Normalisation"]["SD"] == pytest.approx(1 / (high - low))
    probability = [voxels(tmp_path / name / "sub-01_T2w_prob.nii.gz") for name in ("told", "own")]
    assert not np.allclose(*probability, atol=1e-3)
    volume = open_volume(made)
    brain = brain_from_file(tmp_path / "told" / "sub-01_T2w_brain.nii.gz", volume)
    judged = Segmenter("lesion-t2")(SliceReader(volume), brain, scale_of(made, (low, high)))
    written = SliceReader(open_volume(tmp_path / "told" / "sub-01_T2w.nii.gz"))
    assert judged.any()
    assert np.array_equal(judged, np.stack([written.read(k) > 0 for k in range(len(judged))]))


def test_a_matched_translation_in_whole_numbers_is_read_on_the_scale_of_its_reference(cli, folder, tmp_path):
    image, reference = folder / "sub-01" / "sub-01_T1w.nii.gz", folder / "sub-01" / "sub-01_T2w.nii.gz"
    masks = {}
    for name, extra in (("free", ()), ("matched", ("--match", reference, "--dtype", "int16"))):
        result = cli("translate", "--in", image, "--out", tmp_path / name, "--suffix", "T2w", *extra)
        assert result.exit_code == 0, result.output
        result = cli("segment", "--in", tmp_path / name, "--out", tmp_path / f"{name}_lesions", "--save-prob")
        assert result.exit_code == 0, result.output
        masks[name] = voxels(tmp_path / f"{name}_lesions" / "sub-01_T2w_prob.nii.gz")
    assert voxels(tmp_path / "matched" / "sub-01_T2w.nii.gz").max() > 10
    # Where the free one is 0, at the lowest end of the window, whoever reads it takes it for background.
    assert np.quantile(np.abs(masks["free"] - masks["matched"]), 0.99) < 5e-3
    assert masks["free"].max() > 0.1


def test_a_translation_without_its_sidecar_is_to_be_reviewed_where_that_is_known(cli, folder, tmp_path):
    image = folder / "sub-01" / "sub-01_T2w.nii.gz"
    (tmp_path / "t2").mkdir()
    shutil.copy(image, tmp_path / "t2")
    (tmp_path / "t2" / "sub-01_T2w.json").write_text(json.dumps({"Synthetic": True, "Contrast": "T2w"}))
    assert cli("segment", "--in", tmp_path / "t2", "--out", tmp_path / "out").exit_code == 0
    assert "by its own spread" in (tmp_path / "out" / "qc.tsv").read_text()


def test_the_threshold_and_the_smallest_volume_shrink_the_mask(cli, folder, tmp_path):
    sizes = []
    for i, extra in enumerate([("--threshold", 0.3), ("--threshold", 0.6), ("--threshold", 0.3, "--min-volume", 1e7)]):
        assert cli("segment", "--in", folder / "sub-01" / "sub-01_T2w.nii.gz", "--out", tmp_path / str(i), *extra).exit_code == 0
        sizes.append(int(voxels(tmp_path / str(i) / "sub-01_T2w.nii.gz").sum()))
    assert sizes[0] > sizes[1]
    assert sizes[2] == 0


def test_where_nothing_says_the_contrast_the_choices_are_listed(cli, tmp_path):
    write_brain(tmp_path / "in" / "patient.nii.gz")
    result = cli("segment", "--in", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "lesion-t2 (T2w)" in result.output
    assert cli("segment", "--in", tmp_path / "in", "--out", tmp_path / "out", "--model", "lesion-t2").exit_code == 0


def test_damaged_and_foreign_bundles_do_not_keep_the_right_one_from_being_chosen(cli, folder, models_folder, tmp_path, monkeypatch):
    for name, text in (("a-zoo-model", '{"monai_version": "1.3.0", "task": "spleen"}'), ("damaged", "{"), ("list", "[1]")):
        (tmp_path / "theirs" / name / "configs").mkdir(parents=True)
        (tmp_path / "theirs" / name / "configs" / "metadata.json").write_text(text)
    monkeypatch.setenv("LOCALDIFF_MODELS", f"{tmp_path / 'theirs'}:{models_folder}")
    image = folder / "sub-01" / "sub-01_T2w.nii.gz"
    result = cli("segment", "--in", image, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "model lesion-t2" in result.output


def test_two_segmenters_of_one_contrast_are_a_choice_of_the_user(cli, folder, tmp_path, monkeypatch):
    for name in ("my-lesions", "other-lesions"):
        make_segmenter(tmp_path / "mine" / name)
    monkeypatch.setenv("LOCALDIFF_MODELS", str(tmp_path / "mine"))
    image = folder / "sub-01" / "sub-01_T2w.nii.gz"
    result = cli("segment", "--in", image, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "my-lesions (T2w), other-lesions (T2w)" in result.output
    assert cli("segment", "--in", image, "--out", tmp_path / "out", "--model", "my-lesions").exit_code == 0


def test_of_several_segmenters_of_one_contrast_that_of_all_lesions_is_taken_and_named(cli, folder, models_folder, tmp_path, monkeypatch):
    make_segmenter(tmp_path / "mine" / "a-tumour-finder")
    monkeypatch.setenv("LOCALDIFF_MODELS", f"{tmp_path / 'mine'}:{models_folder}")
    result = cli("segment", "--in", folder / "sub-01" / "sub-01_T2w.nii.gz", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "model lesion-t2" in result.output


def test_the_bytes_do_not_depend_on_the_batch_size(cli, folder, tmp_path):
    made = set()
    for size in (1, 4):
        assert (
            cli("segment", "--in", folder / "sub-01" / "sub-01_T2w.nii.gz", "--out", tmp_path / str(size), "--batch-size", size).exit_code
            == 0
        )
        made.add((tmp_path / str(size) / "sub-01_T2w.nii.gz").read_bytes())
    assert len(made) == 1


def test_a_translator_is_not_a_segmenter(cli, folder, tmp_path):
    result = cli("segment", "--in", folder, "--out", tmp_path / "out", "--model", "t1-to-t2")
    assert result.exit_code == 4


def test_a_segmenter_is_a_detector_too(cli, folder, tmp_path):
    image = folder / "sub-01" / "sub-01_T2w.nii.gz"
    assert cli("detect", "--in", image, "--out", tmp_path / "ood", "--detector", "segmenter", "--model", "lesion-t2").exit_code == 0
    assert cli("segment", "--in", image, "--out", tmp_path / "seg", "--save-prob").exit_code == 0
    assert np.array_equal(voxels(tmp_path / "ood" / "sub-01_T2w_ood.nii.gz"), voxels(tmp_path / "seg" / "sub-01_T2w_prob.nii.gz"))
