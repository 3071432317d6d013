from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.metrics.case import evaluate_case
from localdiff_cli.evaluation.report.page import flatten, png_address, rank_cases, render_report, write_evaluation
from tests.evaluation.conftest import make_case, without


class Page(HTMLParser):
    """Collects what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.addresses: list[str] = []
        self.data: list[float] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        self.addresses += [named[key] for key in ("src", "href", "xlink:href", "action", "poster", "srcset") if key in named]
        if tag == "img":
            self.images.append(named)
        if tag == "data":
            self.data.append(float(named["value"]))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def html(summary) -> str:
    return render_report(summary)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_nothing_comes_from_the_network(html, page):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in page.tags
    assert not re.search(r"@import|url\((?!#)", html)


def test_every_picture_has_alt_text(page):
    assert len(page.images) == 7 * 7
    assert all(re.search(r"sub-\d\d, slice \d+", image["alt"]) for image in page.images)


def test_numbers_of_the_page_are_those_of_the_summary(page, summary):
    known = {metric.mean.estimate for metric in summary.metrics} | {each.test.difference.estimate for each in summary.comparisons}
    known |= {rate.share.estimate for rate in summary.misdiagnosis.rates}
    known |= {each.interval.estimate for each in summary.misdiagnosis.reductions}
    known |= {row.share.estimate for row in summary.lesions}
    assert set(page.data) <= known
    assert summary.metric("dice").mean.estimate in page.data
    assert summary.misdiagnosis.rate("missed").share.estimate in page.data


def test_it_says_what_was_run_what_was_left_out_and_what_it_is_not(page):
    text = " ".join(" ".join(page.text).split())
    for part in (
        "bundles.t1-flair", "sha256 0123", "Not evaluated: sub-99_T2w.nii.gz (no reference of that name)", "For research only",
        "Tackling Structural Hallucination in Image Translation with Local Diffusion", "misdiagnosis.delta",
        "1 (intensities normalised to [0, 1])",
    ):  # fmt: skip
        assert part in text
    assert not re.search(r"\b(nan|None|Undefined)\b", text)


def test_names_are_escaped(results, settings):
    odd = replace(results[0], name="<script>alert(1)</script>", patient='"p" & co', notes=("<i>note</i>",))
    html = render_report(summarise([odd], settings, run={"<b>": "<u>"}))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<u>" not in html


def test_cases_are_ranked_worst_first_and_shown_once(summary, page):
    key, ranked = rank_cases(summary)
    assert key == "dice"
    values = [case.metrics["dice"].value for case in ranked]
    assert values == sorted(values)
    names = [re.search(r"sub-\d\d", image["alt"])[0] for image in page.images[::7]]
    assert len(set(names)) == 7
    assert names[0] == ranked[0].name
    assert names[4] == ranked[-1].name


@pytest.mark.parametrize("keys", [
    (),
    ("baseline", "baseline_segmentation"),
    ("truth", "segmentation", "reference_segmentation", "baseline_segmentation"),
    ("truth", "segmentation", "reference_segmentation", "baseline_segmentation", "baseline", "condition", "ood_map", "ood_mask"),
    ("reference_segmentation",),
])  # fmt: skip
def test_any_set_of_inputs_and_any_number_of_patients_has_a_report(settings, keys):
    results = [evaluate_case(without(make_case(seed), *keys), settings) for seed in range(1 if keys else 2)]
    assert "<h1>" in render_report(summarise(results, settings))


def test_volumes_without_brain_or_contrast_have_a_report(settings):
    case = replace(make_case(0), brain=np.zeros((13, 40, 36), bool))
    html = render_report(summarise([evaluate_case(case, settings)], settings))
    assert "the tables say why" in html or "cannot be said" in html


def test_all_files_are_written(tmp_path, summary):
    paths = write_evaluation(tmp_path / "report", summary)
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == ["lesions.tsv", "metrics.tsv", "report.html", "slices.tsv", "summary.json"]
    assert paths["report.html"].read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_report_is_the_same_every_time(html, summary):
    assert render_report(summary) == html


def test_a_png_holds_the_grey_values():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    raw = base64.b64decode(png_address(pixels, "gray").split(",")[1])
    assert np.array_equal(np.round(imread(io.BytesIO(raw))[..., 0] * 255), pixels)


def test_nested_records_become_dotted_rows():
    assert list(flatten({"a": {"b": 1, "c": [1, 2]}, "d": ()})) == [("a.b", "1"), ("a.c", "1, 2"), ("d", "none")]
