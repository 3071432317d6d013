"""The parts of ``configs/inference.json``: networks from one slice to one slice, and the way from a volume to slices and back.

They are made of what ``localdiff translate --mode plain`` and ``localdiff segment`` are made of, so that the voxels are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from localdiff_cli.batch.report import say
from localdiff_cli.bundle import Bundle, load_segmenter, load_translator, open_bundle, schedule_of
from localdiff_cli.diffusion.device import on_device
from localdiff_cli.errors import NoInputError
from localdiff_cli.options import TranslateOptions
from localdiff_cli.recipes.translate import sample_settings
from localdiff_cli.segmentation.components import drop_small
from localdiff_cli.segmentation.network import lesion_probability
from localdiff_cli.tasks.sampling import Networks, SliceSampler
from localdiff_cli.tasks.slices import Chunk, chunks, image_to_native, map_to_native, prepare_settings
from localdiff_cli.volumes.contrast import content_of, renamed
from localdiff_cli.volumes.prepare import Prepared, prepare
from localdiff_cli.volumes.reader import open_volume
from localdiff_cli.volumes.writer import SliceWriter
from localdiff_cli.volumes.written import scale_of

CPU = torch.device("cpu")
EVERY_SLICE = 1 << 30
BATCH = 8
Volume = dict[int, NDArray[Any]]
"""A volume's slices on its own grid, by canonical number; those that are not there are 0."""


class SliceNetwork(Protocol):
    """What the transforms need to know of a network."""

    bundle: Bundle
    multiple: int
    dtype: str
    suffix: str

    def to_volume(self, prepared: Prepared, chunk: Chunk, pred: Tensor) -> Volume: ...


class SliceTranslator(nn.Module):
    """The plain sampler as a network: prepared slices ``(N, 1, H, W)`` in [0, 1] to the target contrast, of that shape and
    range."""

    dtype = "float32"

    def __init__(self, bundle_root: str, seed: int = 0) -> None:
        super().__init__()
        self.bundle = open_bundle(bundle_root)
        self.network = load_translator(self.bundle, CPU)
        self.multiple = self.network.settings.multiple
        self.suffix = self.bundle.target.contrast
        self.sample = sample_settings(TranslateOptions(mode="plain", seed=seed), self.bundle)

    def forward(self, image: Tensor, brain: Tensor | None = None, fingerprint: str = "") -> Tensor:
        """Translate slices: ``brain`` bool like ``image`` (default: where it is not 0); ``fingerprint`` of the volume keys
        the noise."""
        inside = image > 0 if brain is None else brain
        numbers = tuple(range(len(image)))
        networks = Networks(on_device(self.network, image.device, "fp32"), schedule_of(self.bundle), image.device, self.multiple)
        draw = SliceSampler(networks, self.sample, fingerprint)
        nowhere = torch.zeros(image.shape, dtype=torch.bool)
        with torch.inference_mode():
            mean, _ = draw(Chunk(numbers, numbers, image.cpu(), inside.cpu()), torch.zeros(image.shape), nowhere)
        return mean.to(image.device)

    def to_volume(self, prepared: Prepared, chunk: Chunk, pred: Tensor) -> Volume:
        """Return the translation on the volume's own grid, by canonical slice number."""
        made = {}
        for i, k in enumerate(chunk.active_numbers):
            inside = chunk.brain[i, 0].numpy()
            made[k] = image_to_native(pred[i, 0].numpy(), inside, prepared.grid, prepared.native_brain(k))
        return made


class SliceSegmenter(nn.Module):
    """Lesion probability ``(N, 1, H, W)`` of prepared slices of that shape in [0, 1]."""

    dtype = "uint8"
    suffix = "mask"

    def __init__(self, bundle_root: str) -> None:
        super().__init__()
        self.bundle = open_bundle(bundle_root)
        self.network = load_segmenter(self.bundle, CPU)
        self.multiple = self.network.settings.multiple

    def forward(self, image: Tensor, brain: Tensor | None = None, fingerprint: str = "") -> Tensor:
        """Segment slices: ``brain`` bool like ``image`` (default: where it is not 0); nothing is random, so ``fingerprint``
        is not needed."""
        return lesion_probability(self.network, image, image > 0 if brain is None else brain)

    def to_volume(self, prepared: Prepared, chunk: Chunk, pred: Tensor) -> Volume:
        """Return the lesion mask on the volume's own grid, small components dropped as the bundle says."""
        mask, cut = np.zeros(prepared.volume.frame.shape, dtype=bool), self.bundle.segmenter_defaults
        for i, k in enumerate(chunk.active_numbers):
            brain = prepared.native_brain(k)
            mask[k] = (np.minimum(map_to_native(pred[i, 0].numpy(), prepared.grid, brain), 1) >= cut.threshold) & brain
        kept = drop_small(mask, float(np.prod(prepared.volume.frame.spacing)), cut.min_volume)
        return dict(enumerate(kept))


class PrepareSlicesd:
    """From ``{"image": path}`` to its prepared slices and brain, with what leads back to the volume.

    ``brain``: auto, none, a mask file or a folder of masks. Raises :class:`VolumeError` for a volume that cannot be used.
    """

    def __init__(self, network: SliceNetwork, brain: str = "auto") -> None:
        self.task = network.bundle.task
        self.settings = prepare_settings(network.bundle, brain=brain, bias=None, nan="refuse", multiple=network.multiple)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        path = Path(data["image"])
        segments = self.task == "segment" and content_of(path).synthetic
        written = scale_of(path, self.settings.window) if segments else None
        prepared = prepare(open_volume(path), self.settings, Path(path.name), written=written)
        chunk = next(chunks(prepared, EVERY_SLICE))
        return data | {"path": path, "prepared": prepared, "chunk": chunk, "image": chunk.condition, "brain": chunk.brain}


class WriteVolumed:
    """Writes ``pred`` as a volume on the grid of its source, into ``output_dir``, under its name with the contrast (or
    mask) as suffix."""

    def __init__(self, network: SliceNetwork, output_dir: str) -> None:
        self.network, self.output_dir = network, Path(output_dir)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        prepared, to = data["prepared"], self.output_dir / renamed(Path(data["path"].name), self.network.suffix)
        made = self.network.to_volume(prepared, data["chunk"], data["pred"])
        empty = np.zeros(prepared.volume.frame.shape[1:], dtype=self.network.dtype)
        to.parent.mkdir(parents=True, exist_ok=True)
        with SliceWriter(to, prepared.volume, dtype=self.network.dtype, description=f"localdiff {self.network.suffix}") as writer:
            for k in prepared.reader.order():
                writer.write(k, made.get(k, empty))
        return data | {"written": to}


class VolumeWorkflow:
    """Every item of ``dataset``: prepared slices through ``inferer`` and ``network`` a few at a time, then ``postprocessing``."""

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        network: nn.Module,
        inferer: Callable[..., Tensor],
        postprocessing: Callable[[dict[str, Any]], dict[str, Any]],
        device: torch.device,
    ) -> None:
        self.dataset, self.network, self.inferer, self.postprocessing, self.device = dataset, network, inferer, postprocessing, device

    def run(self) -> None:
        """Do the work. Raise :class:`NoInputError` where the dataset is empty."""
        if not len(self.dataset):
            raise NoInputError("--dataset_dir: found no .nii or .nii.gz in it; expected volumes to work on", code="no-input")
        for item in self.dataset:
            image, brain, fingerprint = item["image"], item["brain"], item["prepared"].survey.fingerprint
            parts = [
                self.inferer(part.to(self.device), self.network, brain=inside.to(self.device), fingerprint=fingerprint).cpu()
                for part, inside in zip(image.split(BATCH), brain.split(BATCH), strict=True)
            ]
            done = self.postprocessing(item | {"pred": torch.cat(parts) if parts else image})
            say(f"wrote {done['written']}")
