"""One case from its files: every volume is brought onto one grid before anything is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.errors import VolumeError
from localdiff_cli.evaluation.metrics.own_maximum import own_maximum_figures
from localdiff_cli.evaluation.settings import FigureSettings
from localdiff_cli.tasks.evaluation import CaseFiles, CaseSettings, measure
from localdiff_cli.volumes.intensity import WINDOWS, Scale
from tests.volumes.test_placement import oblique

SHAPE, AFFINE = (56, 60, 24), np.array([[-2.5, 0, 0, 70], [0, -2.5, 0, 80], [0, 0, 4, -40], [0, 0, 0, 1.0]])
SCALE = Scale(400.0, 60.0, WINDOWS["FLAIR"])
OPTIONS = CaseSettings(FigureSettings(resamples=100), "FLAIR", bias="none")
KIND = {"translation": "FLAIR", "reference": "FLAIR"}
EVERY = ("reference", "truth", "segmentation", "reference_segmentation", "brain")
SHIFTED = AFFINE + np.array([[0, 0, 0, 3.1], [0, 0, 0, -1.7], [0, 0, 0, -6.3], [0, 0, 0, 0]])
TURNED = oblique((1.9, 2.1, 3.0), (9, -6, 14), (-75.0, -95.0, -65.0))
GRIDS = pytest.mark.parametrize(("affine", "shape"), [(SHIFTED, (60, 64, 28)), (TURNED, (90, 100, 56))], ids=["shifted", "turned"])


def save(path, array, affine=AFFINE, sidecar=None):
    nib.save(nib.Nifti1Image(array, affine), path)
    if sidecar is not None:
        path.with_name(path.name.removesuffix(".nii.gz") + ".json").write_text(json.dumps(sidecar))
    return path


def anatomy(affine, shape):
    """A brain as functions of the position in space: ``(x, y, z)`` arrays by role, on any grid exactly and without interpolation."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    inside = (x / 58) ** 2 + (y / 62) ** 2 + ((z - 6) / 40) ** 2 < 1
    away = np.sqrt((x - 15) ** 2 + (y + 12) ** 2 + (z - 10) ** 2)
    bump = np.exp(-((away / 15) ** 4))
    texture = np.sin(x / 7 + 1) * np.cos(y / 8) + np.sin(z / 6) * np.cos((x + y) / 9)
    noise = np.sin(x / 6) * np.sin(y / 7 + 2) * np.cos(z / 8)
    true = np.where(inside, 400 + 60 * texture + 180 * bump, 0)
    return {
        "reference": true,
        "translation": np.where(inside, SCALE.normalise(true - 70 * bump + 15 * noise), 0),
        "brain": inside,
        "truth": away < 14,
        "segmentation": (away < 14) & (noise < 0.5),
        "reference_segmentation": away < 16,
    }


def write(folder, affine, shape, *roles, sidecar=None):
    """Some roles of the anatomy as files, by role."""
    arrays = anatomy(affine, shape)
    chosen = {role: arrays[role].astype(np.float32 if role in ("reference", "translation") else np.uint8) for role in roles}
    return {role: save(folder / f"{role}_{KIND.get(role, 'mask')}.nii.gz", array, affine, sidecar) for role, array in chosen.items()}


def head():
    """The reference, the brain and the lesion on the study's grid."""
    arrays = anatomy(AFFINE, SHAPE)
    return arrays["reference"].astype(np.float32), arrays["brain"], arrays["truth"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Translation (as localdiff writes it), the true FLAIR, brain and lesion masks, on one grid."""
    place = tmp_path_factory.mktemp("case")
    ours = {"Synthetic": True, "LocaldiffVersion": "1", "Contrast": "FLAIR"}
    made = write(place, AFFINE, SHAPE, "translation", sidecar=ours)
    return CaseFiles(name="sub-01", patient="sub-01", **made, **write(place, AFFINE, SHAPE, *EVERY))


@pytest.fixture(scope="module")
def plain(study):
    return measure(study, OPTIONS)


@GRIDS
def test_a_copy_on_another_grid_in_the_same_place_gives_the_same_figures(study, plain, tmp_path, affine, shape):
    partners = write(tmp_path, affine, shape, "reference", "truth", "segmentation", "reference_segmentation")
    found = measure(replace(study, **partners), replace(OPTIONS, resample_reference=True))
    assert found.metrics["psnr_brain"].value == pytest.approx(plain.metrics["psnr_brain"].value, abs=0.6)
    assert found.metrics["reference_contrast"].value == pytest.approx(plain.metrics["reference_contrast"].value, abs=0.01)
    assert found.metrics["contrast"].value == pytest.approx(plain.metrics["contrast"].value, abs=0.01)
    for key in ("dice", "reference_dice"):
        assert found.metrics[key].value == pytest.approx(plain.metrics[key].value, abs=0.04)
    assert "interpolated linearly" in found.used["reference"]


@GRIDS
def test_a_brain_mask_of_another_grid_moves_with_its_header(study, plain, tmp_path, affine, shape):
    found = measure(replace(study, **write(tmp_path, affine, shape, "brain")), replace(OPTIONS, resample_reference=True))
    sizes = [[each.metrics["brain_pixels"].value for each in result.slices] for result in (plain, found)]
    assert sum(sizes[1]) == pytest.approx(sum(sizes[0]), rel=0.02)
    centres = [np.average([each.index for each in result.slices], weights=size) for result, size in zip((plain, found), sizes, strict=True)]
    assert abs(centres[1] - centres[0]) < 0.5
    assert "interpolated linearly" in found.brain_name
    with pytest.raises(VolumeError, match="brain mask"):
        measure(replace(study, **write(tmp_path, affine, shape, "brain")), OPTIONS)


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SLA"])
def test_a_re_oriented_copy_gives_the_very_same_figures_without_resampling(study, plain, tmp_path, orientation):
    turned = {}
    for role in EVERY:
        image = nib.load(getattr(study, role))
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(orientation))
        turned[role] = tmp_path / getattr(study, role).name
        nib.save(image.as_reoriented(turn), turned[role])
    found = measure(replace(study, **turned), OPTIONS)
    assert found.metrics == plain.metrics
    assert "another orientation" in found.used["reference"]


def test_a_mask_of_tissues_in_the_place_of_the_lesions_is_refused(study, tmp_path):
    tissues = save(tmp_path / "truth_dseg.nii.gz", anatomy(AFFINE, SHAPE)["brain"] * np.uint8(2))
    with pytest.raises(VolumeError, match="marks 100% of the brain; expected lesions") as caught:
        measure(replace(study, truth=tissues), OPTIONS)
    assert caught.value.code == "not-a-lesion-mask"


def test_a_truly_misaligned_reference_does_not_give_the_same_figures(study, plain, tmp_path):
    image = nib.load(study.reference)
    affine = image.affine.copy()
    affine[0, 3] += 10
    wrong = replace(study, reference=save(tmp_path / "true_FLAIR.nii.gz", image.get_fdata(dtype=np.float32), affine))
    with pytest.raises(VolumeError, match="--resample-ref"):
        measure(wrong, OPTIONS)
    found = measure(wrong, replace(OPTIONS, resample_reference=True))
    assert found.metrics["psnr_brain"].value < plain.metrics["psnr_brain"].value - 5


def test_a_reference_somewhere_else_altogether_is_refused(study, tmp_path):
    image = nib.load(study.reference)
    affine = image.affine.copy()
    affine[2, 3] += 500
    wrong = replace(study, reference=save(tmp_path / "true_FLAIR.nii.gz", image.get_fdata(dtype=np.float32), affine))
    with pytest.raises(VolumeError, match="covers 0% of the brain"):
        measure(wrong, replace(OPTIONS, resample_reference=True))


def test_a_matched_translation_is_taken_back_to_the_common_scale(study, plain, tmp_path):
    units = Scale(90.0, 12.5, WINDOWS["FLAIR"])
    inside = nib.load(study.brain).get_fdata() > 0
    array = np.where(inside, units.denormalise(nib.load(study.translation).get_fdata()), 0).astype(np.float32)
    sidecar = {"Synthetic": True, "LocaldiffVersion": "1", "OutputScale": {"Median": 90.0, "SD": 12.5, "Window": list(units.window)}}
    found = measure(replace(study, translation=save(tmp_path / "m_FLAIR.nii.gz", array, sidecar=sidecar)), OPTIONS)
    assert found.metrics["mae_brain"].value == pytest.approx(plain.metrics["mae_brain"].value, rel=1e-4)
    assert "--match" in found.used["translation"]


def test_a_sidecar_whose_scale_cannot_be_read_is_refused(study, tmp_path):
    sidecar = {"Synthetic": True, "LocaldiffVersion": "1", "OutputScale": {"Median": 90.0}}
    array = nib.load(study.translation).get_fdata(dtype=np.float32)
    with pytest.raises(VolumeError, match="OutputScale"):
        measure(replace(study, translation=save(tmp_path / "m_FLAIR.nii.gz", array, sidecar=sidecar)), OPTIONS)


def tilted(array):
    """A strong bias field over the image."""
    return (array * np.linspace(0.6, 1.6, len(array))[:, None, None]).astype(np.float32)


@pytest.mark.parametrize("resample", [False, True])
def test_the_bias_field_is_taken_out_of_the_reference_on_whatever_grid_it_came(study, plain, tmp_path, resample):
    affine, shape = (SHIFTED, (60, 64, 28)) if resample else (AFFINE, SHAPE)
    path = save(tmp_path / "true_FLAIR.nii.gz", tilted(anatomy(affine, shape)["reference"]), affine)
    files, options = replace(study, reference=path), replace(OPTIONS, resample_reference=resample)
    left, taken = (measure(files, replace(options, bias=bias)) for bias in ("none", "n4"))
    assert taken.metrics["mae_brain"].value < 0.7 * left.metrics["mae_brain"].value
    assert "bias n4" in taken.used["reference"]
    assert "bias none" in left.used["reference"]


def test_the_segmenter_sees_every_image_on_the_grid_of_the_case(study, tmp_path):
    """A segmenter that thresholds what it is given: its masks must lie over the lesion, whatever grid the reference came on."""
    seen, scales = [], {}

    def segmenter(reader, brain, written):
        scales[reader.volume.path] = written
        image = np.stack([reader.read(k) for k in range(reader.volume.frame.shape[0])])
        seen.append((reader.volume.path, image.shape, brain.mask.shape))
        return image > np.percentile(image[brain.mask], 97)

    bare = replace(study, segmentation=None, reference_segmentation=None)
    own = measure(bare, OPTIONS, segmenter)
    other = replace(bare, reference=write(tmp_path, SHIFTED, (60, 64, 28), "reference")["reference"])
    found = measure(other, replace(OPTIONS, resample_reference=True), segmenter)
    assert found.metrics["reference_dice"].value == pytest.approx(own.metrics["reference_dice"].value, abs=0.05)
    assert own.metrics["reference_dice"].value > 0.6
    assert len({shape for _, *shapes in seen for shape in shapes}) == 1
    assert other.reference in {path for path, *_ in seen}
    assert scales[other.reference] is None
    assert scales[study.translation].window == WINDOWS["FLAIR"]  # its sidecar names none: that of the figures


def test_the_segmenter_reads_a_translation_on_the_scale_that_it_was_written_with(study, tmp_path):
    scales = {}

    def segmenter(reader, brain, written):
        scales[reader.volume.path] = written
        return np.zeros(brain.mask.shape, bool)

    ours = {"Synthetic": True, "LocaldiffVersion": "0.1.0", "OutputWindow": list(WINDOWS["FLAIR"])}
    made = write(tmp_path, AFFINE, SHAPE, "translation", sidecar=ours)["translation"]
    measure(replace(study, translation=made, segmentation=None, reference_segmentation=None), OPTIONS, segmenter)
    low, high = WINDOWS["FLAIR"]
    assert scales[made].window == (low, high)
    assert scales[made].sd == pytest.approx(1 / (high - low))
    assert scales[study.reference] is None


# Anybody's translations


def test_another_tools_translation_is_measured_by_its_own_scale_and_brain(study, tmp_path):
    """A polynomial of another contrast, as a script writes it: int16, its own units, no sidecar, air not 0."""
    true, inside, lesion = head()
    source = np.where(inside, 9 - true.astype(float) / 100 + 0.2 * np.cos(true / 37), 0)
    curve = np.polyfit(source[inside & ~lesion], true[inside & ~lesion], 3)
    made = np.where(inside, 3 * np.polyval(curve, source) + 700, 0).astype(np.int16)
    files = replace(study, translation=save(tmp_path / "poly_FLAIR.nii.gz", made), brain=None)
    found = measure(files, OPTIONS)
    assert found.brain_name == "support of the translation"
    assert "own robust z" in found.used["translation"]
    assert found.metrics["psnr_brain"].value > 25
    same = replace(files, translation=save(tmp_path / "again_FLAIR.nii.gz", np.where(inside, made * 2 + 31, 0).astype(np.float32)))
    assert measure(same, OPTIONS).metrics["mae_brain"].value == pytest.approx(found.metrics["mae_brain"].value, rel=1e-2)


def test_another_tools_translation_with_its_skull_gets_the_brain_of_the_reference(study, tmp_path):
    true, inside, _ = head()
    made = np.where(inside, true, 300 + 100 * np.sin(np.arange(true.size).reshape(true.shape))).astype(np.float32)
    files = replace(study, translation=save(tmp_path / "head_FLAIR.nii.gz", made), brain=None)
    found = measure(files, OPTIONS)
    assert found.brain_name == "support of a skull-stripped volume, found on the reference"
    assert found.metrics["mae_brain"].value == pytest.approx(0, abs=1e-6)


def test_another_tools_translation_on_another_grid_is_measured_on_that_grid(study, tmp_path):
    bare = save(tmp_path / "bare_FLAIR.nii.gz", nib.load(study.translation).get_fdata(dtype=np.float32))
    plain = measure(replace(study, translation=bare), OPTIONS)
    files = replace(study, **write(tmp_path, SHIFTED, (60, 64, 28), "translation", "brain"))
    found = measure(files, replace(OPTIONS, resample_reference=True))
    assert found.shape == (28, 64, 60)
    assert found.metrics["psnr_brain"].value == pytest.approx(plain.metrics["psnr_brain"].value, abs=1)
    assert found.metrics["reference_contrast"].value == pytest.approx(plain.metrics["reference_contrast"].value, abs=0.02)


def test_nan_outside_the_brain_does_not_matter_and_inside_is_refused(study, plain, tmp_path):
    array = nib.load(study.reference).get_fdata(dtype=np.float32)
    inside = nib.load(study.brain).get_fdata() > 0
    outside = np.where(inside, array, np.nan).astype(np.float32)
    found = measure(replace(study, reference=save(tmp_path / "true_FLAIR.nii.gz", outside)), OPTIONS)
    assert found.metrics == plain.metrics
    array[SHAPE[0] // 2, SHAPE[1] // 2, SHAPE[2] // 2] = np.nan
    with pytest.raises(VolumeError, match="found 1 voxels of NaN"):
        measure(replace(study, reference=save(tmp_path / "true_FLAIR.nii.gz", array)), OPTIONS)


def test_the_figures_of_papers_are_those_of_the_whole_volume_over_its_own_maximum(study, plain):
    true = nib.load(study.reference).get_fdata()
    inside = nib.load(study.brain).get_fdata() > 0
    made = np.where(inside, np.clip(reference_units(true[inside]).denormalise(nib.load(study.translation).get_fdata()), 0, None), 0)
    error = np.mean((made / made.max() - true / true.max()) ** 2)
    assert plain.metrics["psnr_own_max"].value == pytest.approx(-10 * np.log10(error), abs=0.1)
    reason = own_maximum_figures(true - 500, true)["psnr_own_max"].reason
    assert "maximum is no scale" in reason


def reference_units(values):
    median = np.median(values)
    return Scale(float(median), float(1.4826 * np.median(abs(values - median))), WINDOWS["FLAIR"])


# Limits of an interval


def limits(place, affine, shape, below=0.05, above=0.2):
    """Limits about the translation as localdiff writes them, and who made each voxel: the lesion was drawn."""
    arrays = anatomy(affine, shape)
    made = arrays["translation"].astype(np.float32)
    inside = arrays["brain"]
    low, high = (np.where(inside, made + step, 0).astype(np.float32) for step in (-below, above))
    source = np.where(inside, np.where(arrays["truth"], 2, 1), 0).astype(np.uint8)
    files = {"lower": low, "upper": high, "source": source}
    return {role: save(place / f"{role}_FLAIR.nii.gz", array, affine) for role, array in files.items()}


def test_limits_are_measured_against_the_reference_on_the_common_scale(study, plain, tmp_path):
    found = measure(replace(study, **limits(tmp_path, AFFINE, SHAPE)), OPTIONS)
    assert found.metrics["width_brain"].value == pytest.approx(0.25, abs=1e-3)
    assert found.metrics["coverage_drawn"].value > 0.5 > found.metrics["coverage_brain"].value - 0.5
    assert found.metrics["psnr_brain"] == plain.metrics["psnr_brain"]
    assert "translation's scale" in found.used["lower limit"]


def test_limits_of_a_matched_translation_are_taken_back_with_it(study, tmp_path):
    own = measure(replace(study, **limits(tmp_path, AFFINE, SHAPE)), OPTIONS)
    units = Scale(90.0, 12.5, WINDOWS["FLAIR"])
    sidecar = {"Synthetic": True, "LocaldiffVersion": "1", "OutputScale": {"Median": 90.0, "SD": 12.5, "Window": list(units.window)}}
    matched = {}
    for role, path in {"translation": study.translation, **limits(tmp_path, AFFINE, SHAPE)}.items():
        array = nib.load(path).get_fdata(dtype=np.float32)
        array = array if role == "source" else units.denormalise(array).astype(np.float32)
        matched[role] = save(tmp_path / f"m_{role}_FLAIR.nii.gz", array, sidecar=sidecar if role == "translation" else None)
    found = measure(replace(study, **matched), OPTIONS)
    for key in ("coverage_brain", "coverage_drawn", "width_brain"):
        assert found.metrics[key].value == pytest.approx(own.metrics[key].value, abs=0.02)


def test_limits_of_another_grid_are_refused_or_interpolated(study, tmp_path):
    own = measure(replace(study, **limits(tmp_path, AFFINE, SHAPE)), OPTIONS)
    moved = replace(study, **limits(tmp_path, SHIFTED, (60, 64, 28)))
    with pytest.raises(VolumeError, match="lower limit has shape"):
        measure(moved, OPTIONS)
    found = measure(moved, replace(OPTIONS, resample_reference=True))
    for key in ("coverage_brain", "coverage_drawn", "width_lesion"):
        assert found.metrics[key].value == pytest.approx(own.metrics[key].value, abs=0.1)
    assert "interpolated" in found.used["upper limit"]


def test_a_source_map_that_is_an_image_is_refused(study, tmp_path):
    with pytest.raises(VolumeError, match="expected the labels 0, 1, 2, 3, 4"):
        measure(replace(study, **limits(tmp_path, AFFINE, SHAPE) | {"source": study.reference}), OPTIONS)
