"""A short run of the fuzz harness, and whether it would notice what it is there for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from localdiff_cli.errors import VolumeError
from tests.faults import fuzz
from tests.faults.targets import TARGETS, Case, Target

SHORT = 700


def test_no_hostile_file_does_more_than_be_read_or_refused(tmp_path, models_folder):
    report = fuzz.fuzz(fuzz.prepared(tmp_path, models_folder), seed=1, numbers=range(SHORT))
    assert report.findings == []
    assert sum(report.outcomes.values()) == SHORT
    assert {target for target, _ in report.outcomes} == set(TARGETS)


def test_the_same_seed_and_number_make_the_same_case(tmp_path, models_folder):
    folder = fuzz.prepared(tmp_path, models_folder)

    def case(seed: int, number: int) -> Case:
        _, target, rng = fuzz._case_of(seed, number)
        return target.make(rng, folder)

    numbers = [n for n in range(60) if fuzz._case_of(3, n)[0] != "claim"]  # which holds the number of this process
    assert [case(3, n) for n in numbers] == [case(3, n) for n in numbers]
    assert [case(3, n) for n in numbers] != [case(4, n) for n in numbers]


class Blind:
    """A watch that sees nothing."""

    def watching(self, folder: Path) -> Blind:
        return self

    def __enter__(self) -> list[str]:
        return []

    def __exit__(self, *_: object) -> None:
        pass


def outcome(tmp_path: Path, use: object) -> tuple[str, str]:
    target = Target(1, lambda rng, folder: Case({"a": b"1234"}), use)  # type: ignore[arg-type]
    return fuzz._outcome(target, Random(0), tmp_path, Blind())  # type: ignore[arg-type]


def raising(error: BaseException):
    def use(folder: Path, case: Case) -> str:
        raise error

    return use


def test_what_is_read_or_refused_is_no_finding(tmp_path):
    assert outcome(tmp_path, lambda folder, case: "read") == ("read", "")
    assert outcome(tmp_path, raising(VolumeError("a.nii: cut", code="truncated"))) == ("truncated", "")


@pytest.mark.parametrize("error", [ZeroDivisionError(), MemoryError(), RuntimeWarning("overflow"), SystemExit(3)], ids=repr)
def test_another_exception_is_a_finding(tmp_path, error):
    kind, wrong = outcome(tmp_path, raising(error))
    assert kind == "exception"
    assert type(error).__name__ in wrong


def test_an_absurd_allocation_is_a_finding(tmp_path):
    ballast = fuzz._no_headroom()
    if ballast is None and not Path("/proc/self/status").exists():
        pytest.skip("needs a system that tells a process its peak address space")
    _, wrong = outcome(tmp_path, lambda folder, case: str(len(bytes(fuzz.BASE * 3))))
    assert "bytes of memory" in wrong


@pytest.mark.parametrize(
    ("program", "kind"),
    [("os.abort()", "crash"), ("os._exit(3)", "crash"), ("time.sleep(60)", "hang"), ("while True: pass", "hang")],
)
def test_a_child_that_dies_or_hangs_is_a_finding_with_the_number_of_its_case(tmp_path, monkeypatch, program, kind):
    said = json.dumps([7, "nifti"])
    limit = "fuzz.SECONDS, fuzz.STILL = 0, 2; fuzz._limit_time()"
    code = f"import os, time\nfrom tests.faults import fuzz\n{limit}; print({said!r}, flush=True)\n{program}"

    def child(folder: Path, seed: int, numbers: range, stderr: object) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, cwd=fuzz.ROOT, text=True)

    monkeypatch.setattr(fuzz, "_child", child)
    report = fuzz.Report()
    assert fuzz._watch_child(tmp_path, 5, range(7, 20), report) == 8
    assert report.outcomes == {("nifti", kind): 1}
    assert "--seed 5 --only 7" in report.findings[0]


def test_a_child_that_does_not_start_stops_the_run(tmp_path, monkeypatch):
    def child(folder: Path, seed: int, numbers: range, stderr: object) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", "1 / 0"], stdout=subprocess.PIPE, stderr=stderr, text=True)

    monkeypatch.setattr(fuzz, "_child", child)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        fuzz.fuzz(tmp_path, 0, range(5))
