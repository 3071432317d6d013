"""The part that holds promises against other people: who calibrates, who checks, and that what is said is what was counted."""

import argparse

import numpy as np
import pytest

from examples.benchmarks import harm, promise
from examples.benchmarks.promise import Measured
from localdiff_cli.errors import UsageError
from localdiff_cli.guarantees.intervals import Voxels
from localdiff_cli.guarantees.losses import risks
from localdiff_cli.tasks import calibration
from localdiff_cli.tasks.calibration import Measurement
from localdiff_cli.training.people import people
from tests.brains import write_brain

LOST = {"true": 0.2, "plain": 0.0, "local": 0.0, "unknown": False}


def person(number, kind="glioma", lost=False, spread=0.03, offset=0.0):
    """Ordinary voxels with an error of their own spread, drawn ones too pale; a portrait about ``offset``."""
    rng = np.random.default_rng(number)
    source = np.r_[np.ones(400, np.uint8), np.full(80, 2, np.uint8)]
    true = 0.4 + spread * rng.standard_normal(480) + 0.15 * (source == 2)
    kept = LOST | {"local": 0.0 if lost else 0.2}
    record = {"covered": [0.1 if lost else 0.9], "grid": [{"lesions": [kept], "spotted": [0, 10], "false": 0.0}]}
    voxels = Voxels(true.astype(np.float32), np.full(480, 0.4, np.float32), source, source == 2)
    portrait = {name: (offset + rng.standard_normal(4)).tolist() for name in ("intensity", "detector", "features")}
    return Measured(kind, record, voxels, portrait)


@pytest.fixture(scope="module")
def val():
    return [person(number) for number in range(20)]


def test_a_promise_is_what_the_val_people_prove_and_is_held_against_the_others(val):
    test = [person(40), person(41, lost=True)]
    lines = {risk.name: promise.risk_line(risk, "glioma", val, test, 0.2) for risk in risks(5.0).values()}
    assert (lines["uncovered"]["promise %"], lines["uncovered"]["how"]) == ("4.8", "on average")
    assert (lines["harm"]["promise %"], lines["harm"]["test %"], lines["harm"]["within"]) == ("10.9", "0.0", "yes")
    assert (lines["missed"]["test %"], lines["missed"]["within"]) == ("50.0", "no")
    nobody = promise.risk_line(risks(5.0)["harm"], "elderly", val, test, 0.2)
    assert (nobody["promise %"], nobody["test %"].split()[0], nobody["within"]) == ("100.0", "n/a", "n/a")


def test_bands_by_region_hold_where_one_band_everywhere_loses_the_lesion(val):
    others, test = [person(number) for number in range(60, 66)], [person(number) for number in range(80, 90)]
    curves = promise.intervals.learn([promise.intervals.seen(m.drawn) for m in others], 0.9)
    found = {}
    ways = promise.ways_of(val, test, curves)
    for name, way in {"curves": ways["curves by intensity"], "trivial": ways["constant everywhere"]}.items():
        lines = promise.band_lines(name, way)
        found |= {(name, line["region"]): (float(line["coverage %"].split()[0]), float(line["width"].split()[0])) for line in lines}
    assert found["curves", "lesion"][0] > 90 > found["trivial", "lesion"][0]
    assert found["curves", "ordinary"][1] < found["trivial", "ordinary"][1]
    assert {line["people"] for line in promise.band_lines("x", way)} == {"everybody", "glioma"}


def test_a_certificate_is_void_for_people_of_another_kind_and_the_share_has_an_exact_interval(val):
    elderly = [person(number, "elderly", offset=6.0).portrait for number in range(100, 110)]
    lines = {line["people"]: line for line in promise.void_lines(val, [person(number) for number in range(120, 140)], elderly)}
    assert lines["elderly, all"]["void %"] == "100 (69 to 100)"
    assert int(lines["glioma, test"]["void"]) <= 4
    assert lines["elderly, all"]["calibrated on"] == "20 glioma"


def test_what_was_drawn_of_a_person_is_kept(tmp_path, models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    for contrast in ("T1w", "T2w"):
        write_brain(tmp_path / "sub-01" / f"sub-01_{contrast}.nii.gz", seed=1)
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsub-01\tval\n")
    work, (one,) = harm.load("t1-to-t2"), people([tmp_path], "T1w", "T2w", "val")
    by = Measurement(work, (work.mask.threshold,), 3, tmp_path / "work", lambda _: None)
    _, (drawn,) = by.drawn(one)
    assert drawn.true.shape == drawn.image.shape == drawn.source.shape == drawn.lesion.shape
    assert set(np.unique(drawn.source)) <= {1, 2, 3, 4}
    monkeypatch.setattr(calibration, "draw", lambda *_: pytest.fail("drawn again"))
    assert np.array_equal(by.drawn(one)[1][0].image, drawn.image)
    assert promise.kind_of(one) == "glioma"
    with pytest.raises(UsageError, match="--split test"):
        promise.measure(argparse.Namespace(model="t1-to-t2", split="val"))
