"""Weights that the repository does not keep: each has the command that makes it again, and a reader without them says which."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from examples.benchmarks import mri, neighbours, remake, variants, weights
from localdiff_cli.bundle import TRANSLATOR, Bundle, open_bundle, weight_file
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.training.job import Start
from localdiff_cli.training.loop import LoopSettings

ROOT = Path("/data/sets")


def help_of(module, monkeypatch, capsys):
    """What ``python -m module --help`` says."""
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as end:
        import_module(module).main()
    assert not end.value.code
    return capsys.readouterr().out


def test_every_account_of_the_repository_has_a_command_whose_options_the_module_takes(monkeypatch, capsys):
    networks = remake.recorded()

    commands = [each.command(ROOT) for each in networks]
    known = {module: help_of(module, monkeypatch, capsys) for module in {command[2] for command in commands}}

    assert len(networks) >= 16
    assert all(command[:2] == [sys.executable, "-m"] for command in commands)
    assert not [word for command in commands for word in command if remake.RECORDED in word]
    assert not [w for command in commands for w in command if w.startswith("--") and w not in known[command[2]]]


def test_a_command_makes_one_network_only_below_the_folder_given():
    expert = next(each for each in remake.recorded() if each.name == "t1-to-flair/expert-5")
    digits = next(each for each in remake.recorded() if each.name == "digits-2x")

    words = expert.command(ROOT)
    assert words[words.index("--variant") + 1 : words.index("--data")] == ["expert-5"]
    assert words[words.index("--data") + 1] == "/data/sets/lgg"
    assert digits.command(ROOT)[-2:] == ["--only", "digits-2x"]
    assert "/data/sets/mnist" in digits.command(ROOT)


def test_what_another_starts_from_comes_first_and_an_unknown_name_is_refused():
    names = [each.name for each in remake.recorded()]

    assert names.index("t1-to-flair/regression") < names.index("t1-to-t2/regression")
    with pytest.raises(UsageError, match="no account"):
        remake.chosen(remake.recorded(), ["digits-3x"])


def test_weights_of_another_translator_are_stale_and_made_again(bench, made):
    path = made / bench.bundle.name / "configs" / "metadata.json"
    path.write_text(path.read_text().replace("made here", "python -m examples.benchmarks.variants --variant a b --data lgg"))
    states = {each.name.split("/")[1]: each.state for each in remake.recorded(made)}
    assert states == {"regression": "here", "everything": "here", "expert-5": "here"}
    path.write_text(path.read_text().replace(bench.bundle.metadata["files"][TRANSLATOR], "0" * 64))
    (made / bench.bundle.name / "models" / "regression.safetensors").unlink()
    states = {each.name.split("/")[1]: each.state for each in remake.recorded(made)}
    assert states == {"regression": "not here", "everything": "stale", "expert-5": "stale"}


def test_a_variant_without_its_weights_is_left_out_and_says_what_to_run(bench, made, capsys):
    (made / bench.bundle.name / "models" / "expert-5.safetensors").unlink()

    assert variants.load(bench.bundle, "expert-5", made) is None
    assert f"make bench-weights DATA=FOLDER ONLY={bench.bundle.name}/expert-5" in capsys.readouterr().err


def test_a_row_of_its_own_without_its_weights_is_refused_with_what_to_run(bench):
    with pytest.raises(UsageError, match=f"bench-weights DATA=FOLDER ONLY={bench.bundle.name}/everything"):
        replace(bench, variant=lambda name: None).networks_of(mri.parse_row("none,variant=everything"))


def test_a_start_without_its_weights_points_to_the_card(bench, made):
    bundle: Bundle = open_bundle(str(made / bench.bundle.name))
    (bundle.path / "models" / "regression.safetensors").unlink()

    with pytest.raises(ModelError, match=r"as its README\.md says"):
        weight_file(bundle, Start(bundle, "regression").weights)


def test_an_account_without_weights_trains_for_this_run_and_says_so(tmp_path, monkeypatch, capsys):
    def loss_of(network, generator):
        return network(torch.rand(4, 1, generator=generator)).square().mean()

    training = weights.Training("line", lambda: torch.nn.Linear(1, 1), loss_of, LoopSettings(steps=2), {"task": "a line"}, "points")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    weights.fit(training, weights.SHIPPED, tmp_path, "shipped")
    (weights.SHIPPED / "line.safetensors").unlink()

    weights.obtain(training, tmp_path / "work", "for this run")

    assert "make bench-weights DATA=FOLDER ONLY=line" in capsys.readouterr().out
    assert json.loads((tmp_path / "work" / "bench" / "line.json").read_text())["command"] == "for this run"


def test_the_neighbours_network_is_made_by_a_command_of_its_own(bench, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(neighbours, "training_of", lambda bundle, data, work: (bundle.name, data, work))
    monkeypatch.setattr(neighbours, "fit", lambda *given: asked.append(given))
    monkeypatch.setattr(sys, "argv", ["neighbours", "--model", str(bench.bundle.path), "--data", "there", "--out", str(tmp_path)])

    neighbours.main()

    assert asked[0][0] == (bench.bundle.name, [Path("there")], Path("bench.work"))
    assert asked[0][1] == tmp_path
