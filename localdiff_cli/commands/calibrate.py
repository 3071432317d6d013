"""``localdiff calibrate``: promises with a number, proven on a site's own patients."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localdiff_cli import __version__
from localdiff_cli.batch.report import say
from localdiff_cli.bundle import Bundle, open_bundle
from localdiff_cli.commands.run import check_affine_from
from localdiff_cli.declared import check, check_range
from localdiff_cli.errors import EXIT_OK, ModelError, NoInputError, NotCertifiedError, UsageError
from localdiff_cli.options import CalibrateOptions, DetectorOptions, TranslateOptions
from localdiff_cli.recipes.translate import TranslateRecipe, suspect_bundle
from localdiff_cli.volumes.names import patient_of
from localdiff_cli.volumes.whole import check_replaceable

if TYPE_CHECKING:
    from localdiff_cli.guarantees.certificate import Certificate
    from localdiff_cli.guarantees.certify import Demand, Promise
    from localdiff_cli.guarantees.interval_network import IntervalNetwork
    from localdiff_cli.guarantees.intervals import Band, Curve, Intervals, Residuals
    from localdiff_cli.guarantees.losses import Record
    from localdiff_cli.tasks.calibration import Measurement
    from localdiff_cli.tasks.translation import TranslateWork
    from localdiff_cli.training.people import Person

GRID = (0.05, 0.1, 0.2, 0.3, 0.5)
"""The cuts of the map that are tried beside the bundle's own."""
BANDS_PEOPLE = 16
"""How many people of ``--bands-from`` are measured: the shape of the bands needs no more."""


def cuts(text: str | None) -> tuple[float, ...] | None:
    """Return the cuts of ``--taus``: ``0.2,0.1,0.3`` as numbers. Raise :class:`UsageError` for anything else."""
    return _listed("--taus", text, 1e-6, 1.0)


def emphases(text: str | None) -> tuple[float, ...] | None:
    """Return the values of ``--emphases``: ``1.5,1`` as numbers, each once. Raise :class:`UsageError` for anything else."""
    found = _listed("--emphases", text, 0.0, 10.0)
    return None if found is None else tuple(dict.fromkeys(found))


def _listed(option: str, text: str | None, low: float, high: float) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected numbers from {low:g} to {high:g} with commas between them", code="range") from error
    for number in numbers:
        check_range(option, number, low, high)
    return numbers


def _check(options: CalibrateOptions) -> None:
    check_affine_from(options.affine_from)
    check(options)
    check_replaceable(options.out, "--out", b'{"format":', "certificate")
    cuts(options.taus)
    emphases(options.emphases)
    if not options.levels and options.interval is None:
        asked = "--max-uncovered, --max-missed, --max-invented, --max-harm, --interval"
        raise UsageError(f"nothing to promise: give at least one of {asked}", code="missing")
    if options.bands_from and options.interval is None:
        raise UsageError("--bands-from shapes the bands of --interval: give that too", code="conflict")


def calibrate(options: CalibrateOptions) -> int:
    """Prove what was asked for and write the certificate; return the exit code.

    Raise :class:`NotCertifiedError` where it cannot be proven, :class:`UsageError` for patients that the bundle has seen.
    """
    _check(options)
    bundle = open_bundle(options.model)
    if bundle.task != "translate":
        raise ModelError(f"model {bundle.name}: made to {bundle.task}; choose a translator from: localdiff models list", code="task")
    cohort, asked = _cohort(options, bundle), _asked(options, bundle)
    _say_affordable(options, cohort, asked)
    work = translation_of(options.model, options.device, options.affine_from)
    chose = _refuse_known(options, cohort, bundle, work)
    beginning = _beginning(options, work, cohort, asked)
    measured = _measure(options, work, cohort, asked, beginning)
    certificate = _certificate(options, work, asked, measured, beginning, chose)
    _write(options.out, certificate)
    return EXIT_OK


def _cohort(options: CalibrateOptions, bundle: Bundle) -> list[Person]:
    from localdiff_cli.training.people import people

    everybody = people(options.data, bundle.condition.contrast, bundle.target.contrast, options.split, options.exclude)
    unknown = set(options.exclude) - {person.name for person in everybody}
    if unknown:
        raise UsageError(f"--exclude {', '.join(sorted(unknown))}: no such patient in the data", code="not-found")
    cohort = [person for person in everybody if person.name not in options.exclude]
    repeated = [subject for subject, count in Counter(_subject(person.name) for person in cohort).items() if count > 1]
    if repeated:
        raise UsageError(f"{', '.join(repeated)}: several visits of one patient; expected one each. Leave out all but one with --exclude")
    if not cohort:
        raise NoInputError(f"no patients in {', '.join(map(str, options.data))}; expected sub-*_{bundle.condition.contrast}, or a TSV")
    return cohort


def _subject(name: str) -> str:
    return patient_of(Path(name))


def _asked(options: CalibrateOptions, bundle: Bundle) -> Demand:
    """The grid in order, walked from the first cut that the user gave, or from the bundle's own."""
    from localdiff_cli.guarantees.certify import Demand

    own = bundle.defaults.threshold
    given = cuts(options.taus) or (own, *GRID)
    # Bands alone choose no cut: they are those of the first.
    taus = tuple(sorted(set(given if options.levels else given[:1])))
    strengths = emphases(options.emphases) or (bundle.defaults.emphasis,)
    return Demand(options.levels, 1 - options.confidence, taus, taus.index(given[0]), strengths if options.levels else strengths[:1])


def _say_affordable(options: CalibrateOptions, cohort: Sequence[Person], asked: Demand) -> None:
    from localdiff_cli.guarantees.certify import affordable
    from localdiff_cli.guarantees.losses import risks

    with_lesions = sum(person.lesions is not None for person in cohort)
    grid = f"cuts {', '.join(f'{tau:g}' for tau in asked.taus)}; emphasis {', '.join(f'{each:g}' for each in asked.emphases)}"
    say(f"{len(cohort)} patients, {with_lesions} with a lesion mask; {grid}")
    for line in affordable(asked, len(cohort), with_lesions, risks(options.harm_ml)):
        say(line)


def translation_of(model: str, device: str, affine_from: str | None, report: Callable[[str], None] = say) -> TranslateWork:
    """Return a translator as ``localdiff translate`` uses it by default; ``report`` is told what is loaded. Raise as that
    does, and :class:`UsageError` where it is not known how disease looks on the target."""
    from localdiff_cli.tasks.judged import check_look
    from localdiff_cli.tasks.translation import TranslateWork

    translate = TranslateOptions(model=model, device=device, affine_from=affine_from)
    work = TranslateRecipe(Path("."), translate, DetectorOptions()).load(report)
    assert isinstance(work, TranslateWork)
    check_look(work)
    return work


def _refuse_known(options: CalibrateOptions, cohort: Sequence[Person], bundle: Bundle, work: TranslateWork) -> int:
    """How many of the cohort chose a setting of the bundle, its detector or its second finder.

    Raises :class:`UsageError` for any unless ``--with-val`` takes them in, and always for those who trained a part.
    """
    from localdiff_cli.tasks.calibration import known_patients

    asked = (str(work.detector.get("Bundle", bundle.name)), suspect_bundle(TranslateOptions(), bundle))
    sources = [bundle.metadata, *(open_bundle(name).metadata for name in asked if name not in (None, bundle.name))]
    known = {use: {_subject(name) for name in names} for use, names in known_patients(sources).items()}
    trained = [person.name for person in cohort if _subject(person.name) in known["trained"]]
    chose = [person.name for person in cohort if _subject(person.name) in known["chose"] - known["trained"]]
    if trained or (chose and not options.with_val):
        use = "train" if trained else "choose a setting of"
        raise UsageError(
            f"{', '.join(trained or chose)}: used to {use} {bundle.name} or a network that it asks; they prove nothing for others. "
            "Leave them out with --exclude" + ("" if trained else ", or take them in with --with-val, which is said"),
            code="seen",
        )
    return len(chose)


@dataclass(frozen=True, eq=False)
class _Beginning:
    """What the bands begin with: the bundle's interval ``network``, ``curves`` of ``--bands-from``, both or neither; from how
    many ``people`` they were learnt, the larger number."""

    curves: Mapping[str, Curve]
    network: IntervalNetwork | None
    people: int


def _beginning(options: CalibrateOptions, work: TranslateWork, cohort: Sequence[Person], asked: Demand) -> _Beginning:
    from localdiff_cli.bundle import load_interval
    from localdiff_cli.guarantees.intervals import beside_network

    if options.interval is None:
        return _Beginning({}, None, 0)
    curves, count = _curves(options, work, cohort, asked, options.interval) if options.bands_from else ({}, 0)
    if not work.bundle.has_interval:
        return _Beginning(curves, None, count)
    patients = work.bundle.metadata.get("training", {}).get("interval", {}).get("patients", {}).get("train", [])
    return _Beginning(beside_network(curves), load_interval(work.bundle, work.torch_device), max(count, len(patients)))


def _measurement(
    options: CalibrateOptions, work: TranslateWork, taus: tuple[float, ...], strengths: tuple[float, ...],
    network: IntervalNetwork | None = None,
) -> Measurement:  # fmt: skip
    from localdiff_cli.tasks.calibration import Measurement

    out = Path(os.path.abspath(options.out))
    return Measurement(work, taus, options.every, options.work or out.with_name(out.name + ".work"), say, strengths, network)


def _curves(
    options: CalibrateOptions, work: TranslateWork, cohort: Sequence[Person], asked: Demand, level: float
) -> tuple[dict[str, Curve], int]:
    """The curves of ``--bands-from``, and from how many people they were learnt.

    Raises :class:`UsageError` for people who are of the cohort too: curves must be fixed before it is looked at.
    """
    from localdiff_cli.guarantees.intervals import learn, seen
    from localdiff_cli.training.people import people, spread

    others = people(options.bands_from, work.bundle.condition.contrast, work.bundle.target.contrast, "train")
    both = {_subject(person.name) for person in others} & {_subject(person.name) for person in cohort}
    if both:
        raise UsageError(f"{', '.join(sorted(both))}: in --bands-from and in the cohort; expected other people", code="seen")
    measurement = _measurement(options, work, (asked.taus[asked.centre],), asked.emphases[:1])
    found = [measurement.drawn(person) for person in spread([person for person in others if person.target is not None], BANDS_PEOPLE)]
    known = [seen(voxels) for _, (voxels,) in (each for each in found if each is not None)]
    return learn(known, level), len(known)


def _measure(
    options: CalibrateOptions, work: TranslateWork, cohort: Sequence[Person], asked: Demand, beginning: _Beginning
) -> list[tuple[Person, Record]]:
    measurement = _measurement(options, work, asked.taus, asked.emphases, beginning.network)
    found = [(person, measurement.record(person, beginning.curves)) for person in cohort]
    left_out = [person.name for person, record in found if record is None]
    if left_out:
        raise UsageError(
            f"{', '.join(left_out)}: cannot be measured (see above); use --exclude only for patients who would not be translated either",
            code="unusable",
        )
    return [(person, record) for person, record in found if record is not None]


def _certificate(
    options: CalibrateOptions,
    work: TranslateWork,
    asked: Demand,
    measured: Sequence[tuple[Person, Record]],
    beginning: _Beginning,
    chose: int,
) -> Certificate:
    from localdiff_cli.guarantees.certificate import Certificate, Cohort, comparable
    from localdiff_cli.guarantees.certify import certify
    from localdiff_cli.guarantees.losses import risks
    from localdiff_cli.tasks.judged import with_emphasis

    place, promises = certify([record for _, record in measured], asked, risks(options.harm_ml))
    emphasis, tau = asked.grid[place]
    intervals = _intervals(options, [record["grid"][place]["residuals"] for _, record in measured], beginning)
    kinds = Counter(person.kind for person, _ in measured)
    cohort = Cohort(
        patients=len(measured), kinds=dict(sorted(kinds.items())), every=options.every, split=options.split,
        chose_settings=chose, bands_from=beginning.people,
    )  # fmt: skip
    portraits = sorted((record["portrait"] for _, record in measured), key=json.dumps)
    return Certificate(
        work.bundle.name, work.bundle.hash, comparable(with_emphasis(work, emphasis).settings), tau, asked.taus, emphasis, asked.emphases,
        options.confidence, tuple(promises), cohort, options.void_level, tuple(portraits), __version__, intervals,
    )  # fmt: skip


def _intervals(options: CalibrateOptions, found: Sequence[Residuals | None], beginning: _Beginning) -> Intervals | None:
    """The bands of patients with a true target. Raises :class:`NotCertifiedError` where no region can have one."""
    from localdiff_cli.guarantees.intervals import bands

    if options.interval is None:
        return None
    known = [each for each in found if each is not None]
    made = bands(known, options.interval, beginning.curves)
    if not any(made.values()):
        raise NotCertifiedError(
            f"--interval {options.interval:g}: found {len(known)} patients with a true target; expected at least "
            f"{round(1 / (1 - options.interval)) - 1} who show the same region. No certificate was written",
            code="too-few",
        )
    return {"level": options.interval, "bands": made, "patients": len(known), "network": beginning.network is not None}


def _write(path: Path, certificate: Certificate) -> None:
    from localdiff_cli.guarantees.certificate import write_certificate

    for promise in certificate.promises:
        say(_told(promise, certificate))
    for line in _bands_told(certificate.intervals):
        say(line)
    patients = certificate.cohort["patients"]
    say(
        f"τ {certificate.tau:g}, emphasis {certificate.emphasis:g}; "
        f"void for volumes stranger than {1 - certificate.void_level:.0%} of {patients} patients"
    )
    write_certificate(path, certificate)
    say(f"certificate {certificate.hash[:12]}: {path}")


def _bands_told(intervals: Intervals | None) -> list[str]:
    if intervals is None:
        return []
    return [
        f"interval {intervals['level']:g}, {name} voxels: {_band_told(band, intervals['network'])}"
        for name, band in intervals["bands"].items()
    ]


def _band_told(band: Band | None, network: bool) -> str:
    if band is None:
        return "all of the range, too few patients have any"
    about = "the curves of --bands-from" if band["curve"] else "the limits of the interval network" if network else "the drawn value"
    margin = f"{band['margin']:+.3f}".replace("-", "−")
    return f"{margin} about {about}, {band['patients']} patients"


def _told(promise: Promise, certificate: Certificate) -> str:
    how = "on average over new patients" if promise.p_value is None else f"with {certificate.confidence:.0%} confidence"
    return f"promised: {promise.says}: at most {promise.level:.1%}, {how} (measured {promise.measured:.1%} in {promise.patients} patients)"
