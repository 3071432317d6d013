from __future__ import annotations

import pytest

from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.metrics.misdiagnosis import MisdiagnosisSettings
from localdiff_cli.evaluation.settings import FigureSettings


@pytest.mark.parametrize("wrong", [{"ring_mm": 0}, {"pro_limit": 1.5}, {"confidence": 1}, {"surface_tolerance_mm": -1}, {"resamples": 3}])
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        FigureSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"delta": 2}, {"lesion_share": -0.1}, {"invented_pixels": -1}, {"sweep": (0.1, 7)}])
def test_misdiagnosis_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        MisdiagnosisSettings(**wrong)
