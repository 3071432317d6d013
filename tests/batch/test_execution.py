"""How a run is carried out never changes what it makes: processes, shards, several runs on one folder, interruptions."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

import pytest

from localdiff_cli.batch.claims import STATE_FOLDER, Claims, Owner, key_of
from localdiff_cli.batch.discover import discover
from localdiff_cli.batch.engine import Execution, of_shard, run
from localdiff_cli.batch.records import Record, Records, tables
from localdiff_cli.batch.report import Reporter
from localdiff_cli.commands.run import execution
from localdiff_cli.errors import UsageError
from localdiff_cli.options import Asked
from tests.brains import write_brain

from .test_claims import dead_process, hold
from .toys import CopyRecipe


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"sub-{number}_T1w.nii").write_bytes(bytes([number]) * 100)
    return tmp_path / "in"


@pytest.fixture
def go(source, tmp_path):
    def run_it(how, out="out", overwrite=False, reporter=None, **recipe):
        made = CopyRecipe(tmp_path / out, tmp_path, **recipe)
        with reporter or Reporter(quiet=True) as reporting:
            return run(made, discover(str(source), "T1w"), tmp_path / out, reporting, how, version="1", overwrite=overwrite)

    return run_it


def outputs(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".nii" or path.stem.startswith("sub-")}


def rows(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_processes_make_the_same_as_one(go, tmp_path):
    here, apart = go(Execution(jobs=0), "here"), go(Execution(jobs=2), "apart")
    assert sorted(apart.done) == here.done
    assert outputs(tmp_path / "here") == outputs(tmp_path / "apart")
    assert [row["state"] for row in rows(tmp_path / "apart" / "runs.tsv")] == ["done"] * 6


def test_a_crash_and_a_hang_fail_their_volumes_alone_and_leave_nothing_half(go, tmp_path):
    trouble = {"sub-1_T1w.nii": "kill", "sub-2_T1w.nii": "hang", "sub-3_T1w.nii": "once-segfault"}
    tally = go(Execution(jobs=1, timeout=2.0), trouble=trouble)
    assert {(name, code) for name, code, _ in tally.failures} == {("sub-1_T1w.nii", "crash"), ("sub-2_T1w.nii", "timeout")}
    assert len(tally.done) == 4
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]
    assert not list((tmp_path / "out" / STATE_FOLDER / "claims").iterdir())
    table = {row["volume"]: row for row in rows(tmp_path / "out" / "runs.tsv")}
    assert (table["sub-1_T1w.nii"]["state"], table["sub-1_T1w.nii"]["attempts"]) == ("failed", "2")
    assert table["sub-3_T1w.nii"]["state"] == "done"
    assert "SIGKILL" in table["sub-1_T1w.nii"]["reason"]
    assert go(Execution(jobs=0)).exit_code == 0


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_half_made_outputs_of_a_dead_process_and_a_first_try_that_fails_do_not_hang_the_run(go, tmp_path, jobs):
    claims = Claims(tmp_path / "out")
    hold(claims, key_of("sub-1_T1w.nii"), dead_process())
    (tmp_path / "out" / "sub-1_T1w.nii").write_bytes(b"half")
    tally = go(Execution(jobs=jobs), trouble={"sub-1_T1w.nii": "once-memory"})
    assert (tally.failures, len(tally.done)) == ([], 6)
    assert (tmp_path / "out" / "sub-1_T1w.nii").read_bytes() == bytes([1]) * 100
    assert not list(claims.folder.iterdir())


def test_memory_that_ran_out_is_given_a_second_try(go, tmp_path):
    tally = go(Execution(jobs=0), trouble={"sub-1_T1w.nii": "once-memory"})
    assert tally.exit_code == 0
    assert {row["volume"]: row["attempts"] for row in rows(tmp_path / "out" / "runs.tsv")}["sub-1_T1w.nii"] == "2"


class OutOfMemoryError(RuntimeError):
    """As torch calls the one of CUDA."""


@dataclass(frozen=True)
class Greedy(CopyRecipe):
    """Works only with a batch of 2 or less."""

    batch: int = 8

    def smaller(self):
        return replace(self, batch=self.batch // 2) if self.batch > 1 else None

    def __call__(self, item, on_slice):
        if self.batch > self.parameter:
            raise OutOfMemoryError("CUDA out of memory")
        return super().__call__(item, on_slice)


@pytest.mark.parametrize(("fits", "code"), [(2, 0), (0, 1)])
def test_a_device_that_is_full_is_given_half_the_batch_and_the_user_is_told(source, tmp_path, capsys, fits, code):
    with Reporter() as reporter:
        made = Greedy(tmp_path / "out", tmp_path, parameter=fits)
        tally = run(made, discover(str(source), "T1w"), tmp_path / "out", reporter, Execution(jobs=0), version="1")
    assert tally.exit_code == code
    assert "half the batch" in capsys.readouterr().err
    assert {reason for _, reason, _ in tally.failures} == ({"out-of-memory"} if code else set())


def test_a_bad_volume_is_not_tried_again(go, tmp_path):
    go(Execution(jobs=0), trouble={"sub-1_T1w.nii": "volume"})
    assert {row["volume"]: row["attempts"] for row in rows(tmp_path / "out" / "runs.tsv")}["sub-1_T1w.nii"] == "1"


def test_a_run_stops_after_so_many_failures_and_says_so(go, tmp_path, capsys):
    trouble = {f"sub-{number}_T1w.nii": "volume" for number in range(6)}
    tally = go(Execution(jobs=0, max_failures=2), trouble=trouble)
    assert (len(tally.failures), tally.stopped, tally.exit_code) == (2, True, 1)
    assert "stopped after 2 failures, 4 volumes not tried" in capsys.readouterr().err
    assert [row["state"] for row in rows(tmp_path / "out" / "runs.tsv")] == ["failed"] * 2 + ["open"] * 4


def test_shards_are_disjoint_cover_everything_and_share_the_tables(go, source, tmp_path):
    found = discover(str(source), "T1w").items
    shards = [of_shard(found, (number, 3)) for number in (1, 2, 3)]
    assert sorted(item.path for shard in shards for item in shard) == sorted(item.path for item in found)
    done = [go(Execution(jobs=0, shard=(number, 3))).done for number in (1, 2, 3)]
    assert sorted(name for names in done for name in names) == sorted(item.relative.as_posix() for item in found)
    assert len(rows(tmp_path / "out" / "qc.tsv")) == len(rows(tmp_path / "out" / "slices.tsv")) == 6
    assert json.loads((tmp_path / "out" / "run.json").read_text())["Volumes"] == {"done": 6, "failed": 0, "open": 0}
    (source / "sub-7_T1w.nii").write_bytes(b"7")
    again = discover(str(source), "T1w").items
    for number, shard in enumerate(shards, 1):
        assert set(shard) <= set(of_shard(again, (number, 3)))


def test_two_runs_on_one_folder_share_the_work(go, tmp_path):
    tallies = []
    threads = [threading.Thread(target=lambda: tallies.append(go(Execution(jobs=1), seconds=0.2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tallies[0].done + tallies[1].done) == [f"sub-{number}_T1w.nii" for number in range(6)]
    assert all(len(tally.done) + len(tally.skipped) == 6 for tally in tallies)
    assert all(len(tally.done) > 0 for tally in tallies)


def test_a_volume_of_a_dead_run_is_taken_over_with_its_half_made_outputs(go, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub-2_T1w.nii").write_bytes(b"half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("localdiff_cli.volumes.whole.shutil.rmtree", lambda *a, **k: None)
        from localdiff_cli.volumes.whole import write_text

        write_text(out / "extra_sub-2_T1w.nii", "half")
    assert len(go(Execution(jobs=0)).failures) == 1  # without a claim it might be anybody's
    hold(Claims(out), key_of("sub-2_T1w.nii"), dead_process())
    tally = go(Execution(jobs=0))
    assert tally.done == ["sub-2_T1w.nii"]
    assert (out / "sub-2_T1w.nii").read_bytes() == bytes([2]) * 100
    assert not [path for path in out.rglob("*") if "partial" in path.name]


def test_a_volume_that_another_host_works_on_is_waited_for(go, tmp_path, source):
    out, done = tmp_path / "out", tmp_path / "done"
    go(Execution(jobs=0), "done")
    claims = Claims(out)
    hold(claims, key_of("sub-0_T1w.nii"), Owner("elsewhere", 1, "1"))

    def finish():
        time.sleep(1.0)
        for path in done.glob("*sub-0_*"):
            shutil.copy(path, out / path.name)
        claims.path(key_of("sub-0_T1w.nii")).unlink()

    other = threading.Thread(target=finish)
    other.start()
    tally = go(Execution(jobs=0))
    other.join()
    assert tally.skipped == ["sub-0_T1w.nii"]
    assert len(tally.done) == 5


def test_overwriting_redoes_what_differs_and_no_more(go, tmp_path):
    go(Execution(jobs=0))
    assert len(go(Execution(jobs=0), parameter=2).failures) == 6
    assert len(go(Execution(jobs=0), parameter=2, overwrite=True).done) == 6
    assert len(go(Execution(jobs=0), parameter=2, overwrite=True).skipped) == 6
    assert (tmp_path / "out" / "sub-1_T1w.nii").read_bytes() == bytes([1]) * 200


def test_an_interruption_between_two_results_leaves_no_worker(go):
    class Interrupting(Reporter):
        def volume_done(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(Execution(jobs=2), reporter=Interrupting(quiet=True), seconds=0.2)
    assert not multiprocessing.active_children()


def test_a_removed_output_folder_midway_fails_volumes_not_the_run(go, tmp_path):
    class Removing(Reporter):
        def volume_done(self):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)

    tally = go(Execution(jobs=0), reporter=Removing(quiet=True))
    assert len(tally.done) == 6
    assert go(Execution(jobs=0)).exit_code == 0
    assert len(outputs(tmp_path / "out")) == 18


def test_an_input_that_vanishes_fails_alone(go, source, tmp_path):
    class Removing(Reporter):
        def started(self, name):
            (source / "sub-3_T1w.nii").unlink(missing_ok=True)

    tally = go(Execution(jobs=0), reporter=Removing(quiet=True))
    assert [name for name, _, _ in tally.failures] == ["sub-3_T1w.nii"]
    assert len(tally.done) == 5


def test_the_tables_are_readable_at_any_time_during_a_run(go, tmp_path, monkeypatch):
    monkeypatch.setattr("localdiff_cli.batch.engine.TABLES_EVERY_SECONDS", 0.0)
    seen = []

    class Looking(Reporter):
        def started(self, name):
            if (tmp_path / "out" / "runs.tsv").exists():
                seen.append([row["state"] for row in rows(tmp_path / "out" / "runs.tsv")])

    go(Execution(jobs=0), reporter=Looking(quiet=True))
    assert seen
    assert all(len(states) == 6 and set(states) <= {"done", "open"} for states in seen)


def test_a_record_of_nonsense_is_no_record(tmp_path):
    records = Records(tmp_path)
    records.folder.mkdir(parents=True)
    for number, text in enumerate(("", "[]", "{", '{"volume": 1}', '{"volume": "a", "state": "done", "slices": [3]}', "\udcff")):
        (records.folder / f"{number}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    known = records.all()
    assert "a" not in known
    tables(known, ["b"], {})


def test_tables_keep_one_line_a_volume_whatever_its_name(tmp_path):
    made = tables({"a\nb": Record("a\nb", "failed", "x", "tab\there\r\n")}, [], {})
    assert len(made["runs.tsv"].splitlines()) == len(made["failures.tsv"].splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"jobs": -1}, "--jobs"),
        ({"timeout": 0}, "--timeout-per-volume"),
        ({"timeout": 5, "jobs": 0}, "--timeout-per-volume"),
        ({"timeout": 5, "cluster": "slurm"}, "--timeout-per-volume"),
        ({"max_failures": 0}, "--max-failures"),
        ({"max_failures": 2, "fail_fast": True}, "--fail-fast"),
        *(({"shard": text}, "--shard") for text in ("0/3", "4/3", "3", "/3", "a/b", "1/", "-1/3", "1/0")),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused_and_named(arguments, word):
    with pytest.raises(UsageError, match=word):
        execution(Asked(**arguments))


def test_a_shard_and_fail_fast_are_understood():
    how = execution(Asked(2, 10.0, "3/16", fail_fast=True))
    assert how == Execution(2, 10.0, (3, 16), 1, None)


def test_a_dry_run_shows_states_shapes_and_cost_and_writes_nothing(cli, folder, tmp_path):
    shown = cli("translate", "--in", folder, "--out", tmp_path / "out", "--dry-run")
    assert shown.exit_code == 0, shown.output
    table = [line.split("\t") for line in shown.stdout.splitlines()]
    assert table[0] == ["volume", "state", "output", "shape", "seconds", "memory_mb", "reason"]
    assert [row[:2] for row in table[1:]] == [[f"sub-0{i}/sub-0{i}_T1w.nii.gz", "open"] for i in (1, 2)]
    assert all(float(row[5]) > 50 and "x" in row[3] for row in table[1:])
    assert "2 of 2 volumes to do" in shown.stderr
    assert not (tmp_path / "out").exists()
    one = folder / "sub-01" / "sub-01_T1w.nii.gz"
    assert cli("translate", "--in", folder, "--out", tmp_path / "out", "--shard", "1/1").exit_code == 0
    one.write_bytes(b"no image")
    states = [
        line.split("\t")[1] for line in cli("translate", "--in", folder, "--out", tmp_path / "out", "--dry-run").stdout.splitlines()[1:]
    ]
    assert states == ["refused", "done"]


def test_a_dry_run_says_which_volumes_lack_a_mask_that_the_run_would_need(cli, folder, tmp_path):
    (tmp_path / "brain").mkdir()
    write_brain(tmp_path / "brain" / "sub-01_brain.nii.gz", seed=1)
    given = ("translate", "--in", folder, "--out", tmp_path / "out", "--brain", tmp_path / "brain")
    rows = [line.split("\t") for line in cli(*given, "--dry-run").stdout.splitlines()[1:]]
    assert [row[1] for row in rows] == ["open", "refused"]
    assert "sub-02_T1w.nii.gz: found in --brain" in rows[1][-1]
    one = (*given[:2], folder / "sub-02", *given[3:6], tmp_path / "brain" / "sub-01_brain.nii.gz")
    assert cli(*one, "--dry-run").stdout.splitlines()[1].split("\t")[1] == "refused"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_workers_and_the_same_command_goes_on(folder, models_folder, tmp_path, stop):
    from tests.brains import write_brain

    for number in range(3, 30):
        write_brain(folder / f"sub-{number:02d}_T1w.nii.gz", seed=number, shape=(40, 48, 2))
    command = [sys.executable, "-m", "localdiff_cli.app", "translate", "--in", str(folder), "--out", str(tmp_path / "out"), "--steps", "99"]
    environment = {**os.environ, "LOCALDIFF_MODELS": str(models_folder), "LOCALDIFF_JOBS": "1"}
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    # A shell that runs these tests in the background ignores SIGINT, and so would every process they start.
    process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)
    until = time.monotonic() + 300  # a machine that others work on too may need long for two starts of torch
    while not list((tmp_path / "out" / STATE_FOLDER / "records").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.05)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as Ctrl-C does
    else:
        process.send_signal(stop)
    _, message = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop]
    assert "goes on where it stopped" in message
    assert "Traceback" not in message
    left = [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]
    assert not left
    states = {row["state"] for row in rows(tmp_path / "out" / "runs.tsv")}
    assert states == {"done", "open"}
