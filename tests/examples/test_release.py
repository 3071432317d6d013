"""The release's own checks: what is built carries what users need, nothing that they do not, and large files are refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from examples import large_files, release, versions

ROOT = Path(__file__).resolve().parents[2]
tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 or newer")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_versions_tried_are_those_that_the_package_declares():
    classifiers = PROJECT["project"]["classifiers"]
    declared = {text.rpartition(" ")[2] for text in classifiers if text.startswith("Programming Language :: Python :: 3.")}
    assert declared == set(versions.VERSIONS)
    assert PROJECT["project"]["requires-python"] == f">={versions.VERSIONS[0]}"


def test_a_version_that_is_not_installed_is_said_to_be_so(monkeypatch, tmp_path):
    monkeypatch.setattr(versions.shutil, "which", lambda name: None)
    assert versions.attempt("3.10", tmp_path / "x.whl", tmp_path, []) == "not installed here"


def test_a_version_that_cannot_install_the_wheel_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(versions.shutil, "which", lambda name: sys.executable)

    def refuse(*arguments):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(versions, "environment", refuse)
    assert versions.attempt("3.10", tmp_path / "x.whl", tmp_path, []).startswith("fails")


def test_the_wheel_takes_every_shipped_bundle_the_schema_and_the_marker_of_types():
    taken = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    bundles = {path.parents[1].name for path in (ROOT / "models").glob("*/configs/metadata.json")}
    assert {f"models/{name}" for name in bundles} | {"models/schema.json"} == set(taken)
    assert (ROOT / "localdiff_cli" / "py.typed").is_file()


def test_the_list_of_what_is_installed_names_the_package_itself(tmp_path):
    names = [part["name"] for part in release.sbom(Path(sys.executable), tmp_path)["components"]]
    assert {"localdiff", "torch", "numpy"} <= set(names)


def test_a_build_that_cannot_be_reproduced_is_named(tmp_path, monkeypatch):
    for name in ("a.tar.gz", "b.whl"):
        (tmp_path / name).write_bytes(b"1")

    def built(*command, where=None):
        folder = Path(command[command.index("--outdir") + 1])
        (folder / "a.tar.gz").write_bytes(b"1")
        (folder / "b.whl").write_bytes(b"2")

    monkeypatch.setattr(release, "run", built)
    assert release.differing(tmp_path) == ["b.whl"]


@pytest.mark.parametrize(("place", "refused"), [("localdiff_cli/big.bin", True), ("models/x/models/a.safetensors", False)])
def test_a_large_file_is_refused_outside_the_folders_of_weights(tmp_path, monkeypatch, place, refused):
    monkeypatch.chdir(tmp_path)
    Path(place).parent.mkdir(parents=True)
    Path(place).write_bytes(b"0" * 200_000)
    assert large_files.too_large([Path(place)]) == ([Path(place)] if refused else [])
