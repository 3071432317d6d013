"""What harm costs in a loss: error towards disease where there is no lesion, and away from it in one.

Squared error alone draws the mean of what the condition leaves open: a lesion that may be bright or very bright comes out
pale, and a spot that may be bright comes out half bright. A larger cost of one side moves the prediction from the mean
towards the other, as in asymmetric least squares (Newey and Powell, *Asymmetric least squares estimation and testing*,
Econometrica 1987), the more the less the condition says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from torch import Tensor

from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.harm import MARGIN
from localdiff_cli.volumes.looks import LOOKS

Penalty = Callable[[Tensor, Tensor], Tensor]
"""Prediction of x_0 and x_0, each ``(N, 1, H, W)`` in [−1, 1] → what each pixel costs beyond its squared error."""


@dataclass(frozen=True)
class HarmSettings:
    """``sign``: +1 where disease is bright in the target, −1 where it is dark. ``invented``: so many times the square of what
    exceeds the truth by more than ``MARGIN`` is added outside lesions; ``erased``: so many times the square of what falls
    short of it is added in lesions."""

    sign: int = 1
    invented: float = 0.0
    erased: float = 0.0

    def account(self) -> dict[str, float]:
        """Return the settings for a card or a checkpoint's identity; nothing where neither costs more."""
        told = {name: value for name, value in asdict(self).items() if name != "sign" and value}
        return told | ({"margin": MARGIN} if self.invented else {})


EQUAL = HarmSettings()
"""Harm costs no more than any other error."""


def harm_settings(contrast: str, prediction: str, invented: float, erased: float = 0.0) -> HarmSettings:
    """Return the settings for a target contrast. Raise :class:`UsageError` where it is not known how that shows disease, or
    the network does not predict x_0."""
    if not invented and not erased:
        return EQUAL
    if contrast not in LOOKS:
        told = f"--invented-weight, --erased-weight: the target is {contrast}, on which disease may be bright or dark"
        raise UsageError(f"{told}; expected a target among {', '.join(LOOKS)}, or neither weight", code="contrast")
    if prediction != "sample":
        told = f"--invented-weight, --erased-weight: the network predicts {prediction}"
        raise UsageError(f"{told}; expected one that predicts x_0 (--prediction sample), or neither weight", code="choice")
    return HarmSettings(LOOKS[contrast].sign, invented, erased)


def harm_penalty(settings: HarmSettings, lesion: Tensor) -> Penalty | None:
    """Return what harm costs in a batch with these lesions ``(N, 1, H, W)`` of 0 and 1; None where it costs nothing more."""
    return partial(_penalty, settings, lesion) if settings.account() else None


def _penalty(settings: HarmSettings, lesion: Tensor, predicted: Tensor, x0: Tensor) -> Tensor:
    towards, lesion = settings.sign * (predicted - x0), lesion.to(predicted.device)
    invented = (towards - 2 * MARGIN).clamp(min=0).square()
    erased = (-towards).clamp(min=0).square()
    return settings.invented * (1 - lesion) * invented + settings.erased * lesion * erased
