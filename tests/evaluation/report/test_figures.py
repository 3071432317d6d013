from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from localdiff_cli.evaluation.cohort.summary import summarise
from localdiff_cli.evaluation.report.figures import contrast_plot, paired_plots, spread_plots, sweep_plot


def all_plots(summary):
    return [*paired_plots(summary), *spread_plots(summary), contrast_plot(summary), sweep_plot(summary)]


def test_every_plot_is_sound_svg_sized_by_the_page_in_its_colour(summary):
    plots = all_plots(summary)
    assert len(plots) == 14
    for plot in plots:
        root = ElementTree.fromstring(plot.svg)
        assert root.get("viewBox")
        assert root.get("width") is None
        assert "currentColor" in plot.svg
        assert "#010203" not in plot.svg
        assert plot.alt


def test_marks_in_the_plots_do_not_collide(summary):
    seen: set[str] = set()
    for plot in paired_plots(summary):
        ids = {each.get("id") for each in ElementTree.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}clipPath")}
        assert not ids & seen
        seen |= ids


def test_the_same_numbers_give_the_same_picture(summary):
    assert contrast_plot(summary) == contrast_plot(summary)
    assert sweep_plot(summary) == sweep_plot(summary)


def test_alt_text_counts_who_got_better(summary):
    dice = paired_plots(summary)[0]
    assert "better in 4, worse in 0 of 7 patients" in dice.alt


def test_without_baseline_or_masks_the_plots_that_make_no_sense_are_left_out(results, settings):
    bare = replace(results[0], metrics={"psnr_brain": results[0].metrics["psnr_brain"]}, evidence={})
    found = summarise([bare], settings)
    assert paired_plots(found) == ()
    assert len(spread_plots(found)) == 1
    assert contrast_plot(found) is None
    assert sweep_plot(found) is None


def test_global_settings_of_matplotlib_are_left_alone(summary):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    paired_plots(summary)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("label", ["<b>local</b>", "a & b"])
def test_labels_are_escaped(results, settings, label):
    found = summarise(results, replace(settings, translation_label=label))
    for plot in paired_plots(found):
        ElementTree.fromstring(plot.svg)
        assert "<b>" not in plot.svg
