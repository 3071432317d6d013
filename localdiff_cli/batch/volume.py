"""One volume, from claim to record: skip what is done, isolate what fails, leave nothing half-made."""

from __future__ import annotations

import json
import resource
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from localdiff_cli.batch.claims import Claim, Claims, key_of
from localdiff_cli.batch.discover import Item
from localdiff_cli.batch.records import BUSY, DONE, FAILED, Record, Records
from localdiff_cli.batch.work import OnSlice, Outcome, Say, VolumeRecipe, VolumeWork, printable
from localdiff_cli.errors import LocaldiffError, VolumeError
from localdiff_cli.volumes.contrast import read_sidecar, sidecar_path
from localdiff_cli.volumes.files import file_hash
from localdiff_cli.volumes.whole import sweep, write_text
from localdiff_cli.volumes.writer import output_files

TRANSIENT = ("crash", "out-of-memory", "unwritable", "unreadable", "input-output", "input-changed")
"""Errors that a second try can cure: a file system or a machine under load, an input that was being replaced."""
MAX_ATTEMPTS = 2
BUSY_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Sources:
    """The content of every file that decides an item's result, as SHA-256: the input's, and those of its mask, map or
    references."""

    source: str
    companions: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str | list[str]]:
        """For the sidecar."""
        return {"SourceSHA256": self.source, "CompanionSHA256": list(self.companions)}

    def told_by(self, sidecar: Mapping[str, Any]) -> bool:
        """Return whether a sidecar is about this content."""
        return all(sidecar.get(name) == value for name, value in self.facts.items())


def sources(work: VolumeWork, item: Item) -> Sources:
    """Return what the files of an item hold now."""
    return Sources(file_hash(item.path), tuple(file_hash(path) for path in work.companions(item)))


def state_of(work: VolumeWork, item: Item, outputs: list[Path], *, overwrite: bool, ours: bool = False) -> str:
    """Return ``done`` (whole, from this input and these settings) or ``open``; ``ours``: a claim says who left half of it.

    Raise :class:`VolumeError` for outputs that are not ours to replace.
    """
    if not any(path.exists() for path in outputs):
        return "open"
    sidecar = read_sidecar(outputs[0])
    if not sidecar.get("LocaldiffVersion"):
        if overwrite or ours:
            return "open"
        # The sidecar is written last: without one, an output of ours was cut off, or the file is somebody else's.
        todo = "replace it with --overwrite, or choose another --out"
        there = next(path for path in outputs if path.exists())
        sidecar_is = f"the sidecar {sidecar_path(outputs[0]).name} that would name it" if there != outputs[0] else "a localdiff sidecar"
        raise VolumeError(f"{there}: exists without {sidecar_is}; {todo}", code="exists")
    if sidecar.get("Settings") != json.loads(json.dumps(work.settings)) or not sources(work, item).told_by(sidecar):
        if overwrite:
            return "open"
        difference = _difference(sidecar.get("Settings"), work.settings)
        raise VolumeError(
            f"{outputs[0]}: exists, made from another input or with other settings ({difference}); "
            "replace it with --overwrite, or choose another --out",
            code="exists",
        )
    written = sidecar.get("OutputSHA256")
    hashes = written if isinstance(written, dict) else {}
    return "done" if all(path.exists() and hashes.get(path.name) == file_hash(path) for path in outputs) else "open"


def _difference(before: Any, now: dict[str, Any]) -> str:
    before = before if isinstance(before, dict) else {}
    now = json.loads(json.dumps(now))
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {before.get(key)} then, {now.get(key)} now" for key in keys[:4]) or "the input changed"


def _remove_others(folder: Path, earlier: object, written: Mapping[str, str]) -> None:
    """Remove what an earlier run wrote of this volume and this one did not: it would pass for this one's. Changed files stay."""
    for name, digest in earlier.items() if isinstance(earlier, dict) else ():
        path = folder / str(name)
        if name not in written and path.name == name and path.is_file() and file_hash(path) == digest:
            for part in output_files(path):
                part.unlink(missing_ok=True)


def peak_megabytes() -> float:
    """Return the peak memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _check_name(path: Path) -> None:
    """Refuse a name that is not UTF-8: the library that reads ``.nii.gz`` would crash the process on it."""
    if printable(path) != path.as_posix():
        raise VolumeError(f"{printable(path)}: found a name that is not UTF-8; rename the file or its folder", code="name")


def _check_unchanged(item: Item, before: Sources, after: Sources) -> None:
    """Refuse a result whose input, or mask, map or reference, was replaced while it was made: nobody could say what it is of."""
    if before != after:
        which = "the input" if before.source != after.source else "its mask, map or reference"
        raise VolumeError(
            f"{item.path}: {which} changed while it was being processed; run the same command when nothing writes there",
            code="input-changed",
        )


@dataclass(frozen=True)
class Recorded:
    """A command's recipe under claims and records: the engine's :class:`~localdiff_cli.batch.work.Recipe` for volumes."""

    recipe: VolumeRecipe
    out: Path
    version: str
    overwrite: bool = False
    debug: bool = False

    def name(self, item: Item) -> str:
        """Return the volume's name in messages and tables."""
        return printable(item.relative)

    def load(self, say: Say) -> RecordedWork:
        """Load the networks. Raise :class:`LocaldiffError` where they cannot be used."""
        return RecordedWork(self, self.recipe.load(say), Claims(self.out), say)

    def pause(self, record: Record, attempt: int) -> float | None:
        """Return the seconds after which to try again; None where the record is final."""
        if record.state == BUSY:
            return BUSY_POLL_SECONDS
        return 0.0 if record.state == FAILED and record.code in TRANSIENT and attempt < MAX_ATTEMPTS else None

    def lost(self, item: Item, attempt: int, code: str, reason: str) -> Record:
        """Return the record of a volume whose worker died or hung; remove what it left half-made."""
        outputs = self.recipe.outputs(item)
        for path in (*outputs, sidecar_path(outputs[0])):
            sweep(path)
        if read_sidecar(outputs[0]).get("LocaldiffVersion") or not any(path.exists() for path in outputs):
            with suppress(OSError):
                Claims(self.out).clear_stale(key_of(self.name(item)))
        record = Record(self.name(item), FAILED, code, f"{self.name(item)}: {reason}", attempt, finished=_now())
        with suppress(VolumeError, OSError):
            Records(self.out).write(record)
        return record


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, eq=False)
class RecordedWork:
    """The command's work on one volume after another, each from claim to record."""

    recorded: Recorded
    work: VolumeWork
    claims: Claims
    say: Say

    def __call__(self, item: Item, attempt: int, on_slice: OnSlice) -> Record:
        """Return the record of one volume. Raise :class:`LocaldiffError` only where no volume at all can be worked on."""
        name, started = self.recorded.name(item), time.monotonic()
        try:
            record = self._record(item, name, attempt, on_slice)
        except Exception as error:  # whatever a library raises on one bad file must not end the run for the others
            if isinstance(error, LocaldiffError) and not isinstance(error, VolumeError):
                raise
            if self.recorded.debug:
                traceback.print_exc()
            code = error.code if isinstance(error, LocaldiffError) else _code_of(error)
            reason = printable(Path(str(error))) if isinstance(error, LocaldiffError) else f"{name}: {type(error).__name__}: {error}"
            record = Record(name, FAILED, code, reason)
        if record.state == BUSY:
            return record
        if record.fresh:
            seconds = round(time.monotonic() - started, 3)
            record = replace(record, attempts=attempt, seconds=seconds, device=self.work.device, peak_mb=peak_megabytes(), finished=_now())
            self._keep(record)
        return record

    def _keep(self, record: Record) -> None:
        with suppress(VolumeError, OSError):  # the sidecar says it too; the tables only lack a row
            Records(self.recorded.out).write(record)

    def _record(self, item: Item, name: str, attempt: int, on_slice: OnSlice) -> Record:
        _check_name(item.path)
        outputs, key = self.recorded.recipe.outputs(item), key_of(name)
        if not self.claims.path(key).exists() and self._is_done(item, outputs):
            return self._known(outputs, name)
        try:
            claim = self.claims.take(key, name)
        except OSError as error:
            reason = f"cannot be written or locked ({error.strerror}); check its permissions, and that its file system has locks (flock)"
            raise VolumeError(f"{self.recorded.out}: {reason}", code="unwritable") from error
        if claim is None:
            return Record(name, BUSY, reason=f"in work by {self.claims.holder(key)}")
        try:
            if claim.inherited or attempt > 1:
                for path in (*outputs, sidecar_path(outputs[0]), Records(self.recorded.out).path(name)):
                    sweep(path)
            if state_of(self.work, item, outputs, overwrite=self.recorded.overwrite, ours=claim.inherited) == "done":
                return self._known(outputs, name)
            return self._make(item, name, outputs, on_slice)
        finally:
            self._give_back(claim, outputs)

    def _is_done(self, item: Item, outputs: list[Path]) -> bool:
        """Whether a volume is done as far as can be seen without a claim: another run may begin with it meanwhile, and half
        of its outputs is nobody's fault."""
        with suppress(VolumeError):
            return state_of(self.work, item, outputs, overwrite=self.recorded.overwrite) == "done"
        return False

    def _give_back(self, claim: Claim, outputs: list[Path]) -> None:
        """Release a claim; leave it where half of an output is still there, so that the next try or run knows whose it is."""
        half = claim.inherited and not read_sidecar(outputs[0]).get("LocaldiffVersion") and any(path.exists() for path in outputs)
        with suppress(OSError):
            self.claims.leave(claim) if half else self.claims.release(claim)

    def _make(self, item: Item, name: str, outputs: list[Path], on_slice: OnSlice) -> Record:
        before, made_of = [path for path in outputs if path.exists()], sources(self.work, item)
        earlier = read_sidecar(outputs[0]).get("OutputSHA256")
        try:
            outcome = self._halving(item, name, on_slice)
            _check_unchanged(item, made_of, sources(self.work, item))
            written = {path.name: file_hash(path) for path in outputs}
            facts = {
                "LocaldiffVersion": self.recorded.version,
                "Sources": [name],
                "SpatialReference": name,
                **made_of.facts,
                "OutputSHA256": written,
                "Settings": self.work.settings,
                **outcome.facts,
                **({"Slices": list(outcome.slice_rows)} if outcome.slice_rows else {}),
                "Verdict": "review" if outcome.review else "pass",
                "ReviewReasons": list(outcome.review),
            }
            write_text(sidecar_path(outputs[0]), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
            _remove_others(outputs[0].parent, earlier, written)
        except BaseException:
            if not read_sidecar(outputs[0]).get("LocaldiffVersion"):
                for path in outputs:  # an output without its sidecar would be nobody's
                    for part in output_files(path) if path not in before else ():
                        with suppress(OSError):
                            part.unlink(missing_ok=True)
            raise
        return Record(name, DONE, **self._described(outputs, facts), fresh=True)

    def _halving(self, item: Item, name: str, on_slice: OnSlice) -> Outcome:
        """The work; where the device's memory does not hold the batch, with half of it: slower, the same result."""
        work: VolumeWork | None = self.work
        while True:
            assert work is not None
            try:
                return work(item, on_slice)
            except Exception as error:
                work = work.smaller() if type(error).__name__ == "OutOfMemoryError" else None
                if work is None:
                    raise
                self.say(f"  {name}: the device's memory was full; trying again with half the batch")

    def _known(self, outputs: list[Path], name: str) -> Record:
        """The record of a volume that was done before."""
        sidecar = read_sidecar(outputs[0])
        records = Records(self.recorded.out)
        kept = records.read(records.path(name))
        described = self._described(outputs, sidecar)
        if kept is not None and kept.state == DONE and kept.output_sha256 == described["output_sha256"]:
            return kept
        record = Record(name, DONE, device=self.work.device, **described, fresh=False)
        self._keep(record)
        return record

    def _described(self, outputs: list[Path], sidecar: dict[str, Any]) -> dict[str, Any]:
        return {
            "output": outputs[0].relative_to(self.recorded.out).as_posix(),
            "source_sha256": str(sidecar.get("SourceSHA256", "")),
            "output_sha256": dict(sidecar.get("OutputSHA256", {})),
            "review": tuple(map(str, sidecar.get("ReviewReasons", ()))),
            "slices": tuple({**row} for row in sidecar.get("Slices", ())),
        }


def _code_of(error: Exception) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out-of-memory"
    return "input-output" if isinstance(error, OSError) else "internal"
