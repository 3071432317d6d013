"""What a process loads at its start, and what it leaves alone."""

import subprocess
import sys

import pytest

from localdiff_cli.startup import OURS, UNNEEDED, _hidden, prepare_process


def test_hidden_packages_count_as_not_installed_within_the_block_alone(tmp_path, monkeypatch):
    (tmp_path / "a_package_of_monais.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with _hidden(("a_package_of_monais", "json")):
        with pytest.raises(ImportError):
            import a_package_of_monais
        import json  # loaded before: stays
    import a_package_of_monais

    assert a_package_of_monais.value == 1
    assert json is sys.modules["json"]
    del sys.modules["a_package_of_monais"]


def test_hidden_packages_come_back_after_an_error():
    before = set(sys.modules)
    with pytest.raises(RuntimeError), _hidden(("a_package_that_is_not_there",)):
        raise RuntimeError
    assert set(sys.modules) == before


def test_nothing_that_localdiff_itself_needs_is_hidden():
    assert not {"nibabel", "numpy", "scipy", "scipy.ndimage", "torch", "einops", "SimpleITK", "faiss"} & set(UNNEEDED)


def test_an_entry_point_says_that_the_process_is_its_own(monkeypatch):
    for name in (OURS, "OMP_WAIT_POLICY", "LOGNAME"):
        monkeypatch.setenv(name, "before")
    prepare_process()
    import os

    assert (os.environ[OURS], os.environ["OMP_WAIT_POLICY"], os.environ["LOGNAME"]) == ("1", "before", "before")


def test_names_and_hashes_of_files_need_nothing_heavy():
    asked = "from pathlib import Path; from localdiff_cli.volumes import files, names\nprint(files.stem(Path('a.mha')), names.__name__)"
    heavy = "import sys; print([name for name in ('numpy', 'nibabel', 'SimpleITK', 'pydicom', 'torch') if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", f"{asked}\n{heavy}"], capture_output=True, text=True, check=True).stdout
    assert said.split("\n")[:2] == ["a localdiff_cli.volumes.names", "[]"]
