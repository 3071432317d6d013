"""The figures on the code itself are what they say, on a small package made for it."""

import ast
import subprocess
from pathlib import Path

import pytest

from examples.benchmarks import house

MODULE = '''
from localdiff_cli.commands.x import y

def long(a, b, *, c):
    """A sentence."""
    first = dict[str, Any]
    return first


def short():
    return "dpmpp"
'''


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "localdiff_cli" / "tasks").mkdir(parents=True)
    (tmp_path / "localdiff_cli" / "tasks" / "one.py").write_text(MODULE)
    (tmp_path / "localdiff_cli" / "app.py").write_text("from localdiff_cli.commands import x\n")
    wheel = "[tool.hatch.build.targets.wheel.force-include]\n'models' = 'localdiff_cli/models'\n"
    (tmp_path / "pyproject.toml").write_text(wheel)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.bin").write_bytes(b"0" * 100)
    (tmp_path / "untracked.bin").write_bytes(b"0" * 1000)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "models", "pyproject.toml"], cwd=tmp_path, check=True)
    return tmp_path


def test_functions_are_counted_with_their_lines_and_parameters(checkout):
    assert sorted(house.functions(house.sources(checkout))) == [(2, 0), (3, 3)]


def test_an_import_from_tasks_into_commands_is_a_climb_and_one_from_the_command_line_is_not(checkout):
    assert house.climbs(house.sources(checkout), checkout) == 1


def test_the_tree_is_what_git_tracks_and_the_wheel_what_it_takes(checkout):
    assert house.tracked_bytes(checkout) == 100 + (checkout / "pyproject.toml").stat().st_size
    package = sum(path.stat().st_size for path in house.sources(checkout))
    assert house.wheel_bytes(checkout) == 100 + package


def test_words_are_counted_by_file_and_the_last_by_occurrence(checkout, monkeypatch):
    monkeypatch.setattr(house, "import_seconds", lambda folder: 0.1)
    monkeypatch.setattr(house, "walk", lambda folder: ([("batch/a.py", "commands/b.py"), ("commands/b.py", "tasks/c.py")], 2, 1.0))
    made = house.figures(checkout)
    assert made["files that name the sampler dpmpp"] == "1"
    assert made["dict[str, Any]"] == "1"
    assert made["parameters of a function: most"] == "3"
    assert (made["modules on a volume's way through translate"], made["calls back up into a room above"]) == ("3", "1")


def test_a_call_returns_where_it_goes_to_a_room_above_its_own():
    edges = [
        ("app.py", "commands/translate.py"),
        ("commands/run.py", "batch/engine.py"),
        ("batch/volume.py", "recipes/translate.py"),
        ("volumes/reader.py", "volumes/files.py"),
        ("tasks/translation.py", "batch/report.py"),
    ]
    assert house.returns(edges) == [("tasks/translation.py", "batch/report.py")]


def test_what_any_process_loads_knows_nothing_of_the_commands():
    root = house.Path(__file__).resolve().parents[2]
    rooms = ("recipes", "tasks", "batch", "volumes")
    below = [path for path in house.sources(root) if path.relative_to(root / "localdiff_cli").parts[0] in rooms]
    assert len(below) > 50
    assert house.climbs(below, root) == 0


def test_no_function_is_longer_than_a_screen():
    root = Path(__file__).resolve().parents[2]
    long = []
    for path in sorted((root / "localdiff_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno >= 50:
                long.append(f"{path.relative_to(root)}: {node.name}")
    assert long == []
