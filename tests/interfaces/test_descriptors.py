"""The descriptors for other tools, judged and run by those tools: Boutiques, Slicer's module reader and generator, nipype, Snakemake."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from localdiff_cli.bids.app import bids
from localdiff_cli.bundle import bundle_paths, open_bundle
from localdiff_cli.interfaces.boutiques import boutiques
from localdiff_cli.interfaces.described import describe
from localdiff_cli.interfaces.slicer import CHOICES, app, description
from tests import bundles
from tests.bids.dataset import make_dataset
from tests.brains import write_brain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bundles.make_translator(folder / "t1-to-flair", target="FLAIR")
    return folder


@pytest.fixture
def installed(programs, models, tmp_path, monkeypatch):
    """Our commands on the PATH, with the tiny bundle."""
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models))
    monkeypatch.setenv("LOCALDIFF_JOBS", "0")
    monkeypatch.setenv("NO_ET", "1")  # nipype asks the network for its newest version
    return tmp_path


@pytest.fixture
def study(tmp_path):
    return make_dataset(tmp_path / "study", (("01", "", "sub-01_T1w", 1), ("02", "", "sub-02_T1w", 2), ("02", "", "sub-02_FLAIR", 3)))


def test_every_option_of_the_command_is_described_once():
    found = describe(bids)
    assert [each.name for each in found][:3] == ["bids_dir", "output_dir", "level"]
    assert all(each.help for each in found)
    assert len({each.flag for each in found if each.flag}) == len(found) - 3
    labels = next(each for each in found if each.name == "participant_label")
    assert (labels.flag, labels.kind, labels.several, labels.example) == ("--participant-label", str, True, "01")
    assert next(each for each in found if each.name == "timeout").flag == "--timeout-per-volume"


def test_bosh_finds_the_descriptor_valid_and_runs_it(installed, study):
    bosh = pytest.importorskip("boutiques")
    file = installed / "localdiff-bids.json"
    file.write_text(json.dumps(boutiques()))
    bosh.validate(str(file))
    asked = {"bids_dir": str(study), "output_dir": str(installed / "out"), "level": "participant", "mode": "plain", "segmenter": "none",
             "participant_label": ["01", "02"], "quiet": True}  # fmt: skip
    (installed / "invocation.json").write_text(json.dumps(asked))
    done = bosh.execute("launch", str(file), str(installed / "invocation.json"), "--skip-data-collection", "-u")
    assert done.exit_code == 0, done.stderr
    assert len(list((installed / "out").rglob("*_desc-synthetic_FLAIR.nii.gz"))) == 2


def test_slicers_description_is_read_by_the_module_reader_of_ctk():
    ctk_cli = pytest.importorskip("ctk_cli")
    module = ctk_cli.CLIModule(stream=io.StringIO(description()))
    by_name = {parameter.name: parameter for group in module for parameter in group}
    assert module.title == "Local Diffusion"
    assert [parameter.name for parameter in module.parameters() if parameter.index is not None] == ["input_volume", "output_volume"]
    assert (by_name["input_volume"].channel, by_name["output_volume"].channel, by_name["ood_map"].channel) == ("input", "output", "output")
    assert tuple(by_name["mode"].elements) == ("local", "plain")


def test_the_description_keeps_the_order_and_forms_that_the_schema_of_command_line_modules_asks_for():
    executable = ElementTree.fromstring(description())
    about = ["category", "title", "description", "version", "documentation-url", "license", "contributor"]
    assert [part.tag for part in executable] == [*about, "parameters", "parameters"]
    names = []
    for group in executable.findall("parameters"):
        label, text, *parameters = group
        assert (label.tag, text.tag) == ("label", "description")
        for parameter in parameters:
            order = " ".join(part.tag for part in parameter)
            assert re.fullmatch(r"name (longflag|index) description label( default)?( channel)?( element)*", order), order
            assert parameter.tag in {"image", "integer", "string-enumeration"}
            assert ("element" in order) == (parameter.tag == "string-enumeration")
            assert ("channel" in order) == (parameter.tag == "image")
            assert set(parameter.attrib) <= ({"type"} if parameter.tag == "image" else set())
            names += [parameter.findtext("name"), parameter.findtext("longflag", "none")]
    assert all(re.fullmatch(r"[_a-zA-Z][_a-zA-Z0-9]*", name) for name in names)


def test_nipypes_generator_makes_a_class_from_the_description(monkeypatch):
    generator = pytest.importorskip("nipype.interfaces.slicer.generate_classes")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    category, code, name = generator.generate_class("", [sys.executable, "-m", "localdiff_cli.interfaces.slicer"])
    assert category == "Synthesis"
    assert 'input_volume = File(argstr="%s", desc="The volume to translate.", position=-2, exists=True)' in code
    assert "oodmap = traits" in code
    assert name == ""


def test_slicer_offers_the_translators_that_there_are():
    shipped = {name for name, path in bundle_paths().items() if path.parent == ROOT / "models" and open_bundle(name).task == "translate"}
    assert set(CHOICES["model"]) == shipped


def test_localdiff_prints_the_description_too(programs):
    done = subprocess.run([programs / "localdiff", "--xml"], capture_output=True, text=True, check=True)
    assert done.stdout == description()


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_slicers_module_writes_one_volume_where_it_is_told(models, tmp_path, ending):
    t1 = write_brain(tmp_path / "vtkMRMLScalarVolumeNode1.nii.gz", 1)
    words = [str(t1), str(tmp_path / f"out{ending}"), "--oodmap", str(tmp_path / "map.nii.gz"), "--seed", "3"]
    result = CliRunner().invoke(app, words, env={"LOCALDIFF_MODELS": str(models)})
    assert result.exit_code == 0, result.output
    assert nib.load(tmp_path / "map.nii.gz").shape == nib.load(t1).shape
    if ending == ".nii.gz":
        assert np.array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(t1).affine)
    else:
        assert (tmp_path / "out.nrrd").read_bytes().startswith(b"NRRD")


@pytest.mark.parametrize(
    ("image", "more", "said"),
    [
        ("t1.nii.gz", [], "is named twice"),
        ("out.nii.gz", ["--oodmap", "t1.nii.gz"], "is named twice"),
        ("out.nii.gz", ["--oodmap", "out.nii.gz"], "is named twice"),
        ("out.xyz", [], "no known format"),
    ],
)
def test_slicers_module_overwrites_no_input_and_refuses_before_it_works(models, tmp_path, monkeypatch, image, more, said):
    monkeypatch.chdir(tmp_path)
    before = write_brain(tmp_path / "t1.nii.gz", 1).read_bytes()
    result = CliRunner().invoke(app, ["t1.nii.gz", image, *more], env={"LOCALDIFF_MODELS": str(models)})
    assert result.exit_code == 2
    assert said in result.output
    assert (tmp_path / "t1.nii.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["t1.nii.gz"]


def test_slicers_module_makes_the_folder_and_says_where_the_image_is(models, tmp_path):
    t1 = write_brain(tmp_path / "t1.nii.gz", 1)
    result = CliRunner().invoke(app, [str(t1), str(tmp_path / "new" / "out.nii.gz")], env={"LOCALDIFF_MODELS": str(models)})
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "out.nii.gz").is_file()
    assert f"wrote {tmp_path / 'new' / 'out.nii.gz'}" in result.output
    assert "to review: " in result.output
    assert "look next" not in result.output


def test_slicers_module_leaves_nothing_where_it_fails(models, tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"not an image")
    result = CliRunner().invoke(app, [str(tmp_path / "bad.nii.gz"), str(tmp_path / "out.nii.gz")], env={"LOCALDIFF_MODELS": str(models)})
    assert result.exit_code == 1
    assert not (tmp_path / "out.nii.gz").exists()


def test_the_nipype_interface_runs(installed, monkeypatch):
    pytest.importorskip("nipype")
    from localdiff_cli.interfaces.nipype import Translate

    t1 = write_brain(installed / "in" / "sub-01_T1w.nii.gz", 1)
    monkeypatch.chdir(installed)
    node = Translate(in_file=str(t1), mode="plain", seed=2)
    assert node.cmdline == f"localdiff translate --jobs 0 --in {t1} --mode plain --model t1-to-flair --out translated --seed 2"
    outputs = node.run().outputs
    assert nib.load(outputs.out_file).shape == nib.load(t1).shape
    assert json.loads(Path(outputs.sidecar).read_text())["Synthetic"] is True


@pytest.mark.slow
def test_the_snakemake_example_runs(installed, study):
    pytest.importorskip("snakemake")
    config = [f"study={study}", f"out={study}/derivatives/localdiff", "options=--mode plain"]
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "examples" / "Snakefile"), "--cores", "1", "--config", *config]
    done = subprocess.run(command, capture_output=True, text=True, cwd=installed, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (study / "derivatives" / "localdiff" / "report" / "report.html").is_file()
