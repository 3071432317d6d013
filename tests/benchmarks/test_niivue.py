"""The comparison with NiiVue: what its page holds, the measurement put into it, our own page measured, the table."""

import base64
import gzip
import re

import nibabel as nib
import numpy as np
import pytest

from examples.benchmarks.chromium import BROWSER
from examples.benchmarks.niivue import column, measured, niivue_page, volumes, with_script
from localdiff_cli.viewer.layers import cut
from localdiff_cli.viewer.page import page

LIBRARY = 'var niivue = {page: "<body></body>"};'


@pytest.fixture(scope="module")
def case():
    return volumes((24, 20, 16))


def test_the_volumes_fill_their_grid_and_every_layer_shows_something():
    case = volumes()
    assert cut(case).shape == case.shape == (155, 190, 150)
    assert all(each.data.any() for each in case.layers)


def test_the_page_for_niivue_holds_the_library_and_every_layer_as_nifti(case):
    text = niivue_page(case, page([case], "a"), LIBRARY)
    assert text.count(LIBRARY) == 1
    held = re.findall(r'data-name="(\w+)" data-kind="(\w+)">([^<]+)<', text)
    assert [(name, kind) for name, kind, _ in held] == [(each.name, each.kind) for each in case.layers]
    for each, (_, _, packed) in zip(case.layers, held, strict=True):
        image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_array_equal(np.asarray(image.dataobj), each.data.T)


def test_both_pages_are_under_the_same_policy(case):
    own = page([case], "a")
    (policy,) = re.findall(r'"Content-Security-Policy" content="[^"]+"', own)
    assert policy in niivue_page(case, own, LIBRARY)


def test_a_library_that_would_end_its_script_is_refused(case):
    with pytest.raises(ValueError, match="</script"):
        niivue_page(case, page([case], "a"), LIBRARY + "'</SCRIPT>'")


def test_the_measurement_stands_at_the_end_and_leaves_the_library_whole(case):
    text = with_script(niivue_page(case, page([case], "a"), LIBRARY), case)
    before, after = text.split(LIBRARY)
    assert "FOUND" not in before
    assert after.endswith("</script></body></html>")
    (truth,) = re.findall(r'measure\(\{.*"truth": \[(.*?)\]', after)
    assert [base64.b64decode(each) for each in truth.split(", ")] == [each.data[12].tobytes() for each in case.layers[:4]]


def test_a_column_has_megabytes_and_the_least_and_greatest_time():
    found = {"shown": 2040.4, "slice": [1.2, 9.6, 3], "overlay": [5, 5], "contrast": [7], "memory": None, "differing": 0, "renderer": "r"}
    values = column("x" * 20_000, "y" * 1_500_000, found)
    assert [values[row] for row in ("added to a page, MB", "page, MB", "GPU process at most, MB")] == ["0.02", "1.5", ""]
    assert values["shown with all overlays, s"] == "2.0"
    assert [value for row, value in values.items() if row.endswith(", ms")] == ["1 to 10", "5 to 5", "7 to 7"]


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH: apt-get install chromium")
def test_our_page_is_measured_and_pixels_that_differ_are_counted(case, tmp_path):
    found = measured(with_script(page([case], "a"), case), tmp_path)
    assert [len(found[name]) for name in ("slice", "contrast", "overlay")] == [10, 3, 8]
    assert found["differing"] == 0
    other = volumes(case.shape)
    other.layers[1].data[12, 3:5, 2:7] ^= 1
    (tmp_path / "other").mkdir()
    assert measured(with_script(page([case], "a"), other), tmp_path / "other")["differing"] == 10


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH: apt-get install chromium")
def test_a_page_that_fails_says_why(case, tmp_path):
    with pytest.raises(RuntimeError, match="Niivue is not a constructor"):
        measured(with_script(niivue_page(case, page([case], "a"), LIBRARY), case), tmp_path)
