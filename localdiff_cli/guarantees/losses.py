"""From drawings to the losses of a patient, one number in [0, 1] for each risk and each place of the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localdiff_cli.evaluation.metrics import harm
from localdiff_cli.evaluation.metrics.harm import Drawn, Lesion, Scene

Record = dict[str, Any]
"""What was measured: ``covered`` of the map; at each place of the ``grid``, in its order, ``lesions``, ``spotted``, ``false``."""


@dataclass(frozen=True)
class Risk:
    """A risk: its ``name`` for options and files, what it ``says``, whether it needs ``lesions``, and the ``loss`` of a
    record at a place of the grid, with its τ."""

    name: str
    says: str
    lesions: bool
    loss: Callable[[Record, int, float], float | None]


def record_of(drawings: Sequence[tuple[Drawn, Scene]]) -> Record:
    """Return what the losses are made of: one drawing for each place of the grid."""
    return {
        "covered": harm.covered_up_to(drawings[0][0]),
        "grid": [
            {
                "lesions": [asdict(lesion) for lesion in harm.lesions_of(drawn, scene)],
                "spotted": harm.spotted_slices(drawn, scene),
                "false": harm.false_ml(drawn, scene),
            }
            for drawn, scene in drawings
        ],
    }


def _uncovered(record: Record, place: int, tau: float) -> float | None:
    covered = record["covered"]
    return float(np.mean([tau > reach for reach in covered])) if covered else None


def _missed(record: Record, place: int, tau: float) -> float | None:
    answered, showing = harm.share_kept([Lesion(**lesion) for lesion in record["grid"][place]["lesions"]], "answered")
    return 1 - answered / showing if showing else None


def _invented(record: Record, place: int, tau: float) -> float | None:
    spotted, free = record["grid"][place]["spotted"]
    return spotted / free if free else None


def harmed(limit: float) -> Callable[[Record, int, float], float | None]:
    """Return a loss that is 1 for a patient into whom more than ``limit`` millilitres are falsely drawn, else 0."""
    return lambda record, place, tau: float(record["grid"][place]["false"] > limit)


def risks(harm_ml: float) -> dict[str, Risk]:
    """Return all that can be promised."""
    every = (
        Risk("uncovered", "share of a patient's lesions of which the map covers less than half", True, _uncovered),
        Risk("missed", "share of a patient's lesions neither drawn with half their contrast nor called unknown", True, _missed),
        Risk("invented", "share of a patient's lesion-free slices with a falsely drawn spot above 30 mm²", False, _invented),
        Risk("harm", f"patients with more than {harm_ml:g} ml falsely drawn", False, harmed(harm_ml)),
    )
    return {risk.name: risk for risk in every}


def losses(risk: Risk, records: Sequence[Record], taus: Sequence[float]) -> NDArray[np.float64]:
    """Return the losses ``(n, k)`` of the patients in whom the risk can be measured, at the places of the grid, of which
    ``taus`` are the cuts."""
    rows = [[risk.loss(record, place, tau) for place, tau in enumerate(taus)] for record in records]
    return np.array([row for row in rows if None not in row], np.float64).reshape(-1, len(taus))
