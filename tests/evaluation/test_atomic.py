from __future__ import annotations

import os

import pytest

from localdiff_cli.evaluation import atomic
from localdiff_cli.evaluation.atomic import write_whole


def test_text_is_written_and_replaced_and_nothing_is_left_behind(tmp_path):
    target = tmp_path / "new" / "report.html"
    write_whole(target, "one\n")
    write_whole(target, "zwei é\n")
    assert target.read_bytes() == "zwei é\n".encode()
    assert os.listdir(target.parent) == ["report.html"]


def test_a_failure_keeps_the_old_file_and_leaves_no_rest(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    write_whole(target, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_long_name_fits(tmp_path):
    write_whole(tmp_path / ("a" * 250 + ".tsv"), "x")
    assert len(os.listdir(tmp_path)) == 1
