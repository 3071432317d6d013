"""From a volume on disk to network-ready slices: survey, brain, bias field, scale and grid, each computed once."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.advice import VOLUMES, Advice
from localdiff_cli.volumes.brain import Brain, auto_brain, brain_from_file, whole_image
from localdiff_cli.volumes.geometry import MAX_IN_PLANE_SPACING_MM, Grid, grid_for
from localdiff_cli.volumes.intensity import BiasField, Scale, bias_steps, fit_bias, robust_scale
from localdiff_cli.volumes.kept import NOTHING, Kept
from localdiff_cli.volumes.likeness import quantiles_of
from localdiff_cli.volumes.partners import BRAIN, Source, find_companion
from localdiff_cli.volumes.reader import SliceReader
from localdiff_cli.volumes.volume import Volume

SAMPLE_MM = 2.0
SUPPORT_TOLERANCE = 0.02
STANDARDISED_SHARE = 0.1
"""A volume with a larger share of brain voxels at or below 0 holds z-scores, not intensities."""


@dataclass(frozen=True)
class PrepareSettings:
    """How volumes are prepared: ``brain`` is auto, none or a file or folder; ``bias`` n4 or none; ``nan`` refuse or zero.

    ``spacing`` (mm), ``shape`` (rows, columns) and ``multiple`` describe the network's grid; ``window`` is the contrast's.
    ``affine_from``: which form of a NIfTI's header holds (see :func:`~localdiff_cli.volumes.reader.open_volume`). ``kept``:
    where brains and bias fields that were found before lie, which decides nothing but the time. ``advice``: hints of the
    command.
    """

    brain: str = "auto"
    bias: str = "n4"
    nan: str = "refuse"
    spacing: float = 1.0
    shape: tuple[int, int] = (208, 176)
    multiple: int = 16
    window: tuple[float, float] = (-4.0, 6.0)
    affine_from: str | None = None
    kept: Kept = NOTHING
    advice: Advice = VOLUMES

    @property
    def brain_source(self) -> Source | None:
        """Where a volume's own brain mask is looked for; None where none was given."""
        return None if self.brain in ("auto", "none") else Source(self.brain, BRAIN, option="--brain")

    def account(self) -> dict[str, object]:
        """Return what decides a result, for sidecars and caches: without what was kept and the hints, the header's form
        only where asked for."""
        values = asdict(self)
        del values["kept"], values["advice"]
        if self.affine_from is None:
            del values["affine_from"]
        return values


@dataclass(frozen=True)
class Survey:
    """What one pass over a volume finds.

    ``fingerprint``: SHA-256 of the voxel values in canonical order, the same for every orientation and file format.
    ``sample``: every ``strides``-th row and column of all slices. ``background``: the commonest border value. ``holes``: of every
    slice that has voxels which are not finite, where; they count as 0.
    """

    fingerprint: str
    sample: NDArray[np.float32]
    strides: tuple[int, int]
    background: float
    tolerance: float
    holes: dict[int, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A volume ready to be read slice by slice for the network; ``scale``: its own, or that which a translation was written
    with. ``quantiles`` of the brain's own robust z are those of ``likeness.LEVELS``."""

    volume: Volume
    reader: SliceReader
    survey: Survey
    brain: Brain
    bias: BiasField | None
    scale: Scale
    grid: Grid
    clipped_share: float
    quantiles: tuple[float, ...]

    def native_brain(self, k: int) -> NDArray[np.bool_]:
        """Return the brain mask of canonical slice ``k`` on the native grid."""
        return self.brain.mask[k]

    def corrected(self, k: int) -> NDArray[np.float32]:
        """Return canonical slice ``k`` in input units, with the bias field divided out."""
        image = finite(self.reader.read(k))
        return image if self.bias is None else image / self.bias.slice(k, image.shape)

    def network_slice(self, k: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the condition in [0, 1] and the brain mask of slice ``k`` on the network's grid."""
        brain = self.brain.mask[k]
        image = np.where(brain, self.scale.normalise(self.corrected(k)), np.float32(0))
        inside = self.grid.to_network(brain, cubic=False) > 0.5
        condition = np.clip(self.grid.to_network(image), 0, 1) * inside
        return condition.astype(np.float32), inside


def finite(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the slice itself, or with NaN and infinity set to 0."""
    return image if np.isfinite(image).all() else np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)


def _check_finite(found: Survey, brain: NDArray[np.bool_], path: Path, settings: PrepareSettings) -> None:
    """Refuse a brain with voxels that are not finite, unless they may count as 0; outside the brain they do not matter."""
    holes = sum(int((brain[k] & hole).sum()) for k, hole in found.holes.items())
    if holes and settings.nan != "zero":
        raise VolumeError(
            f"{path}: found {holes} NaN or infinite voxels in the brain; expected finite ones. {settings.advice.nan}", code="not-finite"
        )


def _strides(volume: Volume) -> tuple[int, int]:
    rows, columns = (max(1, min(round(SAMPLE_MM / volume.frame.spacing[axis]), volume.frame.shape[axis] // 8 or 1)) for axis in (1, 2))
    return rows, columns


def survey(reader: SliceReader) -> Survey:
    """Read every slice once. Raise :class:`VolumeError` for damaged, constant or all-zero data."""
    volume = reader.volume
    strides = _strides(volume)
    digests: dict[int, bytes] = {}
    samples: dict[int, NDArray[np.float32]] = {}
    borders: dict[int, tuple[float, int]] = {}
    holes: dict[int, NDArray[np.bool_]] = {}
    low, high = np.inf, -np.inf
    for k, raw in reader:
        image = finite(raw)
        if image is not raw:
            holes[k] = ~np.isfinite(raw)
        digests[k] = hashlib.sha256(image.tobytes()).digest()
        samples[k] = image[:: strides[0], :: strides[1]].copy()
        values, counts = np.unique(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), return_counts=True)
        borders[k] = float(values[counts.argmax()]), int(counts.max())
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    if not high > low:
        what = "all zero" if high == 0 else f"the same value everywhere ({high:g})"
        raise VolumeError(f"{volume.path}: found {what}; expected an image", code="all-zero" if high == 0 else "constant")
    sample = np.stack([samples[k] for k in range(len(samples))])
    bottom, top = np.percentile(sample, [0.5, 99.5])
    fingerprint = hashlib.sha256(b"".join(digests[k] for k in range(len(digests)))).hexdigest()
    return Survey(fingerprint, sample, strides, _commonest(borders), SUPPORT_TOLERANCE * float(max(top - bottom, 1e-6)), holes)


def _commonest(borders: dict[int, tuple[float, int]]) -> float:
    """The border value of most pixels; slices count in canonical order, so that a tie falls alike in every orientation."""
    totals: Counter[float] = Counter()
    for k in sorted(borders):
        value, count = borders[k]
        totals[value] += count
    return totals.most_common(1)[0][0]


def _check_plane(volume: Volume) -> None:
    rows, columns = volume.frame.spacing[1:]
    if max(rows, columns) > MAX_IN_PLANE_SPACING_MM * (1 + 1e-4):  # cosines of oblique axes are rounded
        raise VolumeError(
            f"{volume.path}: its axial pixels measure {rows:.1f} × {columns:.1f} mm, so it was acquired in another plane; expected at most "
            f"{MAX_IN_PLANE_SPACING_MM:.0f} mm. Resample it to an axial or isotropic grid first",
            code="other-plane",
        )


def _plane_doubts(volume: Volume) -> tuple[str, ...]:
    """A volume that is finer from foot to head than within its axial slices was acquired in another plane."""
    through, rows, columns = volume.frame.spacing
    if max(rows, columns) > max(1.5, 2 * through):
        return (f"plane: axial pixels of {rows:.1f} × {columns:.1f} mm, so it was acquired in another plane and is resampled coarsely",)
    return ()


def _geometry(volume: Volume) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return volume.frame.shape, volume.frame.spacing


def _brain(reader: SliceReader, found: Survey, settings: PrepareSettings, relative: Path) -> Brain:
    source = settings.brain_source
    if source is not None:
        return brain_from_file(find_companion(source, reader.volume.path, relative), reader.volume)
    if settings.brain == "auto":
        decided_by = [found.fingerprint, *_geometry(reader.volume), *map(version, ("deepbet", "torch"))]
        kept = partial(settings.kept.array, "brain", decided_by)
        return auto_brain(reader, found.background, found.tolerance, settings.advice, kept)
    return whole_image(reader, found.background, found.tolerance)


def _standardised(found: Survey, brain: NDArray[np.bool_]) -> bool:
    """Whether the volume was z-scored before: a multiplicative field means nothing then."""
    return float((found.sample[brain] <= 0).mean()) > STANDARDISED_SHARE


def _bias(found: Survey, brain: NDArray[Any], volume: Volume, settings: PrepareSettings) -> BiasField | None:
    if settings.bias == "none" or _standardised(found, brain):
        return None
    spacing = volume.frame.spacing
    sampled = (spacing[0], spacing[1] * found.strides[0], spacing[2] * found.strides[1])
    inside = hashlib.sha256(np.packbits(brain).tobytes()).hexdigest()
    decided_by = [found.fingerprint, inside, found.strides, *_geometry(volume), version("SimpleITK")]
    try:
        log_field = settings.kept.array("bias", decided_by, lambda: fit_bias(found.sample, brain, sampled))
    except RuntimeError as error:
        raise VolumeError(f"{volume.path}: the N4 bias correction failed; go on without it with --bias none", code="bias") from error
    steps = bias_steps(found.sample.shape, sampled)
    return BiasField(log_field, (steps[0], steps[1] * found.strides[0], steps[2] * found.strides[1]))


def prepare(
    volume: Volume, settings: PrepareSettings, relative: Path | None = None, brain: Brain | None = None, written: Scale | None = None
) -> Prepared:
    """Survey a volume and compute all that its slices need: brain, bias field, scale and grid.

    ``relative`` is its name below the input folder (to find a brain mask in a folder); ``brain`` overrides the setting.
    ``written``: the scale of a translation whose sidecar names it; then it has no bias field, and its own median and spread
    are not its scale. Raise :class:`VolumeError` for what cannot be used.
    """
    return prepare_read(SliceReader(volume), settings, relative, brain, written)


def prepare_read(
    reader: SliceReader,
    settings: PrepareSettings,
    relative: Path | None = None,
    brain: Brain | None = None,
    written: Scale | None = None,
) -> Prepared:
    """Do as :func:`prepare`, for slices that are already at hand."""
    volume = reader.volume
    _check_plane(volume)
    found = survey(reader)
    brain = brain or _brain(reader, found, settings, relative or Path(volume.path.name))
    if not brain.mask.any():
        raise VolumeError(f"{volume.path}: the brain mask is empty", code="brain")
    _check_finite(found, brain.mask, volume.path, settings)
    sampled_brain = brain.mask[:, :: found.strides[0], :: found.strides[1]]
    if not sampled_brain.any():
        raise VolumeError(f"{volume.path}: the brain mask has only {int(brain.mask.sum())} voxels", code="brain")
    brain = replace(brain, doubts=(*brain.doubts, *_plane_doubts(volume)))
    bias = None if written is not None else _bias(found, sampled_brain, volume, settings)
    if bias is None and settings.bias != "none" and written is None:
        brain = replace(
            brain, doubts=(*brain.doubts, "intensity: z-scored already (values below 0 in the brain), so no bias field was corrected")
        )
    sample = found.sample if bias is None else found.sample / bias.strided(found.strides, volume.frame.shape)
    values = sample[sampled_brain]
    try:
        own = robust_scale(values, settings.window)
    except ValueError as error:
        raise VolumeError(f"{volume.path}: the brain has the same value everywhere; expected an image", code="constant") from error
    scale = own if written is None else replace(written, window=settings.window)
    grid = grid_for(brain.mask, volume.frame, settings.spacing, settings.shape, settings.multiple)
    quantiles = quantiles_of(np.clip((values - own.median) / own.sd, *settings.window))
    return Prepared(volume, reader, found, brain, bias, scale, grid, scale.clipped_share(values), quantiles)
