"""Alike patients are called strange as often as said, others nearly always; a portrait does not depend on how its slices pass by."""

import math

import numpy as np
import pytest
import torch

from localdiff_cli.guarantees import strangeness
from localdiff_cli.guarantees.strangeness import Painter, on_grid, p_value

COHORTS = 2000


def portraits(rng, count, shift=0.0):
    """People as they are: scanners differ in sharpness, heads in size, detectors in what they see."""
    common = rng.normal(size=(count, 1))
    return [
        {
            "intensity": (0.3 * common[i] + rng.normal(size=5) + shift).tolist(),
            "detector": (rng.exponential(size=4) + shift).tolist(),
            "features": (0.5 * common[i] + rng.normal(size=12) + shift).tolist(),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("patients", [14, 24, 60])
def test_alike_patients_are_strange_no_more_often_than_said_and_not_far_less(patients):
    rng = np.random.default_rng(0)
    void = 0
    for _ in range(COHORTS):
        *cohort, new = portraits(rng, patients + 1)
        void += strangeness.is_strange(strangeness.p_value(new, cohort), patients, 0.05)
    level = max(0.05, 1 / (patients + 1))
    floor = math.floor(level * (patients + 1) + 1e-9) / (patients + 1)
    error = math.sqrt(level / COHORTS)
    assert floor - 4 * error <= void / COHORTS <= level + 3 * error


def test_patients_of_another_kind_are_noticed():
    rng = np.random.default_rng(1)
    cohorts = [(portraits(rng, 24), portraits(rng, 1, shift=3.0)[0]) for _ in range(200)]
    void = [strangeness.is_strange(strangeness.p_value(new, cohort), 24, 0.05) for cohort, new in cohorts]
    assert np.mean(void) >= 0.9


def test_a_volume_without_a_block_that_the_others_have_is_the_strangest():
    cohort = portraits(np.random.default_rng(2), 9)
    assert strangeness.p_value(cohort[0] | {"features": []}, cohort) == pytest.approx(0.1)


class Flat(torch.nn.Module):
    """In place of the ImageNet network: the slice's own mean."""

    def forward(self, image):
        return image, image.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 3, 4, 4)


@pytest.fixture
def slices():
    rng = np.random.default_rng(3)
    condition = torch.from_numpy(rng.random((8, 1, 16, 16), dtype=np.float32))
    brain = torch.zeros(8, 1, 16, 16, dtype=torch.bool)
    brain[:, :, 3:13, 3:13] = True
    return condition, brain


def painted(slices, order, size):
    condition, brain = slices
    painter = Painter(Flat())
    for first in range(0, len(order), size):
        rows = list(order[first : first + size])
        painter.see(rows, condition[rows], brain[rows], condition[rows] * brain[rows])
    return painter.portrait()


def test_a_portrait_does_not_depend_on_order_and_batch(slices):
    first = painted(slices, range(8), 3)
    assert first == painted(slices, range(7, -1, -1), 1)
    assert {name: len(block) for name, block in first.items()} == {"intensity": 5, "detector": 4, "features": 3}


def test_a_portrait_tells_a_blurred_volume_from_a_sharp_one(slices):
    condition, brain = slices
    blurred = torch.nn.functional.avg_pool2d(condition, 5, 1, 2), brain
    sharp, soft = (painted(each, range(8), 8)["intensity"] for each in (slices, blurred))
    assert soft[-1] < sharp[-1] / 2


def test_a_volume_without_slices_has_no_portrait():
    assert painted((torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4, dtype=torch.bool)), [], 1) == {
        "intensity": [], "detector": [], "features": [],
    }  # fmt: skip


def test_another_grid_makes_a_volume_strange_where_a_hair_s_breadth_does_not():
    rng = np.random.default_rng(7)
    plain = [{"intensity": rng.normal(size=3).tolist()} for _ in range(21)]
    cohort = [on_grid(each, (4.0 + 0.3 * (k % 5), 0.94, 0.94)) for k, each in enumerate(plain[:20])]
    own, near, other = (p_value(on_grid(plain[20], spacing), cohort) for spacing in ((4.5, 0.94, 0.94), (4.5, 0.95, 0.93), (2.0, 2.0, 2.0)))
    assert other == 1 / 21
    assert own == near > 1 / 21
