"""The command line itself: fast help, versions, models."""

import os
import resource
import subprocess
import sys

import pytest

from localdiff_cli.bundle import copy_bundle, open_bundle

COMMANDS = [
    ["--help"],
    ["--version"],
    ["translate", "--help"],
    ["detect", "--help"],
    ["segment", "--help"],
    ["fit", "translator", "--help"],
    ["models", "--help"],
]


@pytest.mark.parametrize("arguments", [*COMMANDS, ["translate", "--nonsense"]], ids=" ".join)
def test_help_and_argument_errors_import_neither_torch_nor_monai(arguments):
    code = (
        "import sys; sys.argv = ['localdiff', *%r]\n"
        "from localdiff_cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "assert not {'torch', 'monai', 'SimpleITK', 'scipy'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.exit(code)"
    ).replace("%r", repr(arguments))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == (2 if "--nonsense" in arguments else 0), result.stderr


def test_every_option_of_every_command_is_explained(cli):
    from typer.main import get_command

    from localdiff_cli.app import app

    def walk(command):
        for sub in getattr(command, "commands", {}).values():
            yield from walk(sub)
        yield command

    for command in walk(get_command(app)):
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{command.name} {parameter.name}"


def test_models_list_show_and_verify(cli, models_folder):
    assert "t1-to-t2\ttranslate\tT1w → T2w" in cli("models", "list").output
    assert "tiny" in cli("models", "show", "t1-to-t2").output
    good = cli("models", "verify", models_folder / "t1-to-t2")
    assert good.exit_code == 0, good.output
    assert "SHA-256 as recorded" in good.output


def test_the_command_line_is_imported_in_less_than_half_a_second_of_processor_time():
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import localdiff_cli.app"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_models_set_stores_defaults_that_translate_then_uses(cli, models_folder, tmp_path):
    bundle = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "mine")
    assert cli("models", "set", bundle.path, "steps=4", "fusion_step=0", "detector=segmenter").exit_code == 0
    changed = open_bundle(str(bundle.path))
    assert (changed.defaults.steps, changed.defaults.fusion_step, changed.defaults.detector) == (4, 0, "segmenter")
    assert changed.hash != bundle.hash
    assert changed.metadata["files"] == bundle.metadata["files"]
    assert "steps 4" in (bundle.path / "README.md").read_text()
    assert cli("models", "verify", bundle.path).exit_code == 0


@pytest.mark.parametrize(
    ("setting", "told"),
    [("stepps=4", "expected one of"), ("steps=0", "steps"), ("steps=many", "steps"), ("fusion_step=9999", "exceed"), ("steps", "=VALUE"),
     ("detector_model=t1-to-t2", "expected one to segment T1w"), ("suspect=lesion-t2", "a bundle to segment T2w; expected")],
)  # fmt: skip
def test_models_set_refuses_what_the_bundle_cannot_take(cli, models_folder, tmp_path, setting, told):
    bundle = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "mine")
    refused = cli("models", "set", bundle.path, setting)
    assert refused.exit_code == 2
    assert told in refused.output + (refused.stderr or "")
    assert open_bundle(str(bundle.path)).hash == bundle.hash


@pytest.mark.parametrize("setting", ["detector_model=lesion-t9", "suspect=lesion-t9"])
def test_models_set_refuses_a_finder_that_is_not_there(cli, models_folder, tmp_path, setting):
    bundle = copy_bundle(open_bundle(str(models_folder / "t1-to-t2")), tmp_path / "mine")
    refused = cli("models", "set", bundle.path, setting)
    assert refused.exit_code == 4
    assert "model 'lesion-t9': neither a bundle folder nor one of" in refused.output + (refused.stderr or "")
    assert open_bundle(str(bundle.path)).hash == bundle.hash


def test_a_reader_that_has_left_ends_the_program_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; sys.argv = ['localdiff', 'models', 'list']\nfrom localdiff_cli.app import main\nmain()"
    result = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")
