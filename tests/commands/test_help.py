"""What the help says is shown as it is written: square brackets are no markup of the terminal."""

import inspect
import re

import pytest
from typer.testing import CliRunner

from localdiff_cli import app as main
from localdiff_cli.bids import app as bids
from localdiff_cli.interfaces.described import describe

COMMANDS = [("detect", main.app, main.detect), ("translate", main.app, main.translate), ("segment", main.app, main.segment),
            ("evaluate", main.app, main.evaluate), ("", bids.app, bids.bids)]  # fmt: skip


@pytest.mark.parametrize(("name", "app", "function"), COMMANDS, ids=["detect", "translate", "segment", "evaluate", "localdiff-bids"])
def test_every_word_in_brackets_is_shown(name, app, function):
    said = " ".join([each.help for each in describe(function)] + [inspect.getdoc(function) or ""])
    written = set(re.findall(r"[\w-]*\[[\w, -]+\]", said))
    shown = CliRunner().invoke(app, [*([name] if name else []), "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"}).output
    assert [words for words in written if words not in shown] == []


def test_the_extras_are_among_them():
    assert any("localdiff[cluster]" in each.help for each in describe(main.translate))
    assert any("localdiff[bids]" in each.help for each in describe(bids.bids))
