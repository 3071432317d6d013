"""The parts as tables, and the page that is made of them."""

import argparse
import xml.etree.ElementTree as ElementTree

import pytest

from localdiff_cli.benchmarks import mri, paper
from tests.benchmarks.test_mri import bench, patient  # noqa: F401


@pytest.mark.parametrize("part", paper.TITLES)
def test_every_part_has_rows_of_distinct_names(part):
    for expert in (True, False):
        labels = [row.label for row in paper.rows_of(part, expert)]
        assert len(labels) == len(set(labels)) > 3
        assert expert or not any(row.expert for row in paper.rows_of(part, expert))


def test_a_part_is_written_and_the_page_shows_it(bench, patient, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(paper, "patients", lambda *_: [patient])
    monkeypatch.setattr(paper, "rows_of", lambda part, expert: (mri.Row("true target contrast", "true"), mri.Row("plain", "none")))
    options = argparse.Namespace(data=[tmp_path], split="val", every=2, work=tmp_path / "work", out=tmp_path / "out")
    paper.run_part("mri", bench, options)
    (tmp_path / "out" / "first-page.md").write_text("What holds.\n")
    (tmp_path / "out" / "mri.md").write_text("How to read it.\n")
    text = paper.page(tmp_path / "out")
    assert text.index("What holds.") < text.index("How to read it.") < text.index("| plain |")
    svg = tmp_path / "out" / "mri-t1-to-t2-val.svg"
    assert "mri-t1-to-t2-val.svg" in text
    ElementTree.parse(svg)
    first = svg.read_bytes()
    paper.run_part("mri", bench, options)
    assert svg.read_bytes() == first
