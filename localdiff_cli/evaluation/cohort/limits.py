"""``--fail-under``: limits on figures for Makefiles and CI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from localdiff_cli.errors import LimitMissedError, UsageError
from localdiff_cli.evaluation.cohort.summary import Summary, measure_of
from localdiff_cli.evaluation.metrics.catalogue import METRICS, RATES, Better
from localdiff_cli.evaluation.metrics.image import IDENTICAL


@dataclass(frozen=True)
class Limit:
    """The worst value of a figure that passes: a minimum where higher is better, a maximum where lower is."""

    key: str
    value: float


def known_limits() -> dict[str, Better]:
    """Return the figures that can be limited and which way is better: patient means of the translation, and the
    misdiagnosis shares."""
    return {key: metric.better for key, metric in METRICS.items() if metric.better} | {key: rate[1] for key, rate in RATES.items()}


def parse_limits(texts: str | Sequence[str]) -> tuple[Limit, ...]:
    """Return the limits from ``"dice=0.7"``, ``"dice=0.7,missed=0.2"`` or a list of such. Raise :class:`UsageError` naming
    what is wrong.

    Needs no data: call it before the work begins.
    """
    parts = [part.strip() for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]
    return tuple(_parse(part) for part in parts if part)


def check_fail_under(limits: str | Sequence[str], summary: Summary, *, allow_missing: bool = False) -> None:
    """Raise :class:`LimitMissedError`, naming value and limit, where a figure is worse than its limit or has no number.

    A case without the figure, or one that could not be evaluated at all, misses every limit unless ``allow_missing``: a
    gate over what is left would pass with the worst cases gone. An infinite PSNR, of identical images, misses none; the
    mean is that of the others.

    A figure for which lower is better (``missed``, ``mae_brain``) fails above its limit. Raise :class:`UsageError` for a
    figure that is unknown or was not computed.
    """
    found = parse_limits(limits)
    failures = [failure for limit in found if (failure := _failure(limit, summary))]
    if not allow_missing:
        failures += [failure for limit in found if (failure := _absent(limit.key, summary))]
    if failures:
        raise LimitMissedError("; ".join(failures), code="limit-missed")


def _parse(text: str) -> Limit:
    key, _, number = (part.strip() for part in text.partition("="))
    if key in METRICS and not METRICS[key].better:
        raise UsageError(f"--fail-under {text}: neither more nor less of {key} is better; it cannot be limited", code="unlimited-figure")
    if key not in known_limits():
        raise UsageError(f"--fail-under {text}: {key!r} is not a figure; known are {', '.join(known_limits())}", code="unknown-figure")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"--fail-under {text}: expected {key}=NUMBER, for example {key}=0.7", code="limit-not-a-number")
    return Limit(key, value)


def _failure(limit: Limit, summary: Summary) -> str:
    """What is wrong with a figure, empty where it passes."""
    found, reason, n = _found(limit.key, summary)
    if reason == IDENTICAL:
        return ""
    if found is None:
        return f"{limit.key}: no number to hold against the limit {limit.value:g} ({reason})"
    if known_limits()[limit.key] == "higher":
        return f"{limit.key}: found {found:g} (n = {n}), the limit is at least {limit.value:g}" if found < limit.value else ""
    return f"{limit.key}: found {found:g} (n = {n}), the limit is at most {limit.value:g}" if found > limit.value else ""


def _absent(key: str, summary: Summary) -> str:
    """Which cases a figure is missing for, empty where there is none."""
    if key in RATES:
        without = [case.name for case in summary.volumes if "" not in case.evidence]
    else:
        measures = {case.name: measure_of(case, key) for case in summary.volumes}
        without = [name for name, measure in measures.items() if measure.value is None and measure.reason != IDENTICAL]
    names = list(dict.fromkeys((*without, *(each.name for each in summary.unpaired))))
    if not names:
        return ""
    listed = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{key}: missing for {len(names)} cases ({listed}); --allow-missing holds the limit against the others"


def _found(key: str, summary: Summary) -> tuple[float | None, str, int]:
    """The figure's value, or None and why, and the number of patients."""
    rate = summary.misdiagnosis.rate(key) if summary.misdiagnosis else None
    metric = summary.metric(key)
    interval = rate.share if rate else metric.mean if metric else None
    if interval is None and summary.withheld and key in RATES:
        return None, summary.withheld, 0
    if interval is None:
        inputs = "masks, a segmenter or OOD maps"
        raise UsageError(f"--fail-under {key}: this figure was not computed; give what it takes ({inputs})", code="absent-figure")
    reasons = metric.reasons if metric and interval.estimate is None else ()
    return interval.estimate, "; ".join(reasons) or interval.reason, interval.n
