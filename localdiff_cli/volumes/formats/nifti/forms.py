"""A NIfTI states its position twice, by q-form and s-form: which one holds, and what is done where they contradict each
other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from localdiff_cli.errors import VolumeError

SIZE_TOLERANCE = 0.01
"""Share by which the voxel sizes of the two forms may differ: more than rounding ever makes."""
PLACE_TOLERANCE_MM = 0.1
FORMS = ("sform", "qform")


def affine_and_doubts(
    path: Path, image: Any, shape: tuple[int, int, int], mm: float, affine_from: str | None
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the RAS affine (mm) of a nibabel ``image``, and reasons to doubt it.

    ``mm`` a spatial unit of the header. Raise :class:`VolumeError` where q-form and s-form contradict each other about the
    voxel size, handedness or left and right, and ``affine_from`` does not say which one holds.
    """
    scale = np.diag([mm, mm, mm, 1.0])
    header = image.header
    codes = {form: int(header[f"{form}_code"]) for form in FORMS}
    affine = np.asarray(image.affine, dtype=np.float64)
    if min(codes.values()) > 0:
        forms, damage = _both(header)
        if damage:
            return _one_of(path, forms, damage, affine_from, scale)
        holds = scale @ forms[affine_from or "sform"]
        serious, doubts = contradictions(scale @ forms["qform"], scale @ forms["sform"], codes, shape)
        written = f"q-form {_written(scale @ forms['qform'], codes['qform'])}, s-form {_written(scale @ forms['sform'], codes['sform'])}"
        if serious and affine_from is None:
            raise VolumeError(
                f"{path}: its q-form and s-form contradict each other about {' and '.join(serious)}: {written}; expected one place in "
                "space. Say which one holds with --affine-from sform or --affine-from qform, or mend the header",
                code="contradictory-header",
            )
        used = f"; the {affine_from or 'sform'} was used"
        differing = " and ".join((*serious, *doubts))
        return holds, (f"header: q-form and s-form differ in {differing}: {written}{used}",) if differing else ()
    return scale @ affine, _size_doubts(header, affine, codes)


def _both(header: Any) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Both forms, and which of them cannot be made into an affine."""
    forms = {"sform": np.asarray(header.get_sform(), dtype=np.float64)}
    try:
        forms["qform"] = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, nib.spatialimages.HeaderDataError):
        return forms, "qform"
    unusable = [form for form in FORMS if not _usable(forms[form])]
    return forms, unusable[0] if len(unusable) == 1 else ""


def _usable(affine: NDArray[Any]) -> bool:
    return bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12


def _one_of(
    path: Path, forms: dict[str, NDArray[np.float64]], damaged: str, affine_from: str | None, scale: NDArray[Any]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The form that is left where the other is damaged; with neither asked for, as the s-form alone."""
    if affine_from == damaged or (damaged == "sform" and affine_from is None):
        other = "qform" if damaged == "sform" else "sform"
        raise VolumeError(
            f"{path}: its {damaged} is singular or damaged; expected an invertible one. Use the other with --affine-from {other}, or "
            "repair the header",
            code="singular-affine",
        )
    kept = next(form for form in FORMS if form != damaged)
    return scale @ forms[kept], (f"header: its {damaged} is damaged; the {kept} was used",)


def contradictions(
    qform: NDArray[Any], sform: NDArray[Any], codes: dict[str, int], shape: tuple[int, int, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what two affines (4 × 4, mm) of one image contradict each other about: what makes it unusable, and what a
    person should look at.

    Two codes may name two spaces, so that place and rotation may differ; with one code there is one place.
    """
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (qform, sform)]
    serious = []
    if np.abs(sizes[0] / sizes[1] - 1).max() > SIZE_TOLERANCE:
        serious.append("the voxel size")
    if np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0:
        serious.append("handedness")
    q_codes, s_codes = (nib.orientations.aff2axcodes(affine) for affine in (qform, sform))
    if _left_right(q_codes) != _left_right(s_codes):
        serious.append("left and right")
    if serious:
        return tuple(serious), ()
    if q_codes != s_codes:
        return (), ("orientation",)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    apart = np.linalg.norm((qform - sform)[:3, :3] @ corners + (qform - sform)[:3, 3:], axis=0).max()
    return (), ("place, under one code",) if codes["qform"] == codes["sform"] and apart > PLACE_TOLERANCE_MM else ()


def _left_right(axes: tuple[str | None, ...]) -> tuple[int, str | None]:
    """Which stored axis runs between left and right, and towards which."""
    return next(((i, axis) for i, axis in enumerate(axes) if axis in ("L", "R")), (-1, None))


def _size_doubts(header: Any, affine: NDArray[Any], codes: dict[str, int]) -> tuple[str, ...]:
    """An s-form alone whose voxels measure otherwise than ``pixdim`` says."""
    told, found = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)), np.linalg.norm(affine[:3, :3], axis=0)
    if codes["sform"] <= 0 or not (np.isfinite(told).all() and told.all() and np.isfinite(found).all()):
        return ()
    if np.abs(found / told - 1).max() <= SIZE_TOLERANCE:
        return ()
    sizes = [" × ".join(f"{n:g}" for n in np.round(size, 4)) for size in (told, found)]
    return (f"header: pixdim says voxels of {sizes[0]}, the s-form {sizes[1]}; the s-form was used",)


def _written(affine: NDArray[Any], code: int) -> str:
    rows = "; ".join(" ".join(f"{value:.5g}" for value in row) for row in affine[:3] + 0.0)
    return f"(code {code}) [{rows}]"
