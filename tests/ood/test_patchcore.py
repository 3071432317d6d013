"""PatchCore against brute-force NumPy references."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from localdiff_cli.errors import ModelError
from localdiff_cli.ood import patchcore
from localdiff_cli.ood.patchcore import (
    MemoryBank,
    cells_in_brain,
    embed,
    greedy_k_centre,
    k_centre,
    patch_scores,
    random_projection,
    score_slice,
    slice_score,
    upsample_and_smooth,
)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def bank():
    return MemoryBank(_random(50, 12))


def _mean_3x3(level):
    """Mean over the existing 3×3 neighbours, loop by loop."""
    out = np.zeros_like(level)
    for y, x in np.ndindex(level.shape[1:]):
        out[:, y, x] = level[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean(axis=(1, 2))
    return out


def _bilinear(plane, height, width):
    """Half-pixel-centre bilinear resizing with the border repeated, from the formula."""

    def axis(size, source):
        at = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
        low = np.minimum(at.astype(int), max(source - 2, 0))
        return low, np.minimum(low + 1, source - 1), at - low

    y0, y1, wy = axis(height, plane.shape[0])
    x0, x1, wx = axis(width, plane.shape[1])
    rows = plane[y0] * (1 - wy)[:, None] + plane[y1] * wy[:, None]
    return rows[:, x0] * (1 - wx) + rows[:, x1] * wx


def test_embedding_is_pooled_resized_and_concatenated(backbone, phantom):
    condition = phantom[0][:1]
    fine, coarse = (level[0].double().numpy() for level in backbone(condition))
    pooled = _mean_3x3(fine)
    resized = np.stack([_bilinear(plane, *fine.shape[1:]) for plane in _mean_3x3(coarse)])
    embedding = embed(backbone, condition)
    assert embedding.shape == (1, 152, 12, 10)
    np.testing.assert_allclose(embedding[0].numpy(), np.concatenate([pooled, resized]), rtol=1e-4, atol=1e-4)


def test_the_network_sees_one_slice_a_call_whatever_the_batch(backbone, phantom):
    """Libraries choose algorithms by shape: only calls of one shape promise the same bits for every batch and machine."""
    seen = []
    handle = backbone.taps.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    together = embed(backbone, phantom[0])
    handle.remove()
    assert seen == [(1, 3, 96, 80)] * 3
    assert torch.equal(together[1:2], embed(backbone, phantom[0][1:2]))


def test_patch_score_is_the_distance_to_the_nearest_entry(bank):
    queries = _random(30, 12, seed=1)
    table = np.linalg.norm(queries.numpy()[:, None].astype(np.float64) - bank.embeddings.numpy()[None], axis=2)
    scores, nearest = patch_scores(bank, queries)
    np.testing.assert_allclose(scores.numpy(), table.min(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(nearest.numpy(), table.argmin(axis=1))


def test_a_patch_of_the_bank_scores_exactly_zero_even_far_from_the_origin():
    far = MemoryBank(_random(40, 12) + 1000)
    assert patch_scores(far, far.embeddings)[0].max() == 0


@pytest.mark.parametrize("neighbours", [1, 3, 9, 500])
def test_slice_score_follows_equation_7(bank, neighbours):
    queries = _random(30, 12, seed=2)
    entries = bank.embeddings.numpy().astype(np.float64)
    table = np.linalg.norm(queries.numpy()[:, None] - entries[None], axis=2)
    worst = table.min(axis=1).argmax()
    entry = table[worst].argmin()
    around = np.argsort(np.linalg.norm(entries - entries[entry], axis=1))[:neighbours]
    share = np.exp(table[worst, entry]) / np.exp(table[worst, around]).sum()
    score = slice_score(bank, queries, *patch_scores(bank, queries), neighbours=neighbours)
    assert score.item() == pytest.approx((1 - share) * table[worst, entry], rel=1e-4, abs=1e-5)


def test_slice_score_survives_distances_beyond_the_range_of_exp(bank):
    queries = _random(30, 12, seed=2) * 1e4
    score = slice_score(bank, queries, *patch_scores(bank, queries))
    assert 0 <= score.item() < float("inf")


def _reference_map(scores, cells, brain):
    """The documented normalised resizing and smoothing in float64 NumPy."""
    height, width = brain.shape
    padded = tuple(-(-n // 16) * 16 for n in brain.shape)
    spread = _bilinear(scores * cells, *padded)[:height, :width] / np.maximum(_bilinear(cells * 1.0, *padded)[:height, :width], 0.25)
    sigma = 4 * max(height, width) / 224
    radius = int(np.ceil(4 * sigma))

    def smooth(plane):
        return ndimage.gaussian_filter(plane, sigma, mode="constant", radius=radius)

    return np.where(brain, smooth(spread * brain) / np.maximum(smooth(brain * 1.0), 1e-30), 0)


def test_upsampling_and_smoothing_match_the_reference(phantom):
    brain = phantom[1][:1, :, :90, :75]
    cells = cells_in_brain(brain, (12, 10))[0]
    scores = _random(12, 10, seed=3).abs()
    result = upsample_and_smooth(scores, cells, brain[0, 0])
    expected = _reference_map(scores.double().numpy(), cells.numpy(), brain[0, 0].numpy())
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_flat_score_stays_flat_up_to_the_brains_edge(phantom):
    """The edge is neither dimmed by the background nor lit by patches outside."""
    brain = phantom[1][0, 0]
    cells = cells_in_brain(phantom[1][:1], (12, 10))[0]
    outside = torch.where(cells, 2.5, 1e6)
    result = upsample_and_smooth(outside, cells, brain)
    torch.testing.assert_close(result, 2.5 * brain, rtol=1e-5, atol=0)


def test_a_lesion_sized_peak_appears_where_its_patch_is():
    brain = torch.ones(224, 192, dtype=torch.bool)
    scores = torch.zeros(28, 24)
    scores[9, 17] = 1
    result = upsample_and_smooth(scores, torch.ones(28, 24, dtype=torch.bool), brain)
    row, column = divmod(int(result.argmax()), 192)
    assert abs(row - (9.5 * 8 - 0.5)) <= 0.5
    assert abs(column - (17.5 * 8 - 0.5)) <= 0.5


def test_cells_that_only_graze_the_brain_count():
    brain = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    brain[0, 0, 8, 15] = True
    cells = cells_in_brain(brain, (4, 4))
    assert cells[0].nonzero().tolist() == [[1, 1]]


def test_every_brain_pixel_lies_in_a_counting_cell_at_odd_scales():
    """4/3 cells a nominal cell: cell borders fall between pixels."""
    brain = torch.rand(1, 1, 41, 67, generator=torch.Generator().manual_seed(1)) > 0.97
    cells = cells_in_brain(brain, (8, 14))[0]
    ones = upsample_and_smooth(torch.ones(8, 14), cells, brain[0, 0])
    torch.testing.assert_close(ones, brain[0, 0].float())


def test_scores_are_zero_outside_the_brain_and_the_background_is_not_asked_about(backbone, phantom):
    condition, brain = phantom[0][0], phantom[1][0]
    # A bank of brain patches only: background would be far from all of it.
    bank = MemoryBank(embed(backbone, condition[None])[0].permute(1, 2, 0)[cells_in_brain(brain[None], (12, 10))[0]].contiguous())
    anomaly_map, score = score_slice(backbone, bank, condition, brain)
    assert anomaly_map.shape == (1, 96, 80)
    assert anomaly_map.max() == 0
    assert score == 0
    other = MemoryBank(bank.embeddings + 1)
    anomaly_map, _ = score_slice(backbone, other, condition, brain)
    assert (anomaly_map[~brain] == 0).all()
    assert (anomaly_map[brain] > 0).all()


def test_an_empty_slice_scores_zero_without_touching_the_network(phantom):
    anomaly_map, score = score_slice(None, None, phantom[0][2], phantom[1][2])
    assert anomaly_map.shape == (1, 96, 80)
    assert anomaly_map.sum() == 0
    assert score == 0


def _naive_k_centre(points, size, start):
    chosen = [start]
    while len(chosen) < size:
        gaps = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1)
        gaps[chosen] = -1
        chosen.append(int(gaps.argmax()))
    return chosen


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 60), share=st.floats(0.05, 1), seed=st.integers(0, 1000))
def test_k_centre_chooses_what_the_naive_algorithm_chooses(count, share, seed):
    points = _random(count, 5, seed=seed)
    size = max(1, round(count * share))
    assert k_centre(points, size, seed % count).tolist() == _naive_k_centre(points.double().numpy(), size, seed % count)


def test_greedy_k_centre_is_k_centre_on_the_seeded_projection():
    embeddings = _random(80, 40, seed=4)
    generator = torch.Generator().manual_seed(11)
    points = random_projection(embeddings, 16, generator)
    start = int(torch.randint(80, (1,), generator=generator))
    assert points.shape == (80, 16)
    assert greedy_k_centre(embeddings, 20, seed=11, projection_dim=16).tolist() == _naive_k_centre(points.double().numpy(), 20, start)


def test_random_projection_keeps_distances_and_leaves_few_dimensions_alone():
    embeddings = _random(60, 1000, seed=6)
    ratio = torch.pdist(random_projection(embeddings, 256, torch.Generator().manual_seed(0))) / torch.pdist(embeddings)
    assert ratio.mean().item() == pytest.approx(1, abs=0.05)
    assert (ratio - 1).abs().max() < 0.3
    few = random_projection(embeddings[:, :8], 256, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.pdist(few), torch.pdist(embeddings[:, :8]))


def test_coreset_of_duplicates_never_repeats_an_index():
    embeddings = torch.ones(30, 4).repeat(1, 1)
    embeddings[:3] += _random(3, 4)
    indices = greedy_k_centre(embeddings, 30, seed=0)
    assert sorted(indices.tolist()) == list(range(30))


def test_coreset_larger_than_the_set_takes_everything():
    assert sorted(greedy_k_centre(_random(7, 3), 100, seed=0).tolist()) == list(range(7))


def test_bank_survives_its_tensors(bank):
    again = MemoryBank.from_tensors(bank.to_tensors())
    queries = _random(5, 12, seed=9)
    assert torch.equal(patch_scores(again, queries)[0], patch_scores(bank, queries)[0])


def test_damaged_banks_are_refused():
    with pytest.raises(ModelError, match="no tensor 'embeddings'"):
        MemoryBank.from_tensors({"bank": torch.zeros(3, 3)})
    for damaged in (torch.zeros(3), torch.zeros(1, 4), torch.zeros(4, 4).half(), torch.full((4, 4), float("nan"))):
        with pytest.raises(ModelError, match="fit the detector again"):
            MemoryBank(damaged)


def test_bank_of_another_backbone_is_refused(bank):
    with pytest.raises(ModelError, match="another backbone"):
        patch_scores(bank, _random(4, 13))
    with pytest.raises(ModelError, match="another backbone"):
        bank.nearest(_random(4, 13), 1)


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_the_closest_entry_is_the_first_of_the_nearest(monkeypatch, bank, block):
    monkeypatch.setattr(patchcore, "QUERY_BLOCK", block)
    queries = _random(30, 12, seed=1)
    assert torch.equal(bank.closest(queries), bank.nearest(queries, 3)[:, 0])


def test_search_is_exact(bank):
    assert isinstance(bank.index, faiss.IndexFlatL2)
    assert bank.index.ntotal == 50
