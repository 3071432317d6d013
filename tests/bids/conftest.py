"""A small dataset, tiny bundles and one run of the BIDS App that several tests look at."""

import json
import subprocess

import pytest
from typer.testing import CliRunner

from localdiff_cli.bids.app import app, spread
from localdiff_cli.bids.validator import validator as find_validator
from tests.bids.dataset import make_dataset


@pytest.fixture(scope="session")
def bids_app(flair_models):
    """``bids_app(dataset, out, "participant", …)`` runs the command line with the tiny bundles, in this process."""

    def run(*arguments):
        environment = {"LOCALDIFF_MODELS": str(flair_models), "LOCALDIFF_JOBS": "0"}
        return CliRunner().invoke(app, spread([str(a) for a in arguments]), env=environment)

    return run


@pytest.fixture(scope="session")
def study(tmp_path_factory, bids_app):
    """A dataset whose participant level has run into ``derivatives/localdiff``; the result of that run. Only to be looked at."""
    root = make_dataset(tmp_path_factory.mktemp("study") / "study")
    result = bids_app(root, root / "derivatives" / "localdiff", "participant", "--save-source", "--save-brain", "--samples", 2)
    assert result.exit_code == 0, result.output
    return root, result


@pytest.fixture(scope="session")
def validator():
    """``validator(dataset)``: what bids-validator-deno finds, as ``(severity, code, location)``."""

    program = find_validator()
    if program is None:
        pytest.skip("needs bids-validator-deno: pip install 'localdiff[bids]'")

    def run(root):
        done = subprocess.run([program, "--format", "json", str(root)], capture_output=True, text=True, timeout=300)
        return [(issue.get("severity"), issue["code"], issue.get("location")) for issue in json.loads(done.stdout)["issues"]["issues"]]

    return run
