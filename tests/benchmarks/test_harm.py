"""The part on people of every kind: who takes part, that the command's own translation is judged, and what the tables say."""

import argparse
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from examples.benchmarks import harm
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.harm import Drawn
from localdiff_cli.ood.detector import from_map
from localdiff_cli.tasks import network_work
from localdiff_cli.tasks.detection import DetectorBinding
from localdiff_cli.tasks.judged import draw, ready_for
from localdiff_cli.training.people import Person, Ready, kind_of, people, slices_of
from tests.brains import brain, write_brain

PARTICIPANTS = """participant_id\tsplit\tdisease
sub-01\tval\thealthy, 50 to 80 years
sub-02\tval\telderly, white-matter hyperintensities
sub-03\ttest\thealthy
"""


def write_mask(path: Path, like: Path, where: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(where.astype(np.uint8), nib.load(like).affine), path)


@pytest.fixture
def cohort(tmp_path):
    """A healthy person with ventricles and no target, one with target and automatic lesions, one of another split."""
    for number in (1, 2, 3):
        write_brain(tmp_path / f"sub-0{number}" / f"sub-0{number}_T1w.nii.gz", seed=number)
    dark = (brain(1) > 0) & (brain(1) <= 130)
    for number, words in ((1, ["ventricles"]), (2, ["wmhauto", "ventricles"])):
        for word in words:
            base = tmp_path / f"sub-0{number}" / f"sub-0{number}"
            write_mask(base.with_name(f"{base.name}_{word}.nii.gz"), base.with_name(f"{base.name}_T1w.nii.gz"), dark)
    write_brain(tmp_path / "sub-02" / "sub-02_T2w.nii.gz", seed=2)
    (tmp_path / "participants.tsv").write_text(PARTICIPANTS)
    return tmp_path


@pytest.fixture
def bench(models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    return harm.load("t1-to-t2")


@pytest.fixture
def options(cohort, models_folder, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    return argparse.Namespace(model="t1-to-t2", data=[cohort], split="val", every=2, work=cohort / "work")


def made_ready(bench, person, cohort):
    return slices_of(person, ready_for(bench), cohort / "cache", pytest.fail)


def test_everybody_of_the_split_takes_part_with_or_without_a_target(cohort):
    first, second = people([cohort], "T1w", "T2w", "val")
    assert (first.kind, second.kind) == ("healthy", "elderly")
    assert (first.target, first.lesions, second.brain) == (None, None, None)
    names = [path.name for path in (first.ventricles, second.target, second.lesions)]
    assert names == ["sub-01_ventricles.nii.gz", "sub-02_T2w.nii.gz", "sub-02_wmhauto.nii.gz"]


def test_kinds_are_read_from_the_disease_or_else_from_any_cell():
    assert kind_of({"disease": "glioma, expert mask", "origin": "healthy"}) == "glioma"
    assert kind_of({"origin": "Multiple sclerosis patient 19"}) == "multiple sclerosis"
    assert kind_of({"origin": "BraTS", "brain": None}) == "not said"


def test_the_default_translation_is_judged_as_the_command_makes_it(cohort, bench, cli):
    (first, _) = people([cohort], "T1w", "T2w", "val")
    slices = made_ready(bench, first, cohort)
    (drawn,) = draw(bench, slices, range(len(slices.numbers)), [bench.mask.threshold])
    outputs = {}
    for mode in ("local", "plain"):
        assert cli("translate", "--model", "t1-to-t2", "--in", first.condition, "--out", cohort / mode, "--mode", mode).exit_code == 0
        outputs[mode] = np.sort(np.asarray(nib.load(cohort / mode / first.condition.name).dataobj), axis=None)
    for mode, image in (("local", drawn.local), ("plain", drawn.plain)):
        # The grids differ by a shift alone, so that the sorted values are the same.
        shown = np.sort(image, axis=None)[-4000:]
        assert np.allclose(outputs[mode][-4000:], shown, atol=2e-3), mode
    flagged = (drawn.ood_map > 0).any(axis=(1, 2))
    assert flagged.any()
    assert not np.array_equal(drawn.local, drawn.plain)


class Patchy:
    """A detector that marks the middle of the brain in some slices, whatever chunk they come in."""

    def __call__(self, condition, brain):
        ood_map = torch.zeros(condition.shape)
        ood_map[:, :, 18:30, 15:25] = (condition.double().sum(dim=(1, 2, 3), keepdim=True) * 1000).long() % 3 > 0
        return from_map(ood_map * brain)


def test_every_nth_slice_is_judged_in_the_light_of_all_the_others(cohort, bench):
    (first, _) = people([cohort], "T1w", "T2w", "val")
    slices = made_ready(bench, first, cohort)
    alone = replace(bench, bind=DetectorBinding(Patchy(), torch.device("cpu")))
    work = replace(alone, mask=replace(bench.mask, through_plane_mm=20.0, peak=0.5))
    (every,), (some,) = (list(draw(work, slices, rows, [0.2])) for rows in (range(6), range(1, 6, 2)))
    for name in ("local", "ood_map", "source"):
        assert np.array_equal(getattr(every, name)[1::2], getattr(some, name)), name
    (each,) = draw(alone, slices, range(6), [0.2])
    marked, taken = (drawn.ood_map.any(axis=(1, 2)) for drawn in (each, every))
    assert 0 < marked.sum() < taken.sum()


def test_a_volume_that_is_seen_from_the_side_is_expected_to_need_more_memory(bench, monkeypatch):
    monkeypatch.setattr(network_work, "peak_megabytes", lambda: 100.0)
    seen = replace(bench, mask=replace(bench.mask, through_plane_mm=6.0))
    plain = replace(seen, sample=replace(bench.sample, mode="plain"))
    needed = [work.estimate((50, 48, 40)).megabytes for work in (bench, seen, plain)]
    rows, columns = bench.bundle.grid.shape
    assert needed[1] - needed[0] == pytest.approx(50 * rows * columns * 40 / 1e6)
    assert needed[2] == needed[0]


def test_slices_hold_what_lies_beside_the_condition(cohort, bench):
    first, second = (made_ready(bench, person, cohort) for person in people([cohort], "T1w", "T2w", "val"))
    assert first.target is None
    assert first.ventricles.any()
    assert second.target.shape == second.condition.shape == second.lesions.shape
    assert set(np.unique(second.lesions)) == {0, 1}
    assert (first.thickness, list(first.numbers)) == (20, list(range(6)))


def test_two_tables_and_nothing_measured_twice(options, monkeypatch):
    by_kind, by_person = harm.measure(options)
    assert [line["kind"] for line in by_kind.rows] == ["elderly", "healthy"]
    assert [line["person"] for line in by_person.rows] == ["sub-02", "sub-01"]
    elderly, healthy = by_person.rows
    assert (elderly["slices"], elderly["unknown, ml"]) == ("3", "0.0")
    assert healthy["invented, ml"] == healthy["contrast true"] == "n/a"
    assert float(elderly["flagged, ml"]) > 0
    monkeypatch.setattr(harm, "draw", lambda *_: pytest.fail("drawn again"))
    assert harm.measure(options)[1].rows == by_person.rows
    with pytest.raises(pytest.fail.Exception):
        harm.measure(argparse.Namespace(**vars(options) | {"every": 1}))


def test_a_split_without_people_is_refused(options):
    options.split = "train"
    with pytest.raises(UsageError, match="nobody"):
        harm.measure(options)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_millilitres_are_of_the_whole_brain_however_few_slices_are_drawn(bench, cohort, monkeypatch, every):
    slices = made_ready(bench, people([cohort], "T1w", "T2w", "val")[0], cohort)

    def blob(_work, _slices, rows, _taus):
        shape = (len(rows), 10, 10)
        local = np.zeros(shape, np.float32)
        local[:, 2:4, 2:4] = 0.5
        nothing = np.zeros(shape, bool)
        yield Drawn(None, local * 0, local, local, nothing, ~nothing, nothing.astype(np.int16), None)

    monkeypatch.setattr(harm, "draw", blob)
    record = harm.measure_person(bench, slices, every)
    assert record["slices"] == 6 / every
    assert record["false"] == record["farther"] == record["flagged"] == pytest.approx(6 * 4 * 4 * 4 * 20 / 1000)


def told(**values):
    empty = {"invented": None, "invented_plain": None, "ventricles": None, "flagged": 0.0, "unknown": 0.0, "whole": None, "lesions": []}
    return {"false": 0.0, "farther": 0.0, "slices": 1} | empty | values


def test_a_kind_of_people_is_told_by_its_mean_its_nine_of_ten_and_its_worst():
    line = harm.kind_line("healthy", [told(false=value, ventricles=-value / 10) for value in (0, 0.1, 0.2, 0.3, 3)])
    assert line["false, ml"].startswith("0.72 (")
    assert (line["false, most"], line["false, nine of ten below"], line["ventricles, most"]) == ("3.00", "3.00", "-0.300")
    assert line["kept %"] == line["contrast true"] == "n/a"


def test_lesions_of_all_people_are_counted_together():
    kept = {"true": 0.2, "plain": 0.0, "local": 0.1, "unknown": False}
    lost = kept | {"local": 0.05}
    hidden = lost | {"unknown": True}
    unseen = kept | {"true": 0.01}
    line = harm.kind_line("elderly", [told(lesions=[kept, lost, unseen]), told(lesions=[lost, hidden], whole=kept)])
    assert line["lesions"] == "4"
    shares = {name: line[f"{name} %"].split(" (")[0] for name in ("kept by plain", "kept", "called unknown", "kept or unknown")}
    assert shares == {"kept by plain": "0.0", "kept": "25.0", "called unknown": "25.0", "kept or unknown": "50.0"}
    assert line["contrast local"] == "0.100"


def test_a_person_whose_target_lies_elsewhere_is_left_out_and_named(cohort, bench, capsys):
    write_brain(cohort / "sub-02" / "sub-02_T2w.nii.gz", seed=2, shape=(40, 48, 5))
    prepare = bench.prepare
    person = Person("sub-02", "elderly", cohort / "sub-02" / "sub-02_T1w.nii.gz", cohort / "sub-02" / "sub-02_T2w.nii.gz")
    assert slices_of(person, Ready(prepare, prepare), cohort / "cache", print) is None
    assert "left out sub-02" in capsys.readouterr().out
