"""Claims: one living process a volume, whatever happens to clocks, hosts and processes."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from localdiff_cli.batch import claims as module
from localdiff_cli.batch.claims import Claims, Owner, is_alive, key_of, this_process


def hold(claims, key, owner):
    claims.folder.mkdir(parents=True, exist_ok=True)
    claims.path(key).write_text(json.dumps({"Volume": "v", "Token": "t", "Owner": asdict(owner)}))


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(this_process(), pid=process.pid, started="1")


def test_a_claim_excludes_others_until_it_is_given_back(tmp_path):
    mine, other = Claims(tmp_path), Claims(tmp_path)
    claim = mine.take("k", "a.nii")
    assert not claim.inherited
    assert other.take("k", "a.nii") is None
    assert other.holder("k").startswith(f"process {os.getpid()} on ")
    mine.release(claim)
    assert not mine.path("k").exists()
    assert not other.take("k", "a.nii").inherited


def test_a_dead_process_of_this_host_holds_nothing(tmp_path):
    claims = Claims(tmp_path)
    hold(claims, "k", dead_process())
    assert claims.take("k", "a.nii").inherited


def test_another_process_with_the_same_number_is_not_the_owner(tmp_path):
    claims = Claims(tmp_path)
    hold(claims, "k", replace(this_process(), started="12345"))
    assert claims.take("k", "a.nii").inherited


def test_another_hosts_claim_holds_while_its_heart_beats_and_falls_after_three_beats(tmp_path):
    claims = Claims(tmp_path, heartbeat=0.1)
    hold(claims, "k", Owner("elsewhere", 1, "1"))
    for beat in range(5):
        os.utime(claims.path("k"), (1000 - beat, 1000 - beat))  # the other clock may even run backwards
        assert claims.take("k", "a.nii") is None
        time.sleep(0.15)
    time.sleep(0.3)
    assert claims.take("k", "a.nii").inherited


def test_another_hosts_claim_holds_for_three_beats_without_a_sign(tmp_path):
    claims = Claims(tmp_path, heartbeat=60.0)
    hold(claims, "k", Owner("elsewhere", 1, "1"))
    for _ in range(3):
        assert claims.take("k", "a.nii") is None
        time.sleep(0.05)


def test_a_claim_that_cannot_be_read_is_treated_as_another_hosts(tmp_path):
    claims = Claims(tmp_path, heartbeat=0.05)
    for text in ("", "{", "[]", '{"Owner": {"host": 1}}', '{"Owner": 3}'):
        claims.folder.mkdir(parents=True, exist_ok=True)
        claims.path("k").write_text(text)
        assert claims.take("k", "a.nii") is None
        time.sleep(0.25)
        claims.release(claims.take("k", "a.nii"))


def test_a_claim_taken_over_by_another_is_not_removed_by_its_former_owner(tmp_path):
    claims = Claims(tmp_path)
    claim = claims.take("k", "a.nii")
    hold(claims, "k", Owner("elsewhere", 1, "1"))
    claims.release(claim)
    assert claims.path("k").exists()


def test_a_held_claim_is_touched(tmp_path):
    claims = Claims(tmp_path, heartbeat=0.05)
    claim = claims.take("k", "a.nii")
    os.utime(claim.path, (0, 0))
    until = time.monotonic() + 5
    while claim.path.stat().st_mtime == 0 and time.monotonic() < until:
        time.sleep(0.02)
    assert claim.path.stat().st_mtime > 0
    claims.leave(claim)
    assert claim.path.exists()
    os.utime(claim.path, (0, 0))
    time.sleep(0.3)
    assert claim.path.stat().st_mtime == 0


def test_a_claim_that_was_left_is_inherited_at_once_by_anybody_its_former_owner_included(tmp_path):
    mine, other = Claims(tmp_path), Claims(tmp_path)
    for former, heir in ((mine, mine), (mine, other)):
        claim = former.take("k", "a.nii")
        former.leave(claim)
        heired = heir.take("k", "a.nii")
        assert heired.inherited
        heir.release(heired)
    assert not mine.path("k").exists()


def test_a_claim_that_another_took_over_is_not_marked_as_left(tmp_path):
    claims = Claims(tmp_path)
    claim = claims.take("k", "a.nii")
    hold(claims, "k", Owner("elsewhere", 1, "1"))
    claims.leave(claim)
    assert claims.take("k", "a.nii") is None


def test_a_claim_that_could_not_be_given_back_does_not_stop_its_owners_next_try(tmp_path, monkeypatch):
    claims = Claims(tmp_path)
    claim = claims.take("k", "a.nii")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            claims.release(claim)
    assert claims.take("k", "a.nii").inherited


def test_of_many_processes_one_gets_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from localdiff_cli.batch.claims import Claims\n"
        "claim = Claims(Path(sys.argv[1])).take('k', 'a.nii'); print(int(claim is not None), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    won = [int(racer.stdout.readline()) for racer in racers]
    for racer in racers:
        racer.communicate()
    assert sum(won) == 1


def test_stale_claims_and_partials_are_cleared_and_living_ones_kept(tmp_path):
    claims = Claims(tmp_path)
    hold(claims, "dead", dead_process())
    hold(claims, "elsewhere", Owner("elsewhere", 1, "1"))
    (claims.folder / "x.partial").write_text("")
    for key in ("dead", "elsewhere", "none"):
        claims.clear_stale(key)
    claims.clear_partials()
    assert sorted(path.name for path in claims.folder.iterdir()) == ["elsewhere.json"]


def test_whether_a_process_lives():
    assert is_alive(this_process()) is True
    assert is_alive(Owner("elsewhere", os.getpid(), "1")) is None
    assert is_alive(dead_process()) is False


def test_without_proc_the_start_of_a_process_tells_it_from_a_later_one_of_its_number(monkeypatch):
    monkeypatch.setattr(module, "_text", lambda path: "")
    mine = this_process()
    assert abs(float(mine.started) - time.time()) < 24 * 3600
    assert is_alive(mine) is True
    assert is_alive(replace(mine, started=str(float(mine.started) - 60))) is False


@pytest.mark.parametrize("name", ["a.nii", "größe/脳.nii.gz", "x" * 250 + ".nii", "a\nb", "\udcff.nii"])
def test_keys_are_short_file_names_of_their_own(name):
    assert len(key_of(name)) == 32
    assert key_of(name) != key_of(name + "x")
    assert module.STATE_FOLDER.startswith(".")


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**63, -(2**63), 10**30, float("inf"), float("nan"), None, [1], "x"], ids=str)
def test_a_claim_of_no_possible_process_falls_like_one_of_an_unknown_owner(tmp_path, pid):
    claims = Claims(tmp_path, heartbeat=0.0)
    claims._beat = lambda: None  # without a pause between its touches the thread would take a core from all tests that follow
    hold(claims, "k", replace(this_process(), pid=pid))
    assert claims.holder("k") == "nobody"
    assert claims.take("k", "a.nii") is None
    assert claims.take("k", "a.nii").inherited


def test_a_claim_nested_absurdly_deep_is_one_of_an_unknown_owner(tmp_path):
    claims = Claims(tmp_path)
    claims.folder.mkdir(parents=True)
    claims.path("k").write_text("[" * 100_000)
    assert claims.holder("k") == "nobody"
    assert claims.take("k", "a.nii") is None
