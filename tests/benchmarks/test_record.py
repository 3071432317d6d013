import shutil

from examples.benchmarks.record import record, show
from localdiff_cli.bundle import open_bundle


def test_a_recorded_table_stands_in_the_card_with_its_command_and_leaves_the_hash(models_folder, tmp_path, monkeypatch):
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "t1-to-t2")
    bundle = open_bundle(str(tmp_path / "t1-to-t2"))
    monkeypatch.setattr("sys.argv", ["x", "--model", "t1-to-t2"])
    record(bundle, "PSNR", [{"patient": "sub-01", "plain": "20.00"}], "python -m examples.benchmarks.translation", "A note.")
    again = open_bundle(str(tmp_path / "t1-to-t2"))
    assert again.hash == bundle.hash
    card = (tmp_path / "t1-to-t2" / "README.md").read_text()
    assert "| sub-01 | 20.00 |" in card
    assert "`python -m examples.benchmarks.translation --model t1-to-t2`" in card
    assert "A note." in card


def test_a_table_is_shown_with_its_columns():
    assert show("T", [{"a": 1, "b": "x"}]) == "T\na\tb\n1\tx"
    assert show("T", []) == "T: nothing measured"
