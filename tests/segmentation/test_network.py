"""The lesion network on slices, and as a detector."""

import pytest
import torch

from localdiff_cli.bundle import load_segmenter, open_bundle
from localdiff_cli.ood.detector import Detection, Detector
from localdiff_cli.segmentation.detector import SegmenterDetector
from localdiff_cli.segmentation.network import LesionNetwork, LesionNetworkSettings, lesion_probability


@pytest.fixture
def network(models_folder):
    return load_segmenter(open_bundle(str(models_folder / "lesion-t2")), torch.device("cpu"))


@pytest.fixture
def slices():
    image = torch.rand(4, 1, 48, 32, generator=torch.Generator().manual_seed(0))
    brain = torch.zeros(4, 1, 48, 32, dtype=torch.bool)
    brain[..., 5:40, 6:25] = True
    return image * brain, brain


def test_the_probability_is_in_range_and_zero_outside_the_brain(network, slices):
    found = lesion_probability(network, *slices)
    assert found.shape == (4, 1, 48, 32)
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found[~slices[1]].any()
    assert (found[slices[1]] > 0).all()


def test_the_probability_of_a_slice_does_not_depend_on_the_batch(network, slices):
    together = lesion_probability(network, *slices)
    for rows in ([2], [3, 0], [1, 2, 3]):
        assert torch.equal(lesion_probability(network, slices[0][rows], slices[1][rows]), together[rows])


def test_no_slices_give_no_probabilities(network, slices):
    assert lesion_probability(network, slices[0][:0], slices[1][:0]).shape == (0, 1, 48, 32)


def test_a_grid_that_is_no_multiple_of_what_the_network_needs_is_padded_with_background(network, slices):
    image, brain = slices[0][..., :45, :27], slices[1][..., :45, :27]
    wider = torch.zeros(4, 1, 48, 32), torch.zeros(4, 1, 48, 32, dtype=torch.bool)
    wider[0][..., :45, :27], wider[1][..., :45, :27] = image, brain
    found = lesion_probability(network, image, brain, mirror=False)
    assert found.shape == (4, 1, 45, 27)
    assert torch.equal(found, lesion_probability(network, *wider, mirror=False)[..., :45, :27])
    assert lesion_probability(network, image, brain).shape == (4, 1, 45, 27)


def test_a_mirrored_brain_gives_the_mirrored_lesion(network, slices):
    image, brain = slices
    straight, mirrored = lesion_probability(network, image, brain), lesion_probability(network, image.flip(-1), brain.flip(-1))
    assert torch.allclose(straight, mirrored.flip(-1), atol=1e-6)
    once = lesion_probability(network, image, brain, mirror=False)
    assert not torch.allclose(once, lesion_probability(network, image.flip(-1), brain.flip(-1), mirror=False).flip(-1), atol=1e-6)


@pytest.mark.parametrize("settings", [LesionNetworkSettings(2, (8, 16), 1), LesionNetworkSettings(1, (8, 8, 8), 0)], ids=str)
def test_the_network_works_on_multiples_of_what_it_says(settings):
    sides = (settings.multiple * 3, settings.multiple * 2)
    assert LesionNetwork(settings)(torch.zeros(2, 1, *sides)).shape == (2, 1, *sides)


def test_a_segmenter_serves_as_a_detector(network, slices):
    detector: Detector = SegmenterDetector(network)
    found = detector(*slices)
    assert isinstance(found, Detection)
    probability = lesion_probability(network, *slices)
    assert torch.equal(found.ood_map, probability)
    assert torch.equal(found.score, probability)
    assert torch.equal(found.slice_score, probability.flatten(1).amax(dim=1))
    assert detector(slices[0][:0], slices[1][:0]).slice_score.shape == (0,)
