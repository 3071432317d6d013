"""The report's panel on a certificate: what is promised, for whom, how sure, from how many patients, and how each patient
here fared."""

from __future__ import annotations

from dataclasses import dataclass

from localdiff_cli.evaluation.cohort.summary import Summary, measure_of
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.intervals import INTERVAL_REGIONS
from localdiff_cli.evaluation.metrics.promised import Promised

DASH = "–"


@dataclass(frozen=True)
class PromiseRow:
    """One volume in words: whether the certificate holds, ml drawn and unknown, and coverage by region in the panel's order."""

    name: str
    holds: str
    void: bool
    drawn: str
    unknown: str
    coverage: tuple[str, ...]


@dataclass(frozen=True)
class PromisePanel:
    """One certificate and the volumes that name it; ``regions``: the columns of coverage, in words."""

    certificate: str
    promises: tuple[str, ...]
    whom: str
    interval: str
    void: int
    regions: tuple[str, ...]
    rows: tuple[PromiseRow, ...]


def promise_panels(summary: Summary) -> tuple[PromisePanel, ...]:
    """Return a panel for each certificate that the translations name; empty where they name none."""
    by_certificate: dict[str, list[tuple[CaseResult, Promised]]] = {}
    for case in summary.volumes:
        if case.promised is not None:
            by_certificate.setdefault(case.promised.certificate, []).append((case, case.promised))
    regions = [region for region in INTERVAL_REGIONS if summary.metric(f"coverage_{region}")]
    return tuple(_panel(found, regions) for found in by_certificate.values())


def _panel(found: list[tuple[CaseResult, Promised]], regions: list[str]) -> PromisePanel:
    _, first = found[0]
    level = first.interval
    interval = "" if level is None else (
        f"In {level:.0%} of a new patient's voxels, on average over patients, the true value lies between the two limits; each region apart"
    )  # fmt: skip
    rows = tuple(_row(case, promised, regions) for case, promised in found)
    words = tuple(INTERVAL_REGIONS[region] for region in regions)
    return PromisePanel(first.certificate, first.promises, first.whom, interval, sum(row.void for row in rows), words, rows)


def _row(case: CaseResult, promised: Promised, regions: list[str]) -> PromiseRow:
    covered = [measure_of(case, f"coverage_{region}").value for region in regions]
    shares = tuple(DASH if value is None else f"{100 * value:.1f} %" for value in covered)
    holds = f"{'void' if promised.void else 'holds'} (p = {promised.p_value:.3f})"
    return PromiseRow(case.name, holds, promised.void, _ml(promised.drawn_ml), _ml(promised.unknown_ml), shares)


def _ml(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f} ml"
