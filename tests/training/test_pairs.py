"""The table of training patients."""

import json

import pytest

from localdiff_cli.errors import NoInputError, UsageError
from localdiff_cli.training.pairs import Pair, read_pairs, without


def table(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [path]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_paths_in_a_table_are_relative_to_it_and_absolute_ones_stay(tmp_path):
    source = table(
        tmp_path / "d" / "pairs.tsv",
        f"condition\ttarget\tmask\tbrain\tsplit\na.nii\tx/b.nii\t\t/m/c.nii\tval\n{tmp_path}/z.nii\ty.nii\t\t\t\n",
    )
    d = tmp_path / "d"
    assert read_pairs(source, "T1w", "T2w") == [
        Pair("a", d / "a.nii", d / "x" / "b.nii", None, type(d)("/m/c.nii"), "val"),
        Pair("z", tmp_path / "z.nii", d / "y.nii", split="train"),
    ]


def test_only_the_condition_is_needed_and_a_name_may_be_given(tmp_path):
    source = table(tmp_path / "p.tsv", "name\tcondition\njane\tscan.nii.gz\n\tother.nii.gz\n")
    pairs = read_pairs(source, "T1w", None)
    assert [(p.name, p.target, p.mask, p.split) for p in pairs] == [("jane", None, None, "train"), ("other", None, None, "train")]


def test_a_table_saved_by_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path):
    source = table(tmp_path / "p.tsv", "\ufeffcondition\r\na.nii\r\n")
    assert [p.name for p in read_pairs(source, "T1w", None)] == ["a"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("target\tmask\na.nii\tb.nii\n", "expected condition"),
        ("condition\tcolour\na.nii\tred\n", "colour"),
        ("condition,target\na,b\n", "condition,target"),
        ("", "expected condition"),
        ("condition\ttarget\n\tb.nii\n", "no condition"),
        ("condition\tsplit\na.nii\tvalidation\n", "validation"),
        ("condition\na.nii\nx/a.nii\n", "training data: a"),
        ("name\tcondition\n../../x\ta.nii\n", "without slashes"),
        ("name\tcondition\n.x\ta.nii\n", "without slashes"),
    ],
)
def test_a_malformed_table_is_refused_with_what_was_found(tmp_path, text, word):
    with pytest.raises(UsageError) as error:
        read_pairs(table(tmp_path / "p.tsv", text), "T1w", "T2w")
    assert word in str(error.value)


def test_a_table_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "p.tsv").write_bytes(b"condition\n\xff\xfe\n")
    for name in ("p.tsv", "none.tsv"):
        with pytest.raises(UsageError, match=name):
            read_pairs([tmp_path / name], "T1w", None)


def test_a_table_without_rows_is_no_input(tmp_path):
    with pytest.raises(NoInputError):
        read_pairs(table(tmp_path / "p.tsv", "condition\ttarget\n"), "T1w", "T2w")


def test_a_bids_folder_gives_pairs_with_masks_brains_and_splits(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/anat/sub-01_mask.nii.gz",
        "sub-02/sub-02_ses-1_T1w.nii",
        "sub-02/sub-02_ses-1_T2w.nii.gz",
        "sub-02/sub-02_ses-1_brain.mha",
        "sub-03/sub-03_T1w.nii.gz",
        "sub-04/sub-04_T1w.json",
        "other_T1w.nii",
    )
    table(tmp_path / "participants.tsv", "participant_id\tage\tsplit\nsub-02\t40\tval\nsub-01\t30\t\n")
    anat, second = tmp_path / "sub-01" / "anat", tmp_path / "sub-02"
    assert read_pairs([tmp_path], "T1w", "T2w") == [
        Pair("sub-01", anat / "sub-01_T1w.nii.gz", anat / "sub-01_T2w.nii.gz", anat / "sub-01_mask.nii.gz", None, "train"),
        Pair(
            "sub-02_ses-1",
            second / "sub-02_ses-1_T1w.nii",
            second / "sub-02_ses-1_T2w.nii.gz",
            None,
            second / "sub-02_ses-1_brain.mha",
            "val",
        ),
    ]
    assert [p.name for p in read_pairs([tmp_path], "T1w", None)] == ["sub-01", "sub-02_ses-1", "sub-03"]


@pytest.mark.parametrize(
    ("text", "word"), [("id\tsplit\nsub-01\tval\n", "participant_id"), ("participant_id\tsplit\nsub-01\tvalidation\n", "validation")]
)
def test_a_participants_table_that_says_nothing_useful_is_refused(tmp_path, text, word):
    touch(tmp_path, "sub-01_T1w.nii")
    table(tmp_path / "participants.tsv", text)
    with pytest.raises(UsageError, match=word):
        read_pairs([tmp_path], "T1w", None)


def test_a_header_and_its_image_are_one_patient(tmp_path):
    touch(tmp_path, "sub-01_T1w.hdr", "sub-01_T1w.img", "sub-01_T2w.hdr", "sub-01_T2w.img")
    pairs = read_pairs([tmp_path], "T1w", "T2w")
    assert [(p.condition.name, p.target.name) for p in pairs] == [("sub-01_T1w.hdr", "sub-01_T2w.hdr")]


def test_several_sources_are_joined_and_a_patient_in_two_of_them_is_refused(tmp_path):
    touch(tmp_path, "a/sub-01_T1w.nii", "b/sub-02_T1w.nii", "c/sub-01_T1w.nii")
    assert [p.name for p in read_pairs([tmp_path / "a", tmp_path / "b"], "T1w", None)] == ["sub-01", "sub-02"]
    with pytest.raises(UsageError, match="sub-01"):
        read_pairs([tmp_path / "a", tmp_path / "c"], "T1w", None)


@pytest.mark.parametrize("which", ["T1w", "T2w"])
def test_nothing_is_ever_trained_on_a_translation(tmp_path, which):
    touch(tmp_path, "sub-01_T1w.nii", "sub-01_T2w.nii")
    (tmp_path / f"sub-01_{which}.json").write_text(json.dumps({"Synthetic": True, "Contrast": which}))
    with pytest.raises(UsageError, match=f"sub-01_{which}.nii: its sidecar says it is synthetic"):
        read_pairs([tmp_path], "T1w", "T2w")


def test_a_patient_may_be_left_out_by_name_and_a_wrong_name_is_refused(tmp_path):
    pairs = [Pair(name, tmp_path / f"{name}.nii.gz") for name in ("sub-01", "sub-02")]
    assert [pair.name for pair in without(pairs, ("sub-02",))] == ["sub-01"]
    with pytest.raises(UsageError, match="sub-03"):
        without(pairs, ("sub-03",))
