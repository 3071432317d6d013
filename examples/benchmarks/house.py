"""How the code itself stands, in figures: ``python -m examples.benchmarks.house CHECKOUT [CHECKOUT …]``, a column for each.

To compare with an earlier commit: ``git worktree add ../before COMMIT``, then ``python -m examples.benchmarks.house ../before .``
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import tomllib

WORDS = {
    "files that name the option --fusion-step": r"fusion_step|--fusion-step",
    "files that name the sampler dpmpp": r"dpmpp",
    "files that list the detectors": r"[\"']patchcore[\"'], [\"']segmenter[\"']|[\"']patchcore[\"']: ",
    "files that name the output source": r"[\"']source[\"'], |--save-source|save_source",
    "files that name the metric hd95_mm": r"hd95_mm",
    "files that name the format .nrrd": r"\.nrrd|nrrd",
    "dict[str, Any]": r"dict\[str, Any\]",
}
"""Figure → pattern. The last is counted by occurrence, the others by file."""


def sources(checkout: Path) -> list[Path]:
    """The Python of the package, without measurements that once lay inside."""
    found = sorted((checkout / "localdiff_cli").rglob("*.py"))
    return [path for path in found if "benchmarks" not in path.parts]


def functions(paths: list[Path]) -> list[tuple[int, int]]:
    """Lines and parameters of every function."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [(_lines(node), len(node.args.args) + len(node.args.kwonlyargs)) for node in found]


def _lines(node: ast.FunctionDef) -> int:
    """Lines of the body, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return 1 + (0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1)


def climbs(paths: list[Path], checkout: Path) -> int:
    """Imports at the top of a module that go from a room back up into the rooms above it: tasks, batch and libraries into commands."""
    order = {"bids": 5, "interfaces": 5, "commands": 4, "recipes": 3, "tasks": 2, "training": 2, "batch": 2}
    package = checkout / "localdiff_cli"
    edges = [(path.relative_to(package).parts[0], name) for path in paths for name in _imported(path)]
    return sum(order.get(room, 1 if (package / room).is_dir() else 9) < order.get(name, 1) for room, name in edges if room != name)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("localdiff_cli."):
            yield (node.module or "").split(".")[1]


FLOORS = ("volumes", "tasks", "recipes", "batch", "commands")
"""Who calls whom on a volume's way, from below: commands start the engine, it follows a recipe, and that makes the task's work."""
WALK = """
import collections, json, os, pathlib, sys, tempfile
import nibabel as nib
from localdiff_cli.app import app
from localdiff_cli.volumes.walk import images_in

PACKAGE = os.path.join(os.getcwd(), "localdiff_cli") + os.sep
edges, calls, passes = set(), collections.Counter(), collections.Counter()

def seen(frame, event, _):
    if event != "call" or frame.f_code.co_name == "<module>" or not frame.f_code.co_filename.startswith(PACKAGE):
        return
    here, caller = frame.f_code.co_filename[len(PACKAGE):], frame.f_back
    name = frame.f_code.co_name
    calls[name] += 1
    if name == "read" and type(getattr(frame.f_locals.get("self"), "_source", None)).__name__ == "ArrayProxy":
        passes["slices"] += 1
    while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
        caller = caller.f_back
    if caller is not None and caller.f_code.co_filename[len(PACKAGE):] != here:
        edges.add((caller.f_code.co_filename[len(PACKAGE):], here))

with tempfile.TemporaryDirectory() as name:
    given, out = pathlib.Path(name) / "in", pathlib.Path(name) / "out"
    given.mkdir()
    image = nib.load("examples/data/sub-openms19/sub-openms19_T1w.nii.gz")
    nib.save(image.slicer[:, :, 18:22], given / "sub-01_T1w.nii.gz")
    sys.setprofile(seen)
    try:
        app(["translate", "--model", "t1-to-flair", "--in", str(given), "--out", str(out), "--jobs", "0", "--quiet"])
    except SystemExit as end:
        assert not end.code, end.code
    sys.setprofile(None)
whole = calls["_check_gzip"] + calls["_unpacked"]
print(json.dumps([sorted(edges), calls["read_metadata"], whole + passes["slices"] / 4]))
"""
"""Translates four slices in this process and notes which module calls which, how often bundles are read and the volume is unpacked."""


def walk(checkout: Path) -> tuple[list[tuple[str, str]], int, float]:
    """A volume's way through ``translate``: (caller, called) modules, bundles read, times that the volume was unpacked."""
    environment = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WALK]
    printed = subprocess.run(command, cwd=checkout, check=True, env=environment, capture_output=True, text=True).stdout
    edges, bundles, unpacked = json.loads(printed.splitlines()[-1])
    return [(caller, called) for caller, called in edges], bundles, unpacked


def floor_of(module: str) -> int:
    """How high a module stands; what is in none of the rooms is a library if it is a folder, else the command line itself."""
    room, inside, _ = module.partition("/")
    return FLOORS.index(room) if room in FLOORS else 0 if inside else len(FLOORS)


def returns(edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The calls that go back up into a room above."""
    return [(caller, called) for caller, called in edges if floor_of(called) > floor_of(caller) and "/" in called]


def import_seconds(checkout: Path) -> float:
    """Processor seconds of importing the command line, the least of three."""
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import localdiff_cli.app"], cwd=checkout, check=True, env={"PYTHONPATH": str(checkout)})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(used)


def tracked_bytes(checkout: Path) -> int:
    """Bytes of the tracked files."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, check=True, capture_output=True, text=True).stdout.split("\0")
    return sum((checkout / name).stat().st_size for name in names if name and (checkout / name).is_file())


def wheel_bytes(checkout: Path) -> int:
    """Bytes of what the wheel holds, before it is packed."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    taken = [*project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"], "localdiff_cli"]
    files = [path for name in taken for path in [checkout / name, *(checkout / name).rglob("*")] if path.is_file()]
    return sum(path.stat().st_size for path in files if path.suffix != ".pyc")


def figures(checkout: Path) -> dict[str, str]:
    """Every figure of a checkout."""
    paths = sources(checkout)
    sizes = functions(paths)
    lines = [length for length, _ in sizes]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    made = {
        "functions": f"{len(lines)}",
        "lines of a function: median, 90 %, longest": f"{statistics.median(lines):g}, {sorted(lines)[int(0.9 * len(lines))]}, {max(lines)}",
        "parameters of a function: most": f"{max(count for _, count in sizes)}",
        "imports up into a room above": f"{climbs(paths, checkout)}",
    }
    for name, pattern in WORDS.items():
        counts = [len(re.findall(pattern, text)) for text in texts]
        made[name] = f"{sum(counts) if name.startswith('dict') else sum(map(bool, counts))}"
    edges, bundles, unpacked = walk(checkout)
    made["modules on a volume's way through translate"] = f"{len({module for edge in edges for module in edge})}"
    made["of them above the libraries"] = f"{len({m for edge in edges for m in edge if floor_of(m) > 0 and '/' in m})}"
    made["calls back up into a room above"] = f"{len(returns(edges))}"
    made["times that a bundle's metadata are read (two bundles)"] = f"{bundles}"
    made["times that a compressed volume is unpacked"] = f"{unpacked:g}"
    made["import of the command line, processor s"] = f"{import_seconds(checkout):.2f}"
    made["tracked tree, MB"] = f"{tracked_bytes(checkout) / 1e6:.1f}"
    return made | {"wheel's contents, MB": f"{wheel_bytes(checkout) / 1e6:.1f}"}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="+", type=Path)
    columns = [figures(path.resolve()) for path in parser.parse_args().checkout]
    print("| figure |" + " |" * len(columns) + "\n|---|" + "---|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


if __name__ == "__main__":
    main()
