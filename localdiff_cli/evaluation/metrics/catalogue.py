"""The one list of all figures: key, label, unit, which way is better, what it means. Tables, limits and the report read it
here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from localdiff_cli.evaluation.metrics.image import REGIONS
from localdiff_cli.evaluation.metrics.intervals import INTERVAL_REGIONS

Better = Literal["higher", "lower", ""]

ARMS: Mapping[str, str] = {"": "translation", "baseline_": "baseline", "reference_": "reference"}
"""Prefix of a figure's key → the image it judges. The reference is the true target contrast."""


@dataclass(frozen=True)
class Metric:
    """A figure of one volume. ``better`` is empty where neither way is better; ``decimals`` is for people, tables hold 6
    digits."""

    key: str
    label: str
    unit: str
    better: Better
    decimals: int
    group: str
    meaning: str


REGION_LABELS = {
    "whole": "whole volume",
    "brain": "brain",
    "lesion": "inside the lesion",
    "ring": "ring around the lesion",
    "outside": "brain minus lesion",
}

_IMAGE: tuple[tuple[str, str, str, Better, int, str], ...] = (
    ("psnr", "PSNR", "dB", "higher", 2, "peak signal-to-noise ratio for the stated data range"),
    ("ssim", "SSIM, 3D", "", "higher", 3, "mean of the 3D SSIM map inside the mask"),
    ("ssim_slices", "SSIM, slice mean", "", "higher", 3, "mean over slices of the 2D SSIM map's mean inside the mask"),
    ("mae", "MAE", "", "lower", 4, "mean absolute error, in units of the images"),
    ("nrmse", "NRMSE", "", "lower", 3, "root mean square error over the reference's root mean square"),
)

_OTHERS: tuple[Metric, ...] = (
    Metric("contrast", "Lesion contrast", "", "", 3, "lesion", "lesion mean minus ring mean, as a share of the data range"),
    Metric("contrast_difference", "Contrast, minus true", "", "", 3, "lesion", "lesion contrast minus the reference's"),
    Metric("contrast_error", "Contrast error", "", "lower", 3, "lesion", "size of the difference to the reference's lesion contrast"),
    Metric("slice_contrast_slope", "Contrast slope", "", "", 2, "lesion", "over the volume's slices, against the reference: 1 is faithful"),
    Metric("slice_contrast_correlation", "Contrast correlation", "", "higher", 2, "lesion", "over the volume's slices, Pearson"),
    Metric("slice_contrast_bias", "Contrast bias", "", "", 3, "lesion", "over the volume's slices, mean difference to the reference"),
    Metric("dice", "Dice", "", "higher", 3, "segmentation", "segmenter's mask against the truth, whole volume"),
    Metric("hd95_mm", "95 % Hausdorff", "mm", "lower", 1, "segmentation", "larger of the two directed 95th percentiles"),
    Metric("surface_dice", "Surface Dice", "", "higher", 3, "segmentation", "share of both surfaces within the tolerance"),
    Metric("lesion_sensitivity", "Lesion sensitivity", "", "higher", 2, "segmentation", "share of true lesions touched by the mask"),
    Metric("lesion_precision", "Lesion precision", "", "higher", 2, "segmentation", "share of marked regions that touch a true lesion"),
    Metric("volume_difference_mm3", "Volume difference", "mm³", "", 0, "segmentation", "marked minus true volume"),
    Metric("lesion_bearing_slices", "Lesion-bearing slices", "", "", 0, "misdiagnosis", "truth over the set share of the slice's brain"),
    Metric("found_slices", "Found on the true contrast", "", "", 0, "misdiagnosis", "of the lesion-bearing slices"),
    Metric("missed_slices", "Missed slices", "", "", 0, "misdiagnosis", "found on the true contrast, lost on the image"),
    Metric("lesion_free_slices", "Lesion-free slices", "", "", 0, "misdiagnosis", "brain slices without a voxel of truth"),
    Metric("invented_slices", "Invented slices", "", "", 0, "misdiagnosis", "lesion-free, yet the segmenter marks a lesion"),
    Metric("ood_auroc", "OOD map AUROC", "", "higher", 3, "ood", "chance that a lesion voxel scores above another brain voxel"),
    Metric("ood_aupro", "OOD map AUPRO", "", "higher", 3, "ood", "per-region overlap up to the set false-positive rate, normalised"),
    Metric("ood_average_precision", "OOD map average precision", "", "higher", 3, "ood", "precision averaged over recall"),
    Metric("ood_dice", "OOD mask Dice", "", "higher", 3, "ood", "of the map cut at --tau"),
    Metric("psnr_own_max", "PSNR, each over its own maximum", "dB", "higher", 2, "papers", "whole volume, as in most papers; air counts"),
    Metric("ssim_slices_own_max", "SSIM, each over its own maximum", "", "higher", 3, "papers", "whole slices, as in most papers"),
    Metric("mae_own_max", "MAE, each over its own maximum", "", "lower", 4, "papers", "whole volume, as most papers count; air counts"),
    Metric("frc_frequency", "sFRC: supported up to", "", "higher", 3, "image", "mean over patches, share of the Nyquist frequency"),
    Metric("frc_unsupported", "sFRC: unsupported", "", "lower", 3, "image", "share of patches whose coarse structure differs"),
    Metric("lesions", "Lesions", "", "", 0, "lesion", "connected components of the truth"),
    Metric("lesions_found", "Lesions found", "", "higher", 1, "single lesions", "touched by the segmenter's mask"),
    Metric("lesions_missed", "Lesions missed", "", "lower", 1, "single lesions", "found on the true contrast, lost on the image"),
    Metric("lesions_invented", "Lesions invented", "", "lower", 1, "single lesions", "marked components that touch no lesion"),
    Metric("lesion_contrast_kept", "Lesion contrast kept", "", "", 2, "lesion", "median over lesions; 1 is faithful, 0 erased"),
)

_INTERVALS: tuple[tuple[str, str, Better, str], ...] = (
    ("coverage", "Interval coverage", "higher", "share of voxels whose true value lies between --lo and --hi"),
    ("width", "Interval width", "lower", "mean distance of the two limits, as a share of the data range"),
)

METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        *(
            Metric(f"{key}_{region}", f"{label}, {REGION_LABELS[region]}", unit, better, decimals, "image", meaning)
            for region in REGIONS
            for key, label, unit, better, decimals, meaning in _IMAGE
        ),
        *_OTHERS,
        *(
            Metric(f"{key}_{region}", f"{label}, {words}", "", better, 3, "interval", meaning)
            for region, words in INTERVAL_REGIONS.items()
            for key, label, better, meaning in _INTERVALS
        ),
    )
}
"""All figures of a volume, in the order of the tables; arms other than the translation put their prefix before the key."""

JUDGED = ("segmentation", "misdiagnosis", "single lesions")
"""The groups of figures that are worth as much as the segmenter that made them."""

RATES: Mapping[str, tuple[str, Better]] = {
    "missed": ("Missed slices", "lower"),
    "missed_patients": ("Missed patients", "lower"),
    "invented": ("Invented slices", "lower"),
}
"""Shares over all patients: key → label and which way is better."""


def split_arm(key: str) -> tuple[str, Metric]:
    """Return the arm's prefix and the figure of a table's key. Raise ``KeyError`` for an unknown key."""
    for prefix in ("baseline_", "reference_"):
        if key.startswith(prefix) and key.removeprefix(prefix) in METRICS:
            return prefix, METRICS[key.removeprefix(prefix)]
    return "", METRICS[key]


def in_table_order(keys: set[str]) -> list[str]:
    """Return the keys sorted as :data:`METRICS` lists them, the arms of one figure side by side."""
    return [prefix + key for key in METRICS for prefix in ARMS if prefix + key in keys]
