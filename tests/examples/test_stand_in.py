"""Stand-in T2w volumes: who gets one, where it lies, and what its voxels are."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from examples.training.cohort import Person
from examples.training.cohort import main as write_cohort
from examples.training.stand_in import StandInNetwork, Three, around, main, make, stand_in_loss
from localdiff_cli.errors import UsageError
from localdiff_cli.training.slices import PatientSlices
from tests.brains import write_brain


def _folder(path: Path, people: dict[str, tuple[str, tuple[str, ...]]]) -> Path:
    """People by name: split and contrasts."""
    path.mkdir()
    (path / "participants.tsv").write_text(
        "participant_id\tsplit\tdisease\n" + "".join(f"{name}\t{split}\tglioma\n" for name, (split, _) in people.items())
    )
    for seed, (name, (_, contrasts)) in enumerate(people.items()):
        for number, contrast in enumerate(contrasts):
            write_brain(path / name / f"{name}_{contrast}.nii.gz", seed + 10 * number)
    return path


def _translations(folder: Path, *files: Path, value: float = 0.75) -> Path:
    """Translations of these T1w, of one value everywhere."""
    folder.mkdir()
    for file in files:
        image = nib.load(file)
        constant = nib.Nifti1Image(np.full(image.shape, value, np.float32), image.affine)
        nib.save(constant, folder / file.name.replace("T1w", "T2w"))
    return folder


@pytest.fixture
def cohort(tmp_path: Path) -> list[Path]:
    three = ("T1w", "FLAIR", "T2w")
    first = _folder(tmp_path / "a", {"sub-1": ("train", three), "sub-2": ("val", three)})
    others = {"sub-1": ("train", three), "sub-3": ("train", three[:2]), "sub-4": ("test", three[:2]), "sub-5": ("train", three[:1])}
    return [first, _folder(tmp_path / "b", others)]


def test_who_gets_a_stand_in(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    translated = _translations(tmp_path / "translated", *(cohort[1] / name / f"{name}_T1w.nii.gz" for name in ("sub-1", "sub-3", "sub-4")))
    folders = list(map(str, cohort))
    main(["--learn", *folders, "--make", *folders, "--elsewhere", str(translated), "--steps", "1", "--out", str(out)])
    assert capsys.readouterr().out.strip().endswith(f"1 people learnt from, 1 stand-ins in {out}")
    rows = list(csv.DictReader((out / "cohort.tsv").read_text().splitlines(), delimiter="\t"))
    told = {row["name"]: row["target"] for row in rows}
    assert sorted(told) == ["sub-1", "sub-2", "sub-3"]
    assert told["sub-1"] == str(cohort[0] / "sub-1" / "sub-1_T2w.nii.gz")
    assert told["sub-3"] == str(out / "sub-3_T2w.nii.gz")


def test_without_a_translation_of_anybody_nothing_is_learnt(cohort, tmp_path):
    options = _options(cohort, tmp_path)
    (tmp_path / "translated" / "sub-3_T2w.nii.gz").unlink()
    with pytest.raises(UsageError, match="found no translation of the 1 people who lack a T2w"):
        main(options)
    assert not list((tmp_path / "out").glob("*.pt"))


def test_a_translation_may_lie_in_a_folder_of_its_person_and_who_has_none_is_counted(cohort, tmp_path, capsys):
    cohort.append(_folder(tmp_path / "c", {"sub-6": ("train", ("T1w", "FLAIR"))}))
    out, translated = tmp_path / "out", tmp_path / "translated"
    translated.mkdir()
    _translations(translated / "sub-3", cohort[1] / "sub-3" / "sub-3_T1w.nii.gz")
    folders = list(map(str, cohort))
    main(["--learn", folders[0], "--make", *folders, "--elsewhere", str(translated), "--steps", "1", "--out", str(out)])
    assert capsys.readouterr().out.strip().endswith(f"1 stand-ins in {out}, 1 people without a translation left out")


def _options(cohort: list[Path], folder: Path) -> list[str]:
    translated = _translations(folder / "translated", cohort[1] / "sub-3" / "sub-3_T1w.nii.gz")
    return ["--learn", str(cohort[0]), "--make", str(cohort[1]), "--elsewhere", str(translated), "--out", str(folder / "out")]


def test_a_name_to_leave_out_must_be_somebodys(cohort, tmp_path):
    with pytest.raises(UsageError, match="--exclude sub-9: found nobody of that name"):
        main([*_options(cohort, tmp_path), "--exclude", "sub-9"])


def test_the_table_of_a_cohort_checks_the_names_too(cohort, tmp_path):
    out = tmp_path / "cohort.tsv"
    with pytest.raises(UsageError, match="--exclude sub-9: found nobody of that name"):
        write_cohort([*map(str, cohort[1:]), "--exclude", "sub-9", "--out", str(out)])
    write_cohort([*map(str, cohort[1:]), "--exclude", "sub-3", "--out", str(out)])
    assert [row["name"] for row in csv.DictReader(out.read_text().splitlines(), delimiter="\t")] == ["sub-1", "sub-4", "sub-5"]


def test_who_is_left_out_is_neither_learnt_from_nor_given_a_stand_in(cohort, tmp_path):
    with pytest.raises(UsageError, match="found nobody of the train split"):
        main([*_options(cohort, tmp_path), "--exclude", "sub-1"])


def test_the_planes_of_a_person_are_t1w_flair_brain_t2w_and_lesion():
    def slices(condition, target):
        images = (np.full((1, 2, 2), value * 65535, np.uint16) for value in (condition, target))
        return PatientSlices("sub-1", "train", *images, np.ones((1, 2, 2), bool), np.zeros((1, 2, 2), bool), masked=True)

    planes = Three(slices(0.25, 0.75), slices(0.25, 0.5)).planes(0)
    np.testing.assert_allclose(planes[:, 0, 0], [0.25, 0.5, 1, 0.75, 0], atol=1e-4)


def _person(folder: Path, **files: Path) -> Person:
    return Person("sub-3", "train", {"condition": folder / "sub-3_T1w.nii.gz", "target": folder / "sub-3_FLAIR.nii.gz"} | files, False)


def test_a_stand_in_is_the_networks_in_lesions_and_the_translation_elsewhere(cohort, tmp_path):
    folder = cohort[1] / "sub-3"
    t1 = nib.load(folder / "sub-3_T1w.nii.gz")
    brain, lesion = t1.get_fdata() > 0, np.zeros(t1.shape, np.uint8)
    lesion[tuple(slice(n // 2 - 6, n // 2 + 6) for n in t1.shape[:2])] = 1
    nib.save(nib.Nifti1Image(lesion, t1.affine), tmp_path / "mask.nii.gz")
    person = _person(folder, mask=tmp_path / "mask.nii.gz")
    translated = _translations(tmp_path / "translated", person.files["condition"]) / "sub-3_T2w.nii.gz"
    stored = nib.load(make(person, lambda seen: 0 * seen[:, :1] + 0.25, translated, tmp_path))
    np.testing.assert_array_equal(stored.affine, t1.affine)
    assert (stored.get_fdata()[~brain] == 0).all()
    far = binary_dilation(lesion, iterations=8)
    np.testing.assert_allclose(stored.get_fdata()[binary_erosion(lesion, iterations=4) & brain], 350, rtol=0.02)
    np.testing.assert_allclose(stored.get_fdata()[~far & brain], 850, rtol=0.02)


def test_a_small_lesion_is_the_networks_too(cohort, tmp_path):
    folder = cohort[1] / "sub-3"
    t1 = nib.load(folder / "sub-3_T1w.nii.gz")
    lesion = np.zeros(t1.shape, np.uint8)
    middle = tuple(n // 2 for n in t1.shape[:2])
    lesion[middle[0] : middle[0] + 2, middle[1] : middle[1] + 2] = 1
    nib.save(nib.Nifti1Image(lesion, t1.affine), tmp_path / "mask.nii.gz")
    person = _person(folder, mask=tmp_path / "mask.nii.gz")
    translated = _translations(tmp_path / "translated", person.files["condition"]) / "sub-3_T2w.nii.gz"
    stored = nib.load(make(person, lambda seen: 0 * seen[:, :1] + 0.25, translated, tmp_path)).get_fdata()
    np.testing.assert_allclose(stored[(lesion > 0) & (t1.get_fdata() > 0)], 350, rtol=0.02)


def test_a_translation_in_other_units_is_refused(cohort, tmp_path):
    person = _person(cohort[1] / "sub-3")
    translated = _translations(tmp_path / "translated", person.files["condition"], value=312.0) / "sub-3_T2w.nii.gz"
    with pytest.raises(UsageError, match="goes from 312 to 312; expected a translation as localdiff writes it"):
        make(person, lambda seen: seen[:, :1], translated, tmp_path)


def test_mean_and_spread_around_a_pixel_are_of_the_brain_alone():
    brain, images = torch.zeros(1, 1, 5, 5), torch.full((1, 2, 5, 5), 9.0)
    brain[..., 1:4, 1:4] = 1
    images[..., 1:4, 1:4] = torch.tensor([0.0, 1.0, 0.0])
    mean, spread = around(images, brain)
    assert mean[0, 0, 2, 2] == pytest.approx(1 / 3, abs=1e-6)
    assert mean[0, 0, 1, 1] == pytest.approx(1 / 2, abs=1e-6)
    assert spread[0, 1, 1, 1] == pytest.approx(1 / 2, abs=1e-6)


def test_the_network_is_given_t1w_flair_and_the_brain(cohort, tmp_path):
    folder = cohort[1] / "sub-3"
    t1 = nib.load(folder / "sub-3_T1w.nii.gz")
    brain = t1.get_fdata() > 0
    nib.save(nib.Nifti1Image(np.ones(t1.shape, np.uint8), t1.affine), tmp_path / "mask.nii.gz")
    person = _person(folder, mask=tmp_path / "mask.nii.gz")
    translated = _translations(tmp_path / "translated", person.files["condition"]) / "sub-3_T2w.nii.gz"
    by_channel, brains = [], []

    def part(seen: torch.Tensor, channel: int) -> torch.Tensor:
        brains.append(seen[:, 2])
        return seen[:, channel : channel + 1]

    for channel in (0, 1, 2):
        out = tmp_path / str(channel)
        out.mkdir()
        by_channel.append(nib.load(make(person, partial(part, channel=channel), translated, out)).get_fdata()[brain])
    assert {float(value) for each in brains for value in each.unique()} == {0.0, 1.0}
    for contrast, made in zip(("T1w", "FLAIR"), by_channel, strict=False):
        image = nib.load(folder / f"sub-3_{contrast}.nii.gz").get_fdata()[brain]
        assert np.corrcoef(image, made)[0, 1] > 0.9
    assert abs(np.corrcoef(*by_channel[:2])[0, 1]) < 0.9
    assert np.median(by_channel[2]) == pytest.approx(1100, rel=0.02)


class _Slices:
    """Of one person: T1w 0.2, FLAIR 0.4, T2w 0.6 in the brain; the lesion's T2w is 0.8."""

    def __init__(self) -> None:
        self.t2 = type("T2w", (), {"lesion_pixels": np.array([100]), "condition": np.zeros(1)})

    def planes(self, row: int) -> np.ndarray:
        brain, lesion = np.zeros((2, 64, 64), np.float32)
        brain[8:56, 8:56], lesion[24:40, 24:40] = 1, 1
        return np.stack([0.2 * brain, 0.4 * brain, brain, 0.6 * brain + 0.2 * lesion, lesion])


def test_a_lesion_counts_more_than_the_rest_of_the_brain():
    loss = stand_in_loss([_Slices()], 4)

    class Constant(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            return torch.where(seen[:, :1] > 0, self.value, 0.0)

    brain_right, lesion_right = (float(loss(Constant(value), torch.Generator().manual_seed(0))) for value in (0.6, 0.8))
    # By area the lesion is a ninth of the brain: counted alike, a wrong lesion would cost an eighth of a wrong rest.
    assert 2 / 8 < brain_right / lesion_right < 4 / 8


def test_the_network_keeps_the_grid():
    assert StandInNetwork()(torch.rand(1, 3, 64, 48)).shape == (1, 1, 64, 48)
