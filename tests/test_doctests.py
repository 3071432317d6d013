"""The examples in the docstrings of the core are true."""

import doctest
import importlib

import pytest

MODULES = ("branching", "fusion", "noise", "samplers", "schedule")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    failed, tried = doctest.testmod(importlib.import_module(f"localdiff_cli.diffusion.{name}"))
    assert tried > 0
    assert failed == 0
