"""What is drawn and what is called unknown: by M, by texture and by a second finder, and never both."""

import numpy as np
import torch

from localdiff_cli.ood.detector import from_map
from localdiff_cli.tasks.detection import MaskSettings
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.tasks.unknown import UnknownSettings, regions_of

SIZE = 48
MASKS = MaskSettings(0.5, 0.0, 0.0)


def chunk_and_map():
    """A textured slice; M is 0.9 on a levelled square, 0.8 on a textured one, and 0.3 on a third."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((1, 1, SIZE // 4, SIZE // 4)).astype(np.float32)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    ood_map = torch.zeros(1, 1, SIZE, SIZE)
    image[..., 4:18, 4:18] = 0.5
    ood_map[..., 4:18, 4:18], ood_map[..., 4:18, 28:42], ood_map[..., 28:42, 4:18] = 0.9, 0.8, 0.3
    brain = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    return Chunk((0,), (0,), image, brain), from_map(ood_map)


def test_without_settings_b_alone_is_drawn_and_nothing_is_unknown():
    chunk, detection = chunk_and_map()
    found = regions_of(detection, chunk, MASKS, UnknownSettings(), 1.0)
    assert torch.equal(found.mask, detection.ood_map >= 0.5)
    assert not found.unknown.any()


def test_a_region_without_texture_is_unknown_instead_of_drawn():
    chunk, detection = chunk_and_map()
    found = regions_of(detection, chunk, MASKS, UnknownSettings(texture=0.25), 1.0)
    assert torch.equal(found.mask, detection.ood_map == 0.8)
    assert torch.equal(found.unknown, detection.ood_map == 0.9)


def test_what_a_second_finder_finds_is_unknown_where_nothing_is_drawn():
    chunk, detection = chunk_and_map()
    suspicion = torch.zeros(1, 1, SIZE, SIZE)
    suspicion[..., 10:, 28:] = 0.7
    found = regions_of(detection, chunk, MASKS, UnknownSettings(0.2, suspect=0.6), 1.0, lambda condition, brain: suspicion)
    assert torch.equal(found.unknown, ((detection.ood_map == 0.3) | (suspicion > 0.6)) & ~found.mask)
    assert not (found.unknown & found.mask).any()
    none = regions_of(detection, chunk, MASKS, UnknownSettings(suspect=0.8), 1.0, lambda condition, brain: suspicion)
    assert not none.unknown.any()


def test_no_slices_have_no_regions():
    chunk, detection = chunk_and_map()
    empty = Chunk((), (), chunk.condition[:0], chunk.brain[:0])
    found = regions_of(from_map(detection.ood_map[:0]), empty, MASKS, UnknownSettings(0.2, texture=0.25), 1.0)
    assert found.mask.shape == found.unknown.shape == (0, 1, SIZE, SIZE)
