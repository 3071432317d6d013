"""The rows of the report's tables: numbers from the summary, formatted for people, the exact number kept beside the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from localdiff_cli.evaluation.cohort.statistics import Interval, PairedTest
from localdiff_cli.evaluation.cohort.summary import Summary
from localdiff_cli.evaluation.metrics.catalogue import METRICS, RATES, Better, Metric

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """What a table shows: ``text``, the exact ``value``, its ``interval``, what was ``counted``, and ``reason`` for what is
    lacking."""

    text: str
    value: float | None = None
    interval: str = ""
    counted: str = ""
    reason: str = ""


@dataclass(frozen=True)
class TableRow:
    """One figure: translation, baseline, reference, difference (or reduction), test, and the number of patients."""

    key: str
    label: str
    better: Better
    meaning: str
    own: Cell
    base: Cell
    reference: Cell
    difference: Cell
    test: tuple[str, ...]
    n: str


def metric_rows(summary: Summary, keys: Sequence[str]) -> list[TableRow]:
    """Return a row for each of the figures ``keys``."""
    return [_metric_row(summary, METRICS[key]) for key in keys]


def rate_rows(summary: Summary) -> list[TableRow]:
    """Return the misdiagnosis shares, missed and invented together; empty where they were not computed."""
    cohort = summary.misdiagnosis
    if cohort is None:
        return []
    reductions = {reduction.key: reduction.interval for reduction in cohort.reductions}
    rows = []
    for key, (label, better) in RATES.items():
        own, base, true = (cohort.rate(key, arm) for arm in ("", "baseline_", "reference_"))
        if own is None:
            continue
        cells = [_share_cell(rate.share, f"{rate.count} of {rate.total}") if rate else Cell(DASH) for rate in (own, base, true)]
        reduction = reductions.get(key)
        change = Cell(DASH) if reduction is None else _share_cell(reduction, "")
        rows.append(TableRow(key, label, better, "", cells[0], cells[1], cells[2], change, (), str(own.share.n)))
    return rows


@dataclass(frozen=True)
class LesionTableRow:
    """Lesions of one size on one image, in words for the page."""

    size: str
    label: str
    lesions: int
    missed: Cell
    invented: int
    kept: str


def lesion_table(summary: Summary) -> list[LesionTableRow]:
    """Return the lesions one by one, by size and image; empty where no segmenter's mask was compared with a truth."""
    labels = {"": summary.settings.translation_label, "baseline_": summary.settings.baseline_label}
    return [
        LesionTableRow(
            row.size, labels[row.arm], row.lesions, _share_cell(row.share, f"{row.missed} of {row.total}"), row.invented,
            DASH if row.kept is None else _decimal(row.kept, 2, sign=False),
        )
        for row in summary.lesions
    ]  # fmt: skip


def interval_cell(interval: Interval, decimals: int, unit: str = "", sign: bool = False, reasons: Sequence[str] = ()) -> Cell:
    """Return a mean with its interval; a dash and the reason where there is none."""
    if interval.estimate is None:
        return Cell(DASH, reason="; ".join(reasons) or interval.reason)
    text = f"{_decimal(interval.estimate, decimals, sign)} {unit}".strip()
    return Cell(text, interval.estimate, _bounds(interval, decimals, sign), reason=interval.reason)


def _metric_row(summary: Summary, metric: Metric) -> TableRow:
    own = summary.metric(metric.key)
    cells = []
    for arm in ("", "baseline_", "reference_"):
        found = summary.metric(arm + metric.key)
        cells.append(Cell(DASH) if found is None else interval_cell(found.mean, metric.decimals, metric.unit, reasons=found.reasons))
    test = summary.comparison(metric.key)
    difference = Cell(DASH) if test is None else interval_cell(test.difference, metric.decimals, sign=True)
    lacking = f" ({own.missing} of {len(summary.volumes)} volumes without)" if own and own.missing else ""
    return TableRow(
        metric.key, metric.label, metric.better, metric.meaning, cells[0], cells[1], cells[2], difference,
        words_of_test(test) if test else (), f"{own.mean.n if own else 0}{lacking}",
    )  # fmt: skip


def words_of_test(test: PairedTest) -> tuple[str, ...]:
    """Return p-value and effect size, always together, or why there is neither."""
    if test.p_value is None or test.effect_size is None:
        return (test.reason,)
    p = "p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}"
    return p, f"r = {_decimal(test.effect_size, 2, sign=True)}"


def _share_cell(interval: Interval, counted: str) -> Cell:
    if interval.estimate is None:
        return Cell(DASH, reason=interval.reason)
    low, high = (None if bound is None else 100 * bound for bound in (interval.low, interval.high))
    bounds = _bounds(replace(interval, low=low, high=high), 1, sign=False)
    return Cell(f"{_decimal(100 * interval.estimate, 1, sign=False)} %", interval.estimate, bounds, counted, interval.reason)


def _bounds(interval: Interval, decimals: int, sign: bool) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{_decimal(interval.low, decimals, sign)} to {_decimal(interval.high, decimals, sign)}"


def _decimal(value: float, decimals: int, sign: bool) -> str:
    """Fixed decimals with a true minus sign; never −0."""
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")
