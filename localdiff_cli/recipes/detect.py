"""The recipe of ``detect``."""

from __future__ import annotations

from dataclasses import dataclass

from localdiff_cli.batch.work import Say, VolumeWork
from localdiff_cli.bundle import open_bundle
from localdiff_cli.options import DetectOptions, DetectorOptions
from localdiff_cli.recipes.detector import choose_detector, mask_settings
from localdiff_cli.recipes.network import NetworkRecipe, announce, batch_of
from localdiff_cli.roles import Role


@dataclass(frozen=True)
class DetectRecipe(NetworkRecipe):
    """How any process gets ready for ``detect``."""

    options: DetectOptions
    detector: DetectorOptions

    @property
    def main(self) -> Role:
        """The map."""
        return Role("map", "ood", "float32", "localdiff OOD map")

    def load(self, say: Say) -> VolumeWork:
        """Load bundle and detector. Raise :class:`LocaldiffError` where they cannot be used."""
        from localdiff_cli.diffusion.device import automatic_batch, choose_device
        from localdiff_cli.tasks.detection import DetectWork

        options, bundle = self.options, open_bundle(self.options.model)
        device = choose_device(options.device)
        announce(say, bundle, device)
        bind, account = choose_detector(self.detector, bundle, device)
        return DetectWork(
            bundle=bundle,
            plan=self.plan,
            torch_device=device,
            bind=bind,
            prepare=self.made_ready(bundle, 16),
            mask=mask_settings(bundle, self.detector),
            detector=account,
            map=self.detector.map,
            batch_size=batch_of(options.batch_size, automatic_batch(device)),
        )
