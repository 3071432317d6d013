"""The last line of a run says where to look next."""

from pathlib import Path

import pytest

from localdiff_cli.batch.engine import Tally, summarise


class Lines:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def event(self, name, **values):
        pass

    def line(self, text):
        self.lines.append(text)

    problem = line


@pytest.mark.parametrize(
    ("tally", "expected"),
    [
        (Tally(done=["a"]), "1 done, 0 failed, 0 to review; look next at out"),
        (Tally(done=["a", "b"], review=["b"]), "2 done, 0 failed, 1 to review; look next at out/qc.tsv (what a person has to see)"),
        (
            Tally(done=["a"], skipped=["c"], failures=[("b", "code", "why")], review=["a"]),
            "1 done, 1 already done, 1 failed, 1 to review; look next at out/failures.tsv (what failed and why)",
        ),
        (
            Tally(failures=[("b", "code", "why")], stopped=True),
            "0 done, 1 failed, 0 to review; look next at out/failures.tsv (what failed and why)",
        ),
    ],
)
def test_the_last_line_names_the_place(tally, expected):
    reporter = Lines()
    summarise(tally, 5, Path("out"), reporter)
    assert reporter.lines[-1] == expected
