"""A promise with a number: what people of one split prove, held against the people of another.

``python -m examples.benchmarks.paper --part promise --model t1-to-flair --data DATA… --split test --every 4``

The val people calibrate, those of ``--split`` check: risks, bands in every voxel, and for whom a certificate is void. The bands begin with
the bundle's interval network, or else take their shape from training people. Everything is of every n-th slice, but for portraits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from examples.benchmarks.harm import load
from examples.benchmarks.table import Table, decimal, percent
from localdiff_cli.bundle import load_interval
from localdiff_cli.commands.calibrate import BANDS_PEOPLE
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.metrics.intervals import PARTS, interval_figures, interval_regions
from localdiff_cli.guarantees import intervals, theorems
from localdiff_cli.guarantees.certify import COVERAGE
from localdiff_cli.guarantees.intervals import Voxels
from localdiff_cli.guarantees.losses import Record, Risk, losses, risks
from localdiff_cli.guarantees.strangeness import Portrait, is_strange, p_value
from localdiff_cli.tasks.calibration import Measurement
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.people import NOT_SAID, Person, people, spread

LEVEL, DELTA, VOID, HARM_ML = 0.9, 0.1, 0.05, 5.0
UNIT = DataRange(1.0, "robust z window mapped to [0, 1]")
GLIOMA, EVERYBODY = "glioma", "everybody"
SHIPPED, CURVES = "interval network; curves where drawn", "curves by intensity"
REGIONS = ("brain", "ordinary", "drawn", "unknown", "lesion")


@dataclass(frozen=True, eq=False)
class Measured:
    """One person: ``kind`` of disease, the losses' ``record``, what was ``drawn``, and the portrait of the whole volume."""

    kind: str
    record: Record
    drawn: Voxels
    portrait: Portrait


def kind_of(person: Person) -> str:
    """A person's disease; the table of the glioma patients names none."""
    return GLIOMA if person.kind == NOT_SAID else person.kind


def everybody(work: TranslateWork, split: str, options: argparse.Namespace) -> list[Person]:
    """The people of a split."""
    return people(options.data, work.bundle.condition.contrast, work.bundle.target.contrast, split)


def measured(by: Measurement, split: str, options: argparse.Namespace) -> list[Measured]:
    """The people of a split who can be measured."""
    found = [(p, by.drawn(p), by.portrait(p)) for p in everybody(by.translation, split, options)]
    return [Measured(kind_of(p), drawn[0], drawn[1][0], portrait) for p, drawn, portrait in found if drawn and portrait]


def curves_from(by: Measurement, options: argparse.Namespace) -> tuple[dict[str, intervals.Curve], list[str]]:
    """The curves of the bands, from training people as ``calibrate --bands-from`` takes them, and who they are."""
    shaping = spread([person for person in everybody(by.translation, "train", options) if person.target is not None], BANDS_PEOPLE)
    seen = [intervals.seen(drawn[1][0]) for drawn in map(by.drawn, shaping) if drawn is not None]
    return intervals.learn(seen, LEVEL), sorted(person.name for person in shaping)


def elderly_of(by: Measurement, options: argparse.Namespace) -> list[Portrait]:
    """The portraits of all elderly people, of whatever split: a certificate of glioma patients was made by none of them."""
    found = [p for split in ("test", "val", "train") for p in everybody(by.translation, split, options) if p.kind == "elderly"]
    return [each for each in map(by.portrait, found) if each is not None]


def of_kind(found: Sequence[Measured], kind: str) -> list[Measured]:
    """Those of one kind; all of them for everybody."""
    return [each for each in found if kind in (EVERYBODY, each.kind)]


# Risks


def risk_line(risk: Risk, kind: str, val: Sequence[Measured], test: Sequence[Measured], tau: float) -> dict[str, str]:
    """One risk: what the val people prove of it, and how it came out in the others."""
    own, checked = (losses(risk, [each.record for each in of_kind(found, kind)], [tau])[:, 0] for found in (val, test))
    bound = theorems.risk_bound(own) if risk.name == COVERAGE else theorems.provable_level(own, DELTA)
    came = bootstrap_mean(list(checked), Bootstrap())
    within = "n/a" if came.estimate is None else "yes" if came.estimate <= bound else "no"
    return {
        "people": kind, "risk": risk.name, "val people": str(len(own)), "val %": f"{100 * own.mean():.1f}" if len(own) else "n/a",
        "promise %": f"{100 * bound:.1f}", "how": "on average" if risk.name == COVERAGE else f"{1 - DELTA:.0%} confidence",
        "test people": str(len(checked)), "test %": percent(came), "within": within,
    }  # fmt: skip


# Bands


Bands = dict[str, intervals.Band | None]


def bands_of(val: Sequence[Voxels], curves: Mapping[str, intervals.Curve]) -> Bands:
    """Bands by region from people with a true target."""
    return dict(intervals.bands([intervals.residuals(v, curves) for v in val], LEVEL, curves))


def trivial_of(val: Sequence[Voxels]) -> Bands:
    """One band everywhere: what a quantile of the residual over all of the brain gives."""
    one = [intervals.residuals(replace(v, source=(v.source > 0).astype(np.uint8)), {}) for v in val]
    return dict.fromkeys(PARTS, intervals.bands(one, LEVEL, {})["ordinary"])


def coverage_of(person: Voxels, found: Bands) -> dict[str, float]:
    """Coverage and width of one person's voxels, by region; what the person does not have is left out."""
    low, high = intervals.limits(person.image, person.source, found, person.begun)
    regions = interval_regions(person.source > 0, person.lesion if person.lesion.any() else None, person.source)
    figures = interval_figures(low, high, person.true, regions, UNIT)
    return {key: figure.value for key, figure in figures.items() if figure.value is not None}


def region_lines(name: str, who: str, found: Sequence[Mapping[str, float]]) -> list[dict[str, str]]:
    """One way to make bands: coverage and width over some people, by region; regions that none of them has are left out."""
    lines = []
    for region in REGIONS:
        own = [figures for figures in found if f"coverage_{region}" in figures]
        if own:
            covered, wide = (bootstrap_mean([figures[f"{key}_{region}"] for figures in own], Bootstrap()) for key in ("coverage", "width"))
            line = {"band": name, "people": who, "region": region, "n": str(len(own))}
            lines.append(line | {"coverage %": percent(covered), "width": decimal(wide, 3)})
    return lines


@dataclass(frozen=True, eq=False)
class Way:
    """A way to make bands: the ``bands``, and the people on whom they are checked, with what begins the bands there."""

    bands: Bands
    people: Sequence[Measured]

    @property
    def figures(self) -> list[tuple[str, dict[str, float]]]:
        """Kind, coverage and width of each person with a true target."""
        return [(each.kind, coverage_of(each.drawn, self.bands)) for each in self.people if each.drawn.true.size]


def plainly(found: Sequence[Measured]) -> list[Measured]:
    """The same people, with nothing that begins their bands."""
    return [replace(each, drawn=replace(each.drawn, begun=None)) for each in found]


def ways_of(val: Sequence[Measured], test: Sequence[Measured], curves: Mapping[str, intervals.Curve]) -> dict[str, Way]:
    """The bands as ``calibrate`` makes them, from an interval network and curves or from curves alone; beside them those that
    know nothing but the region, or not even that."""
    known, bare = ([each.drawn for each in group if each.drawn.true.size] for group in (val, plainly(val)))
    shipped = SHIPPED if known and known[0].begun is not None else CURVES
    shapes = intervals.beside_network(curves) if shipped == SHIPPED else curves
    return {shipped: Way(bands_of(known, shapes), test)} | {
        "constant by region": Way(bands_of(bare, {}), plainly(test)), "constant everywhere": Way(trivial_of(bare), plainly(test)),
    }  # fmt: skip


def band_lines(name: str, way: Way) -> list[dict[str, str]]:
    """One way to make bands: coverage and width over the people of each kind, by region."""
    known = way.figures
    kinds = (EVERYBODY, *sorted({kind for kind, _ in known}))
    return [line for who in kinds for line in region_lines(name, who, [figures for kind, figures in known if who in (EVERYBODY, kind)])]


# Is this patient like those?


def void_line(cohort: Sequence[Measured], made_of: str, people_told: str, others: Sequence[Portrait]) -> dict[str, str]:
    """For how many of some other people a certificate of the cohort is void."""
    portraits = [each.portrait for each in cohort]
    void = sum(is_strange(p_value(each, portraits), len(portraits), VOID) for each in others)
    exact = stats.binomtest(void, len(others)).proportion_ci(method="exact")
    return {
        "calibrated on": f"{len(cohort)} {made_of}", "people": people_told, "n": str(len(others)), "void": str(void),
        "void %": f"{100 * void / len(others):.0f} ({100 * exact.low:.0f} to {100 * exact.high:.0f})",
    }  # fmt: skip


def void_lines(val: Sequence[Measured], test: Sequence[Measured], elderly: Sequence[Portrait]) -> list[dict[str, str]]:
    """Certificates of the glioma patients and of everybody, and whom they are void for."""
    lines = []
    for made_of in (GLIOMA, EVERYBODY):
        cohort = of_kind(val, made_of)
        groups = {f"{kind}, test": [each.portrait for each in test if each.kind == kind] for kind in sorted({each.kind for each in test})}
        if made_of == GLIOMA:
            further = sorted({each.kind for each in val} - {GLIOMA, "elderly"})
            groups |= {f"{kind}, val": [each.portrait for each in val if each.kind == kind] for kind in further}
            groups |= {"elderly, all": list(elderly)}
        lines += [void_line(cohort, made_of, told, found) for told, found in groups.items() if found]
    return lines


def measure(options: argparse.Namespace) -> list[Table]:
    """Three tables: risks, bands, and for whom a certificate is void. Raises :class:`UsageError` without people for either step."""
    work = load(options.model)
    if options.split == "val":
        raise UsageError("--part promise: the val people calibrate; expected --split test to check on", code="no-input")
    network = load_interval(work.bundle, torch.device("cpu")) if work.bundle.has_interval else None
    by = Measurement(work, (work.mask.threshold,), options.every, options.work, print, network=network)
    val, test, elderly = measured(by, "val", options), measured(by, options.split, options), elderly_of(by, options)
    if not val or not test:
        raise UsageError(f"--part promise: found nobody of val or of {options.split} who can be measured", code="no-input")
    tau, (curves, shaped) = work.mask.threshold, curves_from(replace(by, network=None), options)
    by_risk = [risk_line(risk, kind, val, test, tau) for kind in (GLIOMA, EVERYBODY) for risk in risks(HARM_ML).values()]
    ways = ways_of(val, test, curves)
    by_band = [line for name, way in ways.items() for line in band_lines(name, way)]
    by_kind, stem = void_lines(val, test, elderly), f"{work.bundle.name}-{options.split}"
    about = f"calibrated on {len(val)} val people, checked on {len(test)} {options.split} people, every {options.every}. slice"
    account = {"bundle": work.bundle.name, "settings": work.settings, "tau": tau, "level": LEVEL, "delta": DELTA, "shaped_by": shaped}
    return [
        Table(f"promise-{stem}", by_risk, about, account, lambda canvas: _draw_risks(canvas, by_risk)),
        Table(f"promise-bands-{stem}", by_band, about, account, lambda canvas: _draw_bands(canvas, ways)),
        Table(f"promise-void-{stem}", by_kind, about, account, lambda canvas: _draw_void(canvas, val, test, elderly)),
    ]


def _draw_risks(canvas: Any, lines: Sequence[Mapping[str, str]]) -> None:
    """What was promised, and what came."""
    axes = canvas.subplots()
    places = np.arange(len(lines))
    axes.barh(places, [float(line["promise %"]) for line in lines], color="0.85", label="promised at most")
    came = [line["test %"].split()[0] for line in lines]
    axes.plot([np.nan if each == "n/a" else float(each) for each in came], places, "o", label="came out, test")
    axes.set(xlabel="%", yticks=places, yticklabels=[f"{line['people']}: {line['risk']}" for line in lines], xlim=(0, 100))
    axes.legend(fontsize=7)


def _draw_bands(canvas: Any, ways: Mapping[str, Way]) -> None:
    """Coverage in each person, by region, for each way to make bands."""
    panels = canvas.subplots(1, len(ways), sharey=True)
    for axes, (name, way) in zip(panels, ways.items(), strict=True):
        known = [figures for _, figures in way.figures]
        for place, region in enumerate(REGIONS):
            shares = [100 * figures[f"coverage_{region}"] for figures in known if f"coverage_{region}" in figures]
            axes.scatter(np.full(len(shares), place), shares, s=12, alpha=0.7)
        axes.axhline(100 * LEVEL, color="0.6", linewidth=1)
        axes.set(title=name, xticks=range(len(REGIONS)), ylim=(0, 101), ylabel="coverage, %")
        axes.set_xticklabels(REGIONS, rotation=45, fontsize=7)


def _draw_void(canvas: Any, val: Sequence[Measured], test: Sequence[Measured], elderly: Sequence[Portrait]) -> None:
    """The p-value of each person among the glioma patients of val."""
    axes = canvas.subplots()
    portraits = [each.portrait for each in of_kind(val, GLIOMA)]
    groups = {kind: [each.portrait for each in test if each.kind == kind] for kind in sorted({each.kind for each in test} - {"elderly"})}
    groups |= {"elderly": list(elderly)}
    for place, found in enumerate(groups.values()):
        axes.scatter([p_value(each, portraits) for each in found], np.full(len(found), place), s=18, alpha=0.6)
    axes.axvline(max(VOID, 1 / (len(portraits) + 1)), color="0.6", linewidth=1)
    axes.set(xlabel="p-value among the glioma patients of val", yticks=range(len(groups)), yticklabels=list(groups), xlim=(0, 1.02))
