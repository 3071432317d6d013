"""A kill, a failing disk or a full one at any step of the write path costs nothing but the volume in work."""

import pytest

from .kill import at_random, make_input, start, steps_of, trial


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    source = make_input(folder / "in")
    total, wanted = steps_of(source, folder)
    return source, total, wanted


def test_the_harness_sees_the_whole_write_path_and_every_output(calm):
    _, total, wanted = calm
    assert total > 150
    assert {"sub-0_T1w.nii", "extra_sub-2_T1w.nii", "sub-1_T1w.json", "runs.tsv", "run.json", "qc.tsv", "slices.tsv"} <= wanted.keys()


@pytest.mark.parametrize("action", ["kill", "EIO", "full"])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.33, 0.4, 0.47, 0.61, 0.76, 0.9, 0.97])
def test_a_fault_at_a_step_and_a_resumed_run_end_like_an_undisturbed_one(calm, tmp_path, action, share):
    source, total, wanted = calm
    assert trial(max(1, round(share * total)), action, source, tmp_path, wanted) == ""


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_instants_are_taken_up_again(calm, tmp_path, seed):
    source, _, wanted = calm
    assert at_random(seed, source, tmp_path / "x", wanted) == ""


def test_the_harness_notices_a_difference(calm, tmp_path):
    source, _, wanted = calm
    assert "differs" in trial(10, "kill", source, tmp_path, {**wanted, "qc.tsv": b""})
    assert start(source, tmp_path / "out").returncode == 0
