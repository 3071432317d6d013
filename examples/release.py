"""Build a release and prove its wheel: ``python -m examples.release [--out dist] [--sbom FILE]``.

Builds sdist and wheel (``build``), twice with the same bytes, checks their metadata (``twine``), installs the wheel with its requirements
into a bare environment, and there verifies the models and translates a small volume. Uploads nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from localdiff_cli import __version__

ROOT = Path(__file__).resolve().parents[1]

SMOKE = """
import numpy as np
from localdiff_cli import TranslateOptions, load_bundle, translate_volume
x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 48, 6)), indexing="ij")
inside = x**2 + y**2 + 0.3 * z**2 < 0.7
image = np.where(inside, 500 + 80 * np.sin(7 * x) * np.cos(5 * y), 0)
made = translate_volume(image, np.diag([4.0, 4.0, 20.0, 1.0]), options=TranslateOptions(model="t1-to-flair", bias="none"))
assert made.image[inside].std() > 0 and not made.image[~inside].any()
print("translated with", load_bundle("t1-to-flair").name)
"""
LISTED = """
import importlib.metadata as m, json
print(json.dumps(sorted({d.metadata["Name"]: d.version for d in m.distributions()}.items())))
"""


def run(*command: str | Path, where: Path | None = None) -> str:
    """What a command prints; it must succeed."""
    print("$", " ".join(map(str, command[:4])), "…" if len(command) > 4 else "", flush=True)
    return subprocess.run(list(map(str, command)), cwd=where, check=True, stdout=subprocess.PIPE, text=True).stdout


def build(out: Path) -> Path:
    """Build sdist and wheel into ``out``, check them, and return the wheel."""
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    made = sorted(out.glob(f"localdiff-{__version__}*"))
    print(run(sys.executable, "-m", "twine", "check", "--strict", *made), end="")
    return next(path for path in made if path.suffix == ".whl")


def differing(out: Path) -> list[str]:
    """What a second build makes otherwise than what lies in ``out``, by name: nothing, where a build can be reproduced."""
    with tempfile.TemporaryDirectory() as again:
        run(sys.executable, "-m", "build", "--outdir", again, ROOT)
        return [path.name for path in sorted(Path(again).iterdir()) if path.read_bytes() != (out / path.name).read_bytes()]


def environment(folder: Path, python: str, wheel: Path, *extra: str) -> Path:
    """A bare environment of ``python`` in ``folder`` with the wheel and its requirements; its interpreter. ``extra``: options of pip."""
    if Path(python).resolve() == Path(sys.executable).resolve():
        venv.create(folder, with_pip=True)
    else:
        run(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", *extra, wheel)
    return inside


def smoke(python: Path, where: Path) -> None:
    """Verify the models and translate a small volume with the package that ``python`` has; ``where`` is a folder without the sources."""
    run(python, "-m", "localdiff_cli.app", "--version", where=where)
    print(run(python, "-m", "localdiff_cli.app", "models", "verify", where=where), end="")
    print(run(python, "-c", SMOKE, where=where), end="")


def sbom(python: Path, where: Path) -> dict[str, object]:
    """What is installed beside ``python``, as a CycloneDX 1.5 document."""
    installed = json.loads(run(python, "-c", LISTED, where=where))
    components = [{"type": "library", "name": n, "version": v, "purl": f"pkg:pypi/{n.lower()}@{v}"} for n, v in installed]
    about = {"component": {"type": "application", "name": "localdiff", "version": __version__}}
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": about, "components": components}


def main() -> None:
    """Build, check, install and try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for sdist and wheel")
    parser.add_argument("--sbom", type=Path, help="write what the wheel installs, as CycloneDX JSON")
    parser.add_argument("--index-url", help="package index for pip (PyTorch's CPU builds avoid gigabytes of CUDA)")
    options = parser.parse_args()
    index = ["--extra-index-url", options.index_url] if options.index_url else []
    wheel = build(options.out)
    if others := differing(options.out):
        sys.exit(f"a second build differs: {', '.join(others)}")
    print("a second build gives the same bytes")
    with tempfile.TemporaryDirectory() as name:
        python = environment(Path(name) / "venv", sys.executable, wheel, *index)
        smoke(python, Path(name))
        if options.sbom:
            options.sbom.write_text(json.dumps(sbom(python, Path(name)), indent=1) + "\n")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, installs and runs in a bare environment")


if __name__ == "__main__":
    main()
