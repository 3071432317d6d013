"""The report: one self-contained HTML file, and the tables beside it, each written whole or not at all."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.image import imsave
from numpy.typing import NDArray

from localdiff_cli.evaluation.cohort.realism import FEATURES
from localdiff_cli.evaluation.cohort.statistics import EFFECT_NAME
from localdiff_cli.evaluation.cohort.summary import Summary, measure_of
from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.catalogue import JUDGED, METRICS, split_arm
from localdiff_cli.evaluation.metrics.intervals import INTERVAL_REGIONS
from localdiff_cli.evaluation.metrics.pictures import Panel, Pictures
from localdiff_cli.evaluation.report.document import to_json
from localdiff_cli.evaluation.report.figures import Plot, contrast_plot, paired_plots, spread_plots, sweep_plot
from localdiff_cli.evaluation.report.headline import contrast_sentences, headline
from localdiff_cli.evaluation.report.promise import promise_panels
from localdiff_cli.evaluation.report.rows import lesion_table, metric_rows, rate_rows
from localdiff_cli.evaluation.report.tables import lesions_tsv, metrics_tsv, slices_tsv
from localdiff_cli.volumes.whole import write_text

SHOWN = 5
RANKED_BY = ("dice", "psnr_lesion", "ssim_brain", "psnr_brain", "ssim_slices_brain")
MAIN = (
    "dice", "lesion_sensitivity", "lesion_precision", "hd95_mm", "surface_dice", "contrast", "contrast_error",
    "psnr_lesion", "psnr_ring", "psnr_outside", "psnr_brain", "ssim_brain", "ssim_slices_brain", "mae_brain", "nrmse_brain", "psnr_whole",
    "lesions_found", "lesions_missed", "lesions_invented", "lesion_contrast_kept", "frc_unsupported", "psnr_own_max", "ssim_slices_own_max",
    "ood_auroc", "ood_aupro", "ood_average_precision", "ood_dice",
    *(f"{key}_{region}" for region in INTERVAL_REGIONS for key in ("coverage", "width")),
)  # fmt: skip
CAPTION_KEYS = ("dice", "psnr_lesion", "psnr_brain", "contrast", "reference_contrast")
ROLE_COLOURS = {"ood": "inferno", "error": "magma", "frc": "viridis"}

NO_VIEWER = Markup("")


@dataclass(frozen=True)
class ShownPanel:
    """A picture ready for the page: PNG as a data address, its ``caption`` and ``alt`` text."""

    caption: str
    alt: str
    source: str
    rows: int
    columns: int


@dataclass(frozen=True)
class ShownCase:
    """A volume shown as pictures, with the ``path`` of the lesion's outline (SVG, in picture pixels) and its figures in words."""

    name: str
    where: str
    figures: str
    panels: tuple[ShownPanel, ...]
    path: str


def write_evaluation(folder: Path, summary: Summary, viewer: Markup = NO_VIEWER) -> dict[str, Path]:
    """Write metrics.tsv, slices.tsv, lesions.tsv, summary.json and, last, report.html into ``folder``; returns name → path.

    Raise :class:`VolumeError` where they cannot be written.
    """
    texts = {
        "metrics.tsv": metrics_tsv(summary),
        "slices.tsv": slices_tsv(summary),
        "lesions.tsv": lesions_tsv(summary),
        "summary.json": to_json(summary),
        "report.html": render_report(summary, viewer),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: folder / name for name in texts}


def render_report(summary: Summary, viewer: Markup = NO_VIEWER) -> str:
    """Return the report as one HTML text that needs no network. Only volume and patient names reach it, no header text.

    ``viewer``: the slice viewer of some cases; the report without it holds no script.
    """
    environment = Environment(
        loader=PackageLoader("localdiff_cli.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(**_context(summary), viewer=viewer)


def rank_cases(summary: Summary) -> tuple[str, list[CaseResult]]:
    """Return the figure that ranks cases and those that have it, worst first.

    It is the first of :data:`RANKED_BY` that half of the volumes have; the further ones decide between equals.
    """
    for key in _telling(summary, RANKED_BY):
        known = [case for case in summary.volumes if measure_of(case, key).value is not None]
        if 2 * len(known) >= len(summary.volumes):
            return key, sorted(known, key=lambda case: [measure_of(case, other).value or 0.0 for other in (key, *RANKED_BY)])
    return "", []


def _telling(summary: Summary, keys: Sequence[str]) -> list[str]:
    """The figures that say something: not those of a segmenter that cannot judge."""
    return [key for key in keys if not (summary.withheld and split_arm(key)[1].group in JUDGED)]


def _context(summary: Summary) -> dict[str, object]:
    key, _ = rank_cases(summary)
    worst, best = ends(summary)
    rates = rate_rows(summary)
    return {
        "summary": summary,
        "settings": summary.settings,
        "headline": headline(summary),
        "rates": rates,
        "realism_features": FEATURES,
        "effect_name": EFFECT_NAME,
        "main": metric_rows(summary, [each for each in MAIN if summary.metric(each)]),
        "all_rows": metric_rows(summary, [each for each in METRICS if summary.metric(each)]),
        "has_baseline": any(metric.key.startswith("baseline_") for metric in summary.metrics),
        "has_reference": any(metric.key.startswith("reference_") for metric in summary.metrics),
        "has_lesion": any(case.lesion_name for case in summary.volumes),
        "contrast": contrast_sentences(summary),
        "lesions": lesion_table(summary),
        "promises": promise_panels(summary),
        "plots": _plots(summary),
        "worst": [_shown(case, summary) for case in worst],
        "best": [_shown(case, summary) for case in best],
        "ranked_by": METRICS[key].label if key else "",
        "notes": [note for case in summary.volumes for note in case.notes],
        "measured_with": _measured_with(summary),
        "ran": list(flatten(summary.run)),
        "set": list(flatten(asdict(summary.settings))),
    }


def ends(summary: Summary) -> tuple[list[CaseResult], list[CaseResult]]:
    """Return the worst five and the best five that have pictures, best first; with fewer than ten each case is shown once."""
    ranked = [case for case in rank_cases(summary)[1] if case.pictures is not None]
    worst = list(ranked[: min(SHOWN, (len(ranked) + 1) // 2)])
    return worst, list(reversed(ranked[len(worst) :]))[:SHOWN]


def _plots(summary: Summary) -> dict[str, list[tuple[Markup, str]]]:
    groups: dict[str, Sequence[Plot | None]] = {
        "paired": paired_plots(summary),
        "lesion": (contrast_plot(summary), sweep_plot(summary)),
        "spread": spread_plots(summary),
    }
    # The SVG is matplotlib's own and escaped by it: nothing in it comes from the user but the two labels.
    return {name: [(Markup(plot.svg), plot.alt) for plot in plots if plot] for name, plots in groups.items()}


def _measured_with(summary: Summary) -> dict[str, list[str]]:
    """Every data range and mask that was used."""
    ranges = [f"{case.data_range.value:g} ({case.data_range.source})" for case in summary.volumes]
    masks = [case.brain_name for case in summary.volumes]
    lesions = [case.lesion_name or "none" for case in summary.volumes]
    named = {"Data range": ranges, "Brain": masks, "Lesion": lesions}
    for role in ("translation", "reference", "baseline"):
        named[role.capitalize()] = [case.used[role] for case in summary.volumes if role in case.used]
    return {label: list(dict.fromkeys(values))[:4] for label, values in named.items() if values}


def _shown(case: CaseResult, summary: Summary) -> ShownCase:
    pictures = case.pictures
    if pictures is None:
        raise ValueError(f"{case.name} has no pictures")
    figures = [(key, measure_of(case, key).value) for key in _telling(summary, CAPTION_KEYS)]
    words = [f"{_caption_label(key)} {_decimal(key, value)}" for key, value in figures if value is not None]
    panels = tuple(_shown_panel(panel, pictures, case.name, summary) for panel in pictures.panels)
    return ShownCase(case.name, f"slice {pictures.slice_index}, {pictures.why}", " · ".join(words), panels, _path(pictures))


def _caption_label(key: str) -> str:
    names = {"contrast": "lesion contrast", "reference_contrast": "true contrast"}
    return names.get(key) or METRICS[key].label


def _decimal(key: str, value: float) -> str:
    if key.endswith("contrast"):
        return f"{value:+.2f}".replace("-", "−")
    metric = METRICS[key]
    return f"{value:.{metric.decimals}f} {metric.unit}".strip()


def _shown_panel(panel: Panel, pictures: Pictures, name: str, summary: Summary) -> ShownPanel:
    captions = {
        "condition": "condition",
        "ood": "OOD map",
        "plain": summary.settings.baseline_label,
        "local": summary.settings.translation_label,
        "reference": "reference",
        "frc": f"unsupported (sFRC), {summary.settings.translation_label}",
        "error": f"|error|, {summary.settings.translation_label}",
    }
    caption = captions[panel.role]
    outlined = ", lesion outlined" if pictures.outline else ""
    rows, columns = panel.pixels.shape
    alt = f"{caption} of {name}, slice {pictures.slice_index}{outlined}"
    return ShownPanel(caption, alt, png_address(panel.pixels, ROLE_COLOURS.get(panel.role, "gray")), rows, columns)


def png_address(pixels: NDArray[np.uint8], colours: str) -> str:
    """Return a PNG of uint8 pixels ``(rows, columns)`` through a matplotlib colour map, as a ``data:`` address."""
    stream = io.BytesIO()
    # matplotlib's own grey map is off by one at some levels.
    coloured = np.stack([pixels] * 3, axis=-1) if colours == "gray" else mpl.colormaps[colours](pixels, bytes=True)
    imsave(stream, coloured, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _path(pictures: Pictures) -> str:
    """The outline as an SVG path, x to the right and y down in picture pixels."""
    lines = (" L".join(f"{x:.1f} {y:.1f}" for y, x in line) for line in pictures.outline)
    return " ".join(f"M{line}Z" for line in lines)


def flatten(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as (dotted name, text) rows."""
    for key, value in entries.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, str(value)
