"""Records: what is written is what is read, and a file that is no record is none, whatever it holds."""

import json

import pytest

from localdiff_cli.batch.records import Record, Records, tables

ROWS = ({"slice": 1, "score": "0.5"},)
HONEST = Record("a.nii", "done", output="a.nii", output_sha256={"a.nii": "0"}, review=("dark",), slices=ROWS, fresh=False)


@pytest.fixture
def records(tmp_path):
    (tmp_path / "a.nii").touch()
    records = Records(tmp_path)
    records.write(HONEST)
    return records


def test_what_is_written_is_what_is_read(records):
    assert records.all() == {"a.nii": HONEST}


@pytest.mark.parametrize(
    "values",
    [
        {"volume": None},
        {"volume": ["b"]},
        {"volume": "\ud800"},
        {"state": 1},
        {"reason": ["x"]},
        {"reason": "\udcff"},
        {"attempts": "1"},
        {"seconds": None},
        {"output": 3.5},
        {"output_sha256": [1]},
        {"output_sha256": {"\ud800": "0"}},
        {"slices": [{"slice": {}}]},
        {"slices": [{"slice": "x"}]},
        {"slices": [{"slice": float("inf")}]},
        {"slices": 3},
        {"review": 3},
    ],
    ids=str,
)
def test_a_record_with_a_value_of_another_kind_is_none(records, values):
    old = json.loads(records.path("a.nii").read_text())
    records.path("b.nii").write_text(json.dumps(old | {"volume": "b.nii"} | values))
    assert records.read(records.path("b.nii")) is None
    records.write_tables(["b.nii"], {}, wait=True)
    assert records.all() == {"a.nii": HONEST}


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b"3", b'{"volume": "b"}', b"\xff", b"9" * 5000])
def test_a_file_that_is_no_record_is_none(records, raw):
    records.path("b.nii").write_bytes(raw)
    assert records.all() == {"a.nii": HONEST}


@pytest.mark.parametrize("output", ["x" * 5000, "a\0b", "missing"])
def test_a_record_whose_output_cannot_be_there_is_open(records, output):
    old = json.loads(records.path("a.nii").read_text())
    records.path("a.nii").write_text(json.dumps(old | {"output": output}))
    assert records.all() == {}
    assert "a.nii\topen" in tables(records.all(), ["a.nii"], {})["runs.tsv"]
