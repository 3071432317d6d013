"""The worked pages of CONTRIBUTING.md: their code runs as it stands, in the places that they name."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import torch

from localdiff_cli import choices, ood
from localdiff_cli.choices import DETECTORS, SAMPLERS
from localdiff_cli.diffusion.samplers import STEPS, State, step_of
from localdiff_cli.diffusion.schedule import CLEAN, Schedule
from localdiff_cli.errors import VolumeError
from localdiff_cli.recipes import detector
from localdiff_cli.recipes.detector import MAKERS
from localdiff_cli.volumes import formats
from localdiff_cli.volumes.reader import open_volume
from tests.diffusion import test_samplers

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
IMAGE = "sub-01/sub-01_T1w.nii.gz"


def code_of(title):
    """The code of a page."""
    (code,) = re.findall(rf"```python {title}\n(.*?)```", TEXT, re.S)
    return code


def page(title, beside=None):
    """The names that the code of a page defines, ``beside`` a module's own where it is to stand in one."""
    names = dict(vars(beside)) if beside else {}
    exec(compile("from __future__ import annotations\n" + code_of(title), f"CONTRIBUTING.md: {title}", "exec"), names)
    return names


def voxels(path):
    return nib.load(path).get_fdata()


def test_the_sampler_of_the_page_draws_and_walks_to_the_clean_image(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(STEPS, "euler", page("sampler")["euler_step"])
    monkeypatch.setitem(SAMPLERS, "euler", "probability flow")
    for sampler in ("euler", "ddim"):
        given = ("--in", folder / IMAGE, "--out", tmp_path / sampler, "--mode", "plain", "--steps", 4, "--sampler", sampler)
        assert cli("translate", *given).exit_code == 0
    euler, ddim = (voxels(tmp_path / sampler / "sub-01_T1w.nii.gz") for sampler in ("euler", "ddim"))
    assert euler.std() > 0
    # Euler's method in this variable is DDIM with η = 0, up to rounding.
    np.testing.assert_allclose(euler, ddim, atol=2e-3)


def test_the_sampler_of_the_page_passes_the_tests_that_every_sampler_must(monkeypatch):
    monkeypatch.setitem(STEPS, "euler", page("sampler")["euler_step"])
    test_samplers.test_a_schedule_that_ends_in_pure_noise_is_walked_like_one_that_almost_does("euler")
    x_t, x0 = torch.full((1, 1, 2, 2), 0.8), torch.full((1, 1, 2, 2), 0.25)
    assert torch.equal(step_of("euler")(Schedule(), State(x_t), x0, (0, CLEAN), torch.Tensor), x0)


@pytest.fixture
def darkness(tmp_path, monkeypatch):
    """The detector of the page: its own file, its maker among the others, its name."""
    (tmp_path / "ood").mkdir()
    (tmp_path / "ood" / "darkness.py").write_text(code_of("detector"))
    monkeypatch.setattr(ood, "__path__", [*ood.__path__, str(tmp_path / "ood")])
    monkeypatch.setitem(MAKERS, "darkness", page("maker", beside=detector)["_darkness"])
    monkeypatch.setitem(DETECTORS, "darkness", "")
    yield
    sys.modules.pop(f"{ood.__name__}.darkness", None)


def test_the_detector_of_the_page_refuses_what_is_not_its_own(cli, folder, tmp_path, darkness):
    given = ("--in", folder / IMAGE, "--out", tmp_path / "out", "--detector", "darkness", "--false-alarm", 0.02)
    refused = cli("detect", *given)
    assert refused.exit_code == 2
    assert "--false-alarm" in refused.output


def test_the_detector_of_the_page_finds_the_dark_lesion_inside_the_brain(cli, folder, tmp_path, darkness):
    given = ("--in", folder / IMAGE, "--out", tmp_path / "out", "--detector", "darkness", "--bias", "none")
    assert cli("detect", *given).exit_code == 0
    image, found = voxels(folder / IMAGE), voxels(tmp_path / "out" / "sub-01_T1w_ood.nii.gz")
    assert found[image == 120].mean() > 2 * found[(image > 400)].mean()
    assert not found[image == 0].any()


@pytest.mark.parametrize("title", ["sampler", "detector", "maker", "metric"])
def test_the_code_of_the_page_passes_the_linter_where_it_belongs(title, tmp_path):
    before = Path(detector.__file__).read_text() + "\n\n" if title == "maker" else '"""A page of CONTRIBUTING.md."""\n\n'
    (tmp_path / "page.py").write_text(before + code_of(title))
    told = ("--config", ROOT / "pyproject.toml", "--no-cache", "--ignore", "INP001,I001", tmp_path / "page.py")
    found = subprocess.run([sys.executable, "-m", "ruff", "check", *told], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_metric_of_the_page_counts_and_says_why_there_is_none():
    empty_share = page("metric")["empty_share"]
    image, brain = np.array([[[0.0, 1.0], [2.0, 0.0]]]), np.array([[[True, True], [True, False]]])
    assert empty_share(image, brain).value == pytest.approx(1 / 3, abs=1e-6)
    assert empty_share(image, brain & False).reason == "the brain mask is empty"


@pytest.fixture
def npz(tmp_path, monkeypatch):
    """The format of the page, as the one new file that it is."""
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "npz.py").write_text(code_of("format"))
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "formats")])
    formats.formats.cache_clear()
    yield
    formats.formats.cache_clear()
    sys.modules.pop(f"{formats.__name__}.npz", None)


def test_the_format_of_the_page_is_translated_as_the_same_voxels_in_nifti(cli, folder, tmp_path, npz):
    image = nib.load(folder / IMAGE)
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "sub-01_T1w.npz", voxels=np.asarray(image.dataobj), affine=image.affine)
    for given, out in ((tmp_path / "arrays", "npz"), (folder / IMAGE, "nifti")):
        assert cli("translate", "--in", given, "--out", tmp_path / out, "--mode", "plain", "--steps", 2, "--jobs", 0).exit_code == 0
    with np.load(tmp_path / "npz" / "sub-01_T1w.npz") as made:
        np.testing.assert_array_equal(made["voxels"], voxels(tmp_path / "nifti" / "sub-01_T1w.nii.gz"))
        np.testing.assert_array_equal(made["affine"], image.affine)
    assert (tmp_path / "npz" / "sub-01_T1w.json").is_file()


def test_a_damaged_file_of_the_format_of_the_page_is_refused(tmp_path, npz):
    (tmp_path / "a_T1w.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(VolumeError, match="expected voxels and affine"):
        open_volume(tmp_path / "a_T1w.npz")


def test_every_page_with_code_is_run():
    assert re.findall(r"```python (\w+)", TEXT) == ["sampler", "detector", "maker", "metric", "format"]
    assert "```python\n" not in TEXT


def test_what_the_choices_name_is_what_the_registries_make():
    assert set(SAMPLERS) == set(get_args(choices.SamplerName)) == set(STEPS)
    assert set(DETECTORS) == set(get_args(choices.DetectorName)) == set(MAKERS)


def test_every_file_that_the_page_names_exists():
    new = {"localdiff_cli/ood/darkness.py", "localdiff_cli/volumes/formats/npz.py"}
    named = set(re.findall(r"`((?:localdiff_cli|tests|examples)/[\w/.]+)`", TEXT)) - new
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_target_of_make_that_the_page_names_exists():
    targets = set(re.findall(r"make (\w+) ", TEXT)) | set(re.findall(r"`make ([\w-]+)`", TEXT))
    makefile = (ROOT / "Makefile").read_text()
    assert not [target for target in targets if f"\n{target}:" not in makefile]


def test_a_help_lists_each_choice_with_its_meaning():
    assert choices.listed({"a": "", "b": "the second", "c": ""}) == "a, b (the second) or c"
    assert torch.is_tensor(page("detector")["DarknessDetector"]()(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)).score)
