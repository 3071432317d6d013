"""The viewer driven in a real browser: scrolled, clicked, toggled, its pixels compared with the NIfTI's voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from examples.benchmarks.chromium import BROWSER, found_in
from localdiff_cli.commands.view import view_case
from localdiff_cli.viewer.layers import cut, window_of
from localdiff_cli.viewer.page import page
from tests.volumes.synthetic import affine_of, brain_array, canonical

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH: apt-get install chromium")

TOOLS = Path(__file__).with_name("tools.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A T1w stored in an odd orientation, a FLAIR on its grid, a lesion mask and an OOD map."""
    folder, array = tmp_path_factory.mktemp("volumes"), brain_array((22, 26, 11))
    other = brain_array((22, 26, 11), seed=1)
    affine = affine_of((1.0, 1.2, 3.0))
    made = {"a_T1w": array, "a_FLAIR": other, "a_mask": (array > 1250).astype(np.uint8), "a_ood": (other / other.max()).astype(np.float32)}
    for name, data in made.items():
        image = nib.Nifti1Image(data, affine)
        nib.as_closest_canonical(image).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])).to_filename(folder / f"{name}.nii.gz")
    return [folder / f"{name}.nii.gz" for name in made]


def case_of(paths):
    return view_case([str(path) for path in paths], [])


@pytest.fixture(scope="module")
def text(volumes):
    return page([case_of(volumes)], "a")


def eight_bits(path, case):
    """The NIfTI's voxels as the page must show them, canonical, cut as the page is."""
    array = canonical(path)
    low, high = window_of(array, "image")
    slices, rows, columns = case.shape
    whole = np.clip(np.rint((array - low) * np.float32(255 / (high - low))), 0, 255).astype(int)
    s, r, c = case.start
    return whole[s : s + slices, r : r + rows, c : c + columns]


def picture(found, colour="red"):
    return np.array(found[colour]).reshape(found["rows"], found["columns"])


def test_scrolling_and_planes_show_the_voxels_of_the_nifti(volumes, text, tmp_path):
    script = (
        TOOLS
        + """
    press("1"); press("2");
    const axial = pixels(0), second = pixels(1), start = told();
    press("ArrowUp"); const up = pixels(0); wheel(-1); wheel(-1); const down = pixels(0);
    press("PageUp"); const top = pixels(0), end = told();
    press("c"); const coronal = pixels(0); press("s"); press("ArrowRight"); const sagittal = pixels(0);
    return {axial, second, up, down, top, coronal, sagittal, start, end, stills: getComputedStyle(root.querySelector(".stills")).display,
      resources: performance.getEntriesByType("resource").map(e => e.name).filter(n => !/^(data|blob):/.test(n))};"""
    )
    found, console = found_in(text, script, tmp_path)
    assert "error" not in found, found
    assert [line for line in console if "Multiple readback" not in line] == []  # of these pixels, by this test
    assert found["resources"] == []
    assert found["stills"] == "none"
    case = cut(case_of(volumes))
    t1, flair = eight_bits(volumes[0], case), eight_bits(volumes[1], case)
    s, p, c = (n // 2 for n in case.shape)
    np.testing.assert_array_equal(picture(found["axial"]), t1[s])
    np.testing.assert_array_equal(picture(found["second"]), flair[s])
    np.testing.assert_array_equal(picture(found["up"]), t1[s + 1])
    np.testing.assert_array_equal(picture(found["down"]), t1[s - 1])
    np.testing.assert_array_equal(picture(found["top"]), t1[-1])
    np.testing.assert_array_equal(picture(found["coronal"]), t1[::-1, p])
    np.testing.assert_array_equal(picture(found["sagittal"]), t1[::-1, :, c + 1])
    assert found["start"].startswith(f"slice {s + case.start[0]} ·")
    assert found["end"].startswith(f"slice {case.shape[0] - 1 + case.start[0]} ·")


def test_overlays_colour_where_they_are_and_nowhere_else(volumes, text, tmp_path):
    script = (
        TOOLS
        + """
    press("2"); const lesions = pixels(0); root.querySelectorAll("input[type=checkbox]")[0].click(); const none = pixels(0);
    press("2"); const heat = pixels(0); return {lesions, none, heat};"""
    )
    found, _ = found_in(text, script, tmp_path)
    case = cut(case_of(volumes))
    s = case.shape[0] // 2
    index = tuple(slice(a, a + n) for a, n in zip(case.start[1:], case.shape[1:], strict=True))
    mask, ood = canonical(volumes[2])[s + case.start[0]][index] > 0, canonical(volumes[3])[s + case.start[0]][index]
    np.testing.assert_array_equal(picture(found["none"], "red"), picture(found["none"], "green"))
    changed = picture(found["lesions"], "red") != picture(found["lesions"], "green")
    np.testing.assert_array_equal(changed, mask)
    assert mask.any()
    plain, heat = picture(found["none"]), picture(found["heat"])
    np.testing.assert_array_equal(heat[ood == 0], plain[ood == 0])
    assert (picture(found["heat"], "red") != picture(found["heat"], "green"))[ood > 0.3].any()


def test_a_click_a_finger_and_flicking_move_all_pictures_together(volumes, text, tmp_path):
    script = (
        TOOLS
        + """
    pointer("pointerdown", 1, 0.26, 0.51);
    const clicked = told(), captions = [...root.querySelectorAll(".vpanels figcaption")].map(c => c.textContent);
    const touch = {pointerType: "touch", pointerId: 5, buttons: 1};
    pointer("pointerdown", 0, 0.5, 0.5, touch); const before = told();
    pointer("pointermove", 0, 0.5, 0.5 - 17 / canvases()[0].getBoundingClientRect().height, touch);
    const dragged = told(), hidden = () => [...root.querySelectorAll(".vpanels figure")].map(f => f.hidden);
    press("f"); const one = hidden(); press("f"); const two = hidden(); press("f");
    return {clicked, captions, before, dragged, one, two, all: hidden()};"""
    )
    found, _ = found_in(text, script, tmp_path)
    case = cut(case_of(volumes))
    slices, rows, columns = case.shape
    place = (slices // 2 + case.start[0], int(0.51 * rows) + case.start[1], int(0.26 * columns) + case.start[2])
    assert f"voxel {place[0]}, {place[1]}, {place[2]}" in found["clicked"]
    for path, caption in zip(volumes, found["captions"], strict=False):
        low, high = window_of(canonical(path), "image")
        value = float(np.clip(canonical(path)[place], low, high))
        assert float(caption.split(": ")[1]) == pytest.approx(value, abs=(high - low) / 255 + 0.006 * abs(value))
    assert int(found["dragged"].split()[1]) == int(found["before"].split()[1]) + 2
    assert (found["one"], found["two"], found["all"]) == ([False, True], [True, False], [False, False])


def test_several_cases_are_chosen_from_a_list(volumes, tmp_path):
    text = page([case_of(volumes[:1]), case_of(volumes[1:2])], "two")
    script = (
        TOOLS
        + """
    const first = pixels(0), list = root.querySelector("select"); list.value = "1"; list.dispatchEvent(new Event("change"));
    await settled(() => root.querySelector(".vpanels figcaption").textContent.startsWith("a_FLAIR")); return {first, second: pixels(0)};"""
    )
    found, _ = found_in(text, script, tmp_path)
    for key, path in (("first", volumes[0]), ("second", volumes[1])):
        case = cut(case_of([path]))
        np.testing.assert_array_equal(picture(found[key]), eight_bits(path, case)[case.shape[0] // 2])


def test_without_what_it_needs_the_still_pictures_stay(text, tmp_path):
    broken = text.replace("<head>", "<head><script>delete window.DecompressionStream;</script>")
    script = """const images = [...document.images];
      return {shown: images.map(i => i.getBoundingClientRect().width > 50 && i.naturalWidth > 0),
      alts: images.map(i => i.alt), canvases: document.querySelectorAll("canvas").length};"""
    found, console = found_in(broken, script, tmp_path)
    assert console == []
    assert found["shown"] == [True, True]
    assert found["canvases"] == 0
    assert all("axial slice" in alt for alt in found["alts"])


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen(text, tmp_path, width):
    script = (
        TOOLS
        + """const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
      return {wide: wide.map(e => e.tagName), width: innerWidth};"""
    )
    found, _ = found_in(text, script, tmp_path, f"--window-size={width},900")
    assert found["wide"] == []
