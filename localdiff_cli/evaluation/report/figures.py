"""The report's plots as inline SVG: small panels that stay legible on a phone and take the page's text colour.

matplotlib is used by its object API, without pyplot's global state. Lines and texts are drawn in a marker colour that becomes
``currentColor``, so that plots follow a light or dark page and print black.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from localdiff_cli.evaluation.cohort.summary import Summary, by_patient, patient_values
from localdiff_cli.evaluation.metrics.catalogue import JUDGED, METRICS, Metric
from localdiff_cli.evaluation.metrics.lesion import ContrastAgreement

INK = "#010203"
OWN, BASE = "#c2562d", "#4d7ea8"
"""Translation (rust) and baseline (steel blue): distinct for colour-blind readers, legible on light and dark."""
PANEL_INCHES = (2.9, 2.55)
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
}

PAIRED = ("dice", "contrast_error", "psnr_lesion", "psnr_brain", "ssim_brain", "ssim_slices_brain")
SPREAD = ("dice", "hd95_mm", "surface_dice", "psnr_lesion", "psnr_brain", "ssim_brain", "ssim_slices_brain", "ood_auroc", "ood_aupro")
MAX_PAIRED, MAX_SPREAD = 4, 8
MIN_BOX = 5
"""Fewer dots are clearer without a box of quartiles."""


@dataclass(frozen=True)
class Plot:
    """An inline ``svg`` and the ``alt`` text that says in words what it shows."""

    svg: str
    alt: str


def paired_plots(summary: Summary) -> tuple[Plot, ...]:
    """Return plots with one joined pair of dots per patient, baseline and translation: who got better, who worse. Empty
    without a baseline."""
    keys = [key for key in PAIRED if summary.comparison(key) is not None and _both(summary, key)]
    return tuple(_paired(summary, METRICS[key]) for key in keys[:MAX_PAIRED])


def spread_plots(summary: Summary) -> tuple[Plot, ...]:
    """Return plots of how the figures spread over patients: a dot per patient, and a box of the quartiles where there are
    enough."""
    keys = [key for key in SPREAD if _values(summary, key) and not (summary.withheld and METRICS[key].group in JUDGED)]
    return tuple(_spread(summary, METRICS[key]) for key in keys[:MAX_SPREAD])


def contrast_plot(summary: Summary) -> Plot | None:
    """Return a plot of lesion contrast against the reference's, one dot per patient; None without lesions."""
    true = _values(summary, "reference_contrast")
    arms = {arm: _values(summary, f"{arm}contrast") for arm in summary.contrast}
    if not true or not any(arms.values()):
        return None

    def draw(axes: Axes) -> None:
        for arm in reversed(arms):
            names = [name for name in arms[arm] if name in true]
            axes.scatter(
                [true[n] for n in names],
                [arms[arm][n] for n in names],
                s=22,
                color=_colour(arm),
                alpha=0.85,
                linewidths=0,
                label=_label(summary, arm),
            )
        low, high = axes.get_xlim()
        axes.plot((low, high), (low, high), color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
        axes.axhline(0, color=INK, linewidth=0.4, alpha=0.5)
        axes.set(title="Lesion contrast", xlabel="true contrast", ylabel="translated contrast")
        axes.legend(fontsize=8, loc="best")

    said = "; ".join(f"{_label(summary, arm)}: {_agreement_in_words(agreement)}" for arm, agreement in summary.contrast.items())
    return _plot(draw, f"Lesion-to-ring contrast of the translation against the true one, a dot a patient, dashed line: equal. {said}.")


def sweep_plot(summary: Summary) -> Plot | None:
    """Return a plot of the missed share against delta; None without masks."""
    cohort = summary.misdiagnosis
    points = [point for point in cohort.sweep if point.rate.share.estimate is not None] if cohort else []
    if not points:
        return None
    arms = list(dict.fromkeys(point.rate.arm for point in points))

    def draw(axes: Axes) -> None:
        for arm in arms:
            own = [(point.delta, 100 * (point.rate.share.estimate or 0)) for point in points if point.rate.arm == arm]
            axes.plot(*zip(*own, strict=True), marker="o", markersize=4, linewidth=1.4, color=_colour(arm), label=_label(summary, arm))
        axes.axvline(summary.settings.misdiagnosis.delta, color=INK, linewidth=0.6, linestyle=(0, (2, 2)))
        axes.set(title="Missed, by δ", xlabel="δ: least Dice of a found lesion", ylabel="missed slices, %", ylim=(-3, 103))
        axes.legend(fontsize=8, loc="best")

    said = "; ".join(
        f"{_label(summary, point.rate.arm)} at {point.delta:g}: {100 * (point.rate.share.estimate or 0):.0f} %" for point in points
    )
    return _plot(draw, f"Share of missed slices as the least Dice of a found lesion rises. {said}.")


def _paired(summary: Summary, metric: Metric) -> Plot:
    pairs = _both(summary, metric.key)
    signs = [np.sign(own - base) * (1 if metric.better == "higher" else -1) for base, own in pairs.values()]
    better, worse = signs.count(1), signs.count(-1)

    def draw(axes: Axes) -> None:
        for base, own in pairs.values():
            axes.plot((0, 1), (base, own), color=INK, linewidth=0.7, alpha=0.35)
        axes.scatter([0] * len(pairs), [base for base, _ in pairs.values()], color=BASE, s=24, zorder=3, linewidths=0)
        axes.scatter([1] * len(pairs), [own for _, own in pairs.values()], color=OWN, s=24, zorder=3, linewidths=0)
        axes.set(title=metric.label, xlim=(-0.35, 1.35), ylabel=metric.unit)
        axes.set_xticks((0, 1), (summary.settings.baseline_label, summary.settings.translation_label))

    way = f"{metric.better} is better"
    return _plot(
        draw,
        f"{metric.label}, {summary.settings.baseline_label} to {summary.settings.translation_label}, a line a patient "
        f"({way}): better in {better}, worse in {worse} of {len(pairs)} patients.",
    )


def _spread(summary: Summary, metric: Metric) -> Plot:
    arms = {arm: list(values.values()) for arm in ("baseline_", "") if (values := _values(summary, f"{arm}{metric.key}"))}

    def draw(axes: Axes) -> None:
        generator = np.random.default_rng(0)
        for place, (arm, values) in enumerate(arms.items()):
            across = place + generator.uniform(-0.13, 0.13, len(values))
            axes.scatter(across, values, s=20, color=_colour(arm), alpha=0.8, linewidths=0)
            if len(values) >= MIN_BOX:
                axes.boxplot([values], positions=[place], widths=0.5, showfliers=False, manage_ticks=False, **_thin_box())
        axes.set_xticks(range(len(arms)), [_label(summary, arm) for arm in arms])
        axes.set(title=metric.label, xlim=(-0.6, len(arms) - 0.4), ylabel=metric.unit)

    said = "; ".join(
        f"{_label(summary, arm)}: median {np.median(values):.{metric.decimals}f}, from {min(values):.{metric.decimals}f} "
        f"to {max(values):.{metric.decimals}f}, n = {len(values)}"
        for arm, values in arms.items()
    )
    return _plot(draw, f"{metric.label} over patients, a dot a patient, box (from {MIN_BOX} patients): quartiles. {said}.")


def _plot(draw: Callable[[Axes], None], alt: str) -> Plot:
    """Draw one panel and turn it into inline SVG, the same bytes for the same numbers."""
    # The marks in the file (clip paths, glyph ids) must differ between plots that share a page.
    style: Any = {**STYLE, "svg.hashsalt": alt}
    with mpl.rc_context(style):
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        stream = StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(_inline(stream.getvalue()), alt)


def _inline(svg: str) -> str:
    """The ``<svg>`` element alone, sized by the page, in the page's colour and font, hidden from readers that get the alt
    text."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = body.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    return body.replace(INK, "currentColor")


def _thin_box() -> dict[str, Any]:
    line = {"color": INK, "linewidth": 0.8}
    return {"boxprops": line, "whiskerprops": line, "capprops": line, "medianprops": {"color": INK, "linewidth": 1.6}}


def _values(summary: Summary, key: str) -> dict[str, float]:
    return patient_values(by_patient(summary), key)


def _both(summary: Summary, key: str) -> Mapping[str, tuple[float, float]]:
    """Patient → (baseline, translation) where both are known."""
    own, base = _values(summary, key), _values(summary, f"baseline_{key}")
    return {patient: (base[patient], own[patient]) for patient in own if patient in base}


def _colour(arm: str) -> str:
    return BASE if arm else OWN


def _label(summary: Summary, arm: str) -> str:
    return summary.settings.baseline_label if arm else summary.settings.translation_label


def _agreement_in_words(agreement: ContrastAgreement) -> str:
    parts: Sequence[tuple[str, float | None]] = [(name, getattr(agreement, name).value) for name in ("slope", "correlation", "bias")]
    said = ", ".join(f"{name} {value:.2f}" for name, value in parts if value is not None)
    return said or "nothing to compare"
