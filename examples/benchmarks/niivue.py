"""Our viewer against NiiVue: the same volumes in one HTML file each, opened, scrolled and recoloured in headless Chromium, timed.

``npm pack @niivue/niivue@0.69.0 && tar xf niivue-niivue-0.69.0.tgz`` brings the library, which is not a part of this project;
``python -m examples.benchmarks.niivue --library package/dist/niivue.umd.js`` prints the table, and what it ran on. Chromium runs as in the
tests (chromium.py), but by the clock on the wall. The memory is read from /proc, thus on Linux only.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from examples.benchmarks.chromium import BROWSER, FLAGS
from localdiff_cli.viewer.layers import HEAT, IMAGE, LABELS, Layer, ViewCase, fit, layer, packed
from localdiff_cli.viewer.page import asset, page

LIMIT_SECONDS = 900.0


def volumes(shape: tuple[int, int, int] = (155, 190, 150)) -> ViewCase:
    """Return four images of an ellipsoid that fills the grid, two maps and two volumes of labels."""
    s, r, c = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt(s**2 + r**2 + c**2)

    def smooth(seed: int, width: float) -> NDArray[np.float64]:
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), width)
        return noise / noise.std()

    made: dict[str, tuple[str, NDArray[Any]]] = {}
    for n, name in enumerate(("condition", "plain", "local", "truth")):
        made[name] = IMAGE, 1000 + 150 * smooth(n, 2) + 60 * smooth(n + 10, 0)
    made["lesions"] = LABELS, (radius > 0.4) & (radius < 0.5) & (s > 0)
    made["ood"] = HEAT, np.clip(smooth(20, 3) / 4, 0, 1)
    made["source"] = LABELS, 1 + (r > 0) + 2 * (c > 0.3)
    made["width"] = HEAT, abs(smooth(21, 3))
    layers = [layer(name, kind, np.where(radius < 0.98, array, 0)) for name, (kind, array) in made.items()]
    return ViewCase("a", tuple(layers), (1.0, 1.0, 1.0))


def nifti(each: Layer) -> bytes:
    """Return a layer's voxels as NIfTI, the columns to Left, the rows to Posterior, the slices to Superior."""
    return nib.Nifti1Image(np.ascontiguousarray(each.data.T), np.diag([-1.0, -1, 1, 1])).to_bytes()


def niivue_page(case: ViewCase, own: str, library: str) -> str:
    """Return a page with the head of our ``own`` (its Content-Security-Policy), the layers, packed as there, and NiiVue as published."""
    if "</script" in library.lower():
        raise ValueError("the library has </script in it and cannot stand in a page as it is")
    texts = [(each, packed(np.frombuffer(nifti(each), np.uint8))) for each in case.layers]
    voxels = [f'<script type="text/plain" data-name="{each.name}" data-kind="{each.kind}">{text}</script>' for each, text in texts]
    return "\n".join([own.partition("<body>")[0], "<body>", *voxels, f"<script>{library}</script>", "</body></html>"])


def with_script(text: str, case: ViewCase) -> str:
    """Return a page with the measurement in it, which is told the middle slice of every image."""
    slices, rows, columns = case.shape
    truth = [base64.b64encode(each.data[slices // 2].tobytes()).decode("ascii") for each in case.layers if each.kind == IMAGE]
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    told = json.dumps({"rows": rows, "columns": columns, "truth": truth})
    before, end, after = text.rpartition("</body>")  # NiiVue's own text has one too
    return f"{before}<script>{script.replace('TOLD', told)}</script>{end}{after}"


def gpu_megabytes(group: int) -> float | None:
    """Return the most memory that the GPU process among a browser's processes had so far; None without /proc."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group and b"--type=gpu-process" in (path / "cmdline").read_bytes():
                return int(re.findall(r"VmHWM:\s*(\d+)", (path / "status").read_text())[0]) * 1024 / 1e6
        except (OSError, IndexError):  # one that has just ended
            continue
    return None


def measured(text: str, folder: Path) -> dict[str, Any]:
    """Open a page that has the measurement in it; return what it found, and the memory. Raises RuntimeError where it failed."""
    (folder / "page.html").write_text(text, encoding="utf-8")
    command = [str(BROWSER), *FLAGS, "--window-size=1400,1000", f"--user-data-dir={folder / 'profile'}", (folder / "page.html").as_uri()]
    until, found = time.monotonic() + LIMIT_SECONDS, None
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log, start_new_session=True) as browser:
        try:
            while not found and browser.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
                found = re.search(r"FOUND(\{.*\})END", (folder / "log").read_text(errors="replace"))
            memory = gpu_megabytes(browser.pid)
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
    told = json.loads(found[1]) if found else {"error": (folder / "log").read_text(errors="replace")[-2000:]}
    if "error" in told:
        raise RuntimeError(f"the page was not measured: {told['error']}")
    return {**told, "memory": memory}


def column(code: str, text: str, found: dict[str, Any]) -> dict[str, str]:
    """Return a page's column of the table: of the code that makes it a viewer, of the page, and of what was found in it."""

    def span(times: list[float]) -> str:
        return f"{min(times):.0f} to {max(times):.0f}"

    return {
        "added to a page, MB": f"{len(code.encode()) / 1e6:.2f}",
        "added if packed, MB": f"{len(packed(np.frombuffer(code.encode(), np.uint8))) / 1e6:.2f}",
        "page, MB": f"{len(text.encode()) / 1e6:.1f}",
        "shown with all overlays, s": f"{found['shown'] / 1000:.1f}",
        "next slice, ms": span(found["slice"]),
        "overlay on or off, ms": span(found["overlay"]),
        "contrast, ms": span(found["contrast"]),
        "GPU process at most, MB": "" if found["memory"] is None else f"{found['memory']:.0f}",
        "pixels that differ from the voxels": str(found["differing"]),
        "drawn by": found["renderer"],
    }


def main() -> None:
    """Print the table as TSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="NiiVue as one script: dist/niivue.umd.js of its npm package")
    library = parser.parse_args().library.read_text(encoding="utf-8")
    if BROWSER is None:
        parser.error("no chromium on PATH: apt-get install chromium")
    ((case, _),) = fit([volumes()])
    own = page([case], "a")
    pages = {"NiiVue": (library, niivue_page(case, own, library)), "ours": (asset("viewer.css") + asset("viewer.js"), own)}
    columns = []
    for code, text in pages.values():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            columns.append(column(code, text, measured(with_script(text, case), Path(folder))))
    print("\n".join("\t".join(line) for line in [("", *pages), *((row, *(each[row] for each in columns)) for row in columns[0])]))
    version = subprocess.run([BROWSER, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"# {version}, {os.cpu_count()} cores, four images and four overlays of {' × '.join(map(str, case.shape[::-1]))} voxels")


if __name__ == "__main__":
    main()
