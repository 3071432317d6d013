"""The examples for BIDS: the dataset they make, and the options they name."""

import re
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from localdiff_cli.bids.app import app, spread
from localdiff_cli.bids.validator import validator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OPTIONS = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}


def test_the_study_of_the_packaged_patient_is_valid_bids(tmp_path):
    program = validator()
    if program is None:
        pytest.skip("needs bids-validator-deno: pip install 'localdiff[bids]'")
    subprocess.run(["bash", str(EXAMPLES / "bids_study.sh"), str(tmp_path / "study")], check=True, capture_output=True)
    for folder in (".", "derivatives/brain", "derivatives/experts"):
        done = subprocess.run([program, "--ignoreWarnings", str(tmp_path / "study" / folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_page_and_the_babs_example_name_options_that_exist():
    asked = yaml.safe_load((EXAMPLES / "babs.yaml").read_text())["bids_app_args"]
    named = {asked.pop("$SUBJECT_SELECTION_FLAG"), asked.pop("$SESSION_SELECTION_FLAG"), *asked}
    page = (EXAMPLES / "bids.md").read_text()
    named |= {word for line in page.splitlines() if line.startswith("localdiff-bids") for word in re.findall(r"--[a-z-]+", line)}
    named |= set(re.findall(r"`(--[a-z-]+)", page))
    assert len(named) > 10
    assert named <= OPTIONS


def test_the_commands_of_the_page_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", str(EXAMPLES / "bids_study.sh"), "study"], check=True, capture_output=True)
    tried = (EXAMPLES / "bids.md").read_text().partition("## Tried on one patient")[2].partition("```")[2].partition("```")[0]
    commands = [line.split() for line in tried.splitlines() if line.startswith("localdiff-bids")]
    assert [words[3] for words in commands] == ["participant", "group"]
    for words in commands:
        result = CliRunner().invoke(app, spread(words[1:]), env={"LOCALDIFF_JOBS": "0"})
        assert result.exit_code == 0, result.output
    assert (tmp_path / "study/derivatives/localdiff/report/report.html").is_file()
