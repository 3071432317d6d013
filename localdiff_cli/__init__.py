"""localdiff: translate one MRI contrast into another without inventing or erasing disease.

``translate_volume``, ``detect_volume`` and ``segment_volume`` work on one volume, ``load_bundle`` opens a model; see
``api.py``. They are imported on first use: ``import localdiff_cli`` itself is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localdiff_cli.api import Detection, Segmentation, Translation, detect_volume, load_bundle, segment_volume, translate_volume
    from localdiff_cli.bundle import Bundle
    from localdiff_cli.options import DetectOptions, DetectorOptions, SegmentOptions, TranslateOptions

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "DetectOptions",
    "Detection",
    "DetectorOptions",
    "SegmentOptions",
    "Segmentation",
    "TranslateOptions",
    "Translation",
    "__version__",
    "detect_volume",
    "load_bundle",
    "segment_volume",
    "translate_volume",
]


def __getattr__(name: str) -> Any:
    """The public names of ``api.py``, imported on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from localdiff_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
