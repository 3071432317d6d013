"""The report in a real browser: headless Chromium (Debian package ``chromium``)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from localdiff_cli.evaluation.report.page import render_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH: apt-get install chromium")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=5000",
    "--allow-file-access-from-files", "--window-size=1400,1000", "--dump-dom",
)  # fmt: skip
CHECKER = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll") || e.matches(".scroll"))
    .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className);
  document.title = "FOUND" + JSON.stringify({
    width: innerWidth, images: images.length, broken: images.filter(i => !i.complete || i.naturalWidth === 0).length,
    silent: images.filter(i => !i.alt.trim()).length
      + [...document.querySelectorAll("[role=img]")].filter(e => !e.getAttribute("aria-label")).length,
    plots: document.querySelectorAll(".plot svg").length, wide,
    resources: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")),
    paper: getComputedStyle(document.body).backgroundColor,
  }) + "END";
});
</script>"""
FRAME = """<!doctype html><title></title><link rel="icon" href="data:,"><body style="margin:0">
<iframe id="f" src="checked.html" style="border:0;width:%dpx;height:900px"></iframe><script>
addEventListener("load", () => setTimeout(() => { document.title = document.getElementById("f").contentDocument.title; }, 300));
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, summary):
    """The report with a checker script in it (the report itself has none), to be shown in frames of any width."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "checked.html").write_text(render_report(summary).replace("</body>", CHECKER + "</body>"), encoding="utf-8")
    return folder


def browse(folder, width, tmp_path, *flags):
    """What the checker found at a width in CSS pixels, and what the browser's console said."""
    (folder / "frame.html").write_text(FRAME % width, encoding="utf-8")
    command = [BROWSER, *FLAGS, *flags, f"--user-data-dir={tmp_path}", (folder / "frame.html").as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"FOUND(\{.*?\})END", unescape(ran.stdout))
    assert found, ran.stderr[-2000:]
    return json.loads(found[1]), [line for line in ran.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 390, 360])
def test_the_page_is_whole_and_fits_the_screen(folder, tmp_path, width):
    found, console = browse(folder, width, tmp_path)
    assert console == []
    assert found["width"] == width
    assert found["images"] == 49
    assert (found["broken"], found["silent"], found["plots"]) == (0, 0, 14)
    assert found["resources"] == []
    assert found["wide"] == []


def test_dark_readers_get_a_dark_page(folder, tmp_path):
    light, _ = browse(folder, 800, tmp_path)
    dark, _ = browse(folder, 800, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert light["paper"] == "rgb(251, 250, 247)"
    assert dark["paper"] == "rgb(22, 24, 27)"
