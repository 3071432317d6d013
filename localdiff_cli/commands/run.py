"""What every command does around its work: find volumes, run them, turn errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from localdiff_cli import __version__
from localdiff_cli.batch.discover import check_apart, check_folders, discover
from localdiff_cli.batch.engine import Execution, run
from localdiff_cli.batch.plan import show_plan
from localdiff_cli.batch.report import Reporter
from localdiff_cli.batch.work import VolumeRecipe
from localdiff_cli.batch.workers import Terminated
from localdiff_cli.commands.dicom_out import check_dicom_out, write_dicom
from localdiff_cli.declared import check, check_choice
from localdiff_cli.errors import EXIT_OK, EXIT_SIGINT, EXIT_SIGPIPE, EXIT_SIGTERM, EXIT_UNUSABLE, LocaldiffError, UsageError
from localdiff_cli.options import Asked, DetectorOptions, RunOptions
from localdiff_cli.volumes.partners import BRAIN, MAP, Index, Source


def run_work(options: RunOptions, contrast: str, recipe: VolumeRecipe) -> int:
    """Run a command's work on every volume found, or show what it would be; return the exit code."""
    how = replace(execution(options.how), ahead=options.ahead)
    check_folders(options.source, options.out)
    check_affine_from(options.affine_from)
    found = discover(options.source, contrast, options.affine_from)
    check_apart(options.source, options.out, found)
    if options.dicom_out is not None:
        check_dicom_out(options.source, options.dicom_out, found)
    with Reporter(quiet=options.quiet, verbose=options.verbose, json_log=options.json_log) as reporter:
        if options.dry_run:
            show_plan(recipe, found, how, reporter, overwrite=options.overwrite)
            return EXIT_OK
        version, overwrite, debug = __version__, options.overwrite, options.debug
        tally = run(recipe, found, options.out, reporter, how, version=version, overwrite=overwrite, debug=debug)
        if options.dicom_out is not None:
            derived = write_dicom(found, tally, recipe, options.out, options.dicom_out, reporter, overwrite=overwrite)
            return max(tally.exit_code, derived)
    return tally.exit_code


def execution(asked: Asked) -> Execution:
    """Return how to carry out a run. Raise :class:`UsageError` for options out of range or that do not fit together."""
    check(asked)
    if asked.timeout is not None and (asked.jobs == 0 or asked.cluster):
        raise UsageError("--timeout-per-volume needs worker processes of this machine: --jobs 1 or more, no --cluster", code="conflict")
    if asked.fail_fast and asked.max_failures is not None:
        raise UsageError("--fail-fast means --max-failures 1: give one of them", code="conflict")
    max_failures = 1 if asked.fail_fast else asked.max_failures
    return Execution(asked.jobs, asked.timeout, shard_of(asked.shard), max_failures, asked.cluster)


def shard_of(text: str | None) -> tuple[int, int] | None:
    """Return ``3/16`` as the third of sixteen. Raise :class:`UsageError` for anything else."""
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {text}: expected K/N with K from 1 to N, such as 3/16", code="range")
    return int(number), int(count)


def guarded(action: Callable[[], int], *, debug: bool) -> int:
    """Run a command; errors become one message on standard error and their exit code, never a traceback unless ``debug``."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _unheard()
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
    except Terminated as stopped:
        _complain(str(stopped) or "terminated; finished volumes are kept, the same command goes on where it stopped")
        return EXIT_SIGTERM


def _unheard() -> int:
    """The reader of our output has left, as ``| head`` does: nothing more is said, not at the interpreter's end either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_SIGPIPE


def _complain(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def check_brain(value: str) -> None:
    """``--brain`` is auto, none, a mask file or a folder. Raises :class:`UsageError` for anything else."""
    if value in ("auto", "none"):
        return
    if not Path(value).exists():
        raise UsageError(
            f"--brain {value}: no such file or folder; expected auto, none, a mask file or a folder of masks", code="not-found"
        )
    check_place(Source(value, BRAIN, option="--brain"))


def check_place(source: Source) -> None:
    """Raise :class:`UsageError` for a file of another kind than its role needs; a folder is looked through volume by volume."""
    if Path(source.given).is_file():
        Index(source)


def check_affine_from(value: str | None) -> None:
    """``--affine-from`` is sform or qform. Raises :class:`UsageError` for anything else."""
    if value is not None:
        check_choice("--affine-from", value, ("sform", "qform"))


def check_detector(options: DetectorOptions) -> None:
    """Raise :class:`UsageError` for options out of range or that exclude one another."""
    given = (options.detector, options.detector_model, options.backbone_weights, options.residue)
    if options.map is not None and (any(given) or options.false_alarm is not None):
        raise UsageError(
            "--map brings the OOD map: --detector, --detector-model, --false-alarm, --residue and --backbone-weights do not apply",
            code="conflict",
        )
    if options.map is not None and not options.map.exists():
        raise UsageError(f"--map {options.map}: no such file or folder", code="not-found")
    if options.map is not None:
        check_place(Source(str(options.map), MAP, option="--map"))
    check(options)
