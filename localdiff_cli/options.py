"""Options that several commands share, each with its unit, default and an example. Imports neither torch nor monai."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from localdiff_cli.choices import DETECTORS, listed

FILES, MODEL, OOD, INPUT, OUTPUT, RUN = "Files", "Model", "OOD region", "Input", "Output", "Run"

In = Annotated[
    str, typer.Option("--in", help="A volume, a folder (searched recursively) or a quoted glob. Example: --in t1/", rich_help_panel=FILES)
]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for the outputs, under the inputs' relative names. Example: --out t2/", rich_help_panel=FILES)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace outputs made with other settings or from another input.", rich_help_panel=FILES)
]
Model = Annotated[str, typer.Option("--model", help="Bundle by name or folder. Example: --model flair-to-t1", rich_help_panel=MODEL)]
Device = Annotated[
    str,
    typer.Option(
        "--device", help="auto, cpu, cuda, cuda:N or mps; what is asked for is what runs. Example: --device cuda:1", rich_help_panel=MODEL
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch-size",
        help="Slices worked on together, or auto; never changes a CPU result. Example: --batch-size 8",
        rich_help_panel=MODEL,
    ),
]
Brain = Annotated[
    str,
    typer.Option(
        "--brain",
        help="auto: support of a skull-stripped volume, else extraction (deepbet); none: all that is not background; or a mask file, or a folder of masks. "
        "Example: --brain masks/",
        rich_help_panel=INPUT,
    ),
]
Bias = Annotated[
    str | None,
    typer.Option(
        "--bias", help="Bias field correction: n4 or none. (default: as the bundle was trained) Example: --bias none", rich_help_panel=INPUT
    ),
]
Nan = Annotated[
    str,
    typer.Option("--nan", help="NaN and infinite voxels in the brain: refuse, or zero to take them as 0 (outside it they never matter). Example: --nan zero", rich_help_panel=INPUT),
]
AffineFrom = Annotated[
    str | None,
    typer.Option(
        "--affine-from",
        help="Which of a NIfTI's two places holds, where it has both: sform or qform. (default: the s-form; refused where they contradict each "
        "other about left and right or the voxel size) Example: --affine-from qform",
        rich_help_panel=INPUT,
    ),
]
SaveBrain = Annotated[bool, typer.Option("--save-brain", help="Also write the brain mask used, <name>_brain.", rich_help_panel=OUTPUT)]
DicomOut = Annotated[
    Path | None,
    typer.Option(
        "--dicom-out",
        help="Also write each result as DICOM, derived from the series in --in: a translation as an MR series, a lesion mask as SEG; "
        "needs localdiff\\[dicom]. (default: none) Example: --dicom-out derived/",
        rich_help_panel=OUTPUT,
    ),
]
Detector = Annotated[
    str | None,
    typer.Option("--detector", help=f"{listed(DETECTORS)}. (default: the bundle's) Example: --detector segmenter", rich_help_panel=OOD),
]
DetectorModel = Annotated[
    str | None,
    typer.Option(
        "--detector-model",
        help="Bundle that holds the detector. (default: --model, or lesion-<contrast>) Example: --detector-model lesion-t1",
        rich_help_panel=OOD,
    ),
]
Map = Annotated[
    Path | None,
    typer.Option(
        "--map",
        help="Your own OOD map in [0, 1] or lesion mask (two values, or labels): a file, or a folder with one a volume. Example: --map lesions/",
        rich_help_panel=OOD,
    ),
]
FalseAlarm = Annotated[
    float | None,
    typer.Option(
        "--false-alarm",
        help="Share of held-out healthy brain pixels flagged, 0 to 1; sets τ_A. (default: the bundle's) Example: --false-alarm 0.02",
        rich_help_panel=OOD,
    ),
]
Tau = Annotated[
    float | None,
    typer.Option("--tau", help="Cut τ of the OOD map, 0 to 1. (default: the bundle's) Example: --tau 0.5", rich_help_panel=OOD),
]
Open = Annotated[
    float | None,
    typer.Option(
        "--open", help="Opening radius for the OOD mask, mm; 0: none. (default: the bundle's) Example: --open 2", rich_help_panel=OOD
    ),
]
Dilate = Annotated[
    float | None,
    typer.Option(
        "--dilate", help="Dilation radius for the OOD mask, mm; 0: none. (default: the bundle's) Example: --dilate 3", rich_help_panel=OOD
    ),
]
Peak = Annotated[
    float | None,
    typer.Option(
        "--peak",
        help="Keep of the OOD mask only regions in which the map reaches this somewhere, 0 to 1; 0: keep all. "
        "(default: the bundle's, with its default detector) Example: --peak 0.5",
        rich_help_panel=OOD,
    ),
]
BackboneWeights = Annotated[
    Path | None,
    typer.Option(
        "--backbone-weights",
        help="State dict (.safetensors, .pth) of the detector's ResNet backbone, where it has one. Example: --backbone-weights wrn50.pth",
        rich_help_panel=OOD,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Errors only.", rich_help_panel=RUN)]
Verbose = Annotated[bool, typer.Option("--verbose", help="One line for every volume, skipped files named.", rich_help_panel=RUN)]
JsonLog = Annotated[
    Path | None,
    typer.Option("--json-log", "--log-file", help="Append events as JSON lines to this file. Example: --json-log run.jsonl", rich_help_panel=RUN),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        envvar="LOCALDIFF_JOBS",
        help="Worker processes, the cores divided among them; 0: work in this process, where a crash ends the run. Example: --jobs 4",
        rich_help_panel=RUN,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout-per-volume",
        help="Seconds after which a volume is stopped and fails. (default: none) Example: --timeout-per-volume 1800",
        rich_help_panel=RUN,
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(
        "--max-failures", help="Stop after this many failed volumes. (default: never) Example: --max-failures 10", rich_help_panel=RUN
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed volume.", rich_help_panel=RUN)]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard", help="Work on part K of N of the volumes, chosen by name. (default: all) Example: --shard 3/16", rich_help_panel=RUN
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="A Dask scheduler, dask://HOST:PORT, or slurm (with --jobs nodes); needs localdiff\\[cluster]. Example: --cluster dask://node1:8786",
        rich_help_panel=RUN,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done, with time and memory, and write nothing.", rich_help_panel=RUN)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=RUN)]
