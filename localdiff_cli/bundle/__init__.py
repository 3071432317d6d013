"""A model bundle: a folder in MONAI's layout with ``configs/metadata.json``, ``models/*.safetensors`` and a card
``README.md``.

``schema`` says what the metadata may hold, ``store`` reads and writes the folder, ``load`` makes networks of the weights,
``card`` writes the card.
"""

from localdiff_cli.bundle.load import (
    detector_bundle,
    load_detector,
    load_expert,
    load_interval,
    load_segmenter,
    load_tensors,
    load_translator,
    schedule_of,
    verify,
)
from localdiff_cli.bundle.schema import FORMAT, INTERVAL, METADATA, Bundle, Contrast, Defaults, GridSpec, SegmenterDefaults
from localdiff_cli.bundle.store import (
    DETECTOR,
    EXPERT,
    MAX_METADATA_BYTES,
    MAX_WEIGHT_BYTES,
    SEGMENTER,
    TRANSLATOR,
    bundle_folders,
    bundle_paths,
    copy_bundle,
    drop_parts,
    open_bundle,
    read_metadata,
    save_bundle,
    weight_file,
    with_defaults,
)

__all__ = [
    "DETECTOR",
    "EXPERT",
    "FORMAT",
    "INTERVAL",
    "MAX_METADATA_BYTES",
    "MAX_WEIGHT_BYTES",
    "METADATA",
    "SEGMENTER",
    "TRANSLATOR",
    "Bundle",
    "Contrast",
    "Defaults",
    "GridSpec",
    "SegmenterDefaults",
    "bundle_folders",
    "bundle_paths",
    "copy_bundle",
    "detector_bundle",
    "drop_parts",
    "load_detector",
    "load_expert",
    "load_interval",
    "load_segmenter",
    "load_tensors",
    "load_translator",
    "open_bundle",
    "read_metadata",
    "save_bundle",
    "schedule_of",
    "verify",
    "weight_file",
    "with_defaults",
]
