"""The recipe for Neurodesk: its commands and options exist, its version and programs are the package's."""

import re
from pathlib import Path

import pytest
import yaml

from localdiff_cli import __version__

from .test_cluster_examples import PROJECT, options_of

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "neurodesk"
RECIPE, TESTS = (yaml.safe_load((FOLDER / name).read_text()) for name in ("build.yaml", "fulltest.yaml"))


def test_the_recipe_builds_this_version_with_its_programs():
    assert RECIPE["name"] == TESTS["name"] == PROJECT["project"]["name"]
    assert RECIPE["version"] == TESTS["version"] == __version__
    parts = {key: value for directive in RECIPE["build"]["directives"] for key, value in directive.items()}
    assert set(parts["deploy"]["bins"]) == set(PROJECT["project"]["scripts"])
    extras = re.search(r"localdiff\[([\w,]+)\]", " ".join(parts["run"]))[1].split(",")
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("test", TESTS["tests"], ids=lambda test: test["name"])
def test_a_test_s_command_has_options_that_exist(test):
    words = test["command"].split()
    if words[1] == "translate":
        assert {word for word in words if word.startswith("--")} - {"--help"} <= options_of("translate")
    assert {"name", "description", "command"} <= set(test)
