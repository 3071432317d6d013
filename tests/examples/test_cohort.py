"""The table of people of several kinds: which train people a part leaves out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from examples.training.cohort import main
from tests.brains import write_brain

SPLITS = ("train", "val", "train", "test", "train", "train", "train")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    for i, _ in enumerate(SPLITS):
        write_brain(path / f"sub-{i}" / f"sub-{i}_T1w.nii.gz", i)
    rows = "".join(f"sub-{i}\t{split}\thealthy\n" for i, split in enumerate(SPLITS))
    (path / "participants.tsv").write_text("participant_id\tsplit\tdisease\n" + rows)
    return path


def _names(folder: Path, *options: str) -> list[str]:
    out = folder.parent / "cohort.tsv"
    main([str(folder), *options, "--out", str(out)])
    return [row["name"] for row in csv.DictReader(out.read_text().splitlines(), delimiter="\t")]


def test_two_parts_share_the_train_people_and_leave_the_others_whole(folder, capsys):
    first, second = (_names(folder, "--without", part) for part in ("1/2", "2/2"))
    assert first == ["sub-1", "sub-2", "sub-3", "sub-5"]
    assert second == ["sub-0", "sub-1", "sub-3", "sub-4", "sub-6"]
    assert "--healthy sub-2" not in capsys.readouterr().out.splitlines()[1]
    assert len(_names(folder)) == len(SPLITS)


@pytest.mark.parametrize("part", ["3/2", "0/2", "1/1", "half", "1", "-1/2"])
def test_a_part_that_is_none_is_refused(folder, part, capsys):
    with pytest.raises(SystemExit):
        main([str(folder), f"--without={part}", "--out", str(folder / "out.tsv")])
    assert "expected a part of several, such as 1/2" in capsys.readouterr().err


def test_the_target_of_those_whose_mask_an_expert_drew_can_be_left_out(folder):
    for name, suffix in (("sub-0", "mask"), ("sub-2", "wmhauto")):
        for contrast in ("FLAIR", suffix):
            write_brain(folder / name / f"{name}_{contrast}.nii.gz", 1)
    out = folder.parent / "cohort.tsv"
    for options, target in (((), True), (("--trust-experts",), False)):
        main([str(folder), *options, "--out", str(out)])
        rows = {row["name"]: row for row in csv.DictReader(out.read_text().splitlines(), delimiter="\t")}
        assert bool(rows["sub-0"]["target"]) == target
        assert rows["sub-0"]["mask"].endswith("sub-0_mask.nii.gz")
        assert rows["sub-2"]["target"].endswith("sub-2_FLAIR.nii.gz")


def test_to_ask_for_a_target_and_to_take_it_away_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        main([str(folder), "--trust-experts", "--only-with-target", "--out", str(folder / "out.tsv")])
    assert "give one of them" in capsys.readouterr().err
