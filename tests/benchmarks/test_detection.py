import numpy as np

from examples.benchmarks.detection import brightness
from localdiff_cli.training.slices import PatientSlices


def test_the_yardstick_ranks_a_bright_blob_first_and_a_dark_one_last():
    brain = np.ones((2, 40, 40), bool)
    image = np.full((2, 40, 40), 30000, np.uint16)
    image[1, 10:20, 10:20] = 60000
    patient = PatientSlices("p", "val", image, None, brain, image > 50000, True)
    bright, slices = brightness(patient, 1)
    assert bright[1, 15, 15] == bright.max()
    assert slices[1] > slices[0]
    dark, slices = brightness(patient, -1)
    assert dark[1, 15, 15] == dark.min()
