"""The result in plain words: how many lesions were missed and how many invented, always both, or why that cannot be said."""

from __future__ import annotations

from dataclasses import dataclass

from localdiff_cli.evaluation.cohort.counts import CohortMisdiagnosis, Rate
from localdiff_cli.evaluation.cohort.judge import WAYS_OUT
from localdiff_cli.evaluation.cohort.statistics import Interval
from localdiff_cli.evaluation.cohort.summary import Summary
from localdiff_cli.evaluation.metrics.measure import Measure


@dataclass(frozen=True)
class Headline:
    """One ``sentence`` that states missed and invented together, and ``further`` sentences that put it in proportion."""

    sentence: str
    further: tuple[str, ...]


def headline(summary: Summary) -> Headline:
    """Return the headline of an evaluation."""
    if summary.withheld:
        return Headline(f"{_no_judge(summary)} {_similarity(summary)}", (f"{WAYS_OUT}.",))
    cohort = summary.misdiagnosis
    missed, invented = (cohort.rate(key) if cohort else None for key in ("missed", "invented"))
    if cohort is None or missed is None or invented is None:
        return Headline(f"{_cannot_say(summary)} {_similarity(summary)}", ())
    sentence = f"{_missed(missed)} {_invented(invented)}"
    return Headline(sentence, tuple(filter(None, (_baseline(summary, cohort), _false_alarms(cohort), _stand_in(summary)))))


def contrast_sentences(summary: Summary) -> tuple[str, ...]:
    """Return how lesion contrast follows the reference's over patients, one sentence per arm, and how to read it; empty
    without lesions."""
    labels = {"": summary.settings.translation_label, "baseline_": summary.settings.baseline_label}
    sentences = tuple(
        f"Lesion contrast over patients, {labels[arm]} against true (n = {each.n}): slope {_number(each.slope)}, "
        f"correlation {_number(each.correlation)}, bias {_number(each.bias)}."
        for arm, each in summary.contrast.items()
    )
    return (*sentences, "A faithful translation has slope 1 and bias 0; an erased lesion has slope 0.") if sentences else ()


def _number(measure: Measure) -> str:
    return f"none ({measure.reason})" if measure.value is None else f"{measure.value:.2f}".replace("-", "−")


def percent(interval: Interval) -> str:
    """Return a share with its interval, in per cent."""
    if interval.estimate is None:
        return f"cannot be said ({interval.reason})"
    if interval.low is None or interval.high is None:
        return f"{_percent(interval.estimate)} %"
    return f"{_percent(interval.estimate)} % ({100 * interval.level:g} % interval {_percent(interval.low)} to {_percent(interval.high)} %)"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0")


def _missed(rate: Rate) -> str:
    if rate.total == 0:
        return f"Whether lesions were erased cannot be said: {rate.share.reason}."
    return (
        f"Of {rate.total} {_slices(rate.total)} whose lesion the segmenter finds on the true contrast, it misses {rate.count} on the "
        f"translation ({_percent(rate.share.estimate or 0)} %)."
    )


def _invented(rate: Rate) -> str:
    if rate.total == 0:
        return f"Whether lesions were invented cannot be said: {rate.share.reason}."
    return (
        f"Of {rate.total} {_slices(rate.total)} without a lesion, it sees one that is not there in {rate.count} "
        f"({_percent(rate.share.estimate or 0)} %)."
    )


def _slices(count: int) -> str:
    return "slice" if count == 1 else "slices"


def _baseline(summary: Summary, cohort: CohortMisdiagnosis) -> str:
    missed, invented = cohort.rate("missed", "baseline_"), cohort.rate("invented", "baseline_")
    if missed is None or invented is None:
        return ""
    words = {"missed": "missed", "missed_patients": "missed", "invented": "invented"}
    changes = [f"{words[each.key]}: {_change(each.interval)}" for each in cohort.reductions if each.key in ("missed", "invented")]
    return (
        f"The baseline ({summary.settings.baseline_label}) misses {percent(missed.share)} and invents {percent(invented.share)}. "
        f"Relative change: {'; '.join(changes)}."
    )


def _change(interval: Interval) -> str:
    """A relative reduction in words."""
    if interval.estimate is None:
        return f"cannot be said ({interval.reason})"
    word = "fewer" if interval.estimate >= 0 else "more"
    return f"{_percent(abs(interval.estimate))} % {word}"


def _false_alarms(cohort: CohortMisdiagnosis) -> str:
    own = cohort.rate("invented", "reference_")
    if own is None or own.share.estimate is None:
        return ""
    return f"The segmenter is not perfect: on the true contrast itself it raises a false alarm in {percent(own.share)} of these slices."


def _stand_in(summary: Summary) -> str:
    names = {case.lesion_name for case in summary.volumes if case.lesion_name}
    if names != {"segmenter on the true contrast"}:
        return ""
    return "No expert masks were given: what the segmenter marks on the true contrast stands in for the truth."


def _no_judge(summary: Summary) -> str:
    return f"Whether lesions were missed or invented cannot be said: {summary.withheld.removeprefix('withheld: ')}."


def _cannot_say(summary: Summary) -> str:
    with_lesion = any(case.lesion_name for case in summary.volumes)
    lacking = "no segmenter was run on translation and true contrast" if with_lesion else "neither lesion masks nor a segmenter were given"
    return f"Whether lesions were missed or invented cannot be said: {lacking}."


def _similarity(summary: Summary) -> str:
    for key, text in (("psnr_brain", "PSNR inside the brain is {:.1f} dB"), ("mae_brain", "mean error inside the brain is {:.3g}")):
        metric = summary.metric(key)
        if metric and metric.mean.estimate is not None:
            who = "patient" if metric.mean.n == 1 else "patients"
            return f"Image similarity alone: {text.format(metric.mean.estimate)} (mean of {metric.mean.n} {who})."
    return "No image figure could be computed either; the tables say why."
