"""The participant level: translate one image of every visit, then find lesions on the translations, both on the shared engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from localdiff_cli import __version__
from localdiff_cli.batch.discover import Found
from localdiff_cli.batch.engine import of_shard, run
from localdiff_cli.batch.plan import show_plan
from localdiff_cli.batch.report import Reporter
from localdiff_cli.batch.work import VolumeRecipe
from localdiff_cli.bids.choose import Choice, choose
from localdiff_cli.bids.dataset import write_dataset
from localdiff_cli.bids.filters import read_filters
from localdiff_cli.bids.index import read_description, scan_dataset
from localdiff_cli.bids.outputs import BidsItem
from localdiff_cli.bids.recipes import BidsSegmentRecipe, BidsTranslateRecipe
from localdiff_cli.bids.validator import check_dataset
from localdiff_cli.bundle import Bundle, bundle_paths, open_bundle
from localdiff_cli.commands.run import execution
from localdiff_cli.commands.translate import checked_bundle
from localdiff_cli.errors import EXIT_OK, NoInputError, UsageError
from localdiff_cli.options import DetectorOptions, RunOptions, SegmentOptions, TranslateOptions
from localdiff_cli.volumes.contrast import Content, content_of, read_sidecar

MAX_TOLD = 20
"""How many choices of one image among several are reported one by one; of more, only their number (``--verbose``: all)."""
NO_SEGMENTER = "none"


@dataclass(frozen=True)
class Selection:
    """Which images of a dataset to use: people and sessions by label (all, where none is given), and the filter file."""

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filter_file: Path | None = None


@dataclass(frozen=True)
class ParticipantOptions:
    """The options of the participant level. ``segmenter``: a bundle, ``none``, or None for the target contrast's, if there
    is one."""

    translate: TranslateOptions
    detector: DetectorOptions = field(default_factory=DetectorOptions)
    segmenter: str | None = None
    selection: Selection = field(default_factory=Selection)
    validate: bool = False


def choices_of(root: Path, suffix: str, selection: Selection) -> list[Choice]:
    """Return one image per visit. Raise :class:`NoInputError` where no image is left, :class:`UsageError` for a filter that
    cannot be read."""
    filters = read_filters(selection.filter_file) if selection.filter_file else {}
    scans = scan_dataset(root, selection.participants, selection.sessions)
    found = list(choose(scans, suffix, filters.get(suffix.lower(), {})))
    if not found:
        raise NoInputError(
            f"{root}: found no {suffix} below sub-*/[ses-*]/anat that the labels and filters allow; expected sub-…_{suffix}.nii.gz",
            code="no-input",
        )
    return found


def items_of(choices: list[Choice], shard: tuple[int, int] | None, affine_from: str | None = None) -> tuple[BidsItem, ...]:
    """Return the engine's items of one shard; only their sidecars are read."""
    unread = Content(None)
    items = [
        BidsItem(c.scan.path, c.scan.relative, unread, c.scan.relative, c.reason, tuple(o.relative.as_posix() for o in c.others))
        for c in choices
    ]
    return tuple(replace(item, content=content_of(item.path), affine_from=affine_from) for item in of_shard(items, shard))


def run_participants(source: Path, shared: RunOptions, options: ParticipantOptions) -> int:
    """Translate and segment; return the exit code."""
    how, out = execution(shared.how), shared.out
    read_description(source)
    bundle = checked_bundle(options.translate, options.detector)
    segmenter = _segmenter(options.segmenter, bundle)
    choices = choices_of(source, bundle.condition.contrast, options.selection)
    if options.validate:
        check_dataset(source)
    recipe = BidsTranslateRecipe(out, options.translate, options.detector)
    with _reporter(shared) as reporter:
        _tell(choices, reporter)
        items = items_of(choices, how.shard, shared.affine_from)
        found = Found(items, ())
        if shared.dry_run:
            show_plan(recipe, found, how, reporter, overwrite=shared.overwrite)
            return EXIT_OK
        write_dataset(source, out, __version__)
        code = _carry_out(recipe, found, shared, reporter)
    made = _translations(recipe, items, out)
    if segmenter is None or not made:
        return code
    asked = options.translate
    segment = SegmentOptions(
        str(segmenter.path), nan=asked.nan, device=asked.device, batch_size=asked.batch_size, affine_from=asked.affine_from
    )
    with _reporter(shared) as reporter:
        reporter.line(f"lesions on {len(made)} translations, with {segmenter.name}")
        return max(code, _carry_out(BidsSegmentRecipe(out, segment), Found(made, ()), shared, reporter))


def _reporter(shared: RunOptions) -> Reporter:
    return Reporter(quiet=shared.quiet, verbose=shared.verbose, json_log=shared.json_log)


def _translations(recipe: BidsTranslateRecipe, items: tuple[BidsItem, ...], out: Path) -> tuple[BidsItem, ...]:
    """The translations that are there, as the segmenter's items."""
    images = [(item, recipe.outputs(item)[0]) for item in items]
    return tuple(
        BidsItem(image, image.relative_to(out), content_of(image), item.raw)
        for item, image in images
        if read_sidecar(image).get("LocaldiffVersion")
    )


def _carry_out(recipe: VolumeRecipe, found: Found, shared: RunOptions, reporter: Reporter) -> int:
    """Run one command's work on one shard's volumes; the exit code."""
    how = replace(execution(shared.how), shard=None)  # the shard was cut before: a mask's name would put it elsewhere than its image
    tally = run(recipe, found, shared.out, reporter, how, version=__version__, overwrite=shared.overwrite, debug=shared.debug)
    return tally.exit_code


def _segmenter(asked: str | None, bundle: Bundle) -> Bundle | None:
    """The bundle that finds lesions on the translations; None for none. Raises :class:`UsageError` for one of another
    contrast."""
    if asked == NO_SEGMENTER or (asked is None and bundle.target.segmenter not in bundle_paths()):
        return None
    found = open_bundle(asked or bundle.target.segmenter)
    if found.task != "segment" or found.condition.contrast != bundle.target.contrast:
        raise UsageError(
            f"--segmenter {asked}: made to {found.task} {found.condition.contrast}; expected one for {bundle.target.contrast}, or none",
            code="wrong-contrast",
        )
    return found


def _tell(choices: list[Choice], reporter: Reporter) -> None:
    several = [choice for choice in choices if choice.others]
    for choice in several:
        text = f"{choice.scan.relative.as_posix()}: taken as {choice.reason}"
        (reporter.line if len(several) <= MAX_TOLD else reporter.detail)(text)
    if len(several) > MAX_TOLD:
        reporter.line(f"{len(several)} visits have several images; one was taken of each (--verbose and the sidecars say why)")
