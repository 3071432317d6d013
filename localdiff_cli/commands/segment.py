"""``localdiff segment``: lesion masks of real or translated volumes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from localdiff_cli.batch.discover import contrasts_in
from localdiff_cli.bundle import Bundle, bundle_paths, open_bundle
from localdiff_cli.commands.run import check_brain, run_work
from localdiff_cli.declared import check
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.options import RunOptions, SegmentOptions
from localdiff_cli.recipes.network import batch_of
from localdiff_cli.recipes.segment import SegmentRecipe


def _segmenters() -> list[Bundle]:
    """All segmenters installed; what is damaged or foreign among the bundles is passed over (``localdiff models list``
    names it)."""
    bundles = []
    for name in bundle_paths():
        with suppress(ModelError):
            bundles.append(open_bundle(name))
    return sorted((bundle for bundle in bundles if bundle.task == "segment"), key=lambda bundle: (bundle.condition.contrast, bundle.name))


def choose_segmenter(model: str | None, source: str) -> Bundle:
    """Return the segmenter by name, or the only one whose contrast the inputs' sidecars or names say; of several of that
    contrast, ``lesion-<contrast>``.

    Raise :class:`UsageError`, with the choices, where nothing (or more than one thing) says.
    """
    if model is not None:
        return open_bundle(model)
    choices, said = _segmenters(), contrasts_in(source)
    fitting = [bundle for bundle in choices if bundle.condition.contrast in said]
    if len({bundle.condition.contrast for bundle in fitting}) == 1 < len(fitting):
        fitting = [bundle for bundle in fitting if bundle.name == bundle.condition.segmenter]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{bundle.name} ({bundle.condition.contrast})" for bundle in choices) or "none installed"
    raise UsageError(
        f"--in {source}: names and sidecars say {', '.join(sorted(said)) or 'no contrast'}; choose a segmenter with --model: {listed}",
        code="no-model",
    )


def segment_recipe(out: Path, options: SegmentOptions, bundle: Bundle) -> SegmentRecipe:
    """Return the recipe with the segmenter ``bundle``, its options checked. Raise :class:`UsageError` or
    :class:`ModelError`."""
    check_brain(options.brain)
    batch_of(options.batch_size, 1)
    check(options)
    if bundle.task != "segment":
        raise ModelError(f"model {bundle.name}: made to {bundle.task}; choose a segmenter from: localdiff models list", code="task")
    return SegmentRecipe(out, replace(options, model=options.model or bundle.name))


def segment(run: RunOptions, options: SegmentOptions) -> int:
    """Segment every volume of ``run.source``; return the exit code."""
    bundle = choose_segmenter(options.model, run.source)
    return run_work(run, bundle.condition.contrast, segment_recipe(run.out, options, bundle))
