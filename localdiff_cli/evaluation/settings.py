"""Everything about an evaluation that can be set, as one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field

from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings


@dataclass(frozen=True)
class FigureSettings:
    """How translations are judged.

    ``skull_strip``: both images are set to 0 outside the brain before they are compared. ``realism``: FID and KID too.
    ``ring_gap_mm`` and ``ring_mm``: the ring
    begins that far from the lesion and is that wide. ``surface_tolerance_mm``: of the normalised surface Dice. ``pro_limit``: the
    false-positive rate to which AUPRO integrates. ``confidence``, ``resamples`` and ``seed``: the bootstrap over patients.
    ``judge_dice``: least mean Dice over patients that the segmenter must have with expert masks on the true contrast.
    ``frc_threshold`` and ``frc_frequency``: a patch is unsupported whose ring correlation falls below the one before the other
    (share of the Nyquist frequency). ``picture_px``: longest side of a picture in the report. The
    labels name translation and baseline in the report.
    Raises :class:`UsageError` where a number is out of its range.
    """

    skull_strip: bool = True
    realism: bool = False
    ring_gap_mm: float = 1.0
    ring_mm: float = 5.0
    surface_tolerance_mm: float = 2.0
    pro_limit: float = 0.3
    misdiagnosis: MisdiagnosisSettings = field(default_factory=MisdiagnosisSettings)
    judge_dice: float = 0.3
    frc_threshold: float = 0.5
    frc_frequency: float = 0.2
    confidence: float = 0.95
    resamples: int = 5000
    seed: int = 0
    picture_px: int = 176
    translation_label: str = "local"
    baseline_label: str = "plain"

    def __post_init__(self) -> None:
        checks = {
            "ring_gap_mm ≥ 0": self.ring_gap_mm >= 0,
            "ring_mm > 0": self.ring_mm > 0,
            "surface_tolerance_mm ≥ 0": self.surface_tolerance_mm >= 0,
            "0 < pro_limit ≤ 1": 0 < self.pro_limit <= 1,
            "0 ≤ judge_dice ≤ 1": 0 <= self.judge_dice <= 1,
            "0 < frc_threshold < 1": 0 < self.frc_threshold < 1,
            "0 < frc_frequency < 1": 0 < self.frc_frequency < 1,
            "0 < confidence < 1": 0 < self.confidence < 1,
            "resamples ≥ 100": self.resamples >= 100,
            "picture_px ≥ 32": self.picture_px >= 32,
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise UsageError(f"evaluation settings: expected {', '.join(broken)}; found {self}", code="evaluation-settings")
