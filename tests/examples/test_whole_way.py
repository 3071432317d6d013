"""DICOM → BIDS → localdiff-bids → report → Slicer's module → DICOM out, on the packaged patient, with tiny networks."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from examples import whole_way
from localdiff_cli import app as main
from localdiff_cli.bids import app as bids
from localdiff_cli.interfaces import slicer

pydicom = pytest.importorskip("pydicom", reason="pip install 'localdiff[dicom]'")
pytestmark = pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
COMMANDS = {"localdiff": main.app, "localdiff-bids": bids.app, "localdiff-slicer": slicer.app}


def run(*words):
    """The commands in this process, other programs as they are."""
    name, *arguments = map(str, words)
    if name == "localdiff-slicer" and arguments == ["--xml"]:
        return slicer.description()
    if name not in COMMANDS:
        return subprocess.run([name, *arguments], check=True, capture_output=True, text=True).stdout
    result = CliRunner().invoke(COMMANDS[name], arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_one_person_goes_the_whole_way(cli, tmp_path):
    way = whole_way.walk(tmp_path / "w", run, model="t1-to-t2", target="T2w", slices=3)
    voxels, affine = whole_way.slab("T1w", 3)
    converted = nib.load(way.study / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    assert sorted(np.unique(converted.dataobj)) == sorted(np.unique(voxels))
    corner = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine @ [0, 0, 0, 1]
    index = np.rint(np.linalg.inv(converted.affine) @ corner)[:3].astype(int)
    assert np.asanyarray(converted.dataobj)[tuple(index)] == voxels[0, 0, 0]
    assert next(way.derivatives.rglob("*desc-synthetic_T2w.nii.gz")).is_file()
    assert "sub-01" in way.report.read_text()
    assert way.module.tag == "executable"
    assert way.slicer.is_file()
    made = [pydicom.dcmread(path) for path in way.derived]
    assert len(made) == 3
    assert {data.SyntheticData for data in made} == {"YES"}
    assert {str(data.PatientID) for data in made} == {"EXAMPLE"}
    assert {data.StudyInstanceUID for data in made} == {whole_way.ROOT}
