"""Hostile files by the hundred thousand: each is read, or refused with an error of ``errors.py``, and nothing else.

``python -m tests.faults.fuzz --count 100000 --seed 0`` makes the cases one by one in a child process, so that a crash or a hang
costs that process and is reported like any other finding: with the seed and the number that make the same case again
(``--only NUMBER``). A case may ask memory for ten times what its files honestly hold, and for ``BASE`` besides.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from .targets import Target

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20
"""Processor time that one case may take. The slowest, a gzip bomb just below the limit, takes two."""
STILL = 1800
"""Seconds by the clock after which a case that uses no processor time waits for something that will not come."""
BASE = 32 << 20
FACTOR = 10
CEILING = 6 << 30
"""No case may ask more of the machine that runs it."""
PER_CHILD = 10_000


@dataclass
class Report:
    """Cases by target and outcome, and what should not have happened."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The counts as a table."""
        rows = [f"{target:12} {outcome:24} {count:8}" for (target, outcome), count in sorted(self.outcomes.items())]
        return [*rows, f"{'all':12} {'':24} {sum(self.outcomes.values()):8}", f"findings: {len(self.findings)}"]


# --- in the child ---


def _peak() -> int:
    """The most address space that this process has held, in bytes; peak memory where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmPeak:")[2].split()[0]) * 1024


def _no_headroom() -> mmap.mmap | None:
    """Fill the gap between what the process holds and what it held at most, untouched, so that every growth shows in the peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    held = int(status.read_text().partition("VmSize:")[2].split()[0]) * 1024
    gap = _peak() - held - (1 << 20)
    return mmap.mmap(-1, gap, prot=mmap.PROT_READ) if gap > 0 else None


def _limit_time() -> None:
    """From now on the process has this case's time left, and dies with a traceback when it is spent."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + SECONDS, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(STILL, exit=True)


class Watch:
    """Notes what is opened, changed or executed outside a folder, code of libraries aside. Cannot be taken off a process again."""

    EVENTS = frozenset((
        "open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
        "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class",
    ))  # fmt: skip

    def __init__(self) -> None:
        self.readable = tuple(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, ROOT / "localdiff_cli", ROOT / "tests"))
        self.folder = ""
        self.noted: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.folder or event not in self.EVENTS:
            return
        place = arguments[0] if arguments else ""
        if event == "open" and isinstance(place, int):  # what is open already
            return
        reads = event == "open" and isinstance(arguments[2], int) and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        inside = (self.folder, *self.readable) if reads else (self.folder,)
        name = os.path.realpath(os.fsdecode(place)) if isinstance(place, str | bytes | os.PathLike) else ""
        if not name.startswith(tuple(folder + os.sep for folder in inside)):
            self.noted.append(f"{event} {str(place)[:200]!r}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[list[str]]:
        """What was noted outside ``folder`` in the block."""
        self.noted, self.folder = [], os.path.realpath(folder)
        try:
            yield self.noted
        finally:
            self.folder = ""


def _case_of(seed: int, number: int) -> tuple[str, Target, Random]:
    from .targets import TARGETS

    rng = Random(f"{seed} {number}")
    name = rng.choices(list(TARGETS), [target.share for target in TARGETS.values()])[0]
    return name, TARGETS[name], rng


def _outcome(target: Target, rng: Random, folder: Path, watch: Watch, *, keep: bool = False) -> tuple[str, str]:
    """What came of one case, and what is wrong with that, if anything is."""
    from localdiff_cli.errors import LocaldiffError

    case = target.make(rng, folder)
    top = [] if target.confined else [folder / name for name in case.files]
    for path, raw in zip(top, case.files.values(), strict=False):
        path.write_bytes(raw)
    before = _peak()
    try:
        with watch.watching(folder) as noted:
            outcome, wrong = target.use(folder, case), ""
    except LocaldiffError as error:
        outcome, wrong = error.code, _not_a_message(error)
    except BaseException as error:
        outcome, wrong = "exception", "".join(traceback.format_exception(error)[-4:])
    grown = _peak() - before
    for path in () if keep else top:
        path.unlink(missing_ok=True)
    if grown > BASE + FACTOR * case.size:
        wrong += f"\nasked for {grown:,} bytes of memory where the files hold {case.size:,}"
    if target.confined and noted:
        wrong += f"\noutside its folder: {noted[:5]}"
    return outcome, wrong


def _not_a_message(error: Exception) -> str:
    """An error whose message cannot be printed, or is longer than anyone reads."""
    try:
        size = len(str(error).encode())
    except UnicodeEncodeError:
        return f"the message of {type(error).__name__} cannot be printed"
    return f"a message of {size} bytes: {str(error)[:300]}" if size > 20_000 else ""


def work(folder: Path, seed: int, numbers: range) -> int:
    """Run cases, telling the parent before and after each."""
    warm_up(folder)
    watch = Watch()
    faulthandler.register(signal.SIGXCPU, chain=True)
    ballast = [_no_headroom()]
    resource.setrlimit(resource.RLIMIT_AS, (_peak() + CEILING,) * 2)
    for number in numbers:
        name, target, rng = _case_of(seed, number)
        print(json.dumps([number, name]), flush=True)
        _limit_time()
        outcome, wrong = _outcome(target, rng, folder, watch, keep=len(numbers) == 1)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps([outcome, wrong.strip()]), flush=True)
        if "bytes of memory" in wrong:
            ballast.append(_no_headroom())
    return 0


def warm_up(folder: Path) -> None:
    """Load every library and thread pool that a case may need, and keep the backbone, which is not fuzzed, from loading each time."""
    from localdiff_cli.errors import LocaldiffError
    from localdiff_cli.ood import backbone

    from . import targets

    backbone.load_backbone = lru_cache(maxsize=8)(backbone.load_backbone)
    for name, target in targets.TARGETS.items():
        for number in range(20):
            case = target.make(Random(f"warm {name} {number}"), folder)
            for file, raw in () if target.confined else case.files.items():
                (folder / file).write_bytes(raw)
            try:
                target.use(folder, case)
            except LocaldiffError:
                pass
            except Exception:  # comes again, and is then a finding
                pass


# --- in the parent ---


def prepared(folder: Path, bundles: Path | None) -> Path:
    """The working folder with tiny bundles in it: copies, or made here."""
    place = folder / "bundles"
    if bundles is not None:
        for name in ("t1-to-t2", "lesion-t2"):
            shutil.copytree(bundles / name, place / name)
        return folder
    from tests import bundles as tiny

    tiny.make_translator(place / "t1-to-t2")
    tiny.make_segmenter(place / "lesion-t2")
    return folder


def _child(folder: Path, seed: int, numbers: range, stderr: TextIO) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-m", "tests.faults.fuzz", "--work", str(folder), "--seed", str(seed)]
    once = dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        [*command, "--start", str(numbers.start), "--count", str(numbers.stop)],
        env={**os.environ, **once}, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT, text=True, errors="replace",
    )  # fmt: skip


def _watch_child(folder: Path, seed: int, numbers: range, report: Report) -> int:
    """Count what one child says; return the number of the case to go on with."""
    next_number, name = numbers.start, ""
    with (folder / "stderr").open("w") as stderr, _child(folder, seed, numbers, stderr) as child:
        assert child.stdout is not None
        for line in child.stdout:
            first, rest = json.loads(line)
            if not name:
                next_number, name = first + 1, rest
                continue
            report.outcomes[name, first] += 1
            if rest:
                report.findings.append(_finding(seed, next_number - 1, name, rest.replace("\n", "\n  ")))
            name = ""
    if name:
        said = (folder / "stderr").read_text(errors="replace").strip()
        kind = "hang" if child.returncode == -signal.SIGXCPU or "Timeout (" in said else "crash"
        said = said[max(said.find("Timeout ("), said.find("Fatal Python error"), 0) :]
        report.outcomes[name, kind] += 1
        report.findings.append(_finding(seed, next_number - 1, name, f"{kind}, status {child.returncode}\n  {said[:1500]}"))
    elif child.returncode:
        raise RuntimeError(f"the child did not start: {(folder / 'stderr').read_text()[-2000:]}")
    return next_number


def _finding(seed: int, number: int, name: str, text: str) -> str:
    return f"{name}, case {number} (again: python -m tests.faults.fuzz --seed {seed} --only {number}):\n  {text}"


def fuzz(folder: Path, seed: int, numbers: range, *, say: bool = False) -> Report:
    """Run the cases in child processes, one at a time."""
    report, number, began = Report(), numbers.start, time.monotonic()
    while number < numbers.stop:
        before = len(report.findings)
        number = _watch_child(folder, seed, range(number, min(numbers.stop, number + PER_CHILD)), report)
        if say:
            print(f"{number - numbers.start} cases, {time.monotonic() - began:.0f} s", *report.findings[before:], sep="\n", flush=True)
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="number of the last case + 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="one case, its files left for a look")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    numbers = range(given.start, given.count) if given.only is None else range(given.only, given.only + 1)
    if given.work:
        return work(given.work, given.seed, numbers)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    report = fuzz(prepared(folder, None), given.seed, numbers, say=True)
    if given.only is None:
        shutil.rmtree(folder)
    else:
        print(f"its files: {folder}")
    print(*report.lines(), sep="\n")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
