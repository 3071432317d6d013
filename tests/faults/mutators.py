"""Seeded damage: the same random generator gives the same hostile bytes on every machine."""

from __future__ import annotations

import copy
import json
import struct
from random import Random
from typing import Any

import numpy as np

NUMBERS = (0, 1, -1, 2, 7, 127, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -(2**31), -(2**63))
REALS = (0.0, -0.0, 1.0, -1.0, 1e-38, -1e-45, 1e30, 3e38, 1e300, float("inf"), float("-inf"), float("nan"), 0.1, 352.0, 1e9, 2.0**31)
TEXTS = ("", " ", "x" * 5000, "../../x", "/dev/zero", "a\0b", "\ud800", "\udcff", "\x1b[2J", "T1w", "1e400", "نص", "a\tb\nc", "True", "-0")
VALUES: tuple[Any, ...] = (None, True, False, *NUMBERS, *REALS, 10**400, -(10**400), *TEXTS, [], [[]], {}, [1, 2], {"a": 1}, [None] * 50)
JUNK = (b"\0" * 64, b"\xff" * 64, b"\x1f\x8b\x08\0", b"[" * 30_000, b"{" * 300, b"9" * 5000, b"\xed\xa0\x80", b"\r\n\r\n", b'"', b"NaN")


def damaged(rng: Random, raw: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """``raw`` with one to four kinds of damage, most of it between ``start`` and ``stop``."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        raw = _damaged_once(rng, raw, start, len(raw) if stop is None else min(stop, len(raw)))
    return raw


def _damaged_once(rng: Random, raw: bytes, start: int, stop: int) -> bytes:
    if not raw or stop <= start:
        return rng.choice(JUNK)
    at = rng.randrange(start, stop)
    size = rng.choice((1, 2, 4, 8, 16, rng.randrange(1, 200)))
    kind = rng.randrange(8)
    if kind <= 1:
        return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
    if kind == 2:
        return raw[:at] + rng.randbytes(size) + raw[at + size :]
    if kind == 3:
        word = struct.pack(rng.choice("<>") + "q", rng.choice(NUMBERS))
        return raw[:at] + (word[:size] if rng.random() < 0.5 else word[-size:]) + raw[at + min(size, 8) :]
    if kind == 4:
        return raw[: rng.choice((at, rng.randrange(len(raw)), max(0, len(raw) - size)))]
    if kind == 5:
        return raw[:at] + raw[at + size :]
    if kind == 6:
        return raw[:at] + raw[at : at + size] * rng.choice((2, 2, 20)) + raw[at + size :]
    return raw[:at] + rng.choice(JUNK) + raw[at:]


def damaged_fields(rng: Random, raw: bytes, layout: np.dtype) -> bytes:
    """``raw`` with absurd values in one to three fields of the header ``layout`` that it starts with."""
    block = np.frombuffer(raw[: layout.itemsize].ljust(layout.itemsize, b"\0"), layout).copy()
    for _ in range(rng.choice((1, 1, 2, 3))):
        field = block[rng.choice(layout.names or ())]
        flat = field.reshape(-1)
        place = rng.randrange(flat.size)
        if flat.dtype.kind == "f" and rng.random() < 0.9:
            with np.errstate(over="ignore"):
                flat[place] = rng.choice((*REALS, rng.uniform(-1000, 1000)))
        elif flat.dtype.kind in "iu" and rng.random() < 0.9:
            number = rng.choice((*NUMBERS, rng.randrange(-5, 600), rng.randrange(1, 70_000)))
            size = flat.dtype.itemsize
            flat[place] = np.array(number % 256**size, f"u{size}").view(f"{flat.dtype.kind}{size}")
        else:
            flat[place] = np.frombuffer(rng.randbytes(flat.dtype.itemsize), flat.dtype)[0]
    return block.tobytes() + raw[layout.itemsize :]


def damaged_value(rng: Random, value: Any) -> Any:
    """JSON with one to three of its values, at any depth, replaced, removed, renamed or nested."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(VALUES))
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif kind == 2:
            holder[key] = [holder[key]] * rng.choice((1, 2, 30))
        elif kind == 3:
            holder[key] = {"a": holder[key]}
        elif kind == 4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool) and abs(holder[key]) < 10**300:
            holder[key] = rng.choice((holder[key] * rng.choice((-1, 0.5, 2, 1000)), str(holder[key])))
        else:
            # A copy: a value put into itself would be JSON without an end.
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def _places(value: Any) -> Any:
    """Every (container, key) of JSON."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            for key in keys:
                yield holder, key
                waiting.append(holder[key])


def damaged_json(rng: Random, value: Any) -> bytes:
    """The bytes of a JSON document: values damaged, or the text, or both."""
    changed = damaged_value(rng, value) if rng.random() < 0.8 else value
    try:
        raw = json.dumps(changed).encode()
    except RecursionError:  # wrapped once more, a deep value is deeper than Python writes
        changed, raw = value, json.dumps(value).encode()
    return damaged(rng, raw) if changed is value or rng.random() < 0.1 else raw


def damaged_lines(rng: Random, text: bytes, lines: tuple[bytes, ...], separator: bytes) -> bytes:
    """A header of ``key separator value`` lines: some removed, repeated, moved, given other values, or joined by others of ``lines``."""
    rows = text.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.randrange(len(rows)), rng.randrange(7)
        key, found, value = rows[at].partition(separator)
        if kind == 0:
            rows.insert(at, rng.choice(lines))
        elif kind == 1 and len(rows) > 1:
            rows.pop(at)
        elif kind == 2:
            rows.insert(rng.randrange(len(rows)), rows[at])
        elif kind == 3:
            rows[at] = damaged(rng, rows[at])
        elif found:
            words = value.split()
            if words and kind < 6:
                words[rng.randrange(len(words))] = str(rng.choice((*NUMBERS, *REALS, 3, 4, 5))).encode()
            else:
                words = [rng.choice(lines).partition(separator)[2].strip()]
            rows[at] = key + found + b" " + b" ".join(words)
    return b"\n".join(rows)
