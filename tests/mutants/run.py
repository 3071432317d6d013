"""``python -m tests.mutants.run``: make each mutation in a temporary copy, run its tests there, and say whether it was caught.

Libraries are loaded once; each run is a fork of this process (POSIX). The exit code is 1 where a mutation survived.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutants.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "monai.networks.nets", "monai.networks.schedulers", "nibabel", "SimpleITK", "scipy.ndimage", "scipy.stats", "faiss",
             "skimage", "safetensors.torch", "isal.igzip", "filelock", "typer.testing", "rich.progress")  # fmt: skip
LINKED = ("models", "examples")
SECONDS = 900
CAUGHT, SURVIVED, BROKEN, LATE = "caught", "SURVIVED", "no such test", "took too long"


def copy_to(folder: Path) -> Path:
    """The project's code and tests in ``folder``; models and examples as links. Nothing is written outside it."""
    tree = folder / "project"
    for name in ("localdiff_cli", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "models"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in LINKED:
        (tree / name).symlink_to(ROOT / name)
    return tree


def run_tests(tree: Path, tests: tuple[str, ...], log: Path) -> int:
    """pytest's exit code for ``tests`` of the copy, in a fork that is ended after :data:`SECONDS`; minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        with log.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.chdir(tree)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "localdiff_cli")]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        import pytest

        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]))
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def verdict(tree: Path, mutation: Mutation, log: Path) -> str:
    """Whether the mutation's tests catch it; the copy is as it was afterwards."""
    path = tree / mutation.path
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.old, mutation.new, 1), encoding="utf-8")
    try:
        code = run_tests(tree, mutation.tests, log)
    finally:
        path.write_text(text, encoding="utf-8")
    return {0: SURVIVED, 4: BROKEN, 5: BROKEN, -signal.SIGALRM: LATE}.get(code, CAUGHT)


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no commit"


def main() -> None:
    """Run the mutations, or those whose subject or file was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutations with one of these words in their subject, file or texts")
    parser.add_argument("--unmutated", action="store_true", help="first see that all their tests pass as the code is")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.words or any(w in f"{m.subject} {m.path} {m.old} {m.new}" for w in options.words)]
    for name in LIBRARIES:
        importlib.import_module(name)
    results: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree, log = copy_to(Path(folder)), Path(folder) / "log"
        if options.unmutated and run_tests(tree, tuple(dict.fromkeys(test for m in chosen for test in m.tests)), log):
            sys.exit(f"the tests fail without any mutation:\n{log.read_text()[-3000:]}")
        for mutation in chosen:
            found = verdict(tree, mutation, log)
            results[found] = results.get(found, 0) + 1
            change = f"{mutation.old.strip()[:70]!r} -> {mutation.new.strip()[:70]!r}"
            print(f"{found:12}  {mutation.subject:14} {mutation.path}: {change}", flush=True)
    print(f"{_commit()}: {len(chosen)} mutations, " + ", ".join(f"{count} {name}" for name, count in sorted(results.items())))
    sys.exit(results.get(CAUGHT, 0) != len(chosen))


if __name__ == "__main__":
    main()
