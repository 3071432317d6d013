"""What became of every volume of an output folder: one small record each, and the tables made from all of them.

Records are written whole by the process that worked on the volume; the tables are a function of the records, so that
shards, parallel runs and resumed runs into one folder end with the same tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from localdiff_cli.batch.claims import STATE_FOLDER, key_of
from localdiff_cli.volumes.whole import sweep, write_text

DONE, FAILED, BUSY, OPEN = "done", "failed", "busy", "open"
RUN_COLUMNS = (
    "volume", "state", "code", "reason", "attempts", "seconds", "device", "peak_mb", "finished", "source_sha256", "output_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What became of one volume. ``seconds`` of wall time, ``peak_mb`` of the process that did it so far; ``fresh``: done
    just now."""

    volume: str
    state: str
    code: str = ""
    reason: str = ""
    attempts: int = 1
    seconds: float = 0.0
    device: str = ""
    peak_mb: float = 0.0
    finished: str = ""
    output: str = ""
    source_sha256: str = ""
    output_sha256: dict[str, str] = field(default_factory=dict)
    review: tuple[str, ...] = ()
    slices: tuple[dict[str, Any], ...] = ()
    fresh: bool = True

    @property
    def verdict(self) -> tuple[str, str, str]:
        """The volume's row in ``qc.tsv``."""
        if self.state == FAILED:
            return self.volume, "failed", self.reason
        return self.volume, "review" if self.review else "pass", "; ".join(self.review)


class Records:
    """The records below an output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / STATE_FOLDER / "records"

    def path(self, volume: str) -> Path:
        """Return the file of a volume's record."""
        return self.folder / f"{key_of(volume)}.json"

    def write(self, record: Record) -> None:
        """Keep a record. Raise :class:`VolumeError` where it cannot be written."""
        values = {key: value for key, value in asdict(record).items() if key != "fresh"}
        write_text(self.path(record.volume), json.dumps(values, ensure_ascii=False) + "\n", durable=False)

    def read(self, path: Path) -> Record | None:
        """Return a record; None for a file that is not one."""
        names = {f.name for f in fields(Record)}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {name: value for name, value in values.items() if name in names}
            slices = tuple(row for row in known.pop("slices", ()) if isinstance(row, dict))
            record = Record(**known | {"slices": slices, "review": tuple(map(str, known.get("review", ()))), "fresh": False})
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        return record if _is_sound(record) else None

    def _has_output(self, record: Record) -> bool:
        try:
            return (self.out / record.output).is_file()
        except (OSError, ValueError):  # no name that a file can have
            return False

    def all(self) -> dict[str, Record]:
        """Return every record whose output is still there, and every failure, by volume."""
        found = (self.read(path) for path in self.folder.glob("*.json"))
        kept = (r for r in found if r is not None and (r.state != DONE or self._has_output(r)))
        return {record.volume: record for record in sorted(kept, key=lambda r: r.volume)}

    def write_tables(self, planned: Iterable[str], account: dict[str, Any], *, wait: bool) -> None:
        """Write ``runs.tsv``, ``run.json``, ``qc.tsv``, ``slices.tsv`` and ``failures.tsv``; without ``wait`` only if
        nobody else does.

        Raise :class:`VolumeError` where they cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder.parent / "tables.lock")
        try:
            with lock.acquire(timeout=-1 if wait else 0):
                known = self.all()
                for name, text in tables(known, planned, account).items():
                    sweep(self.out / name)
                    if text is None:
                        (self.out / name).unlink(missing_ok=True)
                    else:
                        write_text(self.out / name, text, durable=wait)
        except Timeout:
            return


def _is_sound(record: Record) -> bool:
    """Whether every value is of its kind, and every text can be written: a record may come from another version or a
    failing disk."""
    kinds: dict[str, type | tuple[type, ...]] = {"attempts": int, "seconds": (int, float), "peak_mb": (int, float), "output_sha256": dict}
    texts = [getattr(record, name) for name in (*RUN_COLUMNS, "output") if name not in kinds]
    whole = all(isinstance(getattr(record, name), kind) for name, kind in kinds.items()) and all(isinstance(text, str) for text in texts)
    try:
        json.dumps([texts, record.output_sha256, record.review, record.slices], ensure_ascii=False).encode()
        _ = [int(row.get("slice", 0)) for row in record.slices]
    except (OverflowError, TypeError, ValueError):
        return False
    return whole and record.state in (DONE, FAILED)


def tables(known: dict[str, Record], planned: Iterable[str], account: dict[str, Any]) -> dict[str, str | None]:
    """Return the tables by file name; None for one that has no rows."""
    rows = [known.get(name) or Record(name, OPEN) for name in sorted({*known, *planned})]
    finished = [record for record in rows if record.state in (DONE, FAILED)]
    counts = {state: sum(record.state == state for record in rows) for state in (DONE, FAILED, OPEN)}
    ordered = [{"volume": r.volume, **row} for r in finished for row in sorted(r.slices, key=lambda row: int(row.get("slice", 0)))]
    columns = tuple(ordered[0]) if ordered else ()
    return {
        "runs.tsv": table(RUN_COLUMNS, [tuple(_cell(getattr(record, column)) for column in RUN_COLUMNS) for record in rows]),
        "run.json": json.dumps({**account, "Volumes": counts}, indent=1, ensure_ascii=False) + "\n",
        "qc.tsv": table(("volume", "verdict", "reasons"), [record.verdict for record in finished]) if finished else None,
        "slices.tsv": table(columns, [tuple(str(row.get(c, "")) for c in columns) for row in ordered]) if ordered else None,
        "failures.tsv": _failures(finished),
    }


def _failures(finished: list[Record]) -> str | None:
    rows = [(record.volume, record.code, record.reason) for record in finished if record.state == FAILED]
    return table(("volume", "code", "reason"), rows) if rows else None


def _cell(value: Any) -> str:
    return " ".join(f"{name}:{digest}" for name, digest in value.items()) if isinstance(value, dict) else str(value)


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a TSV; tabs and line ends inside cells become spaces."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[" ".join(cell.split("\n")).replace("\t", " ").replace("\r", " ") for cell in row] for row in rows])
    return buffer.getvalue()
