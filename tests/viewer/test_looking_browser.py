"""How a picture looks, driven in a real browser: zoom, pan, brightness, contrast and the mark of the place."""

from __future__ import annotations

import numpy as np
import pytest

from examples.benchmarks.chromium import BROWSER, found_in
from localdiff_cli.viewer.layers import HEAT, IMAGE, ViewCase, layer
from localdiff_cli.viewer.page import page
from tests.viewer.test_viewer_browser import TOOLS, picture

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH: apt-get install chromium")

LOW, HIGH = 100.0, 610.0
VOXELS = np.random.default_rng(0).integers(1, 256, (6, 24, 20))


@pytest.fixture(scope="module")
def text():
    """Two images whose 8 bits are known, and a map."""
    real = LOW + VOXELS * ((HIGH - LOW) / 255)
    layers = (layer("t1", IMAGE, real, (LOW, HIGH)), layer("t2", IMAGE, real[::-1], (LOW, HIGH)), layer("ood", HEAT, VOXELS / 255, (0, 1)))
    return page([ViewCase("a", layers, (3.0, 1.0, 1.0))], "a")


def found(text, tmp_path, script, *flags):
    returned, console = found_in(text, TOOLS + script, tmp_path, *flags)
    assert "error" not in returned, returned
    assert [line for line in console if "Multiple readback" not in line] == []
    return returned


def test_ctrl_and_wheel_zoom_all_pictures_about_the_pointer(text, tmp_path):
    seen = found(
        text,
        tmp_path,
        """
    pointer("pointerdown", 1, 0.26, 0.51); const before = told(), pixel = pixels(0);
    const turn = deltaY => canvases()[1].dispatchEvent(new WheelEvent("wheel",
      {...on(1, 0.26, 0.51), deltaY, ctrlKey: true, bubbles: true, cancelable: true}));
    const prevented = !turn(-50); turn(-50);
    const first = seen(0), second = seen(1), slice = told(); pointer("pointerdown", 0, 0.26, 0.51); const same = told();
    pointer("pointerdown", 0, 0.99, 0.51); const edge = told();
    for (let i = 0; i < 9; i++) turn(-500); const closest = seen(0);
    for (let i = 0; i < 20; i++) turn(100);
    const unchanged = JSON.stringify(pixel) === JSON.stringify(pixels(0));
    return {before, prevented, first, second, slice, same, edge, closest, out: seen(0), unchanged};""",
    )
    zoom = np.exp(1)
    assert seen["prevented"]
    assert seen["before"] == seen["slice"] == seen["same"]
    assert seen["first"]["zoom"] == pytest.approx(zoom, rel=1e-3)
    assert seen["first"]["x"] == pytest.approx(0.26 - zoom * 0.26, abs=0.01)
    assert seen["first"]["y"] == pytest.approx(0.51 - zoom * 0.51, abs=0.01)
    assert seen["second"] == pytest.approx(seen["first"], abs=1e-3)
    column = int((0.99 - seen["first"]["x"]) / zoom * VOXELS.shape[2])
    assert f", {column} ·" in seen["edge"]
    assert seen["closest"]["zoom"] == pytest.approx(16, rel=1e-3)
    assert (seen["out"]["zoom"], seen["out"]["x"], seen["out"]["y"]) == pytest.approx((1, 0, 0), abs=1e-3)
    assert seen["unchanged"]


def test_keys_zoom_about_the_place_and_pan_as_far_as_the_picture_goes(text, tmp_path):
    seen = found(
        text,
        tmp_path,
        """
    const mark = () => [marks()[0].x, marks()[0].y];
    pointer("pointerdown", 0, 0.7, 0.4); const before = mark();
    press("+"); press("="); press("+"); const near = seen(0), there = mark();
    press("ArrowRight", {shiftKey: true}); const panned = seen(0), slice = told();
    for (let i = 0; i < 30; i++) press("ArrowRight", {shiftKey: true}); const right = seen(0);
    pointer("pointerdown", 0, 0.5, 0.5, {shiftKey: true}); const place = told();
    pointer("pointermove", 0, 0.6, 0.55, {buttons: 1}); const dragged = seen(0);
    press("s"); const turned = mark();
    press("-"); const far = seen(0); press("0");
    return {before, near, there, panned, right, slice, place, dragged, turned, far, reset: seen(0)};""",
    )
    assert seen["near"]["zoom"] == pytest.approx(1.25**3, rel=1e-3)
    assert seen["there"] == pytest.approx(seen["before"], abs=0.01)
    assert seen["panned"]["x"] == pytest.approx(seen["near"]["x"] - 0.1, abs=1e-3)
    assert seen["right"]["x"] == pytest.approx(1 - 1.25**3, abs=1e-3)
    assert seen["place"] == seen["slice"]
    assert seen["dragged"]["x"] == pytest.approx(seen["right"]["x"] + 0.1, abs=1e-3)
    assert seen["dragged"]["y"] == pytest.approx(seen["right"]["y"] + 0.05, abs=1e-3)
    assert all(0 < at < 1 for at in seen["turned"])
    assert seen["far"]["zoom"] == pytest.approx(1.25**2, rel=1e-3)
    assert seen["reset"]["zoom"] == pytest.approx(1, abs=1e-3)


def test_two_fingers_zoom_and_one_that_stays_scrolls_on(text, tmp_path):
    seen = found(
        text,
        tmp_path,
        """
    const one = {pointerType: "touch", pointerId: 5, buttons: 1}, two = {...one, pointerId: 6};
    pointer("pointerdown", 0, 0.4, 0.5, one); const before = told(); pointer("pointerdown", 0, 0.6, 0.5, two);
    pointer("pointermove", 0, 0.8, 0.5, two); const near = seen(0), held = told();
    pointer("pointerup", 0, 0.8, 0.5, two); pointer("pointermove", 0, 0.4, 0.5 - 9 / frame(0).height, one);
    return {before, near, held, scrolled: told()};""",
    )
    assert seen["near"]["zoom"] == pytest.approx(2, rel=1e-3)
    assert seen["held"] == seen["before"]
    assert int(seen["scrolled"].split()[1]) == int(seen["before"].split()[1]) + 1


def shown(brightness, contrast):
    """The grey values that the third slice must have, and what black and white stand for."""
    gain, middle = 2 ** (contrast / 25), 0.5 - brightness / 100
    low, high = middle - 0.5 / gain, middle + 0.5 / gain
    grey = np.clip(np.rint((VOXELS[3] / 255 - low) * gain * 255), 0, 255)
    return grey, LOW + low * (HIGH - LOW), LOW + high * (HIGH - LOW)


def test_brightness_and_contrast_change_images_only_and_say_so(text, tmp_path):
    seen = found(
        text,
        tmp_path,
        """
    press("1");
    const caption = () => root.querySelector(".vpanels figcaption").textContent, plain = caption();
    press("]"); press("]"); press("["); press("}"); press("}"); const keys = pixels(0), said = caption();
    press("0"); const reset = pixels(0), quiet = caption();
    pointer("pointerdown", 0, 0.5, 0.5, {button: 2}); const place = told();
    pointer("pointermove", 0, 0.5 + 40 / frame(0).width, 0.5 - 60 / frame(0).height, {buttons: 2});
    const dragged = pixels(0), still = told();
    const slider = [...root.querySelectorAll("input[type=range]")].find(i => i.ariaLabel === "contrast"), at = +slider.value;
    slider.value = -50; slider.dispatchEvent(new Event("input")); const slid = pixels(0);
    [...root.querySelectorAll("button")].find(b => b.textContent === "reset").click(); const button = pixels(0);
    const menu = canvases()[0].dispatchEvent(new Event("contextmenu", {cancelable: true}));
    return {plain, keys, said, reset, quiet, place, dragged, still, at, slid, button, menu};""",
    )
    expected, low, high = shown(5, 10)
    np.testing.assert_allclose(picture(seen["keys"]), expected, atol=1)
    assert "black" not in seen["plain"] + seen["quiet"]
    black, white = (float(part.split(" ")[-1]) for part in seen["said"].split("black")[1].split(","))
    assert (black, white) == pytest.approx((low, high), rel=5e-3)
    assert (np.abs(picture(seen["keys"]).astype(int) - VOXELS[3]) > 5).any()
    for key in ("reset", "button"):
        np.testing.assert_array_equal(picture(seen[key]), VOXELS[3])
    np.testing.assert_allclose(picture(seen["dragged"]), shown(30, 20)[0], atol=1)
    assert (seen["place"], seen["at"]) == (seen["still"], 20)
    np.testing.assert_allclose(picture(seen["slid"]), shown(30, -50)[0], atol=1)
    assert not seen["menu"]


def test_the_mark_stands_at_the_place_in_every_picture_and_can_be_hidden(text, tmp_path):
    seen = found(
        text,
        tmp_path,
        """
    const first = marks(); pointer("pointerdown", 1, 0.26, 0.51); const clicked = marks(); press("c"); const coronal = marks();
    press("x"); return {first, clicked, coronal, off: marks()};""",
    )
    assert [mark["hidden"] for mark in seen["first"] + seen["off"]] == [True] * 4
    slices, rows, columns = VOXELS.shape
    for mark in seen["clicked"]:
        assert not mark["hidden"]
        assert (mark["x"], mark["y"]) == pytest.approx(((int(0.26 * columns) + 0.5) / columns, (int(0.51 * rows) + 0.5) / rows), abs=0.01)
    assert seen["coronal"][1]["y"] == pytest.approx((slices - 1 - slices // 2 + 0.5) / slices, abs=0.01)


def test_the_browsers_own_keys_stay_its_own(text, tmp_path):
    seen = found(
        text,
        tmp_path,
        """
    const before = told(), kept = [["c", {ctrlKey: true}], ["+", {ctrlKey: true}], ["ArrowLeft", {altKey: true}], ["0", {metaKey: true}]]
      .map(([key, more]) => press(key, more));
    const AltGr = press("]", {ctrlKey: true, altKey: true}); return {kept, AltGr, before, after: told(), zoom: seen(0).zoom};""",
    )
    assert seen["kept"] == [True] * 4
    assert not seen["AltGr"]
    assert seen["before"] == seen["after"]
    assert seen["zoom"] == pytest.approx(1, abs=1e-3)
