"""Names and places that trip programs: every volume is done, or fails alone with a reason."""

import os
import time

import pytest

from localdiff_cli.batch.discover import discover
from localdiff_cli.batch.engine import Execution, run
from localdiff_cli.batch.report import Reporter
from tests.batch.toys import CopyRecipe

NAMES = (
    "with space_T1w.nii",
    "größe_脳_T1w.nii",
    "line\nbreak_T1w.nii",
    "-rf_T1w.nii",
    "tab\there_T1w.nii",
    "[a]*?_T1w.nii",
    "a" * 240 + "_T1w.nii",
)


@pytest.fixture
def go(tmp_path):
    (tmp_path / "in").mkdir()

    def run_it(jobs=0):
        with Reporter(quiet=True) as reporter:
            out = tmp_path / "out"
            return run(CopyRecipe(out, tmp_path), discover(str(tmp_path / "in"), "T1w"), out, reporter, Execution(jobs=jobs), version="1")

    return run_it


@pytest.mark.parametrize("jobs", [0, 1])
def test_strange_names_are_volumes_like_others(go, tmp_path, jobs):
    for name in NAMES:
        (tmp_path / "in" / name).write_bytes(b"x")
    tally = go(jobs)
    assert tally.failures == []
    assert {path.name for path in (tmp_path / "out").glob("*_T1w.nii")} >= set(NAMES)
    assert len(go(jobs).skipped) == len(NAMES)


def test_a_name_too_long_for_its_outputs_fails_alone(go, tmp_path):
    for name in ("a" * 247 + "_T1w.nii", "b_T1w.nii"):  # 255 bytes; "extra_" does not fit before it
        (tmp_path / "in" / name).write_bytes(b"x")
    tally = go()
    assert tally.done == ["b_T1w.nii"]
    assert "too long" in tally.failures[0][2]
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]


def test_loops_of_links_and_read_only_inputs(go, tmp_path):
    (tmp_path / "in" / "a_T1w.nii").write_bytes(b"x")
    (tmp_path / "in" / "a_T1w.nii").chmod(0o444)
    (tmp_path / "in" / "self_T1w.nii").symlink_to(tmp_path / "in" / "self_T1w.nii")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    tally = go()
    assert tally.done == ["a_T1w.nii"]
    assert [name for name, _, _ in tally.failures] == ["self_T1w.nii"]


def test_a_clock_that_jumps_back_changes_nothing(go, tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / "in" / f"{name}_T1w.nii").write_bytes(b"x")
    go()
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() - 1e6)
    (tmp_path / "in" / "c_T1w.nii").write_bytes(b"x")
    os.utime(tmp_path / "in" / "c_T1w.nii", (1, 1))
    tally = go()
    assert (tally.done, tally.skipped) == (["c_T1w.nii"], ["a_T1w.nii", "b_T1w.nii"])


def test_thousands_of_files_are_planned_by_name_alone(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3000):
        (folder / f"sub-{number:05d}_T1w.nii").touch()
    found = discover(str(folder), "T1w")
    assert len(found.items) == 3000
    assert found.items[-1].relative.as_posix() == "sub-02999_T1w.nii"
