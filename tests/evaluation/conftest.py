"""Small volumes whose right answers are known by hand, and a cohort of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from localdiff_cli.evaluation.cohort.summary import Summary, Unpaired, summarise
from localdiff_cli.evaluation.metrics.case import Case, CaseResult, evaluate_case
from localdiff_cli.evaluation.metrics.image import DataRange
from localdiff_cli.evaluation.settings import FigureSettings

SHAPE = (13, 40, 36)
SPACING = (4.0, 1.0, 1.5)
UNIT = DataRange(1.0, "intensities normalised to [0, 1]")


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """An ellipsoid, bool."""
    grid = np.ogrid[tuple(slice(0, side) for side in shape)]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) <= 1


def make_case(seed: int = 0, kept: float = 1.0, lesion: bool = True) -> Case:
    """A brain with structure and a bright lesion; the translation keeps the share ``kept`` of its contrast, the baseline none."""
    rng = np.random.default_rng(seed)
    brain = ball(SHAPE, (6, 20, 18), (7, 17, 15))
    truth = ball(SHAPE, (5 + seed % 3, 15, 12 + seed % 5), (3, 5, 5)) & brain if lesion else np.zeros(SHAPE, bool)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5).astype(np.float32)
    healthy = (0.45 + 0.5 * texture).astype(np.float32)
    reference = np.where(brain, np.clip(healthy + 0.3 * truth, 0, 1), 0).astype(np.float32)
    noise = 0.02 * rng.normal(size=SHAPE).astype(np.float32)
    translation = np.where(brain, np.clip(healthy + 0.3 * kept * truth + noise, 0, 1), 0).astype(np.float32)
    baseline = np.where(brain, np.clip(healthy + 2 * noise, 0, 1), 0).astype(np.float32)
    return Case(
        name=f"sub-{seed:02d}",
        translation=translation,
        reference=reference,
        brain=brain,
        spacing=SPACING,
        data_range=UNIT,
        truth=truth,
        condition=1 - reference,
        baseline=baseline,
        segmentation=truth if kept > 0.5 else np.zeros(SHAPE, bool),
        reference_segmentation=truth,
        baseline_segmentation=np.zeros(SHAPE, bool),
        ood_map=np.clip(0.7 * truth + 0.2 * rng.random(SHAPE), 0, 1).astype(np.float32),
        ood_mask=truth,
    )


def without(case: Case, *fields: str) -> Case:
    """The case without some optional arrays."""
    return replace(case, **dict.fromkeys(fields))


@pytest.fixture(scope="session")
def settings() -> FigureSettings:
    return FigureSettings(resamples=500, seed=7)


@pytest.fixture(scope="session")
def results(settings) -> list[CaseResult]:
    """Seven patients: in two the translation loses the lesion, one has none."""
    kept = (1.0, 0.9, 0.1, 0.8, 0.0, 1.0)
    cases = [make_case(seed, share) for seed, share in enumerate(kept)] + [make_case(6, lesion=False)]
    return [evaluate_case(case, settings) for case in cases]


@pytest.fixture(scope="session")
def summary(results, settings) -> Summary:
    run = {"localdiff": "0.1.0", "bundles": {"t1-flair": "sha256 0123"}, "seed": 7}
    return summarise(results, settings, [Unpaired("sub-99_T2w.nii.gz", "no reference of that name")], run)
