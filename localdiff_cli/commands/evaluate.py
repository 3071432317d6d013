"""``localdiff evaluate``: did the translation erase or invent disease?"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli import __version__
from localdiff_cli.batch.discover import check_folders
from localdiff_cli.batch.pairing import IMAGE, MAP, MASK, Index, Source, entity
from localdiff_cli.batch.report import Reporter, say
from localdiff_cli.bundle import open_bundle
from localdiff_cli.commands.run import RunOptions, check_choice, check_range
from localdiff_cli.errors import EXIT_OK, EXIT_SOME_FAILED, NoInputError, UsageError, VolumeError
from localdiff_cli.volumes.contrast import content_of, read_sidecar

if TYPE_CHECKING:
    from localdiff_cli.evaluation.case import CaseResult
    from localdiff_cli.evaluation.summary import Unpaired
    from localdiff_cli.tasks.evaluation import CaseFiles, EvaluationOptions, Segmenter


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``evaluate`` beyond the shared ones."""

    ref: str
    truth: str | None = None
    baseline: str | None = None
    segmenter: str | None = None
    seg: str | None = None
    ref_seg: str | None = None
    baseline_seg: str | None = None
    ood: str | None = None
    condition: str | None = None
    brain: str | None = None
    bias: str = "n4"
    resample_ref: bool = False
    tau: float = 0.5
    delta: float = 0.1
    lesion_share: float = 0.02
    invented_pixels: int = 30
    resamples: int = 5000
    seed: int = 0
    jobs: int = 1
    fail_under: tuple[str, ...] = ()


def _check(options: EvaluateOptions) -> None:
    given = (options.seg, options.ref_seg, options.baseline_seg)
    if options.segmenter and any(given):
        raise UsageError("--segmenter makes the segmentations: --seg, --ref-seg and --baseline-seg do not apply", code="conflict")
    if options.baseline_seg and not options.baseline:
        raise UsageError("--baseline-seg needs --baseline", code="conflict")
    check_choice("--bias", options.bias, ("n4", "none"))
    for name, value, low, high in (
        ("--tau", options.tau, 1e-6, 1.0),
        ("--delta", options.delta, 0, 1),
        ("--lesion-share", options.lesion_share, 0, 1),
        ("--invented-pixels", options.invented_pixels, 0, 1e6),
        ("--resamples", options.resamples, 100, 1_000_000),
        ("--jobs", options.jobs, 1, 1024),
    ):
        check_range(name, value, low, high)


def _indices(run: RunOptions, options: EvaluateOptions) -> tuple[dict[str, Index], str | None]:
    """The files of every role, and the translation's contrast where something says it."""
    translations = Index(Source(run.source, IMAGE))
    if not len(translations):
        raise NoInputError(f"--in {run.source}: no translated volume found", code="no-input")
    said = {content_of(path).contrast for path in translations.paths.values()} - {None}
    if len(said) > 1:
        raise UsageError(
            f"--in {run.source}: holds {', '.join(sorted(map(str, said)))}; expected one contrast. Evaluate them apart", code="contrasts"
        )
    contrast = said.pop() if said else None
    roles: list[tuple[str, str | None, str, str | None]] = [
        ("reference", options.ref, IMAGE, contrast),
        ("truth", options.truth, MASK, None),
        ("baseline", options.baseline, IMAGE, contrast),
        ("segmentation", options.seg, MASK, None),
        ("reference_segmentation", options.ref_seg, MASK, None),
        ("baseline_segmentation", options.baseline_seg, MASK, None),
        ("ood", options.ood, MAP, None),
        ("condition", options.condition, IMAGE, _source_contrast(translations)),
        ("brain", options.brain, MASK, None),
    ]
    found = {name: Index(Source(given, role, wanted)) for name, given, role, wanted in roles if given is not None}
    return {"translation": translations, **found}, contrast


def _source_contrast(translations: Index) -> str | None:
    said = {read_sidecar(path).get("SourceContrast") for path in translations.paths.values()}
    return said.pop() if len(said) == 1 else None


def pair(indices: dict[str, Index]) -> tuple[list[CaseFiles], list[Unpaired]]:
    """Every translation with its partners; what lacks one is listed with the reason, in both directions."""
    from localdiff_cli.evaluation.summary import Unpaired
    from localdiff_cli.tasks.evaluation import CaseFiles

    cases, unpaired, used = [], [], {name: set[Path]() for name in indices}
    for relative, path in sorted(indices["translation"].paths.items()):
        partners: dict[str, Path] = {}
        for name, index in indices.items():
            if name == "translation":
                continue
            partner, why = index.partner(relative)
            if partner is not None:
                partners[name] = partner
                used[name].add(partner)
            elif name == "reference" or why != "no partner":
                unpaired.append(Unpaired(relative.as_posix(), f"{name}: {why}"))
        if "reference" in partners:
            cases.append(CaseFiles(relative.as_posix(), _patient(relative), path, **partners))
    for name in ("reference", "truth"):
        rest = set(indices[name].paths.values()) - used[name] if name in indices else set()
        unpaired += [Unpaired(path.name, f"{name} without a translation") for path in sorted(rest)]
    return cases, unpaired


def _patient(relative: Path) -> str:
    """The BIDS subject where the name has one, else the whole entity."""
    name = entity(relative)
    return name.split("_")[0] if name.startswith("sub-") else name


@lru_cache(maxsize=1)
def _segmenter(name: str, threads: int) -> Segmenter:
    """Loaded once a process."""
    from localdiff_cli.tasks.evaluation import Segmenter

    return Segmenter(name, threads)


def _measure(files: CaseFiles, options: EvaluationOptions) -> CaseResult | tuple[str, str]:
    from localdiff_cli.tasks.evaluation import measure

    try:
        return measure(files, options, _segmenter(options.segmenter, options.threads) if options.segmenter else None)
    except VolumeError as error:
        return files.name, str(error)


def _measured(cases: list[CaseFiles], options: EvaluationOptions, jobs: int) -> Iterator[CaseResult | tuple[str, str]]:
    if jobs == 1:
        yield from (_measure(files, options) for files in cases)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for future in as_completed([pool.submit(_measure, files, options) for files in cases]):
            yield future.result()


def _account(cases: list[CaseFiles], options: EvaluateOptions) -> dict[str, Any]:
    """What was run, for the report: versions, bundles, hashes, settings; names of volumes only."""
    sidecars = {role: read_sidecar(getattr(cases[0], role)) for role in ("translation", "baseline") if getattr(cases[0], role, None)}
    account: dict[str, Any] = {"localdiff": __version__}
    for role, sidecar in sidecars.items():
        if sidecar:
            account[role] = {key: sidecar.get(key) for key in ("LocaldiffVersion", "Contrast", "SourceContrast", "Settings", "Versions")}
    if options.segmenter:
        bundle = open_bundle(options.segmenter)
        account["segmenter"] = {"Bundle": bundle.name, "BundleHash": bundle.hash}
    account["evaluation"] = {"bias": options.bias, "resample_ref": options.resample_ref, "tau": options.tau, "seed": options.seed}
    return account


def evaluate(run: RunOptions, options: EvaluateOptions) -> int:
    """Evaluate every pair; write the report; the exit code."""
    _check(options)
    from localdiff_cli.evaluation.headline import headline
    from localdiff_cli.evaluation.limits import check_fail_under, parse_limits
    from localdiff_cli.evaluation.misdiagnosis import MisdiagnosisSettings
    from localdiff_cli.evaluation.report import write_evaluation
    from localdiff_cli.evaluation.settings import EvaluationSettings
    from localdiff_cli.evaluation.summary import Unpaired, summarise
    from localdiff_cli.tasks.evaluation import EvaluationOptions

    parse_limits(list(options.fail_under))
    check_folders(run.source, run.out)
    indices, contrast = _indices(run, options)
    cases, unpaired = pair(indices)
    if not cases:
        raise NoInputError(
            f"no translation in {run.source} has a reference in {options.ref}: {'; '.join(u.reason for u in unpaired[:3])}", code="no-pairs"
        )
    settings = EvaluationSettings(
        misdiagnosis=MisdiagnosisSettings(delta=options.delta, lesion_share=options.lesion_share, invented_pixels=options.invented_pixels),
        resamples=options.resamples,
        seed=options.seed,
    )
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    how = EvaluationOptions(settings, contrast, options.bias, options.resample_ref, options.tau, options.segmenter, threads)
    results: list[CaseResult] = []
    with Reporter(quiet=run.quiet, verbose=run.verbose, json_log=run.json_log) as reporter:
        reporter.start(len(cases))
        for number, result in enumerate(_measured(cases, how, options.jobs), 1):
            if isinstance(result, tuple):
                unpaired.append(Unpaired(result[0], result[1]))
                reporter.problem(f"  failed: {result[1]}")
            else:
                results.append(result)
                reporter.volume(number, len(cases), result.name)
                for note in result.notes:
                    reporter.line(f"  note: {note}")
            reporter.volume_done()
        failed = len(cases) - len(results)
        if not results:
            reporter.problem("no case could be evaluated")
            return EXIT_SOME_FAILED
        summary = summarise(results, settings, unpaired=unpaired, run=_account(cases, options))
        written = write_evaluation(run.out, summary)
        told = headline(summary)
        reporter.line(told.sentence)
        for line in told.further:
            reporter.line(line)
        for item in unpaired:
            reporter.line(f"not evaluated: {item.name}: {item.reason}")
    if not run.quiet:
        say(f"report: {written['report.html']}")
    check_fail_under(list(options.fail_under), summary)
    return EXIT_SOME_FAILED if failed else EXIT_OK
