"""Whether an input is like those of training: quantiles of the brain against those of the training people."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from localdiff_cli.bundle import METADATA, open_bundle
from localdiff_cli.errors import ModelError
from localdiff_cli.volumes.likeness import LEVELS, Typical, quantiles_of, typical_of, unlike


def people(n=20):
    rng = np.random.default_rng(0)
    return [quantiles_of(rng.normal(0, 1 + 0.05 * rng.standard_normal(), 20_000)) for _ in range(n)]


def test_quantiles_of_a_normal_brain_are_those_of_a_normal():
    found = quantiles_of(np.random.default_rng(1).normal(size=200_000))
    assert found == pytest.approx((-2.326, -1.645, -0.674, 0.674, 1.645, 2.326), abs=0.03)
    assert len(found) == len(LEVELS)


def test_those_who_were_trained_on_and_others_like_them_pass():
    typical = typical_of(people(), 6.0)
    assert all(unlike(person, typical) is None for person in people(30))


@pytest.mark.parametrize(
    ("change", "level", "sign"),
    [
        (lambda z: np.where(z > 1.9, 6.0, z), 0.99, 1),  # contrast agent: the brightest voxels leave the rest behind
        (lambda z: -np.abs(z), 0.99, -1),  # nothing is brighter than the median
        (lambda z: 3 * z, None, None),  # another scale of contrast altogether
    ],
)
def test_tails_that_no_training_brain_had_are_named_with_their_side(change, level, sign):
    z = np.random.default_rng(2).normal(size=50_000)
    found = unlike(quantiles_of(change(z)), typical_of(people(), 6.0))
    assert found is not None
    if level is not None:
        assert found[0] == level or sign < 0
        assert np.sign(found[1]) == sign


def test_a_lesion_of_a_tenth_of_the_brain_does_not_make_it_another_input():
    rng = np.random.default_rng(3)
    wide = typical_of([quantiles_of(rng.normal(0, abs(1 + 0.25 * rng.standard_normal()), 5_000)) for _ in range(30)], 6.0)
    z = rng.normal(size=50_000)
    z[:5_000] -= 1.5
    assert unlike(quantiles_of(z), wide) is None


def test_the_limit_is_in_standard_deviations_of_people():
    typical = Typical((0.0,) * 6, (0.5,) * 6, 4.0)
    assert unlike((0, 0, 0, 0, 0, 1.9), typical) is None
    assert unlike((0, 0, 0, 0, 0, -2.1), typical) == (0.99, pytest.approx(-4.2))


def test_a_few_odd_people_in_training_do_not_hide_another():
    """Contrast agent in four of a hundred training people: their mean and SD would let one more pass."""
    enhanced = list(quantiles_of(np.random.default_rng(4).normal(size=20_000)))
    enhanced[-1] = 6.0
    known = [*people(96), *[tuple(enhanced)] * 4]
    found = unlike(enhanced, typical_of(known, 8.0))
    assert found is not None
    assert found[0] == 0.99
    assert all(unlike(person, typical_of(known, 8.0)) is None for person in people(30))


def test_two_people_are_too_few():
    with pytest.raises(ValueError, match="2 people"):
        typical_of(people(2), 6.0)


def test_the_account_of_earlier_versions_is_refused_when_the_bundle_is_opened(models_folder, tmp_path):
    path = Path(shutil.copytree(models_folder / "t1-to-t2", tmp_path / "old"))
    metadata = json.loads((path / METADATA).read_text())
    (path / METADATA).write_text(json.dumps(metadata | {"typical": {"mean": [0.0] * 6, "sd": [1.0] * 6, "limit": 6.0}}))
    with pytest.raises(ModelError, match="localdiff fit detector"):
        open_bundle(str(path))
