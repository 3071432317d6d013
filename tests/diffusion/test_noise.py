import torch

from localdiff_cli.diffusion.noise import INITIAL, NoiseKey


def test_the_same_key_gives_the_same_noise_whatever_was_drawn_before():
    key = NoiseKey(1, 0, "abc")
    first = key.field(INITIAL, 0, (8, 8))
    key.field(3, 0, (8, 8))
    assert torch.equal(first, NoiseKey(1, 0, "abc").field(INITIAL, 0, (8, 8)))


def test_every_part_of_the_key_matters():
    fields = [
        NoiseKey(seed, sample, print_, shared=False).field(step, k, (8, 8))
        for seed, sample, print_, step, k in [
            (0, 0, "a", 0, 0),
            (1, 0, "a", 0, 0),
            (0, 1, "a", 0, 0),
            (0, 0, "b", 0, 0),
            (0, 0, "a", 1, 0),
            (0, 0, "a", 0, 1),
        ]
    ]
    assert all(not torch.equal(fields[0], other) for other in fields[1:])


def test_shared_noise_is_the_same_in_all_slices_and_independent_noise_is_not():
    shared = NoiseKey(0, 0, "a").batch(0, [3, 4], (8, 8))
    apart = NoiseKey(0, 0, "a", shared=False).batch(0, [3, 4], (8, 8))
    assert torch.equal(shared[0], shared[1])
    assert not torch.equal(apart[0], apart[1])


def test_a_batch_is_its_slices():
    key = NoiseKey(0, 0, "a", shared=False)
    assert torch.equal(key.batch(2, [7, 9], (4, 4))[1], key.field(2, 9, (4, 4)))


def test_noise_is_standard_normal():
    noise = NoiseKey(5, 0, "a").field(0, 0, (400, 400))
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1) < 0.01
