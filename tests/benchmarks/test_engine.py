"""The simulation of many volumes: several runs on one folder do each of them once, and a second time nothing."""

import pytest

from examples.benchmarks.engine import Light, make_volumes, one_run


@pytest.fixture
def source(tmp_path):
    make_volumes(tmp_path / "in", 6, linked=True)
    return tmp_path / "in"


def test_every_volume_is_done_once_and_then_skipped(source, tmp_path):
    work = Light(tmp_path / "out")
    first, second = (one_run(source, work, 0, 6) for _ in range(2))
    assert (first.done, first.skipped, len(first.memory)) == (6, 0, 6)
    assert (second.done, second.skipped) == (0, 6)
    assert len((tmp_path / "out" / "runs.tsv").read_text().splitlines()) == 7


def test_linked_volumes_are_one_file_under_many_names(source):
    assert len({path.stat().st_ino for path in source.iterdir()}) == 1
    assert len(list(source.iterdir())) == 6
