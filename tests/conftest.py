"""What tests of several folders share: tiny bundles, small brains, the command line as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main
import typer.testing
from typer.testing import CliRunner, Result

from localdiff_cli.app import app

from . import bundles, served
from .brains import write_brain


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once() -> Iterator[None]:
    """An app's commands and options are built once, not at every call of a test: that takes longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny bundles ``t1-to-t2`` and ``lesion-t2``."""
    folder = tmp_path_factory.mktemp("models")
    bundles.make_translator(folder / "t1-to-t2")
    bundles.make_segmenter(folder / "lesion-t2")
    return folder


@pytest.fixture(scope="session")
def flair_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny bundles ``t1-to-flair`` and ``lesion-flair``."""
    folder = tmp_path_factory.mktemp("flair-models")
    bundles.make_translator(folder / "t1-to-flair", target="FLAIR")
    bundles.make_segmenter(folder / "lesion-flair", "FLAIR")
    return folder


@pytest.fixture
def cli(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``cli("translate", "--in", …)`` runs the command line with the tiny bundles; the result has exit code and output."""
    monkeypatch.setenv("LOCALDIFF_MODELS", str(models_folder))
    monkeypatch.setenv("LOCALDIFF_JOBS", "0")  # worker processes have tests of their own

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PATH whose ``python``, ``localdiff``, ``localdiff-bids`` and ``localdiff-slicer`` are this checkout's: see served.py."""
    modules = {"localdiff": "app", "localdiff-bids": "bids.app", "localdiff-slicer": "interfaces.slicer"}
    words = {name: ("-m", f"localdiff_cli.{module}") for name, module in modules.items()}
    with served.programs(tmp_path_factory.mktemp("bin"), words | {"python": ()}) as folder:
        yield folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An input folder with two subjects' T1w and files of other kinds."""
    for i in (1, 2):
        write_brain(tmp_path / "in" / f"sub-0{i}" / f"sub-0{i}_T1w.nii.gz", seed=i)
    write_brain(tmp_path / "in" / "sub-01" / "sub-01_T2w.nii.gz", seed=9)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    return tmp_path / "in"
