"""Can the segmenter judge at all? On the true contrast its masks must agree with the experts', or its figures say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from localdiff_cli.evaluation.metrics.case import CaseResult
from localdiff_cli.evaluation.metrics.measure import rounded, values_of

WAYS_OUT = (
    "Ways out: masks that experts drew on the translations (--seg, --ref-seg, --baseline-seg), or a segmenter that knows these lesions "
    "(--segmenter)"
)


@dataclass(frozen=True)
class Judge:
    """The segmenter's mean ``dice`` with the expert masks on the true contrast over ``n`` patients with a lesion; ``least``
    is needed."""

    dice: float
    n: int
    least: float

    @property
    def usable(self) -> bool:
        """Whether its figures mean something."""
        return self.dice >= self.least

    @property
    def reason(self) -> str:
        """Why its figures are withheld; empty where they are not."""
        if self.usable:
            return ""
        return (
            f"withheld: on the true contrast itself the segmenter's Dice with the expert masks is {self.dice:.3f} "
            f"(n = {self.n}, at least {self.least:g} needed)"
        )


def judge_of(patients: Mapping[str, Sequence[CaseResult]], least: float) -> Judge | None:
    """Return the judge of an evaluation; None without expert masks, without a segmenter, or without a lesion it could be
    tried on."""
    means = [np.mean(found) for cases in patients.values() if (found := _own_dice(cases))]
    return Judge(rounded(np.mean(means)), len(means), least) if means else None


def _own_dice(cases: Sequence[CaseResult]) -> list[float]:
    """The Dice on the true contrast of the volumes that bear a lesion."""
    bearing = [case for case in cases if "lesions" in case.metrics and case.metrics["lesions"].value]
    return values_of(case.metrics["reference_dice"] for case in bearing if "reference_dice" in case.metrics)
