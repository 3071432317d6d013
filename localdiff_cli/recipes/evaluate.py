"""The recipe of ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localdiff_cli.batch.work import OnSlice, Say
from localdiff_cli.errors import VolumeError

if TYPE_CHECKING:
    from localdiff_cli.evaluation.metrics.case import CaseResult
    from localdiff_cli.tasks.evaluation import CaseFiles, CaseSettings
    from localdiff_cli.tasks.judges import Segmenter, SliceFeatures

TRIES = 2


@dataclass(frozen=True)
class Unmeasured:
    """A case that could not be evaluated, and why."""

    name: str
    reason: str
    code: str


@dataclass(frozen=True)
class EvaluateRecipe:
    """How any process evaluates cases."""

    options: CaseSettings

    def name(self, files: CaseFiles) -> str:
        """Return the case's name in messages."""
        return files.name

    def load(self, say: Say) -> EvaluateWork:
        """Load the segmenter, if there is one. Raise :class:`LocaldiffError` where it cannot be used."""
        from localdiff_cli.tasks.judges import Segmenter, SliceFeatures

        segmenter = Segmenter(self.options.segmenter) if self.options.segmenter else None
        return EvaluateWork(self.options, segmenter, SliceFeatures() if self.options.settings.realism else None)

    def pause(self, result: CaseResult | Unmeasured, attempt: int) -> float | None:
        """Return when to try again: a crash may pass, so a case is tried once more."""
        return 0.0 if isinstance(result, Unmeasured) and result.code == "crash" and attempt < TRIES else None

    def lost(self, files: CaseFiles, attempt: int, code: str, reason: str) -> Unmeasured:
        """Return the result of a case whose worker died or hung."""
        return Unmeasured(files.name, f"{files.name}: {reason}", code)


@dataclass(frozen=True, eq=False)
class EvaluateWork:
    """Measures one case after another; a case that cannot be measured is reported as such and stops nothing."""

    options: CaseSettings
    segmenter: Segmenter | None
    features: SliceFeatures | None

    def __call__(self, files: CaseFiles, attempt: int, on_slice: OnSlice) -> CaseResult | Unmeasured:
        """Return the figures of one case."""
        from localdiff_cli.tasks.evaluation import measure

        try:
            return measure(files, self.options, self.segmenter, self.features)
        except VolumeError as error:
            return Unmeasured(files.name, str(error), error.code)
        except Exception as error:  # whatever a library raises on one bad case must not end the run for the others
            return Unmeasured(files.name, f"{files.name}: {type(error).__name__}: {error}", "internal")
