"""A page in headless Chromium (Debian package ``chromium``): what a script that is put into it finds, and what the console says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
)  # fmt: skip
DUMP = ("--virtual-time-budget=10000", "--dump-dom")
CHECKER = """addEventListener("load", async () => {
  let found;
  try { found = await (async () => { SCRIPT })(); } catch (error) { found = {error: String(error.stack)}; }
  document.body.replaceChildren();
  document.title = "FOUND" + JSON.stringify(found) + "END";
});"""


def found_in(page: str, script: str, tmp_path: Path, *flags: str) -> tuple[dict, list[str]]:
    """What ``script``, the body of an asynchronous function in the page, returns once all is loaded; the lines of the console."""
    checker = CHECKER.replace("SCRIPT", script)
    (tmp_path / "page.html").write_text(page.replace("</body>", f"<script>{checker}</script></body>"), encoding="utf-8")
    command = [BROWSER or "chromium", *FLAGS, *DUMP, *flags, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"FOUND(\{.*\})END", unescape(ran.stdout))
    assert found, ran.stderr[-2000:]
    return json.loads(found[1]), [line for line in ran.stderr.splitlines() if ":CONSOLE" in line]
