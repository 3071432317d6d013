"""What MONAI asks of a bundle beyond our own metadata: its mandatory keys, and ``configs/inference.json``. JSON only,
nothing is loaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from localdiff_cli import __version__

INFERENCE = "configs/inference.json"
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
MANDATORY = (
    "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task", "description",
    "authors", "copyright", "network_data_format",
)  # fmt: skip
"""The keys that MONAI's bundle specification requires."""
PACKAGES = ("safetensors", "einops", "nibabel")
FIRST_VERSION = "0.1.0"
WORKFLOW = "localdiff_cli.monai_bundle.workflow"


def monai_metadata(metadata: Mapping[str, Any]) -> dict[str, object]:
    """Return the keys of MONAI that a bundle's ``metadata`` lacks; what it has already is left. None of them is in a
    bundle's hash."""
    condition = metadata["condition"]["contrast"]
    target = metadata.get("target", {}).get("contrast") if metadata["task"] == "translate" else None
    what = f"Translates brain-extracted axial {condition} slices to {target}" if target else f"Finds lesions on axial {condition} slices"
    added = {
        "schema": SCHEMA,
        "version": FIRST_VERSION,
        "changelog": {FIRST_VERSION: "first version"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {"localdiff": __version__} | {name: _version(name) for name in PACKAGES},
        "description": f"{what}. For research use; not for diagnosis.",
        "authors": "the localdiff project",
        "copyright": str(metadata.get("licence", "unstated")),
        "network_data_format": data_format(metadata, target),
    }
    return {key: value for key, value in added.items() if key not in metadata}


def _version(package: str) -> str:
    """The release installed, without a build's own suffix."""
    return importlib.metadata.version(package).split("+")[0]


def data_format(metadata: Mapping[str, Any], target: str | None) -> dict[str, object]:
    """Return ``network_data_format``: one prepared slice in, a slice of the target contrast or of lesion probabilities out."""
    common = {
        "type": "image",
        "num_channels": 1,
        "spatial_shape": list(metadata["grid"]["shape"]),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
    }
    condition = metadata["condition"]["contrast"]
    pred = {"format": "magnitude" if target else "segmentation", "channel_def": {"0": target or "probability of a lesion"}}
    return {
        "inputs": {"image": common | {"format": "magnitude", "modality": "MR", "channel_def": {"0": condition}}},
        "outputs": {"pred": common | pred},
    }


def inference_config(metadata: Mapping[str, Any]) -> dict[str, object]:
    """Return ``configs/inference.json``, which ``python -m monai.bundle run`` executes: NIfTI volumes of ``dataset_dir``
    into ``output_dir``."""
    kind = "SliceTranslator" if metadata["task"] == "translate" else "SliceSegmenter"
    options = {"seed": "@seed"} if metadata["task"] == "translate" else {}
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "brain": "auto",
        **({"seed": 0} if options else {}),
        "network_def": {"_target_": f"{WORKFLOW}.{kind}", "bundle_root": "@bundle_root", **options},
        "network": "$@network_def.to(@device)",
        "inferer": {"_target_": "SimpleInferer"},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": f"{WORKFLOW}.PrepareSlicesd", "network": "@network_def", "brain": "@brain"}],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii*'))]",
            "transform": "@preprocessing",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": f"{WORKFLOW}.WriteVolumed", "network": "@network_def", "output_dir": "@output_dir"}],
        },
        "evaluator": {
            "_target_": f"{WORKFLOW}.VolumeWorkflow",
            "dataset": "@dataset",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "device": "@device",
        },
        "initialize": ["$torch.set_grad_enabled(False)"],
        "run": ["$@evaluator.run()"],
    }
