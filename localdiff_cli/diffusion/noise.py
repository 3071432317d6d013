"""Counter-based noise: any voxel's noise follows from its key alone, whatever was drawn before it, on whatever device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

INITIAL = -1
"""The step number of x_T itself."""


@dataclass(frozen=True)
class NoiseKey:
    """Whose noise: ``seed``, ``sample`` number and the volume's ``fingerprint``; ``shared`` by all its slices or per slice."""

    seed: int
    sample: int
    fingerprint: str
    shared: bool = True

    def field(self, step: int, slice_number: int, shape: tuple[int, int]) -> Tensor:
        """Return standard normal noise ``(1, H, W)`` float32 for one step of one slice (Philox, keyed by SHA-256 of the
        whole key).

        >>> key = NoiseKey(seed=0, sample=0, fingerprint="a volume")
        >>> torch.equal(key.field(3, 0, (4, 4)), NoiseKey(0, 0, "a volume").field(3, 9, (4, 4)))  # shared by all slices
        True
        >>> torch.equal(key.field(3, 0, (4, 4)), key.field(4, 0, (4, 4)))
        False
        """
        place = "all" if self.shared else str(slice_number)
        text = f"{self.seed}/{self.sample}/{self.fingerprint}/{place}/{step}"
        key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
        generator = np.random.Generator(np.random.Philox(key=key))
        return torch.from_numpy(generator.standard_normal((1, *shape), dtype=np.float32))

    def batch(self, step: int, slices: list[int], shape: tuple[int, int]) -> Tensor:
        """Return :meth:`field` of several slices, ``(N, 1, H, W)``."""
        if self.shared:
            return self.field(step, 0, shape).expand(len(slices), 1, *shape)
        return torch.stack([self.field(step, k, shape) for k in slices])
