from __future__ import annotations

from dataclasses import replace

import pytest

from localdiff_cli.errors import EXIT_LIMIT_MISSED, EXIT_USAGE, LimitMissedError, UsageError
from localdiff_cli.evaluation.cohort.limits import Limit, check_fail_under, known_limits, parse_limits
from localdiff_cli.evaluation.cohort.summary import Unpaired, summarise
from localdiff_cli.evaluation.metrics.image import IDENTICAL
from localdiff_cli.evaluation.metrics.measure import missing


def test_limits_are_read_from_one_text_or_several():
    assert parse_limits("dice=0.7, missed=0.2") == (Limit("dice", 0.7), Limit("missed", 0.2))
    assert parse_limits(["dice=0.7", "psnr_brain=25"]) == (Limit("dice", 0.7), Limit("psnr_brain", 25.0))
    assert parse_limits([]) == ()


def test_an_unknown_figure_is_a_usage_error_that_lists_the_known():
    with pytest.raises(UsageError, match=r"'dize'.*dice.*missed.*invented") as error:
        parse_limits("dize=0.7")
    assert error.value.exit_code == EXIT_USAGE
    assert "contrast" not in known_limits()


def test_a_figure_of_which_neither_more_nor_less_is_better_cannot_be_limited():
    with pytest.raises(UsageError, match="neither more nor less of contrast is better"):
        parse_limits("contrast=0.5")


@pytest.mark.parametrize("text", ["dice", "dice=", "dice=high", "dice=nan"])
def test_a_limit_that_is_no_number_is_a_usage_error(text):
    with pytest.raises(UsageError, match="expected dice=NUMBER"):
        parse_limits(text)


def test_a_missed_limit_names_value_and_limit(summary):
    found = summary.metric("dice").mean.estimate
    with pytest.raises(LimitMissedError, match=rf"dice: found {found:g} \(n = 7\), the limit is at least 0.99") as error:
        check_fail_under("dice=0.99", summary)
    assert error.value.exit_code == EXIT_LIMIT_MISSED


def test_a_kept_limit_passes(summary):
    summary = replace(summary, unpaired=())
    check_fail_under(f"dice={summary.metric('dice').mean.estimate}", summary)
    check_fail_under(["missed=0.5", "invented=0", "mae_brain=1"], summary)


def test_where_lower_is_better_the_limit_is_a_largest_value(summary):
    with pytest.raises(LimitMissedError, match=r"missed: found .* at most 0.1"):
        check_fail_under("missed=0.1", summary)


def test_all_missed_limits_are_named(summary):
    with pytest.raises(LimitMissedError, match=r"dice.*; psnr_brain"):
        check_fail_under("dice=1,psnr_brain=99", summary)


def test_a_figure_that_was_not_computed_is_a_usage_error(results, settings):
    bare = replace(results[0], metrics={"psnr_brain": results[0].metrics["psnr_brain"]}, evidence={})
    for key in ("dice", "missed"):
        with pytest.raises(UsageError, match="not computed"):
            check_fail_under(f"{key}=0.5", summarise([bare], settings))


def test_a_figure_without_a_number_misses_its_limit(results, settings):
    with pytest.raises(LimitMissedError, match="no number"):
        check_fail_under("psnr_lesion=10", summarise(results[-1:], settings))


def test_a_case_without_the_figure_misses_the_limit_unless_that_is_allowed(results, settings):
    gone = replace(results[1], metrics={**results[1].metrics, "dice": missing("no lesion found")})
    summary = summarise([results[0], gone], settings)
    with pytest.raises(LimitMissedError, match=rf"dice: missing for 1 cases \({gone.name}\); --allow-missing"):
        check_fail_under("dice=0", summary)
    check_fail_under("dice=0", summary, allow_missing=True)


@pytest.mark.parametrize("identical", [1, 2])
def test_identical_images_miss_no_limit_of_psnr(results, settings, identical):
    same = [replace(case, metrics={**case.metrics, "psnr_brain": missing(IDENTICAL)}) for case in results[:identical]]
    check_fail_under("psnr_brain=10", summarise([*same, *results[identical:2]], settings))


def test_a_case_that_could_not_be_evaluated_misses_every_limit(results, settings):
    summary = summarise(results[:2], settings, unpaired=[Unpaired("sub-99_T2w.nii.gz", "no partner")])
    with pytest.raises(LimitMissedError, match=r"psnr_brain: missing for 1 cases \(sub-99_T2w.nii.gz\)"):
        check_fail_under("psnr_brain=0", summary)
    check_fail_under("psnr_brain=0", summary, allow_missing=True)
