"""``localdiff view``: which volumes, how, and that nothing is opened where nobody would see it."""

from __future__ import annotations

import json
import re
import sys

import nibabel as nib
import numpy as np
import pytest

from localdiff_cli.commands import view as command
from tests.brains import write_brain


@pytest.fixture
def brains(tmp_path):
    return [write_brain(tmp_path / f"sub-01_{name}.nii.gz", seed) for seed, name in enumerate(("T1w", "FLAIR"))]


def told(path):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', path.read_text())[1])[0]


def test_images_stand_side_by_side_and_masks_and_maps_lie_over_them(cli, brains, tmp_path):
    for name, array in (("mask", np.ones((40, 48, 6), np.uint8)), ("ood", np.full((40, 48, 6), 0.5, np.float32))):
        nib.Nifti1Image(array, nib.load(brains[0]).affine).to_filename(tmp_path / f"sub-01_{name}.nii.gz")
    over = (tmp_path / "sub-01_mask.nii.gz", tmp_path / "sub-01_ood.nii.gz")
    ran = cli("view", over[0], *brains, over[1], "--out", tmp_path / "x" / "page.html", "--no-open")
    assert ran.exit_code == 0, ran.output
    assert ran.output == f"page: {tmp_path / 'x' / 'page.html'}\n"
    layers = told(tmp_path / "x" / "page.html")["layers"]
    assert [(each["name"], each["kind"]) for each in layers] == [
        ("sub-01_T1w", "image"), ("sub-01_FLAIR", "image"), ("sub-01_mask", "labels"), ("sub-01_ood", "heat"),
    ]  # fmt: skip


def test_an_image_can_be_laid_over_the_others(cli, brains, tmp_path):
    cli("view", brains[0], "--overlay", brains[1], "--out", tmp_path / "page.html")
    assert [each["kind"] for each in told(tmp_path / "page.html")["layers"]] == ["image", "heat"]


def test_a_volume_of_another_grid_is_resampled_and_says_so(cli, brains, tmp_path):
    other = write_brain(tmp_path / "b_T2w.nii.gz", 3, (20, 24, 6), (8, 8, 20))
    cli("view", brains[0], other, "--out", tmp_path / "page.html")
    page = told(tmp_path / "page.html")
    assert [each["name"] for each in page["layers"]] == ["sub-01_T1w", "b_T2w (resampled)"]


def test_a_volume_whose_forms_contradict_each_other_is_shown_by_the_one_that_is_named(cli, brains, tmp_path):
    image = nib.load(brains[0])
    image.set_qform(image.affine, 1)
    image.set_sform(np.diag([-1, -1, 1, 1]) @ image.affine, 1)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), brains[0])
    assert "--affine-from" in cli("view", *brains, "--out", tmp_path / "page.html").output
    assert cli("view", *brains, "--out", tmp_path / "page.html", "--affine-from", "qform").exit_code == 0
    assert [each["name"] for each in told(tmp_path / "page.html")["layers"]] == ["sub-01_T1w", "sub-01_FLAIR"]


def test_two_volumes_of_one_name_are_told_apart(cli, brains, tmp_path):
    again = write_brain(tmp_path / "plain" / "sub-01_T1w.nii.gz", 4)
    cli("view", brains[0], again, "--out", tmp_path / "page.html")
    assert [each["name"] for each in told(tmp_path / "page.html")["layers"]] == ["sub-01_T1w (1)", "sub-01_T1w (2)"]


def test_a_folder_of_several_volumes_and_masks_alone_are_refused(cli, brains, tmp_path):
    ran = cli("view", tmp_path, "--out", tmp_path / "page.html")
    assert ran.exit_code == 2
    assert "found 2 volumes" in ran.output
    nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(tmp_path / "a_mask.nii.gz")
    ran = cli("view", tmp_path / "a_mask.nii.gz")
    assert ran.exit_code == 2
    assert "none of the volumes is an image" in ran.output
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("terminal", "environment", "option", "opened"),
    [
        (True, {"DISPLAY": ":0"}, (), True),
        (True, {"DISPLAY": ":0"}, ("--no-open",), False),
        (True, {}, (), False),
        (True, {"DISPLAY": ":0", "SSH_CONNECTION": "1"}, (), False),
        (False, {"DISPLAY": ":0"}, (), False),
    ],
)
def test_a_browser_opens_only_where_there_is_a_screen(cli, brains, tmp_path, monkeypatch, terminal, environment, option, opened):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(command.webbrowser, "open", calls.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(command, "_is_terminal", lambda: terminal)
    cli("view", brains[0], "--out", tmp_path / "page.html", *option)
    assert calls == ([(tmp_path / "page.html").as_uri()] if opened else [])


def test_a_dicom_series_is_viewed_without_the_person(cli, tmp_path):
    pytest.importorskip("pydicom")
    from tests.volumes.dicom_series import SECRETS, classic, head

    folder = classic(tmp_path / "QUUXBOROUGH", head(), description="T1 Quuxborough")
    ran = cli("view", folder, "--out", tmp_path / "page.html")
    assert ran.exit_code == 0, ran.output
    text = (tmp_path / "page.html").read_text().lower()
    assert not [secret for secret in SECRETS if secret.lower() in text]
    assert told(tmp_path / "page.html")["name"].startswith("series-004-")


def test_an_input_is_never_overwritten_by_the_page(cli, brains, tmp_path):
    before = brains[0].read_bytes()
    refused = cli("view", *brains, "--out", brains[0])
    assert refused.exit_code == 2
    assert "is no page" in refused.output
    assert brains[0].read_bytes() == before


def test_a_page_of_before_is_replaced(cli, brains, tmp_path):
    page = tmp_path / "page.html"
    assert cli("view", *brains, "--out", page, "--no-open").exit_code == 0
    assert cli("view", brains[0], "--out", page, "--no-open").exit_code == 0
