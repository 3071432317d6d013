"""The code of examples/adapters.md, run as it stands, section by section."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from localdiff_cli.app import app
from tests.brains import write_brain

TEXT = (Path(__file__).resolve().parents[2] / "examples" / "adapters.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


def run(title: str, names: dict) -> dict:
    """Run a section's Python; ``names`` is what it begins with."""
    for code in re.findall(r"```python\n(.*?)```", SECTIONS[title], re.S):
        exec(compile(code, f"adapters.md: {title}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Examples write beside themselves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCALDIFF_JOBS", "0")
    torch.manual_seed(0)


def test_every_section_with_code_is_run():
    assert {title for title, text in SECTIONS.items() if "```python" in text} == {
        "MONAI",
        "diffusers",
        "On the command line",
        "Latent diffusion",
    }


def test_the_latent_example_runs():
    assert run("Latent diffusion", {})["target"].std() > 0


def test_the_diffusers_example_runs():
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    assert run("diffusers", {})["target"].std() > 0


def test_the_monai_example_runs_and_its_bundle_on_the_command_line(tmp_path):
    run("On the command line", run("MONAI", {}))
    source = nib.load(write_brain(tmp_path / "T1w.nii.gz", shape=(40, 48, 2)))
    ood = np.zeros(source.shape, dtype=np.float32)
    ood[22:28, 24:30] = 1
    nib.save(nib.Nifti1Image(ood, source.affine), tmp_path / "lesion.nii.gz")
    (lines,) = re.findall(r"```sh\n(.*?)```", SECTIONS["On the command line"], re.S)
    for line in lines.splitlines():
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    assert nib.load(tmp_path / "out" / "T1w.nii.gz").get_fdata().std() > 0
