"""localdiff as a library: process one volume, from an array or a file, with the same code as the commands.

Every function loads its networks, works on one volume and returns arrays on the volume's own grid. Nothing is kept on disk.
For many volumes use the commands: they load the networks once, isolate failures and resume where they stopped.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from localdiff_cli import __version__
from localdiff_cli.batch.discover import discover
from localdiff_cli.batch.work import Outcome
from localdiff_cli.bundle import Bundle, open_bundle
from localdiff_cli.commands.detect import detect_recipe
from localdiff_cli.commands.segment import segment_recipe
from localdiff_cli.commands.translate import checked_bundle
from localdiff_cli.errors import UsageError
from localdiff_cli.options import DetectOptions, DetectorOptions, SegmentOptions, TranslateOptions
from localdiff_cli.recipes.network import NetworkRecipe
from localdiff_cli.recipes.translate import TranslateRecipe
from localdiff_cli.volumes.contrast import sidecar_path
from localdiff_cli.volumes.reader import SliceReader, open_volume
from localdiff_cli.volumes.whole import write_text

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Translation:
    """A translated volume. All arrays have the input's shape and voxel order, ``(I, J, K)``.

    ``image`` float32: the synthetic contrast, 0 outside the brain, in [0, 1] unless a reference was given. ``ood_map``
    float32 in [0, 1]: M, zero for plain sampling. ``brain`` bool. ``affine`` ``(4, 4)``: indices to RAS mm. ``review`` are
    reasons to look at the result before it is used; ``facts`` what the commands write into the sidecar.
    """

    image: NDArray[np.float32]
    ood_map: NDArray[np.float32]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    review: tuple[str, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Detection:
    """Where a volume is unlike anything seen in training. Arrays as in :class:`Translation`.

    ``ood_map`` float32 in [0, 1]: M. ``ood_mask`` bool: B. ``score`` float32: the detector's own, before its threshold.
    """

    ood_map: NDArray[np.float32]
    ood_mask: NDArray[np.bool_]
    score: NDArray[np.float32]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]
    review: tuple[str, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Lesions of a volume. Arrays as in :class:`Translation`; ``mask`` bool, ``probability`` float32 in [0, 1]."""

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    affine: NDArray[np.float64]
    review: tuple[str, ...]
    facts: Mapping[str, Any]


def load_bundle(name_or_path: str | PathLike[str]) -> Bundle:
    """Return a model bundle by its name or folder. Raise :class:`ModelError` where it is missing, damaged or of another
    format."""
    return open_bundle(str(name_or_path))


def translate_volume(
    image: str | PathLike[str] | ArrayLike, affine: ArrayLike | None = None, *, options: TranslateOptions | None = None,
    detector: DetectorOptions | None = None, say: Say | None = None,
) -> Translation:  # fmt: skip
    """Translate one volume as ``localdiff translate`` does.

    ``image``: a file or DICOM series, or an array ``(I, J, K)`` with its ``affine`` ``(4, 4)`` to RAS mm. ``options`` and
    ``detector``: the command's, where None means the bundle's defaults. ``say`` is told which model and device run. Raise
    :class:`UsageError`, :class:`ModelError` or :class:`VolumeError`, as the command would end.
    """
    chosen = replace(options or TranslateOptions(), save_brain=True)
    chosen, finder = replace(chosen, save_map=chosen.mode == "local"), detector or DetectorOptions()
    contrast = checked_bundle(chosen, finder).condition.contrast
    made = _run(image, affine, contrast, lambda out: TranslateRecipe(out, chosen, finder), say, chosen.affine_from)
    ood_map = made.arrays.get("map", np.zeros_like(made.arrays["image"]))
    return Translation(made.arrays["image"], ood_map, made.arrays["brain"] > 0, made.affine, made.outcome.review, made.outcome.facts)


def detect_volume(
    image: str | PathLike[str] | ArrayLike, affine: ArrayLike | None = None, *, options: DetectOptions | None = None,
    detector: DetectorOptions | None = None, say: Say | None = None,
) -> Detection:  # fmt: skip
    """Find the out-of-distribution region of one volume as ``localdiff detect`` does; arguments and errors as
    :func:`translate_volume`."""
    chosen = replace(options or DetectOptions(), save_mask=True, save_score=True, save_brain=True)
    contrast = open_bundle(chosen.model).condition.contrast
    made = _run(image, affine, contrast, lambda out: detect_recipe(out, chosen, detector or DetectorOptions()), say, chosen.affine_from)
    arrays, outcome = made.arrays, made.outcome
    masks = (arrays["mask"] > 0, arrays["score"], arrays["brain"] > 0)
    return Detection(arrays["map"], *masks, made.affine, outcome.review, outcome.facts)


def segment_volume(
    image: str | PathLike[str] | ArrayLike, affine: ArrayLike | None = None, *, options: SegmentOptions, say: Say | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Segmentation:  # fmt: skip
    """Find the lesions of one volume as ``localdiff segment`` does; ``options`` names the segmenter bundle (``model``).

    ``facts``: those of the :class:`Translation` whose ``image`` is given as an array; they name the intensity scale on which it
    is read, as the sidecar of a file does. Without them an array is read by its own median and spread, as an acquired image.
    Raise as :func:`translate_volume`.
    """
    if options.model is None:
        raise UsageError("segment_volume: found no model; expected options=SegmentOptions(model=…), such as lesion-flair", code="no-model")
    chosen, bundle = replace(options, save_prob=True), open_bundle(options.model)
    made = _run(image, affine, bundle.condition.contrast, lambda out: segment_recipe(out, chosen, bundle), say, chosen.affine_from, facts)
    return Segmentation(made.arrays["mask"] > 0, made.arrays["prob"], made.affine, made.outcome.review, made.outcome.facts)


@dataclass(frozen=True, eq=False)
class _Made:
    """What a work wrote, by role, and its outcome."""

    arrays: dict[str, NDArray[np.float32]]
    affine: NDArray[np.float64]
    outcome: Outcome


def _run(
    image: Any, affine: ArrayLike | None, contrast: str, recipe_in: Callable[[Path], NetworkRecipe], say: Say | None,
    affine_from: str | None, facts: Mapping[str, Any] | None = None,
) -> _Made:  # fmt: skip
    """Carry out a recipe on one volume in a folder that goes again."""
    with tempfile.TemporaryDirectory(prefix="localdiff-") as name:
        folder = Path(name)
        found = discover(str(_source(image, affine, folder, contrast, facts)), contrast, affine_from)
        if len(found.items) != 1:
            reasons = "; ".join(reason for _, reason in found.skipped) or f"{len(found.items)} volumes"
            raise UsageError(f"{image}: found {reasons}; expected one volume of {contrast}. For a folder use the command", code="no-volume")
        recipe, item = recipe_in(folder / "out"), found.items[0]
        outcome = recipe.load(say or _silent)(item, lambda done, total: None)
        read = {role: _read(output.path, affine_from) for role, output in recipe.plan.wanted(item).items()}
        return _Made({role: array for role, (array, _) in read.items()}, next(iter(read.values()))[1], outcome)


def _silent(text: str) -> None:
    """Tell nobody."""


def _source(image: Any, affine: ArrayLike | None, folder: Path, contrast: str, facts: Mapping[str, Any] | None) -> Path:
    """The file to work on: the one given, or the array as a NIfTI in ``folder``, with its facts as the sidecar. Raises
    :class:`UsageError` where they do not fit."""
    if isinstance(image, str | PathLike):
        if affine is not None or facts is not None:
            own = "an affine" if affine is not None else "a sidecar for its facts"
            raise UsageError(f"{image}: a file has {own} of its own; give one with an array only", code="conflict")
        return Path(image)
    array, matrix = np.asarray(image, dtype=np.float32), np.asarray(np.eye(4) if affine is None else affine, dtype=np.float64)
    if affine is None or array.ndim != 3 or matrix.shape != (4, 4):
        given = "none" if affine is None else f"{matrix.shape}"
        raise UsageError(f"array {array.shape} with affine {given}: expected (I, J, K) and (4, 4)", code="shape")
    path = folder / f"array_{contrast}.nii.gz"
    nib.save(nib.Nifti1Image(array, matrix), path)
    if facts is not None:
        write_text(sidecar_path(path), json.dumps(dict(facts) | {"LocaldiffVersion": __version__}))
    return path


def _read(path: Path, affine_from: str | None) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A volume as its file stores it, ``(I, J, K)`` float32, and its affine."""
    volume = open_volume(path, affine_from)
    frame, slices = volume.frame, dict(SliceReader(volume))
    stored = [frame.slice_to_stored(slices[frame.stored_index(index)]) for index in range(len(slices))]
    return np.stack(stored, axis=frame.slice_axis), volume.affine
