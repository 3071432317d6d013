"""What a person or a script sees of a run."""

import json

import pytest

from localdiff_cli.batch.report import Reporter
from localdiff_cli.errors import UsageError


def a_run(reporter):
    reporter.line("model x")
    reporter.detail("a detail")
    reporter.start(2)
    for name in ("a [1]/b_T1w.nii", "[red]c_T1w.nii"):
        reporter.started(name)
        reporter.slice(1, 2)
        reporter.slice(2, 2)
        reporter.volume_done()
    reporter.problem("c failed [bold]")


def test_a_log_gets_plain_lines_with_names_as_they_are(capsys):
    with Reporter() as reporter:
        a_run(reporter)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["model x", "[1/2] a [1]/b_T1w.nii", "[2/2] [red]c_T1w.nii", "c failed [bold]"]
    assert "\x1b" not in err


def test_verbose_adds_details(capsys):
    with Reporter(verbose=True) as reporter:
        a_run(reporter)
    assert "a detail" in capsys.readouterr().err


def test_quiet_leaves_problems_only(capsys):
    with Reporter(quiet=True, verbose=True) as reporter:
        a_run(reporter)
    assert capsys.readouterr().err.splitlines() == ["c failed [bold]"]


def test_a_long_volume_shows_a_sign_of_life_in_a_log(capsys, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("localdiff_cli.batch.report.time.monotonic", lambda: float(next(clock)))
    with Reporter() as reporter:
        reporter.started("a")
        for k in range(6):
            reporter.slice(k, 6)
    lines = [line for line in capsys.readouterr().err.splitlines() if "slice" in line]
    assert 1 <= len(lines) <= 3


def test_long_lines_are_not_broken(capsys):
    with Reporter() as reporter:
        reporter.problem("x" * 500)
    assert capsys.readouterr().err == "x" * 500 + "\n"


def test_a_terminal_gets_a_bar_with_volume_and_slices(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    with Reporter() as reporter:
        assert reporter.console.is_terminal
        a_run(reporter)
        reporter._bar.refresh()
    err = capsys.readouterr().err
    assert "volumes" in err
    assert "[2/2] [red]c_T1w.nii" in err
    assert "2/2" in err
    assert "c failed [bold]" in err


def test_a_quiet_terminal_has_no_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Reporter(quiet=True) as reporter:
        reporter.start(1)
        reporter.started("a")
    assert "volumes" not in capsys.readouterr().err


def test_events_are_json_lines_appended_at_once(tmp_path):
    log = tmp_path / "new" / "log.jsonl"
    for run in range(2):
        with Reporter(quiet=True, json_log=log) as reporter:
            reporter.event("volume-done", volume="größe\n", path=tmp_path, seconds=1.5, run=run)
            assert len(log.read_text().splitlines()) == run + 1
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["run"] for event in events] == [0, 1]
    assert events[0]["event"] == "volume-done"
    assert events[0]["volume"] == "größe\n"
    assert events[0]["path"] == str(tmp_path)
    assert events[0]["time"] > 1e9


def test_without_a_log_events_cost_nothing():
    with Reporter(quiet=True) as reporter:
        reporter.event("anything", value=object())


def test_a_log_that_cannot_be_written_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="--json-log"):
        Reporter(json_log=tmp_path).__enter__()


def test_the_command_says_so_without_a_traceback(cli, folder, tmp_path):
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--json-log", folder)
    assert result.exit_code == 2
    assert "--json-log" in result.output


def test_a_file_that_is_no_log_is_not_written_to(cli, folder, tmp_path):
    (image,) = folder.glob("sub-01/*_T1w.nii.gz")
    before = image.read_bytes()
    result = cli("translate", "--in", folder, "--out", tmp_path / "out", "--json-log", image)
    assert result.exit_code == 2
    assert "is no log of JSON lines" in result.output
    assert image.read_bytes() == before


def test_a_log_is_continued(tmp_path):
    log = tmp_path / "run.jsonl"
    for name in ("one", "two"):
        with Reporter(quiet=True, json_log=log) as reporter:
            reporter.event(name)
    assert [json.loads(line)["event"] for line in log.read_text(encoding="utf-8").splitlines()] == ["one", "two"]
