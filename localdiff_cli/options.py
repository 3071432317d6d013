"""The options of each command: every field is one option, declared only here, with its unit, limits, default and an example.

Imports neither torch nor monai. The command line is made from these classes (declared.py); the Python API takes them as they are.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from localdiff_cli.batch.ahead import Ahead
from localdiff_cli.choices import DETECTORS, SAMPLERS, listed
from localdiff_cli.declared import OneOf, Range
from localdiff_cli.roles import Role, Writes

FILES, MODEL, OOD, INPUT, OUTPUT, RUN = "Files", "Model", "OOD region", "Input", "Output", "Run"
OOD_BRANCHES = ("network", "copy", "mean")
PRECISIONS = ("fp32", "bf16", "fp16")
DTYPES = ("float32", "float64", "int16")
SAMPLING, LOCAL, REFERENCE, MISS = "Sampling", "Local Diffusion", "Reference", "Misdiagnosis"
TRAINING, NETWORK, PROMISES, COHORT = "Training", "Network", "Promises", "Cohort"

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
        "--device",
        help="auto, cpu, cuda, cuda:N or mps; a device that is not there is an error. Example: --device cuda:1",
        rich_help_panel=MODEL,
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
    OneOf(("n4", "none")),
]
Nan = Annotated[
    str,
    typer.Option(
        "--nan",
        help="NaN and infinite voxels in the brain: refuse, or zero to take them as 0 (outside it they never matter). Example: --nan zero",
        rich_help_panel=INPUT,
    ),
    OneOf(("refuse", "zero")),
]
AffineFrom = Annotated[
    str | None,
    typer.Option(
        "--affine-from",
        help="Which of a NIfTI's two transforms to use where it has both: sform or qform. (default: the s-form; refused where they contradict each "
        "other about left and right or the voxel size) Example: --affine-from qform",
        rich_help_panel=INPUT,
    ),
    OneOf(("sform", "qform")),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="LOCALDIFF_CACHE",
        help="Folder that keeps brain masks and bias fields, keyed by the voxels, for the next command on the same volume; about 1 MB "
        "a volume, no names or header text. Never changes a result. (default: none) Example: --cache scratch/",
        rich_help_panel=RUN,
    ),
]
SaveBrain = Annotated[
    bool,
    typer.Option("--save-brain", help="Also write the brain mask used, <name>_brain.", rich_help_panel=OUTPUT),
    Writes(Role("brain", "brain", "uint8", "localdiff brain mask")),
]
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
    OneOf(DETECTORS),
]
DetectorModel = Annotated[
    str | None,
    typer.Option(
        "--detector-model",
        help="Bundle that holds the detector. (default: for patchcore the bundle of --model; for segmenter the one that it names, otherwise lesion-<contrast>) Example: --detector-model lesion-t1",
        rich_help_panel=OOD,
    ),
]
Map = Annotated[
    Path | None,
    typer.Option(
        "--map",
        help="Your own OOD map in [0, 1] or lesion mask (two values, or labels): a file, or a folder with one for each volume. Example: --map lesions/",
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
    Range(1e-6, 1 - 1e-6),
]
Tau = Annotated[
    float | None,
    typer.Option("--tau", help="Cut τ of the OOD map, 0 to 1. (default: the bundle's) Example: --tau 0.5", rich_help_panel=OOD),
    Range(1e-6, 1),
]
Open = Annotated[
    float | None,
    typer.Option(
        "--open", help="Opening radius for the OOD mask, mm; 0: none. (default: the bundle's) Example: --open 2", rich_help_panel=OOD
    ),
    Range(0, 50),
]
Dilate = Annotated[
    float | None,
    typer.Option(
        "--dilate", help="Dilation radius for the OOD mask, mm; 0: none. (default: the bundle's) Example: --dilate 3", rich_help_panel=OOD
    ),
    Range(0, 50),
]
Peak = Annotated[
    float | None,
    typer.Option(
        "--peak",
        help="Keep only regions of the OOD mask in which the map (with --through-plane its average) reaches this value somewhere, "
        "0 to 1; 0: keep all. "
        "(default: the bundle's, with its default detector) Example: --peak 0.5",
        rich_help_panel=OOD,
    ),
    Range(0, 1),
]
ThroughPlane = Annotated[
    float | None,
    typer.Option(
        "--through-plane",
        help="Average the OOD map over neighbouring slices: standard deviation of the Gaussian, mm; 0: each slice alone. "
        "(default: the bundle's, with its default detector) Example: --through-plane 5",
        rich_help_panel=OOD,
    ),
    Range(0, 50),
]
Residue = Annotated[
    float | None,
    typer.Option(
        "--residue",
        help="Do not look for lesions in what is connected to the brain's rim and at least this many robust SDs brighter than the "
        "brain's median, as sinuses, dura and vessels are that a mask left in; 0: look everywhere. "
        "(default: the bundle's, with its default detector) Example: --residue 3.5",
        rich_help_panel=OOD,
    ),
    Range(0, 50),
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
Verbose = Annotated[bool, typer.Option("--verbose", help="Print one line for every volume, and name skipped files.", rich_help_panel=RUN)]
JsonLog = Annotated[
    Path | None,
    typer.Option(
        "--json-log", "--log-file", help="Append events as JSON lines to this file. Example: --json-log run.jsonl", rich_help_panel=RUN
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        envvar="LOCALDIFF_JOBS",
        help="Worker processes, which share the cores; 0: work in this process, where a crash ends the run. Example: --jobs 4",
        rich_help_panel=RUN,
    ),
    Range(0, 1024),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout-per-volume",
        help="Seconds after which a volume is stopped and fails. (default: none) Example: --timeout-per-volume 1800",
        rich_help_panel=RUN,
    ),
    Range(0.1, 1e7),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(
        "--max-failures", help="Stop after this many failed volumes. (default: never) Example: --max-failures 10", rich_help_panel=RUN
    ),
    Range(1, 1e9),
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
    bool,
    typer.Option(
        "--dry-run", help="Show what would be done, what cannot be and why, with time and memory; write nothing.", rich_help_panel=RUN
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=RUN)]


@dataclass(frozen=True)
class Asked:
    """How the user asks for a run to be carried out."""

    jobs: Jobs = 1
    timeout: Timeout = None
    shard: Shard = None
    max_failures: MaxFailures = None
    fail_fast: FailFast = False
    cluster: Cluster = None


@dataclass(frozen=True)
class RunOptions:
    """Options that every command on volumes has."""

    source: In
    out: Out
    overwrite: Overwrite = False
    quiet: Quiet = False
    verbose: Verbose = False
    json_log: JsonLog = None
    debug: Debug = False
    how: Asked = field(default_factory=Asked)
    dry_run: DryRun = False
    dicom_out: DicomOut = None
    affine_from: AffineFrom = None
    ahead: Ahead | None = None
    """A worker that was started already; no option."""

    @property
    def workers_here(self) -> int:
        """How many worker processes of this machine the run will need; 0 for one that needs none."""
        return 0 if self.dry_run or self.how.cluster else self.how.jobs


@dataclass(frozen=True)
class DetectorOptions:
    """Which detector to use and how sensitive it is; None means the bundle's default."""

    detector: Detector = None
    detector_model: DetectorModel = None
    map: Map = None
    false_alarm: FalseAlarm = None
    tau: Tau = None
    open_mm: Open = None
    dilate_mm: Dilate = None
    peak: Peak = None
    through_plane_mm: ThroughPlane = None
    residue: Residue = None
    backbone_weights: BackboneWeights = None


@dataclass(frozen=True)
class DetectOptions:
    """The options of ``detect`` beyond the shared ones."""

    model: Model = "t1-to-t2"
    brain: Brain = "auto"
    bias: Bias = None
    nan: Nan = "refuse"
    save_mask: Annotated[
        bool,
        typer.Option("--save-mask", help="Also write the OOD mask B, <name>_oodmask.", rich_help_panel=OUTPUT),
        Writes(Role("mask", "oodmask", "uint8", "localdiff OOD mask")),
    ] = False
    save_score: Annotated[
        bool,
        typer.Option("--save-score", help="Also write the raw score A, <name>_score.", rich_help_panel=OUTPUT),
        Writes(Role("score", "score", "float32", "localdiff anomaly score")),
    ] = False
    save_brain: SaveBrain = False
    device: Device = "auto"
    batch_size: BatchSize = "auto"
    affine_from: AffineFrom = None
    cache: Cache = None


@dataclass(frozen=True)
class TranslateOptions:
    """The options of ``translate`` beyond the shared ones; None means the bundle's default."""

    model: Model = "t1-to-t2"
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="local: Local Diffusion; plain: the ordinary sampler, for comparison. Example: --mode plain",
            rich_help_panel=LOCAL,
        ),
        OneOf(("local", "plain")),
    ] = "local"
    context: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="λ: how much of the OOD region the IND branch still sees, 0 to 1. (default: the bundle's) Example: --lambda 0.95",
            rich_help_panel=LOCAL,
        ),
        Range(0, 1),
    ] = None
    branch_step: Annotated[
        int | None,
        typer.Option(
            "--branch-step",
            help="Plain steps before the branches part. (default: the bundle's) Example: --branch-step 0",
            rich_help_panel=LOCAL,
        ),
    ] = None
    fusion_step: Annotated[
        int | None,
        typer.Option(
            "--fusion-step",
            help="Joint steps after fusion, counted from the end. (default: the bundle's) Example: --fusion-step 1",
            rich_help_panel=LOCAL,
        ),
    ] = None
    soft: Annotated[
        bool | None,
        typer.Option("--soft/--hard", help="Fuse by the OOD map M, or by the mask B. (default: the bundle's)", rich_help_panel=LOCAL),
    ] = None
    expert: Annotated[
        str,
        typer.Option(
            "--expert",
            help="Network of the OOD branch: auto (the bundle's expert, where it has one), none (training-free, as published) or a bundle with an expert. Example: --expert none",
            rich_help_panel=LOCAL,
        ),
    ] = "auto"
    ood_branch: Annotated[
        str,
        typer.Option(
            "--ood-branch",
            help="Where the OOD branch's image comes from: network, copy (the condition itself inside B) or mean (half of each); the last two only where condition and target share a contrast. Example: --ood-branch copy",
            rich_help_panel=LOCAL,
        ),
        OneOf(OOD_BRANCHES),
    ] = "network"
    emphasis: Annotated[
        float | None,
        typer.Option(
            "--emphasis",
            help="How far the OOD branch goes beyond the ordinary one, 0 to 10; 1: as its network draws; more is bolder, and invents more. (default: the bundle's) Example: --emphasis 1.5",
            rich_help_panel=LOCAL,
        ),
        Range(0, 10),
    ] = None
    unknown: Annotated[
        str | None,
        typer.Option(
            "--unknown",
            metavar="<str>",
            help="What to write where the input looks like neither healthy tissue nor a known lesion: plain (what the ordinary process draws) or blank (0). (default: the bundle's) Example: --unknown blank",
            rich_help_panel=LOCAL,
        ),
        OneOf(("plain", "blank")),
    ] = None
    unknown_tau: Annotated[
        float | None,
        typer.Option(
            "--unknown-tau",
            help="OOD probability from which a region is called unknown, below --tau, 0 to 1. (default: the bundle's) Example: --unknown-tau 0.1",
            rich_help_panel=LOCAL,
        ),
        Range(1e-6, 1),
    ] = None
    texture: Annotated[
        float | None,
        typer.Option(
            "--texture",
            help="Least texture of a region that is drawn, as a share of the brain's median texture, 0 to 1: anything smoother that does not stand out from its surroundings is not tissue and is called unknown. 0: draw it all the same. (default: the bundle's; 0 with --map) Example: --texture 0.2",
            rich_help_panel=LOCAL,
        ),
        Range(0, 1),
    ] = None
    suspect: Annotated[
        str | None,
        typer.Option(
            "--suspect",
            metavar="<str>",
            help="Segmenter bundle of lesions that the OOD branch cannot draw; what it finds outside B is called unknown. none: use none. (default: the bundle's) Example: --suspect none",
            rich_help_panel=LOCAL,
        ),
    ] = None
    suspect_tau: Annotated[
        float | None,
        typer.Option(
            "--suspect-tau",
            help="Probability of the --suspect bundle from which a region is called unknown, 0 to 1. (default: the bundle's) Example: --suspect-tau 0.5",
            rich_help_panel=LOCAL,
        ),
        Range(1e-6, 1),
    ] = None
    guided: Annotated[
        bool,
        typer.Option(
            "--guided",
            help="Guided timing: from the fusion step on, fuse as soon as a classifier still sees the anomaly.",
            rich_help_panel=LOCAL,
        ),
    ] = False
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier",
            help="Segmenter bundle of the target contrast for --guided. (default: lesion-<target>) Example: --classifier lesion-flair",
            rich_help_panel=LOCAL,
        ),
    ] = None
    ood_crop: Annotated[
        bool | None,
        typer.Option(
            "--ood-crop/--ood-full",
            help="Run the OOD branch on a window around B (faster), or on the whole slice. (default: the bundle's)",
            rich_help_panel=LOCAL,
        ),
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", help=f"{listed(SAMPLERS)}. (default: the bundle's) Example: --sampler dpmpp", rich_help_panel=SAMPLING),
        OneOf(SAMPLERS),
    ] = None
    eta: Annotated[
        float | None,
        typer.Option("--eta", help="DDIM's η, 0 (deterministic) to 1. (default: the bundle's) Example: --eta 0", rich_help_panel=SAMPLING),
        Range(0, 1),
    ] = None
    steps: Annotated[
        int | None, typer.Option("--steps", help="Reverse steps. (default: the bundle's) Example: --steps 10", rich_help_panel=SAMPLING)
    ] = None
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            help="Samples per slice; more than one gives their mean, and <name>_std. Example: --samples 10",
            rich_help_panel=SAMPLING,
        ),
        Range(1, 1000),
        Writes(Role("std", "std", "float32", "localdiff SD over samples"), above=1),
    ] = 1
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of all noise. Example: --seed 7", rich_help_panel=SAMPLING), Range(0, 2**63 - 1)
    ] = 0
    noise: Annotated[
        str,
        typer.Option(
            "--noise",
            help="shared by all slices (no flicker between them) or independent. Example: --noise independent",
            rich_help_panel=SAMPLING,
        ),
        OneOf(("shared", "independent")),
    ] = "shared"
    brain: Brain = "auto"
    bias: Bias = None
    nan: Nan = "refuse"
    match: Annotated[
        Path | None,
        typer.Option(
            "--match",
            help="Reference volume of the target contrast, or a folder with one for each volume: the output takes its intensity units. Example: --match t2_ref.nii.gz",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    suffix: Annotated[
        str | None, typer.Option("--suffix", help="Replace the BIDS suffix of the names. Example: --suffix T2w", rich_help_panel=OUTPUT)
    ] = None
    dtype: Annotated[
        str,
        typer.Option("--dtype", help="float32, float64, or int16 with slope and intercept. Example: --dtype int16", rich_help_panel=OUTPUT),
        OneOf(DTYPES),
    ] = "float32"
    save_map: Annotated[
        bool,
        typer.Option("--save-map", help="Also write the OOD map, <name>_ood.", rich_help_panel=OUTPUT),
        Writes(Role("map", "ood", "float32", "localdiff OOD map")),
    ] = False
    save_source: Annotated[
        bool,
        typer.Option(
            "--save-source",
            help="Also write what made each voxel, <name>_source: 1 IND, 2 OOD, 3 fused, 4 unknown.",
            rich_help_panel=OUTPUT,
        ),
        Writes(Role("source", "source", "uint8", "localdiff source: 1 IND 2 OOD 3 fused 4 unknown")),
    ] = False
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            help="Also write <name>_lo and <name>_hi, which contain the true value in this share of a new patient's voxels, 0.5 to 0.99, by region; give the level that --calibration, or the bundle's own calibration, was made with. (default: none) Example: --interval 0.9",
            rich_help_panel=OUTPUT,
        ),
        Writes(Role("lo", "lo", "float32", "localdiff lower limit")),
        Writes(Role("hi", "hi", "float32", "localdiff upper limit")),
    ] = None
    save_brain: SaveBrain = False
    device: Device = "auto"
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="fp32, or bf16 or fp16 on a GPU, which move a voxel in [0, 1] by less than 0.001 on average and 0.01 at most. Example: --precision bf16",
            rich_help_panel=MODEL,
        ),
        OneOf(PRECISIONS),
    ] = "fp32"
    batch_size: BatchSize = "auto"
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Certificate of localdiff calibrate: its cut τ is used, its promises go into every sidecar, and volumes unlike its patients are reported as such. (default: none) Example: --calibration site.json",
            rich_help_panel=MODEL,
        ),
    ] = None
    affine_from: AffineFrom = None
    cache: Cache = None


@dataclass(frozen=True)
class SegmentOptions:
    """The options of ``segment`` beyond the shared ones; None means the bundle's default."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Segmenter bundle by name or folder. (default: the one of the contrast that the input's sidecar or name says; where there are several, lesion-<contrast>) Example: --model lesion-flair",
            rich_help_panel=MODEL,
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Probability cut, 0 to 1. (default: the bundle's) Example: --threshold 0.5", rich_help_panel=OUTPUT
        ),
        Range(0.001, 0.999),
    ] = None
    min_volume: Annotated[
        float | None,
        typer.Option(
            "--min-volume", help="Smallest 3D lesion kept, mm³. (default: the bundle's) Example: --min-volume 50", rich_help_panel=OUTPUT
        ),
        Range(0, 1e7),
    ] = None
    brain: Brain = "auto"
    bias: Bias = None
    nan: Nan = "refuse"
    save_prob: Annotated[
        bool,
        typer.Option("--save-prob", help="Also write the lesion probability, <name>_prob.", rich_help_panel=OUTPUT),
        Writes(Role("prob", "prob", "float32", "localdiff lesion probability")),
    ] = False
    save_brain: SaveBrain = False
    device: Device = "auto"
    batch_size: BatchSize = "auto"
    affine_from: AffineFrom = None
    cache: Cache = None


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``evaluate`` beyond the shared ones."""

    ref: Annotated[
        str,
        typer.Option(
            "--ref",
            help="True target contrast: a file, or a folder paired by relative name or BIDS entities. Example: --ref t2_true/",
            rich_help_panel=FILES,
        ),
    ]
    truth: Annotated[
        str | None, typer.Option("--truth", help="Expert lesion masks. Example: --truth lesions_true/", rich_help_panel=REFERENCE)
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="The same volumes translated another way, to compare with. Example: --baseline t2_plain/",
            rich_help_panel=REFERENCE,
        ),
    ] = None
    segmenter: Annotated[
        str | None,
        typer.Option(
            "--segmenter",
            help="Segmenter bundle of the target contrast, run on translation, reference and baseline; a translation of localdiff is read on the scale that its sidecar names. Example: --segmenter lesion-flair",
            rich_help_panel=REFERENCE,
        ),
    ] = None
    seg: Annotated[
        str | None, typer.Option("--seg", help="Lesion masks found on the translations. Example: --seg seg/", rich_help_panel=REFERENCE)
    ] = None
    ref_seg: Annotated[
        str | None,
        typer.Option("--ref-seg", help="Lesion masks found on the references. Example: --ref-seg seg_ref/", rich_help_panel=REFERENCE),
    ] = None
    baseline_seg: Annotated[
        str | None,
        typer.Option(
            "--baseline-seg", help="Lesion masks found on the baseline. Example: --baseline-seg seg_plain/", rich_help_panel=REFERENCE
        ),
    ] = None
    ood: Annotated[
        str | None,
        typer.Option("--ood", help="OOD maps of detect, to score against the expert masks. Example: --ood ood/", rich_help_panel=REFERENCE),
    ] = None
    lo: Annotated[
        str | None,
        typer.Option(
            "--lo",
            help="Lower limits of an interval from any tool, in the translations' units, paired by name, such as <name>_lo of translate --interval. Example: --lo t2/",
            rich_help_panel=REFERENCE,
        ),
    ] = None
    hi: Annotated[
        str | None,
        typer.Option(
            "--hi",
            help="Upper limits; the report says how many true voxels lie between the limits and how far apart these are, by region. Example: --hi t2/",
            rich_help_panel=REFERENCE,
        ),
    ] = None
    source_map: Annotated[
        str | None,
        typer.Option(
            "--source-map",
            help="What made each voxel, <name>_source of translate --save-source, for the coverage of ordinary, drawn and unknown voxels. Example: --source-map t2/",
            rich_help_panel=REFERENCE,
        ),
    ] = None
    condition: Annotated[
        str | None,
        typer.Option("--condition", help="The source volumes, for the pictures. Example: --condition t1/", rich_help_panel=REFERENCE),
    ] = None
    brain: Annotated[
        str | None,
        typer.Option(
            "--brain",
            help="Brain masks. (default: where the translation is not 0; a translation with its skull gets the reference's brain) Example: --brain masks/",
            rich_help_panel=INPUT,
        ),
    ] = None
    bias: Annotated[
        str,
        typer.Option("--bias", help="Bias field correction of the reference: n4 or none. Example: --bias none", rich_help_panel=INPUT),
        OneOf(("n4", "none")),
    ] = "n4"
    resample_ref: Annotated[
        bool,
        typer.Option(
            "--resample-ref",
            help="Interpolate references, baselines, masks and maps of another grid onto the translation's, as the report then states; otherwise they are refused.",
            rich_help_panel=INPUT,
        ),
    ] = False
    tau: Annotated[
        float,
        typer.Option("--tau", help="Cut of the OOD map for its Dice, 0 to 1. Example: --tau 0.5", rich_help_panel=OOD),
        Range(1e-6, 1),
    ] = 0.5
    delta: Annotated[
        float, typer.Option("--delta", help="A lesion is missed below this Dice. Example: --delta 0.1", rich_help_panel=MISS), Range(0, 1)
    ] = 0.1
    lesion_share: Annotated[
        float,
        typer.Option(
            "--lesion-share",
            help="A slice bears a lesion above this share of its brain. Example: --lesion-share 0.02",
            rich_help_panel=MISS,
        ),
        Range(0, 1),
    ] = 0.02
    invented_pixels: Annotated[
        int,
        typer.Option(
            "--invented-pixels",
            help="A lesion is invented above this many pixels in a lesion-free slice. Example: --invented-pixels 30",
            rich_help_panel=MISS,
        ),
        Range(0, 1e6),
    ] = 30
    resamples: Annotated[
        int,
        typer.Option("--resamples", help="Bootstrap resamples over patients. Example: --resamples 5000", rich_help_panel=RUN),
        Range(100, 1_000_000),
    ] = 5000
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap. Example: --seed 1", rich_help_panel=RUN)] = 0
    fail_under: Annotated[
        tuple[str, ...],
        typer.Option(
            "--fail-under",
            help="End with exit code 5 when a figure is worse than this; may be repeated. Example: --fail-under dice=0.7",
            rich_help_panel=RUN,
        ),
    ] = ()
    realism: Annotated[
        bool,
        typer.Option(
            "--realism",
            help="Also compute FID and KID of the brain's slices, in the features of the packaged EfficientNet-Lite0 (not Inception: compare within one tool only).",
            rich_help_panel=REFERENCE,
        ),
    ] = False
    contrast: Annotated[
        str | None,
        typer.Option(
            "--contrast",
            help="Contrast of translations and references, where neither sidecar nor name says it. Example: --contrast FLAIR",
            rich_help_panel=INPUT,
        ),
    ] = None
    judge_dice: Annotated[
        float,
        typer.Option(
            "--judge-dice",
            help="The segmenter must reach this mean Dice with the expert masks on the true contrast, 0 to 1; below it, its figures are withheld. Example: --judge-dice 0.3",
            rich_help_panel=MISS,
        ),
        Range(0, 1),
    ] = 0.3
    viewer: Annotated[
        bool,
        typer.Option(
            "--viewer/--no-viewer",
            help="Put the volumes of the two worst and the two best cases into the report, to scroll through: at most 25 MB.",
            rich_help_panel=OUTPUT,
        ),
    ] = True
    affine_from: AffineFrom = None
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Apply --fail-under only to the cases that have the figure; otherwise one case without it misses the limit.",
            rich_help_panel=RUN,
        ),
    ] = False


Data = Annotated[
    tuple[Path, ...],
    typer.Option(
        "--data",
        help="A TSV (condition, target, mask, brain, split; paths relative to it) or a BIDS-like folder with participants.tsv; may be repeated. Example: --data pairs.tsv",
        rich_help_panel=FILES,
    ),
]
BundleOut = Annotated[
    Path, typer.Option("--out", help="Bundle folder to make or to add to. Example: --out models/t1-to-t2", rich_help_panel=FILES)
]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Folder for caches and checkpoints; an interrupted fit resumes from there. (default: <out>.work) Example: --work scratch/",
        rich_help_panel=FILES,
    ),
]
Condition = Annotated[
    str, typer.Option("--condition", help="BIDS suffix of the source contrast. Example: --condition T1w", rich_help_panel=FILES)
]
Target = Annotated[
    str | None, typer.Option("--target", help="BIDS suffix of the target contrast. Example: --target T2w", rich_help_panel=FILES)
]
Healthy = Annotated[
    tuple[str, ...],
    typer.Option(
        "--healthy",
        help="A patient without a mask who is known to bear no lesion; may be repeated. Example: --healthy sub-01",
        rich_help_panel=FILES,
    ),
]
FitBias = Annotated[
    str,
    typer.Option("--bias", help="Bias field correction: n4 or none. Example: --bias none", rich_help_panel=INPUT),
    OneOf(("n4", "none")),
]
Exclude = Annotated[
    tuple[str, ...],
    typer.Option(
        "--exclude",
        help="A patient to leave out, such as one who is in two data sets; may be repeated. Example: --exclude sub-07",
        rich_help_panel=FILES,
    ),
]
Spacing = Annotated[
    float,
    typer.Option("--spacing", help="Pixel size of the network's grid, mm. Example: --spacing 1.0", rich_help_panel=INPUT),
    Range(0.3, 10),
]
Shape = Annotated[
    str, typer.Option("--shape", help="Rows and columns of the network's grid, pixels. Example: --shape 208,176", rich_help_panel=INPUT)
]
Licence = Annotated[
    str, typer.Option("--licence", help="Terms of the weights, for the card. Example: --licence 'CC BY 4.0'", rich_help_panel=FILES)
]
FitSteps = Annotated[
    int, typer.Option("--steps", help="Optimiser steps. Example: --steps 4000", rich_help_panel=TRAINING), Range(1, 10_000_000)
]
FitBatch = Annotated[
    int, typer.Option("--batch-size", help="Slices per step. Example: --batch-size 8", rich_help_panel=TRAINING), Range(1, 4096)
]
Rate = Annotated[float, typer.Option("--rate", help="Peak learning rate. Example: --rate 4e-4", rich_help_panel=TRAINING), Range(1e-8, 1)]
FitPrecision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="fp32, or bf16 for the network's passes: faster on a GPU and on CPUs with AVX512-BF16 or AMX, many times slower on others. Example: --precision bf16",
        rich_help_panel=TRAINING,
    ),
    OneOf(("fp32", "bf16")),
]
Accumulate = Annotated[
    int,
    typer.Option(
        "--accumulate",
        help="Batches of --batch-size slices that make a step in each process. Example: --accumulate 4",
        rich_help_panel=TRAINING,
    ),
    Range(1, 4096),
]
Board = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard",
        help="Folder for TensorBoard's event files: loss, rate, samples, validation figures; needs the extra 'training'. (default: none) Example: --tensorboard runs/",
        rich_help_panel=FILES,
    ),
]
FitSeed = Annotated[
    int,
    typer.Option("--seed", help="Seed of weights, batches and augmentation. Example: --seed 1", rich_help_panel=TRAINING),
    Range(0, 2**63 - 1),
]


@dataclass(frozen=True)
class FitOptions:
    """The options of every ``fit`` command; those that a command does not have keep these defaults."""

    data: Data
    out: BundleOut
    condition: Condition = "T1w"
    target: Target = None
    work: Work = None
    healthy: Healthy = ()
    exclude: Exclude = ()
    bias: FitBias = "n4"
    device: Device = "auto"
    licence: Licence = "unstated"
    spacing: Spacing = 1.0
    shape: Shape = "208,176"
    affine_from: AffineFrom = None
    debug: Debug = False


@dataclass(frozen=True)
class TranslatorData(FitOptions):
    """What a translator is trained on."""

    target: Target = "T2w"


@dataclass(frozen=True)
class SegmenterData(FitOptions):
    """What a segmenter is trained on."""

    condition: Condition = "FLAIR"
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="<str>",
            help="Contrast on which doubtful pixels are bright, needed by --doubt. (default: none) Example: --target FLAIR",
            rich_help_panel=FILES,
        ),
    ] = None


@dataclass(frozen=True)
class TrainOptions:
    """How long and how a network is trained; by default as a translator is."""

    steps: FitSteps = 3600
    batch_size: FitBatch = 8
    rate: Rate = 4e-4
    seed: FitSeed = 0
    precision: FitPrecision = "fp32"
    accumulate: Accumulate = 1
    tensorboard: Board = None


@dataclass(frozen=True)
class ExpertTraining(TrainOptions):
    """How an expert is trained."""

    steps: FitSteps = 600
    rate: Rate = 2e-4


@dataclass(frozen=True)
class SegmenterTraining(TrainOptions):
    """How a segmenter is trained."""

    steps: FitSteps = 1600
    batch_size: FitBatch = 12
    rate: Rate = 1e-3


@dataclass(frozen=True)
class IntervalTraining(TrainOptions):
    """How an interval network is trained."""

    steps: FitSteps = 4000
    rate: Rate = 1e-3


InventedWeight = Annotated[
    float,
    typer.Option(
        "--invented-weight",
        help="Extra cost, outside lesions, of looking more like disease than the truth: so many times the square of what exceeds 0.08 of the range (brighter on FLAIR and T2w, darker on T1w), 0 to 20. Example: --invented-weight 3",
        rich_help_panel=TRAINING,
    ),
    Range(0, 20),
]


@dataclass(frozen=True)
class TranslatorFit:
    """The options of ``fit translator`` alone."""

    prediction: Annotated[
        str,
        typer.Option(
            "--prediction",
            help="What the network predicts: epsilon, sample (x_0) or v_prediction. Example: --prediction v_prediction",
            rich_help_panel=NETWORK,
        ),
        OneOf(("epsilon", "sample", "v_prediction")),
    ] = "sample"
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            help="Noise schedule: linear_beta, scaled_linear_beta, sigmoid_beta or cosine. Example: --schedule cosine",
            rich_help_panel=NETWORK,
        ),
        OneOf(("linear_beta", "scaled_linear_beta", "sigmoid_beta", "cosine")),
    ] = "linear_beta"
    channels: Annotated[
        str, typer.Option("--channels", help="Channels by level, multiples of 32. Example: --channels 64,96,128", rich_help_panel=NETWORK)
    ] = "64,96,128"
    space_to_depth: Annotated[
        int,
        typer.Option(
            "--space-to-depth",
            min=1,
            max=16,
            help="Side, in pixels, of the blocks that become channels before the network. Example: --space-to-depth 2",
            rich_help_panel=NETWORK,
        ),
    ] = 4
    region_augment: Annotated[
        float,
        typer.Option(
            "--region-augment",
            help="Probability, 0 to 1, that condition and target are both restricted to a random blob. Example: --region-augment 0.5",
            rich_help_panel=TRAINING,
        ),
        Range(0, 1),
    ] = 0.0
    around_lesions: Annotated[
        bool,
        typer.Option(
            "--around-lesions",
            help="Learn from slices with lesions too, but leave each lesion and 4 pixels around it out of the loss. (default: from lesion-free slices alone)",
            rich_help_panel=TRAINING,
        ),
    ] = False
    first_share: Annotated[
        float,
        typer.Option(
            "--first-share",
            help="Share of training timesteps, 0 to 0.9, that are the last one, T − 1, on which few-step samplers depend most; the others are spread over all. Example: --first-share 0.4",
            rich_help_panel=TRAINING,
        ),
        Range(0, 0.9),
    ] = 0.0
    invented_weight: InventedWeight = 0.0
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="<str>",
            help="Weights that the training starts from: BUNDLE for its translator, which may be of other contrasts, or BUNDLE:PART for its models/PART.safetensors; network and schedule must be the same. (default: random weights) Example: --start t1-to-flair",
            rich_help_panel=TRAINING,
        ),
    ] = None


@dataclass(frozen=True)
class ExpertFit:
    """The options of ``fit expert`` alone; ``detector`` and ``tau`` become the bundle's defaults where they are given."""

    base: Annotated[
        str,
        typer.Option(
            "--base", help="Translator bundle whose OOD branch gets an expert. Example: --base t1-to-flair", rich_help_panel=FILES
        ),
    ]
    healthy_share: Annotated[
        float,
        typer.Option(
            "--healthy-share",
            help="Share of training regions without a lesion, 0.05 to 0.95; more means fewer invented and more missed lesions. Example: --healthy-share 0.5",
            rich_help_panel=TRAINING,
        ),
        Range(0.05, 0.95),
    ] = 0.5
    invented_weight: InventedWeight = 0.0
    erased_weight: Annotated[
        float,
        typer.Option(
            "--erased-weight",
            help="Extra cost, in lesions, of looking less like disease than the truth: so many times the square of what is missing, 0 to 20; more means less pale lesions. Example: --erased-weight 2",
            rich_help_panel=TRAINING,
        ),
        Range(0, 20),
    ] = 0.0
    patients: Annotated[
        int | None,
        typer.Option(
            "--patients",
            min=1,
            help="How many patients' lesions to learn from, spread over the order of names. (default: all) Example: --patients 20",
            rich_help_panel=TRAINING,
        ),
        Range(1, 1_000_000),
    ] = None
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help=f"Make {listed(DETECTORS)} the bundle's default detector. (default: leave it) Example: --detector segmenter",
            rich_help_panel=OOD,
        ),
        OneOf(DETECTORS),
    ] = None
    tau: Annotated[
        float | None,
        typer.Option(
            "--tau",
            help="Make this the bundle's default cut of the OOD map, 0 to 1. (default: leave it) Example: --tau 0.2",
            rich_help_panel=OOD,
        ),
        Range(1e-6, 1),
    ] = None
    told: Annotated[
        tuple[str, ...],
        typer.Option(
            "--told",
            help="Let the expert see the whole condition and the OOD map, as this segmenter bundle finds it; may be repeated: each person's map is then made by the first that did not learn from that person. (default: it sees its region alone) Example: --told lesion-t1",
            rich_help_panel=TRAINING,
        ),
    ] = ()
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="<str>",
            help="Bundle whose expert the training starts from; it must be told if this one is, and not told if not. (default: it starts as the base's translator) Example: --start t1-to-flair",
            rich_help_panel=TRAINING,
        ),
    ] = None


@dataclass(frozen=True)
class IntervalFit:
    """The options of ``fit interval`` alone."""

    base: Annotated[
        str,
        typer.Option("--base", help="Translator bundle whose bands it begins. Example: --base t1-to-flair", rich_help_panel=FILES),
    ]
    level: Annotated[
        float,
        typer.Option(
            "--level",
            help="Share of the true values that it learns to enclose, 0.5 to 0.99; take that of calibrate --interval. Example: --level 0.9",
            rich_help_panel=TRAINING,
        ),
        Range(0.5, 0.99),
    ] = 0.9
    every: Annotated[
        int,
        typer.Option("--every", min=1, help="Learn from every n-th slice of each person. Example: --every 5", rich_help_panel=TRAINING),
        Range(1, 10_000),
    ] = 5
    channels: Annotated[
        str,
        typer.Option("--channels", help="Channels by level. Example: --channels 32,64,96,128", rich_help_panel=NETWORK),
    ] = "32,64,96,128"


@dataclass(frozen=True)
class DetectorFit:
    """The options of ``fit detector`` alone."""

    backbone: Annotated[
        str,
        typer.Option(
            "--backbone",
            help="efficientnet-lite0 (packaged), or resnet18, resnet50, wide_resnet50_2 with --backbone-weights. Example: --backbone wide_resnet50_2",
            rich_help_panel=NETWORK,
        ),
    ] = "efficientnet-lite0"
    backbone_weights: BackboneWeights = None
    input_scale: Annotated[
        float,
        typer.Option(
            "--input-scale", help="Enlarge slices by this factor before the backbone. Example: --input-scale 1.5", rich_help_panel=NETWORK
        ),
    ] = 1.0
    coreset: Annotated[
        int,
        typer.Option("--coreset", help="Patches kept in the memory bank. Example: --coreset 5000", rich_help_panel=TRAINING),
        Range(10, 1_000_000),
    ] = 5000
    every: Annotated[
        int,
        typer.Option("--every", min=1, help="Use every n-th healthy slice. Example: --every 3", rich_help_panel=TRAINING),
        Range(1, 1_000_000),
    ] = 1
    seed: FitSeed = 0


@dataclass(frozen=True)
class SegmenterFit:
    """The options of ``fit segmenter`` alone."""

    channels: Annotated[
        str, typer.Option("--channels", help="Channels by level. Example: --channels 32,64,128,192", rich_help_panel=NETWORK)
    ] = "32,64,128,192"
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", help="Default probability cut, 0 to 1, stored in the bundle. Example: --threshold 0.5", rich_help_panel=NETWORK
        ),
        Range(0.001, 0.999),
    ] = 0.5
    min_volume: Annotated[
        float,
        typer.Option(
            "--min-volume",
            help="Default smallest lesion kept, mm³, stored in the bundle. Example: --min-volume 50",
            rich_help_panel=NETWORK,
        ),
        Range(0, 1e9),
    ] = 0.0
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="<str>",
            help="Segmenter bundle whose weights the training starts from; it may have fewer --channels (the new ones begin at random, without effect). (default: random weights) Example: --start lesion-t1",
            rich_help_panel=TRAINING,
        ),
    ] = None
    healthy_share: Annotated[
        float,
        typer.Option(
            "--healthy-share",
            help="Share of the training slices from people without any lesion, 0 to 0.95, where there are some. Example: --healthy-share 0.4",
            rich_help_panel=TRAINING,
        ),
        Range(0, 0.95),
    ] = 0.2
    doubt: Annotated[
        float | None,
        typer.Option(
            "--doubt",
            help="Leave a pixel outside the mask out of the loss from this many robust SDs on the target contrast; for masks that miss lesions. (default: leave none out) Example: --doubt 1.8",
            rich_help_panel=TRAINING,
        ),
        Range(-10, 10),
    ] = None
    hard_negatives: Annotated[
        bool,
        typer.Option(
            "--hard-negatives",
            help="Also show widened ventricles, flat, blurred, shaded and contrast-enhanced slices and bright residues at the rim as what they are: no lesion.",
            rich_help_panel=TRAINING,
        ),
    ] = False
    missed_weight: Annotated[
        float,
        typer.Option(
            "--missed-weight",
            help="Weight of missed against invented pixels in the loss's overlap, 0.05 to 0.95: 0.5 is Dice; more finds more and invents more. Example: --missed-weight 0.7",
            rich_help_panel=TRAINING,
        ),
        Range(0.05, 0.95),
    ] = 0.5
    by_slice: Annotated[
        float,
        typer.Option(
            "--by-slice",
            help="Share of the loss's overlap that is taken slice by slice, 0 to 1, so that a small lesion counts as much as a large one; the rest is taken over the batch. Example: --by-slice 0.5",
            rich_help_panel=TRAINING,
        ),
        Range(0, 1),
    ] = 0.0


@dataclass(frozen=True)
class CalibrateOptions:
    """The options of ``calibrate``; None asks for no such promise."""

    model: Annotated[
        str, typer.Option("--model", help="Translator bundle by name or folder. Example: --model t1-to-flair", rich_help_panel=FILES)
    ]
    data: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--data",
            help="Your own patients: a folder of sub-* with condition, target, _mask of lesions (none: no lesions known) and _brain, or a TSV as for fit; repeatable. Example: --data cohort/",
            rich_help_panel=FILES,
        ),
    ]
    out: Annotated[Path, typer.Option("--out", help="Certificate to write, JSON. Example: --out site.json", rich_help_panel=FILES)]
    max_uncovered: Annotated[
        float | None,
        typer.Option(
            "--max-uncovered",
            help="Largest share of a patient's lesions of which the map covers less than half, on average over new patients, 0 to 1. (default: no promise) Example: --max-uncovered 0.2",
            rich_help_panel=PROMISES,
        ),
        Range(1e-4, 1 - 1e-4),
    ] = None
    max_missed: Annotated[
        float | None,
        typer.Option(
            "--max-missed",
            help="Largest share of a patient's lesions neither drawn with half their contrast nor called unknown, 0 to 1. (default: no promise) Example: --max-missed 0.3",
            rich_help_panel=PROMISES,
        ),
        Range(1e-4, 1 - 1e-4),
    ] = None
    max_invented: Annotated[
        float | None,
        typer.Option(
            "--max-invented",
            help="Largest share of a patient's lesion-free slices with a falsely drawn spot above 30 mm², 0 to 1. (default: no promise) Example: --max-invented 0.1",
            rich_help_panel=PROMISES,
        ),
        Range(1e-4, 1 - 1e-4),
    ] = None
    max_harm: Annotated[
        float | None,
        typer.Option(
            "--max-harm",
            help="Largest share of patients with more than --harm-ml falsely drawn, 0 to 1. (default: no promise) Example: --max-harm 0.1",
            rich_help_panel=PROMISES,
        ),
        Range(1e-4, 1 - 1e-4),
    ] = None
    harm_ml: Annotated[
        float,
        typer.Option(
            "--harm-ml",
            help="Falsely drawn volume above which a patient counts as harmed, ml. Example: --harm-ml 2",
            rich_help_panel=PROMISES,
        ),
        Range(0, 2000),
    ] = 5.0
    confidence: Annotated[
        float,
        typer.Option(
            "--confidence",
            help="Confidence of all promises but --max-uncovered together, 0.5 to 0.9999. Example: --confidence 0.9",
            rich_help_panel=PROMISES,
        ),
        Range(0.5, 0.9999),
    ] = 0.9
    taus: Annotated[
        str | None,
        typer.Option(
            "--taus",
            help="Cuts τ of the map to choose from, 0 to 1, the first of them tried first; declare them before you look at the patients. (default: the bundle's own, 0.05, 0.1, 0.2, 0.3, 0.5) Example: --taus 0.2,0.1,0.3",
            rich_help_panel=PROMISES,
        ),
    ] = None
    emphases: Annotated[
        str | None,
        typer.Option(
            "--emphases",
            help="Emphases of the OOD branch (translate --emphasis) to choose from with every cut, 0 to 10; each takes an equal share of the error, so every further one needs more patients. (default: the bundle's own) Example: --emphases 1.5,1",
            rich_help_panel=PROMISES,
        ),
    ] = None
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            help="Also make bands for translate --interval, which contain the true value in this share of a new patient's voxels on average, 0.5 to 0.99. (default: none) Example: --interval 0.9",
            rich_help_panel=PROMISES,
        ),
        Range(0.5, 0.99),
    ] = None
    bands_from: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--bands-from",
            help="Other people, as for --data, whose true values shape the bands (the train split where there is one, at most 16 people; training patients are allowed): they prove nothing, and make the bands narrower; repeatable. In a bundle with an interval network they shape what the OOD branch drew, the network the rest. (default: the network alone; without one bands about the drawn value) Example: --bands-from pairs.tsv",
            rich_help_panel=PROMISES,
        ),
    ] = ()
    void_level: Annotated[
        float,
        typer.Option(
            "--void-below",
            help="Share of volumes like the cohort's, the strangest, for which the certificate is void all the same, 0 to 0.5. Example: --void-below 0.05",
            rich_help_panel=PROMISES,
        ),
        Range(0, 0.5),
    ] = 0.05
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Only this split of participants.tsv or the TSV: train, val or test. (default: everybody) Example: --split val",
            rich_help_panel=COHORT,
        ),
        OneOf(("train", "val", "test")),
    ] = None
    exclude: Annotated[
        tuple[str, ...],
        typer.Option("--exclude", help="Patient to leave out; repeatable. Example: --exclude sub-07", rich_help_panel=COHORT),
    ] = ()
    with_val: Annotated[
        bool,
        typer.Option(
            "--with-val",
            help="Also take patients on whom a setting of the bundle was chosen (never those who trained it); the certificate, the sidecars and the report say how many, because the promise may be a little too good.",
            rich_help_panel=COHORT,
        ),
    ] = False
    every: Annotated[
        int,
        typer.Option(
            "--every", min=1, help="Judge every n-th slice only; the promises hold for these. Example: --every 2", rich_help_panel=COHORT
        ),
    ] = 1
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Folder for the measurements; an interrupted run resumes from there. (default: <out>.work) Example: --work calibrate.work",
            rich_help_panel=FILES,
        ),
    ] = None
    affine_from: AffineFrom = None
    device: Device = "auto"
    debug: Debug = False

    @property
    def levels(self) -> dict[str, float]:
        """Return the level of each risk for which a promise is asked."""
        given = {"uncovered": self.max_uncovered, "missed": self.max_missed, "invented": self.max_invented, "harm": self.max_harm}
        return {name: level for name, level in given.items() if level is not None}


@dataclass(frozen=True)
class ViewOptions:
    """The options of ``view``."""

    volumes: Annotated[
        tuple[str, ...],
        typer.Argument(
            help="Volumes of one person: files, or folders of one DICOM series each. What a name or sidecar calls a mask or a map is laid over the others. Example: t1.nii.gz flair.nii.gz"
        ),
    ]
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The page to write, one HTML file; an older one is replaced. Example: --out view.html", rich_help_panel=FILES
        ),
    ] = Path("view.html")
    overlays: Annotated[
        tuple[str, ...],
        typer.Option(
            "--overlay",
            help="A volume to lay over the others, whatever it is called; may be repeated. Example: --overlay lesions.nii.gz",
            rich_help_panel=FILES,
        ),
    ] = ()
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser where there is a screen.", rich_help_panel=RUN)
    ] = True
    affine_from: AffineFrom = None
    debug: Debug = False
