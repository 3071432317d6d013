"""The loop over volumes: what is done stays done, what fails fails alone, and everything is accounted for."""

import hashlib
import json
import os
import signal

import pytest

from localdiff_cli.batch import volume
from localdiff_cli.batch.claims import Claims, key_of
from localdiff_cli.batch.discover import Found, Item, discover
from localdiff_cli.batch.engine import Execution, run
from localdiff_cli.batch.records import BUSY
from localdiff_cli.batch.report import Reporter
from localdiff_cli.batch.volume import state_of
from localdiff_cli.batch.work import Outcome
from localdiff_cli.batch.workers import Terminated
from localdiff_cli.errors import ModelError, UsageError, VolumeError
from localdiff_cli.volumes.contrast import Content
from localdiff_cli.volumes.whole import whole_file


class Copy:
    """Work that copies its input; ``trouble`` maps a file's name to what happens there."""

    def __init__(self, out, settings=None, trouble=None, rows=True, review=()):
        self.out, self.trouble, self.rows, self.review = out, trouble or {}, rows, review
        self.settings = settings or {"Command": "copy", "Grid": (1, 2)}
        self.worked = []

    device = "cpu"

    def load(self, say):
        return self

    def smaller(self):
        return None

    def companions(self, item):
        return []

    def lacking(self, items):
        return {}

    def outputs(self, item):
        return [self.out / item.relative, self.out / item.relative.with_name(item.path.name.replace("_T1w", "_T1w_extra"))]

    def __call__(self, item, on_slice):
        self.worked.append(item.path.name)
        for path in self.outputs(item):
            with whole_file(path) as partial:
                partial.write_bytes(item.path.read_bytes())
                if item.path.name in self.trouble:
                    self.trouble[item.path.name]()
        on_slice(1, 1)
        rows = ({"slice": 10, "share": 0.5}, {"slice": 9, "share": 0.25}) if self.rows else ()
        return Outcome({"Content": "copy"}, self.review if item.path.name.startswith("b") else (), rows)


def throw(error):
    def raising():
        raise error

    return raising


@pytest.fixture
def found(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}_T1w.nii").write_text(name)
    return discover(str(tmp_path / "in"), "T1w")


@pytest.fixture
def go(found, tmp_path):
    def run_it(work, **options):
        with Reporter(quiet=True) as reporter:
            return run(work, found, tmp_path / "out", reporter, Execution(jobs=0), version="1", **options)

    return run_it


def table(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def leftovers(out):
    return [path for path in out.rglob("*") if "partial" in path.name]


def test_every_volume_gets_its_outputs_a_sidecar_a_verdict_and_rows(go, tmp_path):
    tally = go(Copy(tmp_path / "out", review=("odd", "strange")))
    assert tally.exit_code == 0
    assert tally.done == ["a_T1w.nii", "b_T1w.nii", "c_T1w.nii"]
    sidecar = json.loads((tmp_path / "out" / "b_T1w.json").read_text())
    assert sidecar["Sources"] == ["b_T1w.nii"]
    assert sidecar["Settings"] == {"Command": "copy", "Grid": [1, 2]}
    assert set(sidecar["OutputSHA256"]) == {"b_T1w.nii", "b_T1w_extra.nii"}
    assert (sidecar["Verdict"], sidecar["ReviewReasons"], sidecar["Content"]) == ("review", ["odd", "strange"], "copy")
    assert table(tmp_path / "out" / "qc.tsv") == [
        ["volume", "verdict", "reasons"],
        ["a_T1w.nii", "pass", ""],
        ["b_T1w.nii", "review", "odd; strange"],
        ["c_T1w.nii", "pass", ""],
    ]
    rows = table(tmp_path / "out" / "slices.tsv")
    assert rows[0] == ["volume", "slice", "share"]
    assert [row[:2] for row in rows[1:3]] == [["a_T1w.nii", "9"], ["a_T1w.nii", "10"]]
    assert not (tmp_path / "out" / "failures.tsv").exists()
    assert not leftovers(tmp_path / "out")


def test_a_second_run_does_no_work_and_gives_the_same_tables(go, tmp_path):
    go(Copy(tmp_path / "out", review=("odd",)))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = Copy(tmp_path / "out", review=("odd",))
    tally = go(again)
    assert again.worked == []
    assert (len(tally.skipped), tally.exit_code) == (3, 0)
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_other_settings_or_another_input_are_refused_and_named(go, found, tmp_path):
    go(Copy(tmp_path / "out"))
    changed = go(Copy(tmp_path / "out", settings={"Command": "copy", "Grid": (1, 3)}))
    assert changed.exit_code == 1
    assert "Grid: [1, 2] then, [1, 3] now" in changed.failures[0][2]
    assert "--overwrite" in changed.failures[0][2]
    found.items[0].path.write_text("another")
    tally = go(Copy(tmp_path / "out"))
    assert [name for name, _, _ in tally.failures] == ["a_T1w.nii"]
    assert "the input changed" in tally.failures[0][2]
    assert (tmp_path / "out" / "a_T1w.nii").read_text() == "a"
    assert go(Copy(tmp_path / "out"), overwrite=True).exit_code == 0
    assert (tmp_path / "out" / "a_T1w.nii").read_text() == "another"


def test_a_foreign_output_is_left_as_it_is(go, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_T1w_extra.nii").write_text("mine")
    (tmp_path / "out" / "b_T1w.nii").write_text("mine")
    (tmp_path / "out" / "b_T1w.json").write_text('{"RepetitionTime": 2}')
    tally = go(Copy(tmp_path / "out"))
    assert [(name, code) for name, code, _ in tally.failures] == [("a_T1w.nii", "exists"), ("b_T1w.nii", "exists")]
    assert (tmp_path / "out" / "a_T1w_extra.nii").read_text() == "mine"
    assert (tmp_path / "out" / "b_T1w.nii").read_text() == "mine"


@pytest.mark.parametrize("damage", ["cut", "gone", "hashes"])
def test_a_volume_with_a_damaged_or_missing_output_is_made_again(go, tmp_path, damage):
    go(Copy(tmp_path / "out"))
    extra, sidecar = tmp_path / "out" / "b_T1w_extra.nii", tmp_path / "out" / "b_T1w.json"
    if damage == "cut":
        extra.write_text("")
    elif damage == "gone":
        extra.unlink()
    else:
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"OutputSHA256": 3}))
    again = Copy(tmp_path / "out")
    assert go(again).exit_code == 0
    assert again.worked == ["b_T1w.nii"]
    assert extra.read_text() == "b"


def test_a_sidecar_of_nonsense_fails_its_volume_once_and_alone(go, tmp_path):
    go(Copy(tmp_path / "out"))
    sidecar = tmp_path / "out" / "b_T1w.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"Slices": 3}))
    tally = go(Copy(tmp_path / "out"))
    assert tally.skipped == ["a_T1w.nii", "c_T1w.nii"]
    assert [row[:2] for row in table(tmp_path / "out" / "qc.tsv")[1:]] == [
        ["a_T1w.nii", "pass"],
        ["b_T1w.nii", "failed"],
        ["c_T1w.nii", "pass"],
    ]


class Odd(Exception):
    """An exception of a library that nobody thought of."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Odd("strange\tthing\nhappened"), "internal"),
        (AttributeError("x"), "internal"),
        (AssertionError(), "internal"),
        (EOFError(), "internal"),
        (MemoryError(), "out-of-memory"),
        (VolumeError("b_T1w.nii: bad", code="truncated"), "truncated"),
        (KeyError("k"), "internal"),
    ],
    ids=repr,
)
def test_whatever_goes_wrong_in_one_volume_the_others_are_done(go, tmp_path, error, code):
    tally = go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(error)}))
    assert tally.exit_code == 1
    assert tally.done == ["a_T1w.nii", "c_T1w.nii"]
    rows = table(tmp_path / "out" / "failures.tsv")
    assert rows[0] == ["volume", "code", "reason"]
    assert rows[1][:2] == ["b_T1w.nii", code]
    assert len(rows) == 2
    assert len(rows[1]) == 3
    assert "b_T1w.nii" in rows[1][2]
    assert table(tmp_path / "out" / "qc.tsv")[2][:2] == ["b_T1w.nii", "failed"]
    assert not (tmp_path / "out" / "b_T1w.json").exists()
    assert not leftovers(tmp_path / "out")


def test_a_volume_is_tried_twice_and_no_more(go, tmp_path):
    for error, tries in ((MemoryError(), 2), (Odd("strange"), 1)):
        work = Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(error)})
        assert go(work).exit_code == 1
        assert work.worked.count("b_T1w.nii") == tries


def test_a_model_that_does_not_work_ends_the_run(go, tmp_path):
    with pytest.raises(ModelError):
        go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(ModelError("bank does not fit"))}))
    assert table(tmp_path / "out" / "qc.tsv")[1:] == [["a_T1w.nii", "pass", ""]]


def test_debug_shows_the_traceback_of_a_failure(go, tmp_path, capsys):
    go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(Odd("strange"))}), debug=True)
    assert "Traceback" in capsys.readouterr().err
    go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(Odd("strange"))}))
    assert "Traceback" not in capsys.readouterr().err


def test_the_table_of_failures_goes_after_a_clean_rerun(go, tmp_path):
    go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(Odd("strange"))}))
    assert (tmp_path / "out" / "failures.tsv").exists()
    again = Copy(tmp_path / "out")
    assert go(again).exit_code == 0
    assert again.worked == ["b_T1w.nii"]
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_a_table_of_slices_that_no_longer_holds_goes(go, tmp_path):
    go(Copy(tmp_path / "out"))
    assert (tmp_path / "out" / "slices.tsv").exists()
    go(Copy(tmp_path / "out", settings={"Rows": False}, rows=False), overwrite=True)
    assert not (tmp_path / "out" / "slices.tsv").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Terminated()], ids=repr)
def test_an_interrupted_run_keeps_what_is_whole_leaves_nothing_half_and_goes_on(go, tmp_path, stop):
    with pytest.raises(type(stop)):
        go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(stop)}))
    tables = {"qc.tsv", "slices.tsv", "runs.tsv", "run.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_T1w.nii", "a_T1w_extra.nii", "a_T1w.json", ".localdiff"} | tables
    assert not list((tmp_path / "out" / ".localdiff" / "claims").iterdir())
    assert table(tmp_path / "out" / "qc.tsv")[1:] == [["a_T1w.nii", "pass", ""]]
    again = Copy(tmp_path / "out")
    assert go(again).exit_code == 0
    assert again.worked == ["b_T1w.nii", "c_T1w.nii"]
    assert len(table(tmp_path / "out" / "slices.tsv")) == 7


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_while_old_outputs_are_replaced_needs_no_more_than_the_same_command(go, tmp_path, overwrite):
    go(Copy(tmp_path / "out"))
    (tmp_path / "out" / "b_T1w_extra.nii").write_text("cut")
    with pytest.raises(KeyboardInterrupt):
        go(Copy(tmp_path / "out", trouble={"b_T1w.nii": throw(KeyboardInterrupt())}), overwrite=overwrite)
    again = Copy(tmp_path / "out")
    assert go(again, overwrite=overwrite).exit_code == 0
    assert "b_T1w.nii" in again.worked
    assert (tmp_path / "out" / "b_T1w_extra.nii").read_text() == "b"


def test_sigterm_is_an_interruption_with_its_own_exit_code(go, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as stopped:
        go(Copy(tmp_path / "out", trouble={"b_T1w.nii": lambda: os.kill(os.getpid(), signal.SIGTERM)}))
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "out" / "b_T1w.nii").exists()


def test_inputs_that_would_write_the_same_output_are_refused_before_any_work(tmp_path):
    items = tuple(Item(tmp_path / name, (tmp_path / "a_T1w.nii").relative_to(tmp_path), Content("T1w")) for name in ("x.nii", "y.nii"))
    work = Copy(tmp_path / "out")
    with Reporter(quiet=True) as reporter, pytest.raises(UsageError, match="both write"):
        run(work, Found(items, ()), tmp_path / "out", reporter, Execution(jobs=0), version="1")
    assert work.worked == []
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_wrong_usage(go, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="cannot be made"):
        go(Copy(tmp_path / "out"))


def test_without_outputs_a_volume_is_open_whatever_the_settings(found, tmp_path):
    assert state_of(Copy(tmp_path / "out"), found.items[0], [tmp_path / "out" / "a_T1w.nii"], overwrite=False) == "open"


def test_an_input_replaced_while_it_is_worked_on_is_done_again_and_described_by_what_it_was_made_of(go, found, tmp_path):
    once = iter(["new"])
    work = Copy(tmp_path / "out", trouble={"b_T1w.nii": lambda: [found.items[1].path.write_text(text) for text in once]})
    assert go(work).exit_code == 0
    assert work.worked.count("b_T1w.nii") == 2
    assert (tmp_path / "out" / "b_T1w.nii").read_text() == "new"
    assert json.loads((tmp_path / "out" / "b_T1w.json").read_text())["SourceSHA256"] == hashlib.sha256(b"new").hexdigest()
    assert len(go(work).skipped) == 3


def test_an_input_or_companion_that_keeps_changing_fails_its_volume_alone_and_leaves_no_output(go, found, tmp_path):
    mask, numbers = tmp_path / "mask", iter("0123456789")
    for changed, told in ((found.items[1].path, "the input changed"), (mask, "mask, map or reference changed")):
        mask.write_text("one")
        work = Copy(tmp_path / "out", trouble={"b_T1w.nii": lambda: changed.write_text(next(numbers))})  # noqa: B023
        work.companions = lambda item: [mask]
        tally = go(work, overwrite=True)
        assert [(name, code) for name, code, _ in tally.failures] == [("b_T1w.nii", "input-changed")]
        assert told in tally.failures[0][2]
        assert not list((tmp_path / "out").glob("b_*"))


def test_a_changed_companion_is_another_input(go, found, tmp_path):
    mask = tmp_path / "mask"
    mask.write_text("one")
    work = Copy(tmp_path / "out")
    work.companions = lambda item: [mask]
    assert go(work).exit_code == 0
    assert len(go(work).skipped) == 3
    mask.write_text("two")
    assert go(work).exit_code == 1


def test_a_run_that_begins_between_the_glance_and_the_claim_is_waited_for(found, tmp_path, monkeypatch):
    """Another run claims the volume and has written half of it when this one, which saw no claim, looks at the outputs."""
    item, work = found.items[0], Copy(tmp_path / "out")
    others = Claims(tmp_path / "out")
    held = []

    def looked_at_late(*arguments, **options):
        if not held:
            held.append(others.take(key_of(item.relative.as_posix()), "other"))
            work.outputs(item)[0].parent.mkdir(parents=True, exist_ok=True)
            work.outputs(item)[0].write_bytes(b"half")
        return state_of(*arguments, **options)

    monkeypatch.setattr(volume, "state_of", looked_at_late)
    recorded = volume.Recorded(work, tmp_path / "out", "1").load(print)
    assert recorded(item, 1, lambda done, total: None).state == BUSY
    assert work.worked == []
    work.outputs(item)[0].unlink()
    others.release(held[0])
    assert recorded(item, 1, lambda done, total: None).state == "done"
