"""The documentation: its Python runs as it stands, the generated pages are complete, and the site builds with every link resolved."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer

import localdiff_cli
from examples.docs import build
from localdiff_cli.app import app
from tests.brains import write_brain

ROOT = Path(__file__).resolve().parents[2]


def test_the_python_of_the_page_runs(models_folder, tmp_path, monkeypatch, capsys):
    for given, named in (("t1-to-t2", "t1-to-flair"), ("lesion-t2", "lesion-flair")):
        shutil.copytree(models_folder / given, tmp_path / "models" / named)
    monkeypatch.setenv("LOCALDIFF_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    source = nib.load(write_brain(tmp_path / "sub-01_T1w.nii.gz", shape=(40, 48, 2)))
    parts = re.findall(r"```python\n(.*?)```", (ROOT / "examples" / "docs" / "api.md").read_text(), re.S)
    assert len(parts) == 2
    exec(compile("\n".join(parts), "api.md", "exec"), {})
    written = nib.load(tmp_path / "sub-01_FLAIR.nii.gz")
    assert written.shape == source.shape
    assert np.array_equal(written.affine, source.affine)
    told = capsys.readouterr().out
    assert "out of distribution" in told
    assert "voxels of lesions" in told


def test_the_page_on_python_has_every_exported_name():
    text = "\n".join(build.api())
    assert {name for name in localdiff_cli.__all__ if not name.startswith("_")} == set(re.findall(r"^### (\w+)$", text, re.M))


def test_the_page_on_commands_has_every_command_and_option():
    text = "\n".join(build.commands())

    def ends(command, names=("localdiff",)):
        below = getattr(command, "commands", {})
        return {" ".join(names): command} if not below else {k: v for n, each in below.items() for k, v in ends(each, (*names, n)).items()}

    found = ends(typer.main.get_command(app))
    assert set(found) == set(re.findall(r"^## (.+)$", text, re.M))
    for name, command in found.items():
        part = re.split(rf"^## {re.escape(name)}\n", text, flags=re.M)[1].split("\n## ")[0]
        assert not [opt for parameter in command.params for opt in parameter.opts if opt.startswith("--") and f"`{opt}`" not in part]


def test_a_default_and_a_required_option_are_told_apart():
    text = "\n".join(build.commands())
    assert re.search(r"^\| `--in` .* \| required \|$", text, re.M)
    assert re.search(r"^\| `--samples` .* \| `1` \|$", text, re.M)


def test_every_page_is_in_the_navigation_and_every_file_of_the_folder_is_a_page():
    listed = {page for part in build.NAVIGATION for pages in part.values() for page in pages}
    assert listed == set(build.pages())
    assert {path.name for path in build.HERE.glob("*.md")} <= listed
    shown = {ROOT / source for source in build.COPIED.values()}
    assert {*(ROOT / "examples").glob("*.md"), *ROOT.glob("*.md")} <= shown


def test_links_lead_to_pages_or_stay_what_they_are():
    known = {"adapters.md": "adapters.md", "CONTRIBUTING.md": "contributing.md"}
    text = "[a](examples/adapters.md) [b](../CONTRIBUTING.md) [c](https://x.org/y.md) [d](#here)"
    assert build.links("p.md", text, known) == "[a](adapters.md) [b](contributing.md) [c](https://x.org/y.md) [d](#here)"


def test_the_sections_of_the_concepts_that_docstrings_cite_exist():
    headings = re.findall(r"^## (\d)\. ", (ROOT / "examples" / "docs" / "concepts.md").read_text(), re.M)
    cited = set()
    for path in [*(ROOT / "localdiff_cli").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]:
        cited |= set(re.findall(r"concepts\.md §(\d)", path.read_text()))
        assert "method.md" not in path.read_text(), path
    assert cited
    assert cited <= set(headings)


def test_the_site_builds_with_every_link_resolved_and_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-W", "ignore", "-m", "examples.docs.build", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    assert len(pages) > 15
    assert not [page for page in pages if re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', page.read_text())]
