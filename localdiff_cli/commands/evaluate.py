"""``localdiff evaluate``: did the translation erase or invent disease?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdiff_cli import __version__
from localdiff_cli.batch.discover import check_folders
from localdiff_cli.batch.engine import Execution, carry_out
from localdiff_cli.batch.report import Reporter, say
from localdiff_cli.batch.workers import sigterm_raises
from localdiff_cli.bundle import open_bundle
from localdiff_cli.commands.run import execution
from localdiff_cli.declared import check
from localdiff_cli.errors import EXIT_OK, EXIT_SOME_FAILED, NoInputError, UsageError
from localdiff_cli.options import EvaluateOptions, RunOptions
from localdiff_cli.recipes.evaluate import EvaluateRecipe, Unmeasured
from localdiff_cli.volumes.contrast import content_of, read_sidecar
from localdiff_cli.volumes.names import patient_of
from localdiff_cli.volumes.partners import BRAIN, COMPANIONS, HIGH, IMAGE, LOW, MAP, MASK, NO_PARTNER, SOURCE, Index, Source

if TYPE_CHECKING:
    from localdiff_cli.evaluation.cohort.summary import Unpaired
    from localdiff_cli.evaluation.metrics.case import CaseResult
    from localdiff_cli.tasks.evaluation import CaseFiles, CaseSettings


def _check(options: EvaluateOptions) -> None:
    given = (options.seg, options.ref_seg, options.baseline_seg)
    if options.segmenter and any(given):
        raise UsageError("--segmenter makes the segmentations: --seg, --ref-seg and --baseline-seg do not apply", code="conflict")
    if options.baseline_seg and not options.baseline:
        raise UsageError("--baseline-seg needs --baseline", code="conflict")
    if (options.lo is None) != (options.hi is None):
        given_one, other = ("--lo", "--hi") if options.lo else ("--hi", "--lo")
        raise UsageError(f"{given_one}: an interval has two limits; give {other} too", code="conflict")
    if options.source_map and not options.lo:
        raise UsageError("--source-map splits an interval's coverage by region: give --lo and --hi too", code="conflict")
    check(options)


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
    contrast = _stated_contrast(str(said.pop()) if said else None, options)
    sources = {
        "reference": (options.ref, IMAGE, contrast, "--ref"),
        "truth": (options.truth, MASK, None, "--truth"),
        "baseline": (options.baseline, IMAGE, contrast, "--baseline"),
        "segmentation": (options.seg, MASK, None, "--seg"),
        "reference_segmentation": (options.ref_seg, MASK, None, "--ref-seg"),
        "baseline_segmentation": (options.baseline_seg, MASK, None, "--baseline-seg"),
        "ood": (options.ood, MAP, None, "--ood"),
        "condition": (options.condition, IMAGE, _source_contrast(translations), "--condition"),
        "brain": (options.brain, BRAIN, None, "--brain"),
        "lower": (options.lo, LOW, None, "--lo"),
        "upper": (options.hi, HIGH, None, "--hi"),
        "source": (options.source_map, SOURCE, None, "--source-map"),
    }
    found = {name: Index(Source(given, role, wanted, option)) for name, (given, role, wanted, option) in sources.items() if given}
    return {"translation": translations, **found}, contrast


def _stated_contrast(said: str | None, options: EvaluateOptions) -> str | None:
    """What files or the user say the translations hold. Raises :class:`UsageError` where they contradict each other."""
    if said and options.contrast and said != options.contrast:
        raise UsageError(
            f"--contrast {options.contrast}: the translations say that they hold {said}; leave it out, or rename them", code="contrast"
        )
    return said or options.contrast or _contrast_of(Index(Source(options.ref, IMAGE)))


def _contrast_of(index: Index) -> str | None:
    """The contrast that sidecars or names say, where they all say the same one."""
    said = {content_of(path).contrast for path in index.paths.values()} - {None}
    return said.pop() if len(said) == 1 else None


def _check_segmenter(name: str | None, contrast: str | None) -> None:
    """Raise :class:`UsageError` unless the segmenter was trained on the contrast that it is to be run on."""
    if name is None:
        return
    own = open_bundle(name).condition.contrast
    if contrast is None:
        raise UsageError(
            f"--segmenter {name}: it reads {own}, and neither sidecars nor names say what the translations hold; say it with --contrast",
            code="contrast",
        )
    if own != contrast:
        raise UsageError(
            f"--segmenter {name}: it was trained on {own}, the translations hold {contrast}; expected a segmenter of {contrast}, "
            f"for example lesion-{contrast.removesuffix('w').lower()}", code="contrast",
        )  # fmt: skip


def _source_contrast(translations: Index) -> str | None:
    said = {str(read_sidecar(path).get("SourceContrast", "")) or None for path in translations.paths.values()}
    return said.pop() if len(said) == 1 else None


NEEDED = ("reference", "brain")
"""Roles that every case needs once they are given: another brain would give other figures."""


def pair(indices: dict[str, Index]) -> tuple[list[CaseFiles], list[Unpaired]]:
    """Return every translation with its partners; what lacks one is listed with the reason, in both directions."""
    from localdiff_cli.evaluation.cohort.summary import Unpaired
    from localdiff_cli.tasks.evaluation import CaseFiles

    cases, unpaired, used = [], [], {name: set[Path]() for name in indices}
    for relative, path in sorted(indices["translation"].paths.items()):
        partners: dict[str, Path] = {}
        without: list[str] = []
        for name, index in indices.items():
            if name == "translation":
                continue
            partner, why = index.partner(relative, path if index.role in COMPANIONS else None)
            if partner is not None:
                partners[name] = partner
                used[name].add(partner)
            elif name in NEEDED or why != NO_PARTNER:
                unpaired.append(Unpaired(relative.as_posix(), f"{name}: {why}"))
            else:
                without.append(name)
        if all(name in partners for name in NEEDED if name in indices):
            cases.append(CaseFiles(relative.as_posix(), patient_of(relative), path, **partners, without=tuple(without)))
    for name in ("reference", "truth"):
        rest = set(indices[name].paths.values()) - used[name] if name in indices else set()
        unpaired += [Unpaired(path.name, f"{name} without a translation") for path in sorted(rest)]
    return cases, unpaired


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
    roles = [name for name in cases[0].__dataclass_fields__ if name not in ("name", "patient", "without")]
    account["files"] = {files.name: {role: path.name for role in roles if (path := getattr(files, role)) is not None} for files in cases}
    account["evaluation"] = {"bias": options.bias, "resample_ref": options.resample_ref, "tau": options.tau, "seed": options.seed}
    account["given"] = {name: _nameless(value) for name, value in vars(options).items() if value not in (None, ())}
    return account


def _nameless(value: Any) -> Any:
    """An option as given, a file or folder by its last name: where it lies on this machine is nobody's business."""
    return Path(value).name if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


def _without_places(reason: str, files: CaseFiles) -> str:
    """Why a case failed, its files by their names alone: a report goes to others."""
    for name in files.__dataclass_fields__:
        value = getattr(files, name)
        if isinstance(value, Path):
            reason = reason.replace(str(value), value.name)
    return reason


def _measured(
    recipe: EvaluateRecipe, cases: list[CaseFiles], reporter: Reporter, how: Execution
) -> tuple[list[CaseResult], list[Unmeasured]]:
    """Every case measured, and those that could not be."""
    results, failures = [], []
    reporter.start(len(cases))
    with carry_out(recipe, cases, reporter, how) as measured:
        for result in measured:
            if isinstance(result, Unmeasured):
                failures.append(result)
                reporter.problem(f"  failed: {result.reason}")
            else:
                results.append(result)
                for note in result.notes:
                    reporter.line(f"  note: {note}")
            reporter.volume_done()
    return sorted(results, key=lambda result: result.name), failures


def _case_settings(options: EvaluateOptions, contrast: str | None) -> CaseSettings:
    """How cases are read and what is measured on them."""
    from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings
    from localdiff_cli.evaluation.settings import FigureSettings
    from localdiff_cli.tasks.evaluation import CaseSettings

    settings = FigureSettings(
        realism=options.realism,
        judge_dice=options.judge_dice,
        misdiagnosis=MisdiagnosisSettings(delta=options.delta, lesion_share=options.lesion_share, invented_pixels=options.invented_pixels),
        resamples=options.resamples,
        seed=options.seed,
    )
    return CaseSettings(
        settings=settings, contrast=contrast, bias=options.bias, resample_reference=options.resample_ref, tau=options.tau,
        segmenter=options.segmenter, affine_from=options.affine_from,
    )  # fmt: skip


def evaluate(run: RunOptions, options: EvaluateOptions) -> int:
    """Evaluate every pair; write the report; return the exit code."""
    _check(options)
    how = execution(run.how)
    from localdiff_cli.evaluation.cohort.limits import check_fail_under, parse_limits
    from localdiff_cli.evaluation.cohort.summary import Unpaired, summarise
    from localdiff_cli.evaluation.report.headline import headline
    from localdiff_cli.evaluation.report.page import NO_VIEWER, write_evaluation
    from localdiff_cli.tasks.viewing import report_viewer

    parse_limits(list(options.fail_under))
    check_folders(run.source, run.out)
    indices, contrast = _indices(run, options)
    cases, unpaired = pair(indices)
    _check_segmenter(options.segmenter, contrast)
    if not cases:
        raise NoInputError(
            f"no translation in {run.source} has a reference in {options.ref}: {'; '.join(u.reason for u in unpaired[:3])}", code="no-pairs"
        )
    how_read = _case_settings(options, contrast)
    recipe = EvaluateRecipe(how_read)
    with Reporter(quiet=run.quiet, verbose=run.verbose, json_log=run.json_log) as reporter, sigterm_raises():
        for text in dict.fromkeys(f"{relative}: {why}" for index in indices.values() for relative, why in index.walk.aside):
            reporter.line(text)
        results, failures = _measured(recipe, cases, reporter, how)
        by_name = {case.name: case for case in cases}
        unpaired += [Unpaired(failure.name, _without_places(failure.reason, by_name[failure.name])) for failure in failures]
        if not results:
            reporter.problem("no case could be evaluated")
            return EXIT_SOME_FAILED
        summary = summarise(results, how_read.settings, unpaired=unpaired, run=_account(cases, options))
        viewer = report_viewer(cases, summary, reporter.line, options.affine_from) if options.viewer else NO_VIEWER
        written = write_evaluation(run.out, summary, viewer)
        told = headline(summary)
        reporter.line(told.sentence)
        for line in told.further:
            reporter.line(line)
        for item in unpaired:
            reporter.line(f"not evaluated: {item.name}: {item.reason}")
    if not run.quiet:
        say(f"report: {written['report.html']}")
    check_fail_under(list(options.fail_under), summary, allow_missing=options.allow_missing)
    return EXIT_SOME_FAILED if failures else EXIT_OK
