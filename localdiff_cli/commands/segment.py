"""``localdiff segment``: lesion masks of real or translated volumes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from localdiff_cli.batch.discover import contrasts_in
from localdiff_cli.batch.work import Say, Work
from localdiff_cli.bundle import Bundle, SegmenterDefaults, bundle_paths, load_segmenter, open_bundle
from localdiff_cli.commands.recipe import BRAIN, NetworkRecipe
from localdiff_cli.commands.run import announce, batch_of, check_brain, run_work
from localdiff_cli.declared import check
from localdiff_cli.errors import ModelError, UsageError
from localdiff_cli.options import RunOptions, SegmentOptions
from localdiff_cli.tasks.outputs import Role


def _segmenters() -> list[Bundle]:
    """All segmenters installed; what is damaged or foreign among the bundles is passed over (``localdiff models list`` names it)."""
    bundles = []
    for name in bundle_paths():
        with suppress(ModelError):
            bundles.append(open_bundle(name))
    return sorted((bundle for bundle in bundles if bundle.task == "segment"), key=lambda bundle: (bundle.condition.contrast, bundle.name))


def choose_segmenter(model: str | None, source: str) -> Bundle:
    """The segmenter by name, or the only one whose contrast the inputs' sidecars or names say.

    Raises :class:`UsageError`, with the choices, where nothing (or more than one thing) says.
    """
    if model is not None:
        return open_bundle(model)
    choices, said = _segmenters(), contrasts_in(source)
    fitting = [bundle for bundle in choices if bundle.condition.contrast in said]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{bundle.name} ({bundle.condition.contrast})" for bundle in choices) or "none installed"
    raise UsageError(
        f"--in {source}: names and sidecars say {', '.join(sorted(said)) or 'no contrast'}; choose a segmenter with --model: {listed}",
        code="no-model",
    )


@dataclass(frozen=True)
class SegmentRecipe(NetworkRecipe):
    """How any process makes ready for ``segment``; ``options.model`` is chosen."""

    options: SegmentOptions

    def roles(self) -> list[tuple[bool, Role]]:
        """The mask; on request probability and brain."""
        return [
            (True, Role("mask", "", "uint8", "localdiff lesion mask")),
            (self.options.save_prob, Role("prob", "prob", "float32", "localdiff lesion probability")),
            (self.options.save_brain, BRAIN),
        ]

    def load(self, say: Say) -> Work:
        """Load the bundle. Raises :class:`LocaldiffError` where it cannot be used."""
        from localdiff_cli.diffusion.device import automatic_batch, choose_device
        from localdiff_cli.tasks.segmentation import SegmentWork
        from localdiff_cli.tasks.slices import prepare_settings

        options, bundle = self.options, open_bundle(self.options.model or "")
        device = choose_device(options.device)
        announce(say, bundle, device)
        network, defaults = load_segmenter(bundle, device), bundle.segmenter_defaults
        multiple = network.settings.multiple
        return SegmentWork(
            bundle=bundle,
            plan=self.plan,
            torch_device=device,
            network=network,
            prepare=prepare_settings(
                bundle, brain=options.brain, bias=options.bias, nan=options.nan, multiple=multiple, affine_from=options.affine_from
            ),
            cut=SegmenterDefaults(
                defaults.threshold if options.threshold is None else options.threshold,
                defaults.min_volume if options.min_volume is None else options.min_volume,
            ),
            batch_size=batch_of(options.batch_size, automatic_batch(device)),
        )


def segment_recipe(out: Path, options: SegmentOptions, bundle: Bundle) -> SegmentRecipe:
    """The recipe with the segmenter ``bundle``, its options checked. Raises :class:`UsageError` or :class:`ModelError`."""
    check_brain(options.brain)
    batch_of(options.batch_size, 1)
    check(options)
    if bundle.task != "segment":
        raise ModelError(f"model {bundle.name}: made to {bundle.task}; choose a segmenter from: localdiff models list", code="task")
    return SegmentRecipe(out, replace(options, model=options.model or bundle.name))


def segment(run: RunOptions, options: SegmentOptions) -> int:
    """Segment every volume of ``run.source``; the exit code."""
    bundle = choose_segmenter(options.model, run.source)
    return run_work(run, bundle.condition.contrast, segment_recipe(run.out, options, bundle))
