"""Records become losses, losses a cut and its promises; where nothing can be proven nothing is promised."""

import numpy as np
import pytest

from localdiff_cli.errors import EXIT_NOT_CERTIFIED, NotCertifiedError
from localdiff_cli.guarantees.certify import Demand, affordable, certify
from localdiff_cli.guarantees.losses import losses, risks
from localdiff_cli.tasks.calibration import known_patients

RISKS = risks(5.0)
TAUS = (0.1, 0.2, 0.5)
KEPT = {"true": 0.2, "plain": 0.0, "local": 0.15, "unknown": False}
LOST = KEPT | {"local": 0.05}


def record(covered=(), lesions=((), (), ()), spotted=((0, 10),) * 3, false=(0, 0, 0)):
    places = zip(lesions, spotted, false, strict=True)
    return {"covered": list(covered), "grid": [{"lesions": list(a), "spotted": b, "false": c} for a, b, c in places]}


def asked(levels, centre=1, delta=0.1, emphases=(1.5,)):
    return Demand(levels, delta, TAUS, centre, emphases)


def test_the_losses_of_a_patient_at_each_cut():
    one = record((0.15, 0.3), ([KEPT, KEPT], [KEPT, LOST], [LOST, LOST | {"unknown": True}]), ((5, 10), (1, 10), (0, 10)), (7, 5, 0))
    found = {name: losses(risk, [one], TAUS).tolist() for name, risk in RISKS.items()}
    assert found == {
        "uncovered": [[0, 0.5, 1]], "missed": [[0, 0.5, 0.5]], "invented": [[0.5, 0.1, 0]], "harm": [[1, 0, 0]],
    }  # fmt: skip


def test_patients_without_lesions_do_not_count_where_lesions_do():
    cohort = [record(), record((0.3,), ([KEPT],) * 3)]
    assert {name: len(losses(risk, cohort, TAUS)) for name, risk in RISKS.items()} == {
        "uncovered": 1,
        "missed": 1,
        "invented": 2,
        "harm": 2,
    }
    assert losses(RISKS["missed"], [record()], TAUS).shape == (0, 3)


def test_both_risks_are_promised_at_the_cut_that_keeps_both():
    lesions = ([KEPT], [KEPT], [LOST])
    cohort = [record((0.3,), lesions, ((9, 10), (0, 10), (0, 10)))] * 30
    place, promises = certify(cohort, asked({"missed": 0.2, "invented": 0.2}), RISKS)
    assert TAUS[place] == 0.2
    assert [(p.risk, p.level, p.patients, p.measured) for p in promises] == [("missed", 0.2, 30, 0), ("invented", 0.2, 30, 0)]
    assert all(p.p_value <= 0.1 for p in promises)


def test_of_equal_cuts_the_one_is_taken_that_redraws_the_least():
    assert TAUS[certify([record()] * 30, asked({"harm": 0.1}), RISKS)[0]] == 0.5
    loses = [record((0.9,), ([KEPT], [KEPT], [KEPT]))] * 29 + [record((0.9,), ([KEPT], [KEPT], [LOST]))]
    assert TAUS[certify(loses, asked({"missed": 0.3}), RISKS)[0]] == 0.2


BOTH = (1.5, 1.0)


def bold_or_meek(n, bold_harm=0):
    """Patients whose lesion is kept at emphasis 1.5 alone, of whom ``bold_harm`` are harmed by it."""
    return [record((0.9,), ([KEPT],) * 3 + ([LOST],) * 3, ((0, 10),) * 6, (9 if k < bold_harm else 0,) * 3 + (0,) * 3) for k in range(n)]


def test_of_two_emphases_the_one_that_loses_less_is_taken_where_both_keep_the_promise():
    grid = asked({"harm": 0.1, "missed": 0.9}, emphases=BOTH).grid
    assert grid == tuple((emphasis, tau) for emphasis in BOTH for tau in TAUS)
    place, _ = certify(bold_or_meek(40), asked({"missed": 0.9, "harm": 0.1}, emphases=BOTH), RISKS)
    assert grid[place] == (1.5, 0.5)
    place, _ = certify([record((0.9,), ([KEPT],) * 6, ((0, 10),) * 6, (0,) * 6)] * 40, asked({"harm": 0.1}, emphases=BOTH), RISKS)
    assert grid[place] == (1.5, 0.5)  # of equal ones the emphasis that was named first


def test_where_the_bold_one_harms_the_meek_one_is_certified():
    place, promises = certify(bold_or_meek(40, bold_harm=12), asked({"harm": 0.1}, emphases=BOTH), RISKS)
    assert asked({"harm": 0.1}, emphases=BOTH).grid[place][0] == 1.0
    assert promises[0].p_value <= 0.05


def test_every_further_emphasis_asks_for_more_patients():
    n = next(n for n in range(1, 100) if 0.9**n <= 0.1)
    assert affordable(asked({"harm": 0.1}), n, 0, RISKS)
    with pytest.raises(NotCertifiedError):
        affordable(asked({"harm": 0.1}, emphases=BOTH), n, 0, RISKS)
    with pytest.raises(NotCertifiedError):
        certify(bold_or_meek(n), asked({"harm": 0.1}, emphases=BOTH), RISKS)


def test_promises_over_two_emphases_are_kept_in_new_patients_of_simulated_cohorts():
    """Two chains of three cuts, each of them too harmful by a little: certificates are given to a share of at most δ of the cohorts."""
    rng = np.random.default_rng(7)
    given = 0
    for _ in range(2000):
        cohort = [record((), ((),) * 6, ((0, 10),) * 6, tuple(9 * (rng.random(6) < 0.21))) for _ in range(40)]
        try:
            certify(cohort, asked({"harm": 0.2}, emphases=BOTH), RISKS)
        except NotCertifiedError:
            continue
        given += 1
    assert 0 < given / 2000 <= 0.1 + 3 * (0.1 * 0.9 / 2000) ** 0.5


def test_coverage_bounds_the_cut_from_above():
    cohort = [record((0.3,), ([KEPT],) * 3)] * 30
    place, promises = certify(cohort, asked({"uncovered": 0.1, "harm": 0.1}), RISKS)
    tau = TAUS[place]
    assert tau == 0.2
    assert promises[0].p_value is None
    assert "2208.02814" in promises[0].theorem


def test_where_the_first_cut_fails_nothing_is_promised():
    cohort = [record(false=(0, 9, 0))] * 30
    with pytest.raises(NotCertifiedError, match=r"harm 100\.0% of 10\.0% in 30 patients") as caught:
        certify(cohort, asked({"harm": 0.1}), RISKS)
    assert caught.value.exit_code == EXIT_NOT_CERTIFIED == 6
    assert TAUS[certify(cohort, asked({"harm": 0.1}, centre=0), RISKS)[0]] == 0.1


def test_nobody_with_a_lesion_proves_nothing_about_lesions():
    for name in ("missed", "uncovered"):
        with pytest.raises(NotCertifiedError, match=f"{name} in nobody"):
            certify([record()] * 30, asked({name: 0.5}), RISKS)


@pytest.mark.parametrize(("patients", "floor", "errors"), [(14, "6.7%", 0), (24, "4.0%", 1), (60, "1.6%", 5)])
def test_what_a_cohort_can_buy_is_said(patients, floor, errors):
    (line,) = affordable(asked({"uncovered": 0.1}), 99, patients, RISKS)
    assert f"{patients} patients can buy {floor} at best; {errors} whole errors" in line


def test_a_level_beyond_the_cohort_is_refused_before_anything_runs():
    with pytest.raises(NotCertifiedError, match=r"15\.2% at best.*too few patients for harm") as caught:
        affordable(asked({"harm": 0.1}), 14, 0, RISKS)
    assert caught.value.code == "too-few"
    assert affordable(asked({"harm": 0.1}), 24, 0, RISKS)


def test_promises_are_kept_in_new_patients_of_simulated_cohorts():
    """Cohorts of 40, two risks that trade off; the share of certificates whose true risk exceeds its level stays below δ."""
    rng, levels = np.random.default_rng(5), {"missed": 0.25, "harm": 0.2}
    rates = {"missed": (0.05, 0.26, 0.4), "harm": (0.35, 0.1, 0.02)}
    broken = given = 0
    for _ in range(2000):
        luck = rng.random((40, 2))
        cohort = [
            record((), [[LOST if m < rate else KEPT] for rate in rates["missed"]], false=[9 if h < rate else 0 for rate in rates["harm"]])
            for m, h in luck
        ]
        try:
            place, _ = certify(cohort, asked(levels), RISKS)
        except NotCertifiedError:
            continue
        given += 1
        broken += any(rates[name][place] > level for name, level in levels.items())
    assert given > 0
    assert broken / 2000 <= 0.1 + 3 * (0.1 * 0.9 / 2000) ** 0.5


def test_every_patient_that_a_bundle_names_is_known():
    metadata = {
        "expert": {"patients": 3},
        "training": {
            "translator": {"patients": {"train": ["sub-a"], "val": ["sub-b"]}, "start": {"patients": ["sub-c"]}},
            "x": [{"patients": ["d"]}],
        },
    }
    assert known_patients([metadata]) == {"trained": {"sub-a", "sub-c"}, "chose": {"sub-b"}}
