"""What every command does around its work: find volumes, run them, turn errors into messages and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localdiff_cli import __version__
from localdiff_cli.batch.discover import check_folders, discover
from localdiff_cli.batch.engine import Terminated, Work, run
from localdiff_cli.batch.report import Reporter
from localdiff_cli.bundle import Bundle
from localdiff_cli.errors import EXIT_SIGINT, EXIT_SIGTERM, EXIT_UNUSABLE, LocaldiffError, UsageError


@dataclass(frozen=True)
class RunOptions:
    """Options that every command on volumes has."""

    source: str
    out: Path
    overwrite: bool = False
    quiet: bool = False
    verbose: bool = False
    json_log: Path | None = None
    debug: bool = False


def run_work(options: RunOptions, contrast: str, make_work: Callable[[Reporter], Work]) -> int:
    """Run a command's work on every volume found; the exit code."""
    check_folders(options.source, options.out)
    found = discover(options.source, contrast)
    with Reporter(quiet=options.quiet, verbose=options.verbose, json_log=options.json_log) as reporter:
        work = make_work(reporter)
        tally = run(work, found, options.out, reporter, version=__version__, overwrite=options.overwrite, debug=options.debug)
    return tally.exit_code


def guarded(action: Callable[[], int], *, debug: bool) -> int:
    """Run a command; errors become one message on standard error and their exit code, never a traceback unless ``debug``."""
    try:
        return action()
    except LocaldiffError as error:
        if debug:
            raise
        _complain(f"error: {error}")
        return error.exit_code
    except Exception as error:  # whatever goes wrong outside a volume still ends with a message
        if debug:
            raise
        _complain(f"error: {type(error).__name__}: {error} (where: add --debug)")
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        _complain("interrupted; finished volumes are kept, the same command goes on where it stopped")
        return EXIT_SIGINT
    except Terminated:
        _complain("terminated; finished volumes are kept, the same command goes on where it stopped")
        return EXIT_SIGTERM


def _complain(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise :class:`UsageError` for a value that is not among the choices."""
    if value not in choices:
        raise UsageError(f"{option} {value}: expected one of {', '.join(choices)}", code="choice")


def check_range(option: str, value: float, low: float, high: float) -> None:
    """Raise :class:`UsageError` for a number outside [low, high]."""
    if not low <= value <= high:
        raise UsageError(f"{option} {value:g}: expected {low:g} to {high:g}", code="range")


def batch_of(value: str, automatic: int) -> int:
    """``--batch-size``: auto or a whole number of at least 1. Raises :class:`UsageError` for anything else."""
    if value == "auto":
        return automatic
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--batch-size {value}: expected auto or a whole number of at least 1", code="range")
    return int(value)


def check_brain(value: str) -> None:
    """``--brain`` is auto, none, a file or a folder."""
    if value not in ("auto", "none") and not Path(value).exists():
        raise UsageError(
            f"--brain {value}: no such file or folder; expected auto, none, a mask file or a folder of masks", code="not-found"
        )


def announce(reporter: Reporter, bundle: Bundle, device: object) -> None:
    """Say which model and device run."""
    reporter.line(f"model {bundle.name} ({bundle.hash[:12]}), device {device}")
