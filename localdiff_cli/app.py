"""The command line: commands and options only. Imports neither torch nor monai; the work is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from localdiff_cli import __version__, declared
from localdiff_cli import options as o
from localdiff_cli.choices import DETECTORS, listed
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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localdiff {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")] = False,
) -> None:
    """Options before any command."""


@app.command()
@declared.command(o.RunOptions, o.DetectOptions, o.DetectorOptions, without=("dicom_out",))
def detect(run: o.RunOptions, options: o.DetectOptions, detector: o.DetectorOptions) -> None:
    """Find where the condition is unlike anything seen in training: an OOD map in [0, 1] on each input's grid.

    Example: localdiff detect --in t1/ --out ood/ --save-mask
    """
    from localdiff_cli.commands.detect import detect as work
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: work(run, options, detector), debug=run.debug))


@app.command()
@declared.command(o.RunOptions, o.TranslateOptions, o.DetectorOptions)
def translate(run: o.RunOptions, options: o.TranslateOptions, detector: o.DetectorOptions) -> None:
    """Translate every volume to the model's target contrast, with Local Diffusion where the input is out of distribution.

    Example: localdiff translate --in t1/ --out t2/ --suffix T2w
    """
    from localdiff_cli.commands.run import guarded
    from localdiff_cli.commands.translate import translate as work

    _finish(guarded(lambda: work(run, options, detector), debug=run.debug))


@app.command()
@declared.command(o.RunOptions, o.SegmentOptions)
def segment(run: o.RunOptions, options: o.SegmentOptions) -> None:
    """Segment lesions in real or translated volumes: a mask (1 = lesion) under each input's relative name.

    Example: localdiff segment --in t2/ --out lesions/
    """
    from localdiff_cli.commands.run import guarded
    from localdiff_cli.commands.segment import segment as work

    _finish(guarded(lambda: work(run, options), debug=run.debug))


REPORT = Annotated[Path, typer.Option("--out", help="Folder for report.html, metrics.tsv, slices.tsv and summary.json. Example: --out report/", rich_help_panel=o.FILES)]
NOT_IN_EVALUATE = ("overwrite", "max_failures", "fail_fast", "shard", "cluster", "dry_run", "dicom_out")


@app.command()
@declared.command(o.RunOptions, o.EvaluateOptions, without=NOT_IN_EVALUATE, out=REPORT)
def evaluate(run: o.RunOptions, options: o.EvaluateOptions) -> None:
    """Measure translations against the true contrast: image quality, lesions kept, missed and invented; a report in one HTML file.

    Example: localdiff evaluate --in t2/ --ref t2_true/ --truth lesions_true/ --segmenter lesion-flair --out report/
    """
    from localdiff_cli.commands.evaluate import evaluate as work
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: work(run, options), debug=run.debug))


@app.command()
def view(
    volumes: Annotated[list[str], typer.Argument(help="Volumes of one person: files, or folders of one DICOM series each. What a name or sidecar calls a mask or a map is laid over the others. Example: t1.nii.gz flair.nii.gz")],
    out: Annotated[Path, typer.Option("--out", help="The page to write, one HTML file; an older one is replaced. Example: --out view.html", rich_help_panel=o.FILES)] = Path("view.html"),
    overlay: Annotated[list[str] | None, typer.Option("--overlay", help="A volume to lay over the others, whatever it is called; may be repeated. Example: --overlay lesions.nii.gz", rich_help_panel=o.FILES)] = None,
    affine_from: o.AffineFrom = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser where there is a screen.", rich_help_panel=o.RUN)] = True,
    debug: o.Debug = False,
) -> None:  # fmt: skip
    """Put volumes into one HTML page to scroll through, side by side at the same place: it opens without a network, and from a mail.

    Example: localdiff view t1.nii.gz flair.nii.gz lesions_mask.nii.gz
    """
    from localdiff_cli.commands.run import guarded
    from localdiff_cli.commands.view import ViewOptions
    from localdiff_cli.commands.view import view as run

    _finish(guarded(lambda: run(volumes, ViewOptions(out, tuple(overlay or ()), open_page, affine_from)), debug=debug))


Data = Annotated[list[Path], typer.Option("--data", help="A TSV (condition, target, mask, brain, split; paths relative to it) or a BIDS-like folder with participants.tsv; may be repeated. Example: --data pairs.tsv", rich_help_panel=o.FILES)]
Bundle = Annotated[Path, typer.Option("--out", help="Bundle folder to make or to add to. Example: --out models/t1-to-t2", rich_help_panel=o.FILES)]
Work = Annotated[Path | None, typer.Option("--work", help="Folder for caches and checkpoints; an interrupted fit goes on from there. (default: <out>.work) Example: --work scratch/", rich_help_panel=o.FILES)]
Condition = Annotated[str, typer.Option("--condition", help="BIDS suffix of the source contrast. Example: --condition T1w", rich_help_panel=o.FILES)]
Target = Annotated[str, typer.Option("--target", help="BIDS suffix of the target contrast. Example: --target T2w", rich_help_panel=o.FILES)]
Healthy = Annotated[list[str] | None, typer.Option("--healthy", help="A patient without a mask who is known to bear no lesion; may be repeated. Example: --healthy sub-01", rich_help_panel=o.FILES)]
FitBias = Annotated[str, typer.Option("--bias", help="Bias field correction: n4 or none. Example: --bias none", rich_help_panel=o.INPUT)]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="A patient to leave out, such as one who is in two data sets; may be repeated. Example: --exclude sub-07", rich_help_panel=o.FILES)]
Spacing = Annotated[float, typer.Option("--spacing", help="Pixel size of the network's grid, mm. Example: --spacing 1.0", rich_help_panel=o.INPUT)]
Shape = Annotated[str, typer.Option("--shape", help="Rows and columns of the network's grid, pixels. Example: --shape 208,176", rich_help_panel=o.INPUT)]
Licence = Annotated[str, typer.Option("--licence", help="Terms of the weights, for the card. Example: --licence 'CC BY 4.0'", rich_help_panel=o.FILES)]
Steps = Annotated[int, typer.Option("--steps", help="Optimiser steps. Example: --steps 4000", rich_help_panel="Training")]
TrainBatch = Annotated[int, typer.Option("--batch-size", help="Slices a step. Example: --batch-size 8", rich_help_panel="Training")]
Rate = Annotated[float, typer.Option("--rate", help="Peak learning rate. Example: --rate 4e-4", rich_help_panel="Training")]
TrainPrecision = Annotated[str, typer.Option("--precision", help="fp32, or bf16 for the network's passes: faster on a GPU and on CPUs with AVX512-BF16 or AMX, many times slower on others. Example: --precision bf16", rich_help_panel="Training")]
Accumulate = Annotated[int, typer.Option("--accumulate", help="Batches of --batch-size slices that make a step in each process. Example: --accumulate 4", rich_help_panel="Training")]
Board = Annotated[Path | None, typer.Option("--tensorboard", help="Folder for TensorBoard's event files: loss, rate, samples, validation figures; needs the extra 'training'. (default: none) Example: --tensorboard runs/", rich_help_panel=o.FILES)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of weights, batches and augmentation. Example: --seed 1", rich_help_panel="Training")]


@fit.command("translator")
def fit_translator(
    data: Data, out: Bundle, condition: Condition = "T1w", target: Target = "T2w", work: Work = None, healthy: Healthy = None, exclude: Exclude = None, bias: FitBias = "n4", affine_from: o.AffineFrom = None,
    spacing: Spacing = 1.0, shape: Shape = "208,176",
    steps: Steps = 3600, batch_size: TrainBatch = 8, rate: Rate = 4e-4, seed: Seed = 0, precision: TrainPrecision = "fp32", accumulate: Accumulate = 1, tensorboard: Board = None,
    prediction: Annotated[str, typer.Option("--prediction", help="What the network predicts: epsilon, sample (x_0) or v_prediction. Example: --prediction v_prediction", rich_help_panel="Network")] = "sample",
    schedule: Annotated[str, typer.Option("--schedule", help="Noise schedule: linear_beta, scaled_linear_beta, sigmoid_beta or cosine. Example: --schedule cosine", rich_help_panel="Network")] = "linear_beta",
    channels: Annotated[str, typer.Option("--channels", help="Channels by level, multiples of 32. Example: --channels 64,96,128", rich_help_panel="Network")] = "64,96,128",
    space_to_depth: Annotated[int, typer.Option("--space-to-depth", min=1, max=16, help="Pixels a side that become channels before the network. Example: --space-to-depth 2", rich_help_panel="Network")] = 4,
    region_augment: Annotated[float, typer.Option("--region-augment", help="Probability, 0 to 1, that condition and target are both restricted to a random blob. Example: --region-augment 0.5", rich_help_panel="Training")] = 0.0,
    start: Annotated[str | None, typer.Option("--start", metavar="<str>", help="Weights that the training starts from: BUNDLE for its translator, of other contrasts for instance, or BUNDLE:PART for its models/PART.safetensors; its network and schedule must be these. (default: random weights) Example: --start t1-to-flair", rich_help_panel="Training")] = None,
    device: o.Device = "auto", licence: Licence = "unstated", debug: o.Debug = False,
) -> None:  # fmt: skip
    """Train a translator on lesion-free slices.

    Example: localdiff fit translator --data pairs.tsv --out models/t1-to-t2
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    def run() -> int:
        options = command.FitOptions(tuple(data), out, condition, target, work, tuple(healthy or ()), tuple(exclude or ()), bias, device, licence,
                                     spacing, command.numbers("--shape", shape), affine_from)  # fmt: skip
        return command.fit_translator(options, command.TrainOptions(steps, batch_size, rate, seed, precision, accumulate, tensorboard), prediction=prediction, schedule=schedule,
                                      channels=command.numbers("--channels", channels), space_to_depth=space_to_depth,
                                      region_augment=region_augment, start=start)  # fmt: skip

    _finish(guarded(run, debug=debug))


@fit.command("expert")
def fit_expert(
    base: Annotated[str, typer.Option("--base", help="Translator bundle whose OOD branch gets an expert. Example: --base t1-to-flair", rich_help_panel=o.FILES)],
    data: Data, out: Bundle, work: Work = None, exclude: Exclude = None, affine_from: o.AffineFrom = None,
    steps: Steps = 600, batch_size: TrainBatch = 8, rate: Rate = 2e-4, seed: Seed = 0, precision: TrainPrecision = "fp32", accumulate: Accumulate = 1, tensorboard: Board = None,
    healthy_share: Annotated[float, typer.Option("--healthy-share", help="Share of training regions without a lesion, 0.05 to 0.95: more, fewer invented and more missed lesions. Example: --healthy-share 0.5", rich_help_panel="Training")] = 0.5,
    patients: Annotated[int | None, typer.Option("--patients", min=1, help="How many patients' lesions to learn from, spread over the order of names. (default: all) Example: --patients 20", rich_help_panel="Training")] = None,
    detector: Annotated[str | None, typer.Option("--detector", help=f"Make {listed(DETECTORS)} the bundle's default detector. (default: leave it) Example: --detector segmenter", rich_help_panel=o.OOD)] = None,
    tau: Annotated[float | None, typer.Option("--tau", help="Make this the bundle's default cut of the OOD map, 0 to 1. (default: leave it) Example: --tau 0.2", rich_help_panel=o.OOD)] = None,
    told: Annotated[str | None, typer.Option("--told", metavar="<str>", help="Let the expert see the whole condition and the OOD map, as this segmenter bundle finds it. (default: it sees its region alone) Example: --told lesion-t1", rich_help_panel="Training")] = None,
    start: Annotated[str | None, typer.Option("--start", metavar="<str>", help="Bundle whose expert the training starts from, told or not as this one is to be. (default: it starts as the base's translator) Example: --start t1-to-flair", rich_help_panel="Training")] = None,
    healthy: Healthy = None,
    device: o.Device = "auto", licence: Licence = "unstated", debug: o.Debug = False,
) -> None:  # fmt: skip
    """Teach the OOD branch its own network from lesions and healthy regions; the rest of the bundle stays as it is.

    Example: localdiff fit expert --base t1-to-flair --data pairs.tsv --out models/t1-to-flair
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    def run() -> int:
        options = command.FitOptions(tuple(data), out, "", None, work, tuple(healthy or ()), tuple(exclude or ()), "n4", device, licence,
                                     affine_from=affine_from)  # fmt: skip
        return command.fit_expert(options, command.TrainOptions(steps, batch_size, rate, seed, precision, accumulate, tensorboard), base, healthy_share=healthy_share, patients=patients,
                                  detector=detector, tau=tau, told=told, start=start)  # fmt: skip

    _finish(guarded(run, debug=debug))


@fit.command("detector")
def fit_detector(
    data: Data, out: Bundle, condition: Condition = "T1w", work: Work = None, healthy: Healthy = None, exclude: Exclude = None, bias: FitBias = "n4", affine_from: o.AffineFrom = None,
    spacing: Spacing = 1.0, shape: Shape = "208,176",
    backbone: Annotated[str, typer.Option("--backbone", help="efficientnet-lite0 (packaged), or resnet18, resnet50, wide_resnet50_2 with --backbone-weights. Example: --backbone wide_resnet50_2", rich_help_panel="Network")] = "efficientnet-lite0",
    backbone_weights: o.BackboneWeights = None,
    input_scale: Annotated[float, typer.Option("--input-scale", help="Enlarge slices by this factor before the backbone. Example: --input-scale 1.5", rich_help_panel="Network")] = 1.0,
    coreset: Annotated[int, typer.Option("--coreset", help="Patches kept in the memory bank. Example: --coreset 5000", rich_help_panel="Training")] = 5000,
    every: Annotated[int, typer.Option("--every", min=1, help="Use every n-th healthy slice. Example: --every 3", rich_help_panel="Training")] = 1,
    seed: Seed = 0, device: o.Device = "auto", licence: Licence = "unstated", debug: o.Debug = False,
) -> None:  # fmt: skip
    """Fit a PatchCore detector on healthy slices: bank from the train split, threshold from the val split.

    Example: localdiff fit detector --data pairs.tsv --condition T1w --out models/t1-to-t2
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    def run() -> int:
        options = command.FitOptions(tuple(data), out, condition, None, work, tuple(healthy or ()), tuple(exclude or ()), bias, device, licence,
                                     spacing, command.numbers("--shape", shape), affine_from)  # fmt: skip
        return command.fit_detector(options, backbone=backbone, backbone_weights=backbone_weights, input_scale=input_scale, coreset=coreset,
                                    every=every, seed=seed)  # fmt: skip

    _finish(guarded(run, debug=debug))


@fit.command("segmenter")
def fit_segmenter(
    data: Data, out: Bundle, condition: Condition = "FLAIR",
    target: Annotated[str | None, typer.Option("--target", metavar="<str>", help="Contrast on which doubtful pixels are bright, needed by --doubt. (default: none) Example: --target FLAIR", rich_help_panel=o.FILES)] = None,
    work: Work = None, healthy: Healthy = None, exclude: Exclude = None, bias: FitBias = "n4", affine_from: o.AffineFrom = None,
    spacing: Spacing = 1.0, shape: Shape = "208,176",
    steps: Steps = 1600, batch_size: TrainBatch = 12, rate: Rate = 1e-3, seed: Seed = 0, precision: TrainPrecision = "fp32", accumulate: Accumulate = 1, tensorboard: Board = None,
    channels: Annotated[str, typer.Option("--channels", help="Channels by level. Example: --channels 32,64,128,192", rich_help_panel="Network")] = "32,64,128,192",
    threshold: Annotated[float, typer.Option("--threshold", help="Default probability cut, 0 to 1, stored in the bundle. Example: --threshold 0.5", rich_help_panel="Network")] = 0.5,
    min_volume: Annotated[float, typer.Option("--min-volume", help="Default smallest lesion kept, mm³, stored in the bundle. Example: --min-volume 50", rich_help_panel="Network")] = 0.0,
    start: Annotated[str | None, typer.Option("--start", metavar="<str>", help="Segmenter bundle whose weights the training starts from; its --channels must be these. (default: random weights) Example: --start lesion-t1", rich_help_panel="Training")] = None,
    healthy_share: Annotated[float, typer.Option("--healthy-share", help="Share of the training slices from people without any lesion, 0 to 0.95, where there are some. Example: --healthy-share 0.4", rich_help_panel="Training")] = 0.2,
    doubt: Annotated[float | None, typer.Option("--doubt", help="Robust SDs on the target contrast from which a pixel outside the mask is left out of the loss; for masks that miss lesions. (default: none is) Example: --doubt 1.8", rich_help_panel="Training")] = None,
    hard_negatives: Annotated[bool, typer.Option("--hard-negatives", help="Also show widened ventricles, flat, blurred and contrast-enhanced slices as what they are: no lesion.", rich_help_panel="Training")] = False,
    device: o.Device = "auto", licence: Licence = "unstated", debug: o.Debug = False,
) -> None:  # fmt: skip
    """Train a lesion segmenter on expert masks.

    Example: localdiff fit segmenter --data pairs.tsv --condition FLAIR --out models/lesion-flair
    """
    from localdiff_cli.commands import fit as command
    from localdiff_cli.commands.run import guarded

    def run() -> int:
        options = command.FitOptions(tuple(data), out, condition, target, work, tuple(healthy or ()), tuple(exclude or ()), bias, device, licence,
                                     spacing, command.numbers("--shape", shape), affine_from)  # fmt: skip
        return command.fit_segmenter(options, command.TrainOptions(steps, batch_size, rate, seed, precision, accumulate, tensorboard), channels=command.numbers("--channels", channels),
                                     threshold=threshold, min_volume=min_volume, start=start, healthy_share=healthy_share, doubt=doubt,
                                     hard_negatives=hard_negatives)  # fmt: skip

    _finish(guarded(run, debug=debug))


PROMISES, COHORT = "Promises", "Cohort"


@app.command()
def calibrate(
    model: Annotated[str, typer.Option("--model", help="Translator bundle by name or folder. Example: --model t1-to-flair", rich_help_panel=o.FILES)],
    data: Annotated[list[Path], typer.Option("--data", help="Your own patients: a folder of sub-* with condition, target, _mask of lesions (none: no lesions known) and _brain, or a TSV as for fit; repeatable. Example: --data cohort/", rich_help_panel=o.FILES)],
    out: Annotated[Path, typer.Option("--out", help="Certificate to write, JSON. Example: --out site.json", rich_help_panel=o.FILES)],
    max_uncovered: Annotated[float | None, typer.Option("--max-uncovered", help="Share of a patient's lesions of which the map covers less than half, at most, on average over new patients, 0 to 1. (default: no promise) Example: --max-uncovered 0.2", rich_help_panel=PROMISES)] = None,
    max_missed: Annotated[float | None, typer.Option("--max-missed", help="Share of a patient's lesions neither drawn with half their contrast nor called unknown, at most, 0 to 1. (default: no promise) Example: --max-missed 0.3", rich_help_panel=PROMISES)] = None,
    max_invented: Annotated[float | None, typer.Option("--max-invented", help="Share of a patient's lesion-free slices with a falsely drawn spot above 30 mm², at most, 0 to 1. (default: no promise) Example: --max-invented 0.1", rich_help_panel=PROMISES)] = None,
    max_harm: Annotated[float | None, typer.Option("--max-harm", help="Share of patients with more than --harm-ml falsely drawn, at most, 0 to 1. (default: no promise) Example: --max-harm 0.1", rich_help_panel=PROMISES)] = None,
    harm_ml: Annotated[float, typer.Option("--harm-ml", help="What counts as harm, ml falsely drawn. Example: --harm-ml 2", rich_help_panel=PROMISES)] = 5.0,
    confidence: Annotated[float, typer.Option("--confidence", help="Confidence of all promises but --max-uncovered together, 0.5 to 0.9999. Example: --confidence 0.9", rich_help_panel=PROMISES)] = 0.9,
    taus: Annotated[str | None, typer.Option("--taus", help="Cuts τ of the map to choose from, 0 to 1, the first of them tried first; declare them before you look at the patients. (default: the bundle's own, 0.05, 0.1, 0.2, 0.3, 0.5) Example: --taus 0.2,0.1,0.3", rich_help_panel=PROMISES)] = None,
    interval: Annotated[float | None, typer.Option("--interval", help="Also bands for translate --interval: the true value lies within in this share of a new patient's voxels on average, 0.5 to 0.99. (default: none) Example: --interval 0.9", rich_help_panel=PROMISES)] = None,
    bands_from: Annotated[list[Path] | None, typer.Option("--bands-from", help="Other people, as for --data, whose true values shape the bands (the train split where there is one, at most 16 people; patients of training may serve): they prove nothing, and make the bands narrower; repeatable. (default: bands about the drawn value) Example: --bands-from pairs.tsv", rich_help_panel=PROMISES)] = None,
    void_below: Annotated[float, typer.Option("--void-below", help="Share of alike volumes for which the certificate is void all the same, as the strangest, 0 to 0.5. Example: --void-below 0.05", rich_help_panel=PROMISES)] = 0.05,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of participants.tsv or the TSV: train, val or test. (default: everybody) Example: --split val", rich_help_panel=COHORT)] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Patient to leave out; repeatable. Example: --exclude sub-07", rich_help_panel=COHORT)] = None,
    with_val: Annotated[bool, typer.Option("--with-val", help="Also take patients by whom a setting of the bundle was chosen (never those who trained it); the certificate, the sidecars and the report say how many: what is promised may be a little too good.", rich_help_panel=COHORT)] = False,
    every: Annotated[int, typer.Option("--every", min=1, help="Judge every n-th slice only; the promises speak of these. Example: --every 2", rich_help_panel=COHORT)] = 1,
    work: Annotated[Path | None, typer.Option("--work", help="Folder of what was measured; an interrupted run goes on from there. (default: <out>.work) Example: --work calibrate.work", rich_help_panel=o.FILES)] = None,
    affine_from: o.AffineFrom = None, device: o.Device = "auto", debug: o.Debug = False,
) -> None:  # fmt: skip
    """Promises with a number, proven on your own patients: a certificate for translate --calibration, or exit code 6 and none.

    Example: localdiff calibrate --model t1-to-flair --data cohort/ --max-missed 0.3 --max-invented 0.1 --out site.json
    """
    from localdiff_cli.commands import calibrate as command
    from localdiff_cli.commands.run import guarded

    def run() -> int:
        options = command.CalibrateOptions(model, tuple(data), out, max_uncovered, max_missed, max_invented, max_harm, harm_ml, confidence,
                                           command.cuts(taus), every, split, tuple(exclude or ()), void_below, work, device, interval, affine_from,
                                           tuple(bands_from or ()), with_val)  # fmt: skip
        return command.calibrate(options)

    _finish(guarded(run, debug=debug))


@models.command("list")
def models_list() -> None:
    """Every bundle found, with its task, contrasts and folder. Example: localdiff models list"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(command.list_models, debug=False))


@models.command("show")
def models_show(name: Annotated[str, typer.Argument(help="Bundle by name or folder. Example: t1-to-t2")]) -> None:
    """The card of a bundle. Example: localdiff models show t1-to-t2"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.show_model(name), debug=False))


@models.command("verify")
def models_verify(names: Annotated[list[str] | None, typer.Argument(help="Bundles by name or folder; all when left out.")] = None) -> None:
    """Check hashes and build every network. Example: localdiff models verify t1-to-t2"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.verify_models(names or []), debug=False))


@models.command("set")
def models_set(
    name: Annotated[str, typer.Argument(help="Bundle by name or folder. Example: ./my-model")],
    settings: Annotated[list[str], typer.Argument(help="Defaults as NAME=VALUE: steps (number), fusion_step (number of joint steps), threshold (0 to 1), detector, …")],
) -> None:  # fmt: skip
    """Store other defaults in a bundle; options on the command line still win. Example: localdiff models set ./my-model steps=4 fusion_step=0"""
    from localdiff_cli.commands import models as command
    from localdiff_cli.commands.run import guarded

    _finish(guarded(lambda: command.set_defaults(name, settings), debug=False))


def main() -> None:
    """Entry point of ``localdiff``."""
    prepare_process()
    if sys.argv[1:] == ["--xml"]:  # what 3D Slicer asks of every program that may be a module of its
        from localdiff_cli.interfaces.slicer import description

        sys.stdout.write(description())
        return
    app(prog_name="localdiff")
    sys.exit(0)


if __name__ == "__main__":
    main()
