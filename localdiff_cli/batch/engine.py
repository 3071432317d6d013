"""The run over a folder that every command shares: plan, work (here, in processes or on a cluster), account for everything."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from localdiff_cli.batch.ahead import Ahead
from localdiff_cli.batch.claims import Claims, key_of
from localdiff_cli.batch.discover import Found, Item
from localdiff_cli.batch.records import DONE, FAILED, Record, Records
from localdiff_cli.batch.report import Reporter
from localdiff_cli.batch.volume import Recorded
from localdiff_cli.batch.work import Recipe, VolumeRecipe, printable
from localdiff_cli.batch.workers import run_here, run_in_workers, sigterm_raises
from localdiff_cli.errors import EXIT_OK, EXIT_SOME_FAILED, UsageError, VolumeError
from localdiff_cli.volumes.contrast import sidecar_path
from localdiff_cli.volumes.whole import PARTIAL, sweep

I = TypeVar("I", bound=Item)  # noqa: E741
TABLES_EVERY_SECONDS = 5.0
TABLES_SHARE = 0.05
"""Updating the tables during a run takes at most this share of its time."""


@dataclass(frozen=True)
class Execution:
    """How the work is carried out; none of it changes a result.

    ``jobs`` worker processes (0: in this one), or a ``cluster``; ``timeout`` seconds per volume; ``shard`` (number from 1,
    of how many); the run stops after ``max_failures``. ``ahead``: a worker that was started already.
    """

    jobs: int = 1
    timeout: float | None = None
    shard: tuple[int, int] | None = None
    max_failures: int | None = None
    cluster: str | None = None
    ahead: Ahead | None = None


@dataclass
class Tally:
    """What became of the volumes of this run's plan."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    review: list[str] = field(default_factory=list)
    stopped: bool = False
    untold: str = ""

    @property
    def exit_code(self) -> int:
        """0, or 1 where some volume failed or the tables could not be written."""
        return EXIT_SOME_FAILED if self.failures or self.untold else EXIT_OK

    def add(self, record: Record) -> None:
        """Count a record."""
        if record.state == FAILED:
            self.failures.append((record.volume, record.code, record.reason))
            return
        (self.done if record.fresh else self.skipped).append(record.volume)
        if record.review:
            self.review.append(record.volume)


def of_shard(items: Iterable[I], shard: tuple[int, int] | None) -> tuple[I, ...]:
    """Return the items of one shard: by a hash of the name, so that a volume stays in its shard whatever else comes or
    goes."""
    if shard is None:
        return tuple(items)
    number, count = shard
    return tuple(item for item in items if int(key_of(printable(item.relative)), 16) % count == number - 1)


def check_collisions(recipe: VolumeRecipe, items: tuple[Item, ...]) -> None:
    """Refuse two inputs that would write the same output, and outputs on top of inputs. Raise :class:`UsageError`."""
    seen: dict[Path, Path] = {}
    inputs = {Path(os.path.realpath(item.path)) for item in items}  # unlike resolve(), no loop of links stops it
    folders: dict[Path, Path] = {}
    for item in items:
        for path in recipe.outputs(item):
            if path.parent not in folders:
                folders[path.parent] = Path(os.path.realpath(path.parent))
            resolved = Path(os.path.realpath(path)) if path.is_symlink() else folders[path.parent] / path.name
            if resolved in inputs:
                raise UsageError(f"{path}: the output would replace an input; choose another --out", code="in-is-out")
            key = sidecar_path(path)
            if seen.setdefault(key, item.path) != item.path:
                raise UsageError(f"{item.path} and {seen[key]} would both write {path}; rename one, or run them apart", code="collision")


@contextlib.contextmanager
def carry_out(recipe: Recipe, tasks: list[Any], reporter: Reporter, how: Execution) -> Iterator[Iterator[Any]]:
    """The results of a recipe's tasks, in this process, in worker processes or on a cluster, as ``how`` says.

    Leaving the block early, by an error or a signal, leaves no worker behind.
    """
    with contextlib.closing(_results(recipe, tasks, reporter, how)) as results:
        yield results


def _results(recipe: Recipe, tasks: list[Any], reporter: Reporter, how: Execution) -> Generator[Any]:
    if how.cluster is not None:
        from localdiff_cli.batch.cluster import run_on_cluster

        return run_on_cluster(recipe, tasks, reporter, how.cluster, jobs=how.jobs)
    if how.jobs == 0:
        return run_here(recipe, tasks, reporter)
    return run_in_workers(recipe, tasks, reporter, jobs=how.jobs, timeout=how.timeout, ahead=how.ahead)


class Ledger:
    """Keeps the tables of an output folder up to date while a run goes on."""

    def __init__(self, out: Path, planned: list[str], account: dict[str, object]) -> None:
        self._records, self._planned, self._account = Records(out), planned, account
        self._next = 0.0

    def refresh(self) -> None:
        """Write the tables, unless that was done a moment ago."""
        started = time.monotonic()
        if started >= self._next:
            with contextlib.suppress(VolumeError, OSError):  # the last one reports it
                self._records.write_tables(self._planned, self._account, wait=False)
            spent = time.monotonic() - started
            self._next = time.monotonic() + max(TABLES_EVERY_SECONDS, spent / TABLES_SHARE)

    def close(self) -> str:
        """Write the tables; return what is wrong where they cannot be written."""
        try:
            self._records.write_tables(self._planned, self._account, wait=True)
        except (VolumeError, OSError) as error:
            return str(error)
        return ""


def run(
    recipe: VolumeRecipe,
    found: Found,
    out: Path,
    reporter: Reporter,
    how: Execution,
    *,
    version: str,
    overwrite: bool = False,
    debug: bool = False,
) -> Tally:
    """Work on every volume of the plan; a bad one fails alone. Tables are written even when the run is interrupted."""
    check_collisions(recipe, found.items)
    try:
        Records(out).folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be made or written ({error.strerror})", code="unwritable") from error
    items = of_shard(found.items, how.shard)
    _announce(found, items, reporter, how)
    recorded = Recorded(recipe, out, version, overwrite, debug)
    ledger = Ledger(out, [recorded.name(item) for item in items], {"LocaldiffVersion": version, "Shard": how.shard})
    tally = Tally()
    with sigterm_raises():
        try:
            with carry_out(recorded, list(items), reporter, how) as records:
                for record in records:
                    _tell(record, tally, reporter)
                    ledger.refresh()
                    if how.max_failures is not None and len(tally.failures) >= how.max_failures:
                        tally.stopped = True
                        break
        finally:
            with contextlib.suppress(OSError):  # the next run clears up
                _clear(recipe, items, out)
            tally.untold = ledger.close()
    summarise(tally, len(items), out, reporter)
    return tally


def _announce(found: Found, items: tuple[Item, ...], reporter: Reporter, how: Execution) -> None:
    reporter.event("run-started", volumes=len(items), skipped=len(found.skipped), jobs=how.jobs, shard=how.shard)
    if found.skipped:
        reporter.line(f"skipped {len(found.skipped)} files of other kinds (--verbose lists them)")
        for relative, reason in found.skipped:
            reporter.detail(f"  {printable(relative)}: {reason}")
    for relative, reason in found.aside:
        reporter.line(f"{printable(relative)}: {reason}")
    for item in found.items:
        if item.content.problem:
            reporter.line(f"{printable(item.relative)}: {item.content.problem}; what it says is not known")
    if how.shard is not None:
        reporter.line(f"shard {how.shard[0]} of {how.shard[1]}: {len(items)} of {len(found.items)} volumes")
    reporter.start(len(items))


def _tell(record: Record, tally: Tally, reporter: Reporter) -> None:
    tally.add(record)
    if record.state == FAILED:
        reporter.problem(f"  failed: {record.reason}")
        reporter.event("volume-failed", volume=record.volume, code=record.code, reason=record.reason, attempts=record.attempts)
    elif record.state == DONE and not record.fresh:
        reporter.detail(f"  {record.volume}: already done")
        reporter.event("volume-skipped", volume=record.volume)
    else:
        reporter.detail(f"  {record.volume}: {record.seconds:.1f} s")
        reporter.event("volume-done", volume=record.volume, seconds=record.seconds, review=list(record.review), peak_mb=record.peak_mb)
    reporter.volume_done()


def _clear(recipe: VolumeRecipe, items: tuple[Item, ...], out: Path) -> None:
    """Remove what killed runs left of volumes that nobody works on now."""
    claims = Claims(out)
    claims.clear_partials()
    folders: dict[Path, bool] = {}
    for item in items:
        outputs, name = recipe.outputs(item), printable(item.relative)
        for path in (*outputs, sidecar_path(outputs[0]), Records(out).path(name)):
            if path.parent not in folders:
                folders[path.parent] = _holds_partials(path.parent)
            if folders[path.parent] and not claims.path(key_of(name)).exists():
                sweep(path)


def _holds_partials(folder: Path) -> bool:
    return folder.is_dir() and any(path.name.endswith(PARTIAL) for path in folder.iterdir())


def summarise(tally: Tally, planned: int, out: Path, reporter: Reporter) -> None:
    """Report the last lines of a run."""
    done, failed, review = len(tally.done), len(tally.failures), len(tally.review)
    reporter.event("run-finished", done=done, already_done=len(tally.skipped), failed=failed, review=review)
    already = f", {len(tally.skipped)} already done" if tally.skipped else ""
    if tally.failures:
        reporter.problem(f"{failed} failed, listed in {out / 'failures.tsv'}:")
        for name, code, reason in sorted(tally.failures):
            reporter.problem(f"  {name} [{code}] {reason}")
    if tally.untold:
        reporter.problem(f"the tables could not be written: {tally.untold}; the same command writes them")
    if tally.stopped:
        left = planned - done - failed - len(tally.skipped)
        reporter.problem(f"stopped after {failed} failures, {left} volumes not tried; the same command goes on")
    reporter.line(f"{done} done{already}, {failed} failed, {review} to review; look next at {_next_place(tally, out)}")


def _next_place(tally: Tally, out: Path) -> str:
    """Where a person looks after the run: at what failed, else at what is doubtful, else at the outputs."""
    if tally.failures:
        return f"{out / 'failures.tsv'} (what failed and why)"
    return f"{out / 'qc.tsv'} (what a person has to see)" if tally.review else f"{out}"
