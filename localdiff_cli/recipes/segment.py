"""The recipe of ``segment``."""

from __future__ import annotations

from dataclasses import dataclass

from localdiff_cli.batch.work import Say, VolumeWork
from localdiff_cli.bundle import SegmenterDefaults, load_segmenter, open_bundle
from localdiff_cli.options import SegmentOptions
from localdiff_cli.recipes.network import NetworkRecipe, announce, batch_of
from localdiff_cli.roles import Role


@dataclass(frozen=True)
class SegmentRecipe(NetworkRecipe):
    """How any process gets ready for ``segment``; ``options.model`` is chosen."""

    options: SegmentOptions

    @property
    def main(self) -> Role:
        """The mask."""
        return Role("mask", "", "uint8", "localdiff lesion mask")

    def load(self, say: Say) -> VolumeWork:
        """Load the bundle. Raise :class:`LocaldiffError` where it cannot be used."""
        from localdiff_cli.diffusion.device import automatic_batch, choose_device
        from localdiff_cli.tasks.segmentation import SegmentWork

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
            prepare=self.made_ready(bundle, multiple),
            cut=SegmenterDefaults(
                defaults.threshold if options.threshold is None else options.threshold,
                defaults.min_volume if options.min_volume is None else options.min_volume,
            ),
            batch_size=batch_of(options.batch_size, automatic_batch(device)),
        )
