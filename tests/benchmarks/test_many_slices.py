"""The simulation of a million slices, with few: sparse patients are those that fit takes, and it trains on them."""

import pytest

from examples.benchmarks import many_slices


def test_sparse_patients_are_taken_as_they_lie(tmp_path, monkeypatch):
    monkeypatch.setattr(many_slices, "SHAPE", (32, 32))
    many_slices.lay_out(tmp_path, 200)
    files = sorted((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 2
    assert files[0].stat().st_blocks * 512 < files[0].stat().st_size / 4
    told = many_slices.first_steps(tmp_path, 200, 1)
    assert told["slices"] == 200
    assert told["own memory then, MiB"] == pytest.approx(told["after 1 steps"])
