"""The parts as tables, and the page that is made of them."""

import argparse
import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from examples.benchmarks import mri, paper, rows
from examples.benchmarks.table import to_markdown


@pytest.mark.parametrize("part", rows.ROWS)
def test_every_part_has_rows_of_distinct_names(part):
    labels = [row.label for row in rows.ROWS[part]]
    assert len(labels) == len(set(labels)) > 3


@pytest.fixture
def small(bench, patient, monkeypatch):
    """One part of two rows on one patient, and another that asks for an expert the bundle does not have."""
    monkeypatch.setattr(rows, "patients", lambda *_: [patient])
    monkeypatch.setattr(rows.bench_mri, "load", lambda *_: bench)
    table = (mri.Row("true target contrast", "true"), mri.Row("plain", "none"), mri.Row("with expert", "truth", expert=True))
    monkeypatch.setitem(rows.ROWS, "mri", table)
    return bench


def test_a_part_is_written_and_the_page_shows_it(small, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "first-page.md").write_text("What holds.\n")
    (out / "mri.md").write_text("How to read it.\n")
    arguments = ["--part", "mri", "--data", str(tmp_path), "--every", "2", "--work", str(tmp_path / "work"), "--out", str(out), "--page"]
    monkeypatch.setattr(sys, "argv", ["paper", *arguments])
    paper.main()
    text = (out / "RESULTS.md").read_text()
    assert text.index("What holds.") < text.index("How to read it.") < text.index("| plain |") < text.index("| with expert |")
    svg = out / "mri-t1-to-t2-val.svg"
    assert svg.name in text
    ElementTree.parse(svg)
    first = svg.read_bytes()
    paper.main()
    assert svg.read_bytes() == first


def test_without_an_expert_its_rows_are_left_out(small, tmp_path, monkeypatch):
    without = replace(small, networks=replace(small.networks, expert=None))
    monkeypatch.setattr(rows.bench_mri, "load", lambda *_: without)
    options = argparse.Namespace(model="t1-to-t2", data=[tmp_path], split="val", every=2, work=tmp_path / "work")
    (table,) = rows.measure("mri", options)
    assert [line["row"] for line in table.rows] == ["true target contrast", "plain"]


def test_a_part_without_data_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paper", "--part", "mri"])
    with pytest.raises(SystemExit):
        paper.main()
    assert "--data" in capsys.readouterr().err


def test_the_page_shows_what_tells_the_lines_of_each_shipped_table_apart():
    tables = sorted((Path(__file__).parents[2] / "examples" / "benchmarks").glob("*.tsv"))
    assert tables
    for path in tables:
        account = json.loads(path.with_suffix(".json").read_text())
        head, _, *lines = to_markdown(path, account.get("shown")).splitlines()
        first = path.read_text().split("\t", 1)[0]
        assert head.startswith(f"| {first} |"), path.name
        assert len(set(lines)) == len(lines), path.name
