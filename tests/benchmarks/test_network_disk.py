"""A folder that answers late: its answers are the disk's, each counted and waited for; the engine's two runs on it."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from examples.benchmarks.engine import make_volumes
from examples.benchmarks.network_disk import KINDS, answers, distant, engine_on, line


@pytest.fixture
def counts():
    return multiprocessing.get_context("spawn").Array("q", len(KINDS))


def test_every_answer_is_the_disks_and_is_counted_by_its_kind(tmp_path, counts):
    ask = answers(tmp_path, 0.0, counts)
    handle = ask["create"](None, "/a", 0o644)
    assert ask["write"](None, "/a", b"hello", 0, handle) == 5
    ask["fsync"](None, "/a", False, handle)
    assert ask["read"](None, "/a", 3, 1, handle) == b"ell"
    ask["release"](None, "/a", handle)
    ask["mkdir"](None, "/d", 0o755)
    ask["rename"](None, "/a", "/d/b")
    assert ask["getattr"](None, "/d/b")["st_size"] == 5
    assert sorted(ask["readdir"](None, "/d", 0)) == [".", "..", "b"]
    ask["unlink"](None, "/d/b")
    ask["rmdir"](None, "/d")
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        ask["open"](None, "/none", os.O_RDONLY)
    assert dict(zip(KINDS, counts, strict=True)) == dict.fromkeys(KINDS, 1)


def test_an_answer_comes_after_the_wait(tmp_path, counts):
    started = time.monotonic()
    answers(tmp_path, 0.05, counts)["getattr"](None, "/")
    assert time.monotonic() - started >= 0.05


def test_the_engine_works_and_then_finds_all_done(tmp_path):
    make_volumes(tmp_path / "in", 3, linked=True)
    (work, seconds, requests), (again, _, _) = engine_on(tmp_path, 3, None)
    assert (work, again) == ("work", "already done")
    assert seconds > 0
    assert sum(requests) == 0


def test_a_line_gives_milliseconds_and_requests_a_volume():
    requests = [6 if kind in ("getattr", "open") else 0 for kind in KINDS]
    assert line("5 ms away", "work", 3, 1.5, requests) == "| 5 ms away | work | 500.0 | 4.0 | 2.0 getattr, 2.0 open |"


def test_the_engine_runs_on_a_mounted_folder_and_its_requests_are_few(tmp_path):
    pytest.importorskip("mfusepy", exc_type=ImportError)
    if not Path("/dev/fuse").exists():
        pytest.skip("no FUSE here")
    (tmp_path / "mount").mkdir()
    (tmp_path / "root").mkdir()
    make_volumes(tmp_path / "root" / "in", 4, linked=True)
    with distant(tmp_path / "root", tmp_path / "mount", 0.0) as counts:
        work, again = engine_on(tmp_path / "mount", 4, counts)
    assert len(list((tmp_path / "root" / "out").glob("*.nii.gz"))) == 4
    assert 0 < sum(again[2]) < sum(work[2]) < 4 * 400
