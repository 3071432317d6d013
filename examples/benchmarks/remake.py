"""Weights of the experiments, made again: ``make bench-weights DATA=ROOT``.

The repository keeps, in ``models/bench``, the account of every network that only experiments need, not its weights. Each account names
the command that made them; this script runs the commands of those that are not here, with ``DATA`` in place of the folder of data sets.
``--list`` only says what is here and what is not.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.benchmarks.variants import of_translator, weights_of
from examples.benchmarks.weights import SHIPPED
from localdiff_cli.bundle import METADATA, TRANSLATOR, read_metadata
from localdiff_cli.errors import UsageError

RECORDED = "../shared/data"
"""The folder of data sets as the recorded commands name it."""


@dataclass(frozen=True)
class Recorded:
    """One network: its ``name`` (``digits-2x``, ``t1-to-flair/regression``), weight file, arguments of Python, and seconds it took.

    ``stale``: made from a translator that is no longer the bundle's. ``late``: its training starts from another of these networks.
    """

    name: str
    path: Path
    arguments: tuple[str, ...]
    seconds: int
    stale: bool = False
    late: bool = False

    @property
    def state(self) -> str:
        """``here``, ``not here``, or ``stale``."""
        return "not here" if not self.path.is_file() else "stale" if self.stale else "here"

    def command(self, root: Path) -> list[str]:
        """What to run, with the data sets below ``root``."""
        return [sys.executable, *(_below(argument, root) for argument in self.arguments)]


def _below(argument: str, root: Path) -> str:
    inside = argument == RECORDED or argument.startswith(f"{RECORDED}/")
    return str(root / argument.removeprefix(RECORDED).lstrip("/")) if inside else argument


def recorded(folder: Path = SHIPPED) -> list[Recorded]:
    """Every network that ``folder`` has an account of; what another starts from comes before it."""
    found = [*_alone(folder), *_variants(folder)]
    return sorted(found, key=lambda each: (each.late, each.name))


def _alone(folder: Path) -> Iterator[Recorded]:
    for path in sorted(folder.glob("*.json")):
        account = json.loads(path.read_text(encoding="utf-8"))
        arguments = shlex.split(account["command"])[1:]
        only = ["--only", path.stem] if "examples.benchmarks.digits" in arguments else []
        base = account["identity"].get("base")
        stale = base is not None and base != _translator(folder.parent / path.stem.removeprefix("neighbours-"))
        yield Recorded(path.stem, path.with_suffix(".safetensors"), (*arguments, *only), account["seconds"], stale)


def _variants(folder: Path) -> Iterator[Recorded]:
    for path in sorted(folder.glob(f"*/{METADATA}")):
        bundle = path.parents[1]
        translator = _translator(folder.parent / bundle.name)
        for name, account in read_metadata(bundle)["training"].items():
            arguments = _only_variant(shlex.split(account["command"])[1:], name)
            stale, late = not of_translator(account, translator), bool(account.get("start"))
            yield Recorded(f"{bundle.name}/{name}", bundle / weights_of(name), arguments, account["seconds"], stale, late)


def _translator(bundle: Path) -> str:
    """The SHA-256 of a bundle's translator as its metadata has it."""
    return str(read_metadata(bundle)["files"][TRANSLATOR])


def _only_variant(arguments: list[str], name: str) -> tuple[str, ...]:
    """The arguments of ``variants.py`` with ``name`` as the only variant."""
    place = arguments.index("--variant")
    end = next((i for i in range(place + 1, len(arguments)) if arguments[i].startswith("--")), len(arguments))
    return (*arguments[: place + 1], name, *arguments[end:])


def chosen(networks: list[Recorded], only: list[str]) -> list[Recorded]:
    """The networks named, or all. Raises :class:`UsageError` for a name that no account has."""
    unknown = sorted(set(only) - {each.name for each in networks})
    if unknown:
        known = ", ".join(each.name for each in networks)
        raise UsageError(f"--only {' '.join(unknown)}: no account in {SHIPPED}; expected some of {known}", code="choice")
    return [each for each in networks if not only or each.name in only]


def line_of(network: Recorded) -> str:
    """One line of the list."""
    return f"{network.name:32} {network.state:9} {network.seconds / 60:4.0f} minutes when it was made"


def main() -> None:
    """Make what is not here, one after the other; an interrupted training goes on from its checkpoint in ``bench.work/``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(RECORDED), help="folder of the data sets, named as in the commands: lgg, t1t2, …")
    parser.add_argument("--only", nargs="*", default=[], help="names of the networks (default: all)")
    parser.add_argument("--list", action="store_true", help="say what is here and what is not, and make nothing")
    options = parser.parse_args()
    try:
        networks = chosen(recorded(), options.only)
    except UsageError as error:
        sys.exit(str(error))
    for network in networks:
        print(line_of(network), flush=True)
        if not options.list and network.state != "here":
            subprocess.run(network.command(options.data), check=True)


if __name__ == "__main__":
    main()
