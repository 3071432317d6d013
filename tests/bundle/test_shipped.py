"""The calibrations that bundles ship with fit the bundles as they are, by the program as it is."""

from pathlib import Path

import pytest

from localdiff_cli.bundle import open_bundle
from localdiff_cli.commands.calibrate import translation_of
from localdiff_cli.guarantees.certificate import check_fits, read_certificate

MODELS = Path(__file__).resolve().parents[2] / "models"
CALIBRATED = sorted(path.parents[1] for path in MODELS.glob("*/configs/calibration.json"))


@pytest.mark.parametrize("name", sorted(path.parents[1].name for path in MODELS.glob("*/configs/metadata.json")))
def test_a_shipped_bundle_states_its_terms_and_its_copyright_alike(name):
    metadata = open_bundle(str(MODELS / name)).metadata
    assert metadata["copyright"] == metadata["licence"]
    assert metadata["licence"].startswith("Weights for research use, non-commercial: ")


def test_two_bundles_are_calibrated():
    assert [path.name for path in CALIBRATED] == ["flair-to-t1", "t1-to-flair"]


@pytest.mark.parametrize("bundle", CALIBRATED, ids=lambda path: path.name)
def test_a_shipped_calibration_is_of_the_bundle_as_it_is(bundle, monkeypatch):
    monkeypatch.setenv("LOCALDIFF_MODELS", str(MODELS))
    path = bundle / "configs" / "calibration.json"
    certificate = read_certificate(path)
    check_fits(path, certificate, translation_of(bundle.name, "cpu", None, lambda _: None).settings)
    assert certificate.bundle_hash == open_bundle(str(bundle)).hash
    assert certificate.intervals["network"]
