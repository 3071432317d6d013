"""The words that options, settings and registries share, each with its meaning; imports nothing heavy.

A new sampler is named here and made in ``diffusion/samplers.py``; a new detector is named here and made in
``recipes/detector.py``, with a class of its own. The value of a word is its meaning as ``--help`` shows it in brackets;
empty for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

SamplerName = Literal["ddim", "ddpm", "dpmpp"]
SAMPLERS: dict[str, str] = {"ddim": "", "ddpm": "ancestral", "dpmpp": "DPM-Solver++ 2M"}

DetectorName = Literal["patchcore", "segmenter"]
DETECTORS: dict[str, str] = {"patchcore": "", "segmenter": ""}


def listed(choices: Mapping[str, str]) -> str:
    """Return the words for a help text, each with its meaning in brackets where it has one."""
    words = [f"{word} ({meaning})" if meaning else word for word, meaning in choices.items()]
    return f"{', '.join(words[:-1])} or {words[-1]}"
