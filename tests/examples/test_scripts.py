"""The example scripts, run as a user runs them, with tiny models."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.sh"))


@pytest.fixture
def environment(programs, flair_models, models_folder):
    """A PATH whose ``localdiff`` is this checkout's and whose ``python`` is the tests' own."""
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LOCALDIFF_MODELS": f"{flair_models}{os.pathsep}{models_folder}",
        "JOBS": "0",  # no worker processes: seven commands in a row take long enough
        "LOCALDIFF_JOBS": "0",
    }


def bash(script, *arguments, environment):
    return subprocess.run(
        ["bash", str(ROOT / "examples" / script), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_valid_bash_and_says_what_it_does(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")


def test_the_demo_makes_the_picture_and_the_report(environment, tmp_path):
    result = bash("demo.sh", tmp_path / "demo", environment=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "demo" / "picture.png").stat().st_size > 20_000
    assert (tmp_path / "demo" / "report" / "report.html").exists()
    assert (tmp_path / "demo" / "lesions" / "sub-openms19_FLAIR.nii.gz").exists()
    assert "picture.png" in result.stdout
    assert "report.html" in result.stdout.splitlines()[-1]


def test_one_node_runs_the_chain_although_one_volume_is_bad(environment, folder, tmp_path):
    (folder / "bad_T1w.nii.gz").write_text("not an image")
    result = bash("one_node.sh", folder, tmp_path / "out", folder, environment=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "local" / "sub-01" / "sub-01_T1w.nii.gz").exists()
    for folder in ("plain_lesions", "local_lesions"):
        assert len(list((tmp_path / "out" / folder).rglob("*.nii.gz"))) == 2
    assert (tmp_path / "out" / "report" / "report.html").exists()
    assert "lesion-t2" in (tmp_path / "out" / "report" / "summary.json").read_text()
    assert "bad_T1w" in (tmp_path / "out" / "local" / "failures.tsv").read_text()
