"""``--cache`` from the outside: it costs a folder and changes nothing else."""

import pytest


@pytest.mark.parametrize("command", ["detect", "segment", "translate"])
def test_a_cache_changes_no_byte_of_any_command(cli, folder, tmp_path, command):
    contrast = "T2w" if command == "segment" else "T1w"

    def made(name, *words):
        out = tmp_path / name
        assert cli(command, "--in", f"{folder}/*/*_{contrast}.nii.gz", "--out", out, "--bias", "n4", *words).exit_code == 0
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.nii.gz")}

    without = made("a")
    assert without
    assert made("b", "--cache", tmp_path / "cache") == without
    kept = list((tmp_path / "cache").rglob("*.npz"))
    assert kept
    assert made("c", "--cache", tmp_path / "cache") == without
    assert list((tmp_path / "cache").rglob("*.npz")) == kept


def test_a_cache_is_no_setting_that_outputs_are_made_anew_for(cli, folder, tmp_path):
    words = ("detect", "--in", folder, "--out", tmp_path / "out")
    assert cli(*words).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert cli(*words, "--cache", tmp_path / "cache").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")} == before


def test_a_cache_that_cannot_be_written_is_said_before_any_work(cli, folder, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        result = cli("detect", "--in", folder, "--out", tmp_path / "out", "--cache", place)
        assert result.exit_code == 2
        assert "--cache" in result.output
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
