"""The command line: commands and options only. Imports neither torch nor monai; the work is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from localdiff_cli import __version__, declared
from localdiff_cli import options as o
from localdiff_cli.batch.ahead import started_ahead
from localdiff_cli.startup import prepare_process

app = typer.Typer(
    name="localdiff",
    help="Translate one MRI contrast into another without inventing or erasing disease. For research use; not for diagnosis.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="List, show and verify model bundles.", no_args_is_help=True)
fit = typer.Typer(help="Train a translator, a detector or a segmenter on your own data.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(fit, name="fit")


def _finish(code: int) -> None:
    raise typer.Exit(code)


@contextmanager
def _head_start(run: o.RunOptions) -> Iterator[o.RunOptions]:
    """The options with a worker that loads its libraries from now on, while this process loads its own and looks for volumes."""
    with started_ahead(run.workers_here) as ahead:
        yield replace(run, ahead=ahead)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localdiff {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Options before any command."""


@app.command()
@declared.command(o.RunOptions, o.DetectOptions, o.DetectorOptions, without=("dicom_out",))
def detect(run: o.RunOptions, options: o.DetectOptions, detector: o.DetectorOptions) -> None:
    """Find where the condition is unlike anything seen in training: an OOD map in [0, 1] on each input's grid.

    Example: localdiff detect --in t1/ --out ood/ --save-mask
    """
    with _head_start(run) as run:
        from localdiff_cli.commands.detect import detect as work
        from localdiff_cli.commands.run import guarded

        code = guarded(lambda: work(run, options, detector), debug=run.debug)
    _finish(code)


@app.command()
@declared.command(o.RunOptions, o.TranslateOptions, o.DetectorOptions)
def translate(run: o.RunOptions, options: o.TranslateOptions, detector: o.DetectorOptions) -> None:
    """Translate every volume to the model's target contrast, with Local Diffusion where the input is out of distribution.

    Example: localdiff translate --in t1/ --out t2/ --suffix T2w
    """
    with _head_start(run) as run:
        from localdiff_cli.commands.run import guarded
        from localdiff_cli.commands.translate import translate as work

        code = guarded(lambda: work(run, options, detector), debug=run.debug)
    _finish(code)


@app.command()
@declared.command(o.RunOptions, o.SegmentOptions)
def segment(run: o.RunOptions, options: o.SegmentOptions) -> None:
    """Segment lesions in real or translated volumes: a mask (1 = lesion) under each input's relative name. A translation is
    read on the scale that its sidecar names, without bias correction.

    Example: localdiff segment --in t2/ --out lesions/
    """
    with _head_start(run) as run:
        from localdiff_cli.commands.run import guarded
        from localdiff_cli.commands.segment import segment as work

        code = guarded(lambda: work(run, options), debug=run.debug)
    _finish(code)


REPORT = Annotated[
    Path,
    typer.Option(
        "--out", help="Folder for report.html, metrics.tsv, slices.tsv and summary.json. Example: --out report/", rich_help_panel=o.FILES
    ),
]
NOT_IN_EVALUATE = ("overwrite", "max_failures", "fail_fast", "shard", "cluster", "dry_run", "dicom_out")


@app.command()
@declared.command(o.RunOptions, o.EvaluateOptions, without=NOT_IN_EVALUATE, out=REPORT)
def evaluate(run: o.RunOptions, options: o.EvaluateOptions) -> None:
    """Measure translations against the true contrast: image quality, lesions kept, missed and invented; write a report in
    one HTML file.

    Example: localdiff evaluate --in t2/ --ref t2_true/ --truth lesions_true/ --segmenter lesion-flair --out report/
    """
    from localdiff_cli.commands.evaluate import evaluate as work
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: work(run, options), debug=run.debug))


@app.command()
@declared.command(o.ViewOptions)
def view(options: o.ViewOptions) -> None:
    """Put volumes into one HTML page to scroll through, side by side at the same place: it opens without a network, and
    from a mail.

    Example: localdiff view t1.nii.gz flair.nii.gz lesions_mask.nii.gz
    """
    from localdiff_cli.commands.run import guarded
    from localdiff_cli.commands.view import view as work

    _finish(guarded(lambda: work(options), debug=options.debug))


@fit.command("translator")
@declared.command(o.TranslatorData, o.TrainOptions, o.TranslatorFit)
def fit_translator(data: o.TranslatorData, train: o.TrainOptions, options: o.TranslatorFit) -> None:
    """Train a translator on lesion-free slices.

    Example: localdiff fit translator --data pairs.tsv --out models/t1-to-t2
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.fit_translator(data, train, options), debug=data.debug))


OF_THE_BASE = ("condition", "target", "bias", "spacing", "shape")


@fit.command("expert")
@declared.command(o.FitOptions, o.ExpertTraining, o.ExpertFit, without=OF_THE_BASE)
def fit_expert(data: o.FitOptions, train: o.ExpertTraining, options: o.ExpertFit) -> None:
    """Teach the OOD branch its own network from lesions and healthy regions; the rest of the bundle stays as it is.

    Example: localdiff fit expert --base t1-to-flair --data pairs.tsv --out models/t1-to-flair
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.fit_expert(data, train, options), debug=data.debug))


@fit.command("interval")
@declared.command(o.FitOptions, o.IntervalTraining, o.IntervalFit, without=(*OF_THE_BASE, "healthy"))
def fit_interval(data: o.FitOptions, train: o.IntervalTraining, options: o.IntervalFit) -> None:
    """Teach a bundle's bands where its picture is hard to draw: the network with which calibrate --interval begins.

    Example: localdiff fit interval --base t1-to-flair --data pairs.tsv --out models/t1-to-flair
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.fit_interval(data, train, options), debug=data.debug))


@fit.command("detector")
@declared.command(o.FitOptions, o.DetectorFit, without=("target",))
def fit_detector(data: o.FitOptions, options: o.DetectorFit) -> None:
    """Fit a PatchCore detector on healthy slices: bank from the train split, threshold from the val split.

    Example: localdiff fit detector --data pairs.tsv --condition T1w --out models/t1-to-t2
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.fit_detector(data, options), debug=data.debug))


@fit.command("segmenter")
@declared.command(o.SegmenterData, o.SegmenterTraining, o.SegmenterFit)
def fit_segmenter(data: o.SegmenterData, train: o.SegmenterTraining, options: o.SegmenterFit) -> None:
    """Train a lesion segmenter on expert masks.

    Example: localdiff fit segmenter --data pairs.tsv --condition FLAIR --out models/lesion-flair
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.fit_segmenter(data, train, options), debug=data.debug))


@app.command()
@declared.command(o.CalibrateOptions)
def calibrate(options: o.CalibrateOptions) -> None:
    """Prove promises with a number on your own patients: write a certificate for translate --calibration, or exit with code
    6 and none.

    Example: localdiff calibrate --model t1-to-flair --data cohort/ --max-missed 0.3 --max-invented 0.1 --out site.json
    """
    from localdiff_cli.commands.calibrate import calibrate as work
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: work(options), debug=options.debug))


@models.command("list")
def models_list() -> None:
    """List every bundle found, with its task, contrasts and folder. Example: localdiff models list"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(command.list_models, debug=False))


@models.command("show")
def models_show(name: Annotated[str, typer.Argument(help="Bundle by name or folder. Example: t1-to-t2")]) -> None:
    """Show the card of a bundle. Example: localdiff models show t1-to-t2"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.show_model(name), debug=False))


@models.command("verify")
def models_verify(names: Annotated[list[str] | None, typer.Argument(help="Bundles by name or folder; all if left out.")] = None) -> None:
    """Check hashes and build every network. Example: localdiff models verify t1-to-t2"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.verify_models(names or []), debug=False))


@models.command("pack")
def models_pack(
    name: Annotated[str, typer.Argument(help="Bundle by name or folder. Example: ./my-model")],
    to: Annotated[Path | None, typer.Option("--to", help="New folder for a packed copy. (default: pack the bundle itself) Example: --to small/my-model")] = None,
) -> None:  # fmt: skip
    """Store a bundle's networks in 8 bits a weight, half the size of the usual 16. Example: localdiff models pack
    ./my-model --to small/my-model"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.pack_model(name, to), debug=False))


@models.command("set")
def models_set(
    name: Annotated[str, typer.Argument(help="Bundle by name or folder. Example: ./my-model")],
    settings: Annotated[list[str], typer.Argument(help="Defaults as NAME=VALUE: steps (number), fusion_step (number of joint steps), threshold (0 to 1), detector, detector_model (bundle), peak, residue (robust SDs), …")],
) -> None:  # fmt: skip
    """Store other defaults in a bundle; options on the command line still win. Example: localdiff models set ./my-model
    steps=4 fusion_step=0"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.set_defaults(name, settings), debug=False))


def main() -> None:
    """Entry point of ``localdiff``."""
    prepare_process()
    if sys.argv[1:] == ["--xml"]:  # what 3D Slicer asks of every program that may be one of its modules
        from localdiff_cli.interfaces.slicer import description

        sys.stdout.write(description())
        return
    app(prog_name="localdiff")
    sys.exit(0)


if __name__ == "__main__":
    main()
