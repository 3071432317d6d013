"""Weights of the experiments: shipped ones are used only where they are of the same recipe; what is trained is written with its account."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from examples.benchmarks import weights
from localdiff_cli.training.loop import LoopSettings


@pytest.fixture
def training():
    def loss_of(network, generator):
        x = torch.rand(4, 1, generator=generator)
        return (network(x) - 3 * x).square().mean()

    return weights.Training("line", lambda: torch.nn.Linear(1, 1), loss_of, LoopSettings(steps=3), {"task": "a line"}, "points of a line")


def test_what_is_trained_is_written_with_its_account_and_found_again(training, tmp_path):
    first = weights.obtain(training, tmp_path, "the command")
    account = json.loads((tmp_path / "bench" / "line.json").read_text())
    assert (account["command"], account["about"]) == ("the command", "points of a line")
    assert account["identity"] == {"task": "a line"}
    assert account["loop"]["steps"] == 3
    assert [step for step, _ in account["loss"]] == [3]
    again = weights.obtain(replace(training, loss_of=None), tmp_path, "another")
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.weight.half().float(), first.weight)
    assert not first.weight.requires_grad


def test_shipped_weights_of_another_recipe_are_not_used(training, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    weights.fit(training, weights.SHIPPED, tmp_path, "shipped")
    weights.obtain(training, tmp_path / "work", "none needed")
    assert not (tmp_path / "work").exists()
    other = replace(training, identity={"task": "another line"})
    weights.obtain(other, tmp_path / "work", "trained now")
    assert json.loads((tmp_path / "work" / "bench" / "line.json").read_text())["identity"] == {"task": "another line"}


def test_weights_whose_account_knows_fewer_settings_were_made_with_their_defaults(training, tmp_path):
    weights.fit(training, tmp_path / "bench", tmp_path, "before")
    path = tmp_path / "bench" / "line.json"
    account = json.loads(path.read_text())
    del account["loop"]["accumulate"]
    path.write_text(json.dumps(account))
    weights.obtain(replace(training, loss_of=None), tmp_path, "found again")
    assert json.loads(path.read_text())["command"] == "before"
