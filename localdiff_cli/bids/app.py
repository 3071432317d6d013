"""The command line of the BIDS App. Imports neither torch nor monai; the work is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from localdiff_cli import __version__
from localdiff_cli import options as o
from localdiff_cli.startup import prepare_process

app = typer.Typer(
    add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}, pretty_exceptions_enable=False
)
DATA, REPORT = "Which data", "Report (group)"
SEVERAL = ("--participant-label", "--participant_label", "--session-id", "--session_id")
"""Options that several words may follow in BIDS Apps."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localdiff-bids {__version__}")
        raise typer.Exit


@app.command()
def bids(
    bids_dir: Annotated[Path, typer.Argument(help="Root of a BIDS dataset.", exists=True, file_okay=False)],
    output_dir: Annotated[Path, typer.Argument(help="Folder for the derivative dataset; may lie in BIDS_DIR/derivatives.", file_okay=False)],
    level: Annotated[str, typer.Argument(metavar="participant|group", help="participant: translate and segment; group: the report over all of them.")],
    participant_label: Annotated[list[str] | None, typer.Option("--participant-label", "--participant_label", help="People to work on, with or without sub-; several words may follow. (default: all) Example: --participant-label 01 02", rich_help_panel=DATA)] = None,
    session_id: Annotated[list[str] | None, typer.Option("--session-id", "--session_id", help="Sessions to work on, with or without ses-; several words may follow. (default: all) Example: --session-id baseline", rich_help_panel=DATA)] = None,
    bids_filter_file: Annotated[Path | None, typer.Option("--bids-filter-file", help='JSON that says which images to use, as for fMRIPrep: {"t1w": {"acquisition": "mprage"}}. (default: one of each visit) Example: --bids-filter-file filter.json', rich_help_panel=DATA)] = None,
    validate: Annotated[bool, typer.Option("--validate", help="Run bids-validator-deno on BIDS_DIR first; its errors end the run. Needs localdiff\\[bids].", rich_help_panel=DATA)] = False,
    model: Annotated[str, typer.Option("--model", help="Translator bundle by name or folder. Example: --model t1-to-t2", rich_help_panel=o.MODEL)] = "t1-to-flair",
    segmenter: Annotated[str | None, typer.Option("--segmenter", help="Segmenter bundle that finds lesions on the translations, or none. (default: lesion-<target>, where there is one) Example: --segmenter none", rich_help_panel=o.MODEL)] = None,
    mode: Annotated[str, typer.Option("--mode", help="local: Local Diffusion; plain: the ordinary sampler, for comparison. Example: --mode plain", rich_help_panel=o.MODEL)] = "local",
    expert: Annotated[str, typer.Option("--expert", help="Network of the OOD branch: auto (the bundle's expert, where it has one), none (training-free, as published) or a bundle with an expert. Example: --expert none", rich_help_panel=o.MODEL)] = "auto",
    steps: Annotated[int | None, typer.Option("--steps", help="Reverse steps. (default: the bundle's) Example: --steps 10", rich_help_panel=o.MODEL)] = None,
    samples: Annotated[int, typer.Option("--samples", help="Samples per slice; more than one gives their mean, and desc-syntheticstd. Example: --samples 10", rich_help_panel=o.MODEL)] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all noise. Example: --seed 7", rich_help_panel=o.MODEL)] = 0,
    detector: o.Detector = None, map_: o.Map = None,
    save_source: Annotated[bool, typer.Option("--save-source", help="Also write what made each voxel, desc-source_dseg: 1 IND, 2 OOD, 3 fused, 4 unknown.", rich_help_panel=o.OUTPUT)] = False,
    save_brain: Annotated[bool, typer.Option("--save-brain", help="Also write the brain mask used, desc-brain_mask.", rich_help_panel=o.OUTPUT)] = False,
    brain: o.Brain = "auto", bias: o.Bias = None, nan: o.Nan = "refuse", affine_from: o.AffineFrom = None, device: o.Device = "auto", batch_size: o.BatchSize = "auto", cache: o.Cache = None,
    ref: Annotated[Path | None, typer.Option("--ref", help="Dataset with the acquired target contrast on the translations' grid, such as derivatives. (default: BIDS_DIR) Example: --ref derivatives/coregistered", exists=True, file_okay=False, rich_help_panel=REPORT)] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Dataset with expert lesion masks, …_mask. (default: none) Example: --truth derivatives/experts", exists=True, file_okay=False, rich_help_panel=REPORT)] = None,
    resample_ref: Annotated[bool, typer.Option("--resample-ref", help="Resample references and masks of another grid, as the report then states; otherwise they are refused.", rich_help_panel=REPORT)] = False,
    fail_under: Annotated[list[str] | None, typer.Option("--fail-under", help="End with exit code 5 when a figure is worse than this; may be repeated. Example: --fail-under dice=0.7", rich_help_panel=REPORT)] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Apply --fail-under only to the visits that have the figure; otherwise one without it misses the limit.", rich_help_panel=REPORT)] = False,
    jobs: o.Jobs = 1, timeout: o.Timeout = None, max_failures: o.MaxFailures = None, fail_fast: o.FailFast = False,
    shard: o.Shard = None, cluster: o.Cluster = None, dry_run: o.DryRun = False,
    overwrite: o.Overwrite = False, quiet: o.Quiet = False, verbose: o.Verbose = False, json_log: o.JsonLog = None, debug: o.Debug = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:  # fmt: skip
    """Translate a BIDS dataset's images to another contrast: a BIDS App. For research use; not for diagnosis.

    Example: localdiff-bids study/ study/derivatives/localdiff participant --participant-label 01 02
    """
    from localdiff_cli.bids.command import run_level
    from localdiff_cli.bids.group import GroupOptions
    from localdiff_cli.bids.participant import ParticipantOptions, Selection
    from localdiff_cli.commands.run import guarded
    from localdiff_cli.options import Asked, DetectorOptions, RunOptions, TranslateOptions

    how = Asked(jobs, timeout, shard, max_failures, fail_fast, cluster)
    shared = RunOptions(str(bids_dir), output_dir, overwrite, quiet, verbose, json_log, debug, how, dry_run, affine_from=affine_from)
    selection = Selection(tuple(participant_label or ()), tuple(session_id or ()), bids_filter_file)
    translate = TranslateOptions(
        model=model, mode=mode, steps=steps, samples=samples, seed=seed, expert=expert, brain=brain, bias=bias, nan=nan,
        save_map=mode == "local", save_source=save_source, save_brain=save_brain, device=device, batch_size=batch_size, affine_from=affine_from, cache=cache,
    )  # fmt: skip
    participant = ParticipantOptions(translate, DetectorOptions(detector=detector, map=map_), segmenter, selection, validate)
    group = GroupOptions(model, selection, ref, truth, segmenter, resample_ref, tuple(fail_under or ()), allow_missing)
    raise typer.Exit(guarded(lambda: run_level(level, bids_dir, shared, participant, group), debug=debug))


def spread(words: list[str]) -> list[str]:
    """Return the arguments with the option repeated before each of several words after ``--participant-label``: ``a b`` →
    ``a``, option, ``b``.

    The words end at the next option; the three positional arguments come before them or stand behind ``--``.
    """
    spread_out: list[str] = []
    option, given = None, False
    for word in (*words, None):
        if word is None or word.startswith("-"):
            spread_out += [f"{option}="] if option and not given else []  # a label that is empty, which is refused
            option, given = word if word in SEVERAL else None, False
            spread_out += [] if option or word is None else [word]
        else:
            spread_out += [option, word] if option else [word]
            given = True
    return spread_out


def main() -> None:
    """Entry point of ``localdiff-bids``."""
    # See localdiff_cli/app.py: both must be set before torch and MONAI are loaded.
    prepare_process()
    app(args=spread(sys.argv[1:]), prog_name="localdiff-bids")


if __name__ == "__main__":
    main()
