"""Kill a run, or let a call to the file system fail, at any step of its write path; then resume and compare with an undisturbed run.

Every step is hit by number, not by luck: Python's audit events (open, rename, mkdir, remove, …) on the output folder are counted, and
the process stops at the given one. ``python -m tests.faults.kill --every 1`` tries them all (``make torture``).
"""

from __future__ import annotations

import argparse
import csv
import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.listdir", "os.scandir"}
VOLUMES = 3
VOLATILE = ("attempts", "seconds", "peak_mb", "finished")
LOADED = ["localdiff_cli.batch.engine", "localdiff_cli.commands.run", "tests.batch.toys", "tests.faults.kill"]
ROOT = Path(__file__).resolve().parents[2]


def watch(out: Path, step: int, action: str) -> list[int]:
    """Count the events on ``out``; at number ``step`` kill this process, or raise an error once or (``full``) from there on."""
    count = [0]
    prefix = os.fspath(out)

    def hook(event: str, arguments: tuple) -> None:
        if event not in EVENTS or not arguments or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not os.fsdecode(arguments[0]).startswith(prefix):
            return
        count[0] += 1
        if action == "kill" and count[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "EIO" and count[0] == step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        writes = event in ("os.rename", "os.mkdir") or (event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)))
        if action == "full" and count[0] >= step and writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)
    return count


def work(source: Path, out: Path, step: int, action: str) -> int:
    """One run in this process; prints the number of events and returns the exit code."""
    from localdiff_cli.batch.discover import discover
    from localdiff_cli.batch.engine import Execution, run
    from localdiff_cli.batch.report import Reporter
    from localdiff_cli.commands.run import guarded
    from tests.batch.toys import CopyRecipe

    def go() -> int:
        with Reporter(quiet=True) as reporter:
            recipe = CopyRecipe(out, out.parent)
            return run(recipe, discover(str(source), "T1w"), out, reporter, Execution(jobs=0), version="1").exit_code

    count = watch(out, step, action)
    code = guarded(go, debug=False)
    print(count[0])
    return code


def start(source: Path, out: Path, step: int = 0, action: str = "none") -> subprocess.CompletedProcess:
    """A run in a process of its own, forked from one that has loaded all it needs; what it said is kept beside ``out``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    said = [out.with_name(f"{out.name}.{name}") for name in ("stdout", "stderr")]
    process = context.Process(target=_redirected, args=(said, source, out, step, action))
    process.start()
    process.join(120)
    assert process.exitcode is not None, f"{source}: still running after 120 s"
    return subprocess.CompletedProcess((), process.exitcode, *(path.read_text(encoding="utf-8") for path in said))


def _redirected(said: list[Path], source: Path, out: Path, step: int, action: str) -> None:
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(ROOT)
    sys.exit(work(source, out, step, action))


def make_input(folder: Path) -> Path:
    """Small files that pass for volumes; the work only copies them."""
    folder.mkdir(parents=True)
    for number in range(VOLUMES):
        (folder / f"sub-{number}_T1w.nii").write_bytes(bytes([number]) * 1000)
    return folder


def content(out: Path) -> dict[str, object]:
    """All that a finished run leaves, but for what tells the time."""
    found: dict[str, object] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out).as_posix()
        if path.name == "runs.tsv":
            with path.open(newline="", encoding="utf-8") as handle:
                found[name] = [{k: v for k, v in row.items() if k not in VOLATILE} for row in csv.DictReader(handle, delimiter="\t")]
        elif "records" in path.parts:
            found[name] = {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if k not in VOLATILE}
        elif path.suffix != ".lock":
            found[name] = path.read_bytes()
    return found


def trial(step: int, action: str, source: Path, folder: Path, wanted: dict[str, object]) -> str:
    """Disturb a run at a step, resume it, compare; what is wrong, or an empty string."""
    out = folder / "out"
    disturbed = start(source, out, step, action)
    if action == "kill" and disturbed.returncode != -signal.SIGKILL:
        return f"step {step}: was not killed (status {disturbed.returncode}) {disturbed.stderr}"
    if action != "kill" and (disturbed.returncode not in (0, 1, 2) or "Traceback" in disturbed.stderr):
        return f"step {step}, {action}: status {disturbed.returncode}: {disturbed.stderr}"
    resumed = start(source, out)
    if resumed.returncode != 0:
        return f"step {step}, {action}: the resumed run ended with {resumed.returncode}: {resumed.stderr}"
    if content(out) != wanted:
        different = {name for name in wanted.keys() | content(out).keys() if wanted.get(name) != content(out).get(name)}
        return f"step {step}, {action}: differs from an undisturbed run in {sorted(different)}"
    return ""


def steps_of(source: Path, folder: Path) -> tuple[int, dict[str, object]]:
    """How many steps an undisturbed run has, and what it leaves."""
    calm = start(source, folder / "calm")
    assert calm.returncode == 0, calm.stderr
    return int(calm.stdout), content(folder / "calm")


def main() -> int:
    """Try the steps; print a line for each fault and a sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=1, help="every n-th step")
    parser.add_argument("--actions", default="kill,EIO,full")
    parser.add_argument("--random", type=int, default=0, help="also this many kills at random instants of time")
    options = parser.parse_args()
    if options.run:
        source, out, step, action = options.run
        return work(Path(source), Path(out), int(step), action)
    faults, trials = [], 0
    with tempfile.TemporaryDirectory() as name:
        source = make_input(Path(name) / "in")
        total, wanted = steps_of(source, Path(name))
        for action in options.actions.split(","):
            for step in range(1, total + 1, options.every):
                folder = Path(name) / f"{action}-{step}"
                folder.mkdir()
                trials += 1
                if fault := trial(step, action, source, folder, wanted):
                    faults.append(fault)
                    print(fault, flush=True)
        for number in range(options.random):
            trials += 1
            if fault := at_random(number, source, Path(name) / f"random-{number}", wanted):
                faults.append(fault)
                print(fault, flush=True)
    print(f"{total} steps, {trials} trials, {len(faults)} faults")
    return 1 if faults else 0


def at_random(seed: int, source: Path, folder: Path, wanted: dict[str, object]) -> str:
    """Kill a run after a random time, up to three times, then let it finish; what is wrong, or an empty string."""
    folder.mkdir()
    generator = random.Random(seed)
    command = [sys.executable, "-m", "tests.faults.kill", "--run", str(source), str(folder / "out"), "0", "none"]
    for _ in range(generator.randint(1, 3)):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.2, 0.9))
        process.kill()
        process.wait()
    resumed = start(source, folder / "out")
    if resumed.returncode != 0 or content(folder / "out") != wanted:
        return f"random {seed}: status {resumed.returncode}: {resumed.stderr}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
