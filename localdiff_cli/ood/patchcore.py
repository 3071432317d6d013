"""PatchCore: distances of a slice's patches to a memory bank of healthy patches (Roth et al., CVPR 2022;
examples/docs/concepts.md §1).

Everything is computed slice by slice, whatever the batch: convolution and matrix libraries choose their algorithm by the
shape of a call, and a slice's result must not depend, to the last bit, on the slices that happen to lie beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from localdiff_cli.errors import ModelError
from localdiff_cli.ood.backbone import Backbone, pad_slices

with warnings.catch_warnings():
    # faiss's SWIG types warn on import under newer Pythons.
    warnings.simplefilter("ignore")
    import faiss

NEIGHBOURS = 9
"""b of the paper's equation 7."""
SMOOTHING_SIGMA = 4.0
"""Standard deviation of the final Gaussian in pixels of an image whose longer side has 224."""
QUERY_BLOCK = 4096
"""Patches compared with the bank at a time: a table of 4096 × M distances."""


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """Embeddings ``(M, D)`` float32 of healthy patches, M ≥ 2, on the device on which the exact L2 search shall run.

    Raises :class:`ModelError` when the array is not that.
    """

    embeddings: Tensor

    def __post_init__(self) -> None:
        bank = self.embeddings
        if bank.ndim != 2 or bank.shape[0] < 2 or bank.dtype != torch.float32 or not torch.isfinite(bank).all():
            raise ModelError(
                f"memory bank: expected at least two rows of finite float32, found {tuple(bank.shape)} {bank.dtype}; "
                "fit the detector again",
                code="bank-damaged",
            )

    @cached_property
    def index(self) -> Any:
        """Exact faiss L2 index of the bank, on its GPU where faiss can use it."""
        index: Any = faiss.IndexFlatL2(self.embeddings.shape[1])
        if self.embeddings.is_cuda and hasattr(faiss, "StandardGpuResources"):
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), self.embeddings.device.index or 0, index)
        index.add(self.embeddings.cpu().contiguous().numpy())
        return index

    def nearest(self, queries: Tensor, count: int) -> Tensor:
        """Return the indices ``(P, count)`` int64 of the bank entries nearest to ``queries`` ``(P, D)``, nearest first.

        Raise :class:`ModelError` when D is not the bank's.
        """
        self._check(queries)
        _, indices = self.index.search(queries.cpu().contiguous().numpy(), count)
        return torch.from_numpy(indices).to(self.embeddings.device)

    @cached_property
    def _squared(self) -> Tensor:
        """‖y‖² of each entry, ``(M,)``."""
        return self.embeddings.square().sum(dim=1)

    def closest(self, queries: Tensor) -> Tensor:
        """Return the index ``(P,)`` int64 of the bank entry nearest to each of ``queries`` ``(P, D)``:
        ``nearest(queries, 1)``, faster.

        Every patch of a slice asks this. It is one matrix product, which torch does on the bank's device and, on a CPU, on
        the one thread that the slice has (faiss would take all threads for every slice at once). Raise :class:`ModelError`
        as nearest does.
        """
        self._check(queries)
        tables = (torch.addmm(self._squared, block, self.embeddings.T, alpha=-2) for block in queries.split(QUERY_BLOCK))
        return torch.cat([_lowest(table) for table in tables])

    def _check(self, queries: Tensor) -> None:
        if queries.shape[1] != self.embeddings.shape[1]:
            raise ModelError(
                f"memory bank of {self.embeddings.shape[1]} features asked for {queries.shape[1]}: it was fitted with another "
                "backbone; name that one or fit again",
                code="bank-does-not-fit",
            )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the bank as named CPU tensors, ready for a safetensors file."""
        return {"embeddings": self.embeddings.cpu().contiguous()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MemoryBank:
        """Return the bank that :meth:`to_tensors` wrote; :class:`ModelError` when ``tensors`` are not one."""
        if "embeddings" not in tensors:
            raise ModelError(f"memory bank: no tensor 'embeddings', found {sorted(tensors)}; fit the detector again", code="bank-damaged")
        return cls(tensors["embeddings"])


def _lowest(table: Tensor) -> Tensor:
    """Column ``(P,)`` int64 of the least value of each row, the first of equals: on a CPU by NumPy, which takes a tenth of
    torch's time."""
    return table.argmin(dim=1) if table.device.type != "cpu" else torch.from_numpy(table.numpy().argmin(axis=1))


def embed(backbone: Backbone, condition: Tensor) -> Tensor:
    """Embed every patch of slices (paper §3.1).

    ``condition``: ``(N, 1, H, W)`` float32 in [0, 1], background 0, N ≥ 1. Return ``(N, D, h, w)``: both feature maps
    averaged over 3×3 neighbours (over those that exist, at the border), the coarse one resized to the fine grid,
    concatenated.
    """
    return torch.cat([_embed_slice(backbone, condition[i : i + 1]) for i in range(condition.shape[0])])


def _embed_slice(backbone: Backbone, condition: Tensor) -> Tensor:
    levels = backbone(condition.to(backbone.device))
    fine, coarse = (F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False) for level in levels)
    return torch.cat([fine, F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)], dim=1)


def cells_in_brain(brain: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which cells of a patch grid ``(h, w)`` touch the brain: bool ``(N, h, w)`` from ``brain`` ``(N, 1, H, W)``
    bool."""
    return F.adaptive_max_pool2d(pad_slices(brain.float()), grid)[:, 0] > 0


def brain_patches(backbone: Backbone, condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of one slice's patches that touch the brain.

    ``condition`` ``(1, H, W)`` float32 in [0, 1], ``brain`` ``(1, H, W)`` bool. Return the cells, bool ``(h, w)``, and the
    embeddings ``(P, D)`` of those that are true, in row-major order.
    """
    grid = embed(backbone, condition[None])[0]
    cells = cells_in_brain(brain[None].to(grid.device), (grid.shape[1], grid.shape[2]))[0]
    return cells, grid.permute(1, 2, 0)[cells]


def patch_scores(bank: MemoryBank, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of each patch ``(P, D)``, on the bank's device, to its nearest bank entry: L2 ``(P,)`` and that
    entry's index ``(P,)``.

    The distance is recomputed from the pair: the search itself uses ‖x‖² + ‖y‖² − 2x·y, which cancels for close pairs.
    """
    nearest = bank.closest(embeddings)
    return torch.linalg.vector_norm(embeddings - bank.embeddings[nearest], dim=1), nearest


def slice_score(bank: MemoryBank, embeddings: Tensor, scores: Tensor, nearest: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Score of one slice, a scalar: its largest patch score, re-weighted (paper eq. 7).

    ``embeddings`` ``(P, D)``, ``scores`` and ``nearest`` as :func:`patch_scores` gives them, P ≥ 1. The weight is
    1 − softmax, over the ``neighbours`` bank entries nearest to the patch's own nearest entry (itself among them), of their
    distances to the patch, taken at that nearest entry.
    """
    worst = scores.argmax()
    entry = bank.embeddings[nearest[worst]]
    around = bank.nearest(entry[None], min(neighbours, bank.embeddings.shape[0]))[0]
    distances = torch.linalg.vector_norm(embeddings[worst] - bank.embeddings[around], dim=1)
    weight = 1 - torch.exp(scores[worst] - torch.logsumexp(distances, 0))
    # Duplicates of the nearest entry may push it out of its own neighbourhood; the weight stays a share.
    return weight.clamp(0, 1) * scores[worst]


def upsample_and_smooth(grid_scores: Tensor, cells: Tensor, brain: Tensor) -> Tensor:
    """Spread one slice's patch scores over its pixels: the anomaly map A (paper §3.3).

    ``grid_scores`` ``(h, w)`` float32, ``cells`` ``(h, w)`` bool (which of them count), ``brain`` ``(H, W)`` bool. Return
    ``(H, W)``, 0 outside the brain. Both the bilinear resizing and the Gaussian are normalised by the weight that lies on
    cells or pixels that count, so the brain's edge is neither dimmed by the background nor lit by it.
    """
    height, width = brain.shape
    weights = torch.stack([grid_scores * cells, cells.float()])[:, None]
    padded = pad_slices(brain[None, None].float())
    spread = F.interpolate(weights, size=padded.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]
    inside = brain.float()
    # A brain pixel lies in a cell that counts, so its own weight is at least 1/4; outside any positive number does.
    pixels = spread[0, 0] / spread[1, 0].clamp_min(0.25) * inside
    smooth = _gaussian(torch.stack([pixels, inside])[:, None], SMOOTHING_SIGMA * max(height, width) / 224)
    return torch.where(brain, smooth[0, 0] / smooth[1, 0].clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def _gaussian(images: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    rows = F.conv2d(images, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius))


def score_slice(backbone: Backbone, bank: MemoryBank, condition: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the anomaly map A ``(1, H, W)`` ≥ 0 and the slice score (scalar) of one slice, on the slice's device.

    ``condition`` ``(1 or 3, H, W)`` float32 in [0, 1], background 0; ``brain`` ``(1, H, W)`` bool. Patches that do not
    touch the brain are skipped; a slice without brain costs nothing and scores 0.
    """
    if not brain.any():
        return torch.zeros_like(condition[:1]), condition.new_zeros(())
    cells, embeddings = brain_patches(backbone, condition, brain)
    embeddings = embeddings.to(bank.embeddings.device)
    scores, nearest = patch_scores(bank, embeddings)
    grid_scores = torch.zeros(cells.shape, device=cells.device)
    grid_scores[cells] = scores.to(cells.device)
    anomaly_map = upsample_and_smooth(grid_scores, cells, brain[0].to(cells.device))
    return anomaly_map[None].to(condition.device), slice_score(bank, embeddings, scores, nearest).to(condition.device)


def random_projection(embeddings: Tensor, dimensions: int, generator: torch.Generator) -> Tensor:
    """Return a Gaussian random projection of ``(P, D)`` to ``(P, dimensions)``, centred; D ≤ ``dimensions`` is only
    centred.

    Distances survive within a few per cent (Johnson & Lindenstrauss).
    """
    if embeddings.shape[1] > dimensions:
        matrix = torch.randn(embeddings.shape[1], dimensions, generator=generator) / math.sqrt(dimensions)
        embeddings = embeddings @ matrix.to(embeddings.device)
    return embeddings - embeddings.mean(dim=0)


def k_centre(points: Tensor, size: int, start: int, progress: Callable[[int], None] | None = None) -> Tensor:
    """Choose points by greedy k-centre: from ``start``, add again and again the point farthest from all chosen ones (paper
    alg. 1).

    ``points`` ``(P, d)`` float32, 1 ≤ ``size`` ≤ P. Return distinct indices ``(size,)`` int64 in the order of choice. Time
    O(P·d·size); beside the points it holds three vectors of P. ``progress`` is told the number chosen so far.
    """
    norms = (points * points).sum(dim=1)
    farthest = torch.full_like(norms, torch.inf)
    distances = torch.empty_like(norms)
    chosen = torch.empty(size, dtype=torch.int64)
    current = start
    for step in range(size):
        chosen[step] = current
        torch.mv(points, points[current], out=distances)
        distances.mul_(-2).add_(norms).add_(norms[current])
        torch.minimum(farthest, distances, out=farthest)
        # Rounding leaves chosen points a hair from themselves; among duplicates that could choose one twice.
        farthest[current] = -torch.inf
        current = int(farthest.argmax())
        if progress is not None:
            progress(step + 1)
    return chosen


def greedy_k_centre(
    embeddings: Tensor, size: int, seed: int, projection_dim: int = 128, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Return the indices ``(min(size, P),)`` int64 of a coreset of ``embeddings`` ``(P, D)`` float32: greedy k-centre on a
    projection.

    ``seed`` fixes the projection and the first entry. Source: paper §3.2 and algorithm 1.
    """
    generator = torch.Generator().manual_seed(seed)
    points = random_projection(embeddings, projection_dim, generator)
    start = int(torch.randint(points.shape[0], (1,), generator=generator))
    return k_centre(points, min(size, points.shape[0]), start, progress)
