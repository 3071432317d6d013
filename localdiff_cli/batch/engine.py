"""The loop over volumes that every command shares: skip what is done, isolate what fails, account for everything."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from localdiff_cli.batch.discover import Found, Item
from localdiff_cli.batch.report import Reporter
from localdiff_cli.errors import EXIT_OK, EXIT_SIGTERM, EXIT_SOME_FAILED, LocaldiffError, UsageError, VolumeError
from localdiff_cli.volumes.contrast import read_sidecar, sidecar_path
from localdiff_cli.volumes.reader import file_hash
from localdiff_cli.volumes.writer import write_text


@dataclass(frozen=True)
class Outcome:
    """What one volume's work gave: sidecar facts, the verdict's reasons to review it, table rows for ``slices.tsv``."""

    facts: dict[str, Any]
    review: tuple[str, ...] = ()
    slice_rows: tuple[dict[str, Any], ...] = ()


class Work(Protocol):
    """One command's work on one volume."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result; equal settings and input mean equal output."""
        ...

    def outputs(self, item: Item) -> list[Path]:
        """All volumes that the work writes for this item; the sidecar lies beside the first."""
        ...

    def companions(self, item: Item) -> list[Path]:
        """Further files that decide this item's result: its own mask, map or reference."""
        ...

    def __call__(self, item: Item, on_slice: Callable[[int, int], None]) -> Outcome:
        """Do it."""
        ...


@dataclass
class Tally:
    """What became of the volumes."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    verdicts: list[tuple[str, str, str]] = field(default_factory=list)
    slice_rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or 1 where some volume failed."""
        return EXIT_SOME_FAILED if self.failures else EXIT_OK


class Terminated(BaseException):
    """SIGTERM: the scheduler wants the node back."""

    exit_code = EXIT_SIGTERM


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: the caller owns the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def state_of(work: Work, item: Item, *, overwrite: bool) -> str:
    """``done`` (whole and of these settings) or ``open``. Raises :class:`VolumeError` for outputs that are not ours to replace."""
    output = work.outputs(item)[0]
    if overwrite or not any(path.exists() for path in work.outputs(item)):
        return "open"
    sidecar = read_sidecar(output)
    if not sidecar.get("LocaldiffVersion"):
        # The sidecar is written last: without one, an output of ours was cut off, or the file is somebody else's.
        todo = "replace it with --overwrite, or choose another --out"
        raise VolumeError(f"{output}: exists without a localdiff sidecar; {todo}", code="exists")
    if sidecar.get("Settings") != json.loads(json.dumps(work.settings)) or {k: sidecar.get(k) for k in SOURCES} != _sources(work, item):
        raise VolumeError(
            f"{output}: exists, made from another input or with other settings ({_difference(sidecar.get('Settings'), work.settings)}); "
            "replace it with --overwrite, or choose another --out",
            code="exists",
        )
    written = sidecar.get("OutputSHA256")
    hashes = written if isinstance(written, dict) else {}
    return "done" if all(path.exists() and hashes.get(path.name) == file_hash(path) for path in work.outputs(item)) else "open"


def _sources(work: Work, item: Item) -> dict[str, Any]:
    """The content of every file that decides this item's result."""
    return {"SourceSHA256": file_hash(item.path), "CompanionSHA256": [file_hash(path) for path in work.companions(item)]}


SOURCES = ("SourceSHA256", "CompanionSHA256")


def _difference(before: Any, now: dict[str, Any]) -> str:
    before = before if isinstance(before, dict) else {}
    now = json.loads(json.dumps(now))
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {before.get(key)} then, {now.get(key)} now" for key in keys[:4]) or "the input changed"


def check_collisions(work: Work, items: tuple[Item, ...]) -> None:
    """Refuse two inputs that would write the same output, and outputs on top of inputs. Raises :class:`UsageError`."""
    seen: dict[Path, Path] = {}
    inputs = {item.path.resolve() for item in items}
    for item in items:
        for path in work.outputs(item):
            if path.resolve() in inputs:
                raise UsageError(f"{path}: the output would replace an input; choose another --out", code="in-is-out")
            key = sidecar_path(path)
            if seen.setdefault(key, item.path) != item.path:
                raise UsageError(f"{item.path} and {seen[key]} would both write {path}; rename one, or run them apart", code="collision")


def _write_sidecar(work: Work, item: Item, outcome: Outcome, version: str) -> None:
    written = {path.name: file_hash(path) for path in work.outputs(item)}
    facts = {
        "LocaldiffVersion": version,
        "Sources": [printable(item.relative)],
        **_sources(work, item),
        "OutputSHA256": written,
        "Settings": work.settings,
        **outcome.facts,
        **({"Slices": list(outcome.slice_rows)} if outcome.slice_rows else {}),
        "Verdict": "review" if outcome.review else "pass",
        "ReviewReasons": list(outcome.review),
    }
    write_text(sidecar_path(work.outputs(item)[0]), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def _claimed(work: Work, item: Item, version: str) -> Iterator[None]:
    """Say beforehand whose outputs these will be: a run killed between an output and its sidecar can then be taken up again.

    A sidecar of ours that is there stays until the new one replaces it. Without any output the claim goes again.
    """
    output = work.outputs(item)[0]
    claim = sidecar_path(output)
    if not read_sidecar(output).get("LocaldiffVersion"):
        facts = {"LocaldiffVersion": version, "State": "unfinished", **_sources(work, item), "Settings": work.settings}
        write_text(claim, json.dumps(facts, indent=1) + "\n")
    try:
        yield
    except BaseException:
        if read_sidecar(output).get("State") == "unfinished" and not any(path.exists() for path in work.outputs(item)):
            claim.unlink(missing_ok=True)
        raise


def printable(relative: Path) -> str:
    """A volume's name for tables and sidecars; bytes that are not UTF-8 are marked."""
    return relative.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _check_name(path: Path) -> None:
    """Refuse a name that is not UTF-8: the library that reads ``.nii.gz`` would crash the process on it."""
    if printable(path) != path.as_posix():
        raise VolumeError(f"{printable(path)}: found a name that is not UTF-8; rename the file or its folder", code="name")


def _one(work: Work, item: Item, tally: Tally, reporter: Reporter, version: str, *, overwrite: bool, debug: bool) -> None:
    name = printable(item.relative)
    started = time.monotonic()
    try:
        _check_name(item.path)
        if state_of(work, item, overwrite=overwrite) == "done":
            sidecar = read_sidecar(work.outputs(item)[0])
            rows = [{"volume": name, **row} for row in sidecar.get("Slices", ())]
            reasons = tuple(map(str, sidecar.get("ReviewReasons", ())))
            tally.skipped.append(name)
            tally.slice_rows += rows
            _verdict(tally, name, reasons)
            reporter.detail(f"  {name}: already done")
            reporter.event("volume-skipped", volume=name)
            return
        with _claimed(work, item, version):
            outcome = work(item, reporter.slice)
            _write_sidecar(work, item, outcome, version)
    except Exception as error:  # whatever a library raises on one bad file must not end the run for the others
        if isinstance(error, LocaldiffError) and not isinstance(error, VolumeError):
            raise
        if debug:
            traceback.print_exc()
        code = error.code if isinstance(error, LocaldiffError) else "out-of-memory" if isinstance(error, MemoryError) else "internal"
        reason = printable(Path(str(error))) if isinstance(error, LocaldiffError) else f"{name}: {type(error).__name__}: {error}"
        tally.failures.append((name, code, reason))
        tally.verdicts.append((name, "failed", reason))
        reporter.problem(f"  failed: {reason}")
        reporter.event("volume-failed", volume=name, code=code, reason=reason)
        return
    tally.done.append(name)
    tally.slice_rows += [{"volume": name, **row} for row in outcome.slice_rows]
    _verdict(tally, name, outcome.review)
    reporter.event("volume-done", volume=name, seconds=round(time.monotonic() - started, 3), review=list(outcome.review))
    reporter.detail(f"  {name}: {time.monotonic() - started:.1f} s")


def _verdict(tally: Tally, name: str, review: tuple[str, ...]) -> None:
    tally.verdicts.append((name, "review" if review else "pass", "; ".join(review)))


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[cell.replace("\n", " ").replace("\t", " ") for cell in row] for row in rows])
    return buffer.getvalue()


def _write_tables(out: Path, tally: Tally) -> None:
    write_text(out / "qc.tsv", _table(("volume", "verdict", "reasons"), sorted(tally.verdicts)))
    columns = tuple(tally.slice_rows[0]) if tally.slice_rows else ()
    ordered = sorted(tally.slice_rows, key=lambda row: (row["volume"], int(row["slice"])))
    _write_or_remove(out / "slices.tsv", columns, [tuple(str(row.get(column, "")) for column in columns) for row in ordered])
    _write_or_remove(out / "failures.tsv", ("volume", "code", "reason"), sorted(tally.failures))


def _write_or_remove(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table, or none: what an earlier run left no longer holds."""
    if rows:
        write_text(path, _table(columns, rows))
    else:
        path.unlink(missing_ok=True)


def run(work: Work, found: Found, out: Path, reporter: Reporter, *, version: str, overwrite: bool = False, debug: bool = False) -> Tally:
    """Work on every volume; a bad one fails alone. Tables are written even when the run is interrupted."""
    check_collisions(work, found.items)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be made ({error.strerror})", code="unwritable") from error
    tally = Tally()
    reporter.event("run-started", volumes=len(found.items), skipped=len(found.skipped), settings=work.settings)
    if found.skipped:
        reporter.line(f"skipped {len(found.skipped)} files of other kinds (--verbose lists them)")
        for relative, reason in found.skipped:
            reporter.detail(f"  {printable(relative)}: {reason}")
    reporter.start(len(found.items))
    with _sigterm_raises():
        try:
            for number, item in enumerate(found.items, 1):
                reporter.volume(number, len(found.items), printable(item.relative))
                _one(work, item, tally, reporter, version, overwrite=overwrite, debug=debug)
                reporter.volume_done()
        finally:
            if tally.verdicts:
                _write_tables(out, tally)
    summarise(tally, out, reporter)
    return tally


def summarise(tally: Tally, out: Path, reporter: Reporter) -> None:
    """The last lines of a run."""
    review = sum(verdict == "review" for _, verdict, _ in tally.verdicts)
    reporter.event("run-finished", done=len(tally.done), already_done=len(tally.skipped), failed=len(tally.failures), review=review)
    already = f", {len(tally.skipped)} already done" if tally.skipped else ""
    reporter.line(f"{len(tally.done)} done{already}, {len(tally.failures)} failed, {review} to review (see {out / 'qc.tsv'})")
    if tally.failures:
        reporter.problem(f"{len(tally.failures)} failed, listed in {out / 'failures.tsv'}:")
        for name, code, reason in sorted(tally.failures):
            reporter.problem(f"  {name} [{code}] {reason}")
