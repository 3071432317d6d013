"""A certificate carries its own hash, and speaks of one bundle and one way to translate."""

import json
from dataclasses import replace

import pytest

from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.promised import promised_in
from localdiff_cli.guarantees.certificate import Certificate, Verdict, check_fits, comparable, read_certificate, write_certificate
from localdiff_cli.guarantees.certify import Promise

SETTINGS = {
    "Command": "translate", "Bundle": "b", "BundleHash": "0", "Prepare": {"brain": "auto", "nan": "refuse", "bias": "n4"},
    "Mask": {"threshold": 0.2, "open_mm": 2.0, "through_plane_mm": 6.0, "bright": 0.79}, "Sample": {"steps": 2}, "Match": None,
    "DataType": "float32", "Device": "cpu", "Saved": ["x"],
}  # fmt: skip


@pytest.fixture
def certificate():
    promise = Promise("harm", "patients with more than 5 ml falsely drawn", 0.1, 24, 0.0, 0.08, "Learn then Test")
    portraits = ({"intensity": [0.1], "detector": [0.2], "features": []},) * 24
    cohort = {"patients": 24, "kinds": {"glioma": 24}, "every": 1, "split": None, "chose_settings": 4, "bands_from": 0}
    return Certificate("b", "0", comparable(SETTINGS), 0.3, (0.2, 0.3), 1.5, (1.5, 1.0), 0.9, (promise,), cohort, 0.05, portraits, "1")


def test_it_is_read_as_it_was_written(certificate, tmp_path):
    write_certificate(tmp_path / "site.json", certificate)
    assert read_certificate(tmp_path / "site.json") == certificate


@pytest.mark.parametrize("change", [{"tau": 0.1}, {"emphasis": 1.0}, {"confidence": 0.99}, {"hash": "0"}, {"cohort": {"patients": 1000}}])
def test_a_changed_one_is_refused(certificate, tmp_path, change):
    path = tmp_path / "site.json"
    write_certificate(path, certificate)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match="hash does not match"):
        read_certificate(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 3, "tau": 0.1}', "\x00"])
def test_something_else_is_refused(tmp_path, text):
    (tmp_path / "site.json").write_text(text)
    with pytest.raises(UsageError, match="no certificate"):
        read_certificate(tmp_path / "site.json")


def test_a_missing_one_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_certificate(tmp_path / "site.json")


def test_one_of_before_a_setting_existed_covers_translations_without_it(certificate):
    before = replace(certificate, settings=comparable(SETTINGS | {"Mask": {"open_mm": 2.0}}))
    without = {"threshold": 0.2, "open_mm": 2.0, "through_plane_mm": 0.0, "bright": None}
    check_fits("site.json", before, SETTINGS | {"Mask": without})
    for changed in ({"through_plane_mm": 6.0}, {"bright": 0.79}):
        with pytest.raises(UsageError, match="Mask"):
            check_fits("site.json", before, SETTINGS | {"Mask": without | changed})


def test_it_fits_what_it_was_made_for_whatever_decides_no_risk(certificate, tmp_path):
    free = {
        "Match": "r",
        "DataType": "int16",
        "Device": "cuda",
        "Saved": [],
        "Calibration": "x",
        "Mask": {"threshold": 0.9, "open_mm": 2.0, "through_plane_mm": 6.0, "bright": 0.79},
    }
    check_fits(tmp_path, certificate, SETTINGS | free | {"Prepare": {"brain": "m", "nan": "zero", "bias": "n4"}})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"BundleHash": "1"}, 'BundleHash: "1", certified "0"'),
        ({"Sample": {"steps": 3}}, "Sample"),
        ({"Mask": {"threshold": 0.2, "open_mm": 0.0}}, "Mask"),
        ({"Prepare": {"brain": "auto", "nan": "refuse", "bias": "none"}}, "Prepare"),
        ({"Unknown": {"fill": "blank"}}, "Unknown"),
    ],
)
def test_it_refuses_other_settings_and_says_which(certificate, tmp_path, change, told):
    with pytest.raises(UsageError, match=told):
        check_fits(tmp_path, certificate, SETTINGS | change)


def test_a_void_one_is_said_and_the_sidecar_has_the_promises(certificate):
    assert Verdict(certificate, 0.5, void=False).doubts == []
    void = Verdict(certificate, 0.04, void=True)
    assert void.doubts[0].startswith("certificate void: unlike the 24 patients")
    told = void.facts["Calibration"]
    assert (told["CertificateHash"], told["Void"], told["Tau"]) == (certificate.hash, True, 0.3)
    assert told["Promises"][0]["AtMost"] == 0.1
    assert told["ChoseSettings"] == 4


def test_what_a_sidecar_says_is_what_the_report_reads(certificate):
    facts = Verdict(certificate, 0.04, void=True).facts | {"OODMillilitres": 3.5, "UnknownMillilitres": 0.5}
    told = promised_in(json.loads(json.dumps(facts)))
    (sentence,) = told.promises
    assert sentence == "patients with more than 5 ml falsely drawn: at most 10.0%, with 90% confidence (measured 0.0% in 24 patients)"
    assert told.whom == "24 patients (24 glioma); 4 of them had also been used to choose settings, so that it may be a little too good"
    assert (told.certificate, told.void, told.interval, told.drawn_ml) == (certificate.hash[:12], True, None, 3.5)
    for broken in ({}, {"Calibration": None}, {"Calibration": {"Void": True}}, {"Calibration": facts["Calibration"] | {"PValue": "x"}}):
        assert promised_in(broken) is None
