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
        f"condition\ttarget\tmask\tbrain\tsplit\na.nii\tx/b.nii\t\t/m/c.nii\tval\n{tmp_path}/z.nii\ty.nii\t\t\ttrain\n",
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
    table(tmp_path / "participants.tsv", "participant_id\tage\tsplit\nsub-02\t40\tval\nsub-01\t30\ttrain\nsub-03\tn/a\ttrain\n")
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
    ("text", "word"),
    [
        ("id\tsplit\nsub-01\tval\n", "participant_id"),
        ("participant_id\tsplit\nsub-01\tvalidation\n", "validation"),
        ("participant_id\tset\nsub-01\ttest\n", "'set' seems to say the split"),
        ("participant_id\tset\nsub-01\tdev\nsub-02\ttrain\nsub-03\texcluded\n", "'set' seems to say the split"),
        ("participant_id\tSplit\nsub-01\ttest\n", "'Split' seems to say the split"),
        ("participant_id\tsplit\nsub-01\ttest\nsub-01\ttrain\n", "two splits for sub-01"),
        ("participant_id,split\nsub-01,test\n", "participant_id"),
        ("participant_id\tsplit\nn/a\ttest\n", "line 2 has no participant_id"),
    ],
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


HEAD = "participant_id\tnotes\tsplit\n"
ROWS = [f"sub-0{k}\tfine\ttest\n" for k in (2, 3)]


@pytest.fixture
def people(tmp_path):
    """Three patients, of whom all but the first are held out."""
    touch(tmp_path, *(f"sub-0{k}/sub-0{k}_{contrast}.nii" for k in (1, 2, 3) for contrast in ("T1w", "T2w")))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        HEAD + 'sub-01\t"moved\ttrain\n' + "".join(ROWS),
        HEAD + 'sub-01\tsaid "no"\ttrain\n' + "".join(ROWS),
        (HEAD + "sub-01\tfine\ttrain\n" + "".join(ROWS)).replace("sub-", ""),
        (HEAD + "sub-01\tfine\ttrain\n" + "".join(ROWS)).replace("split\n", "split \n"),
        ("\ufeff" + HEAD + "sub-01 \tfine\tTrain\n" + "".join(ROWS)).replace("\n", "\r\n"),
        (HEAD + "sub-01\tfine\ttrain\n\t\t\n\n" + "".join(ROWS)).replace("\n", "\r"),
        HEAD + '"sub-01"\t"fine, ""more"""\t"train"\n' + "".join(ROWS),
    ],
    ids=["lone quote", "quotes within", "ids without sub-", "blank after split", "byte order mark", "old line ends", "quoted cells"],
)
def test_held_out_patients_stay_held_out_however_the_table_is_written(people, text):
    (people / "participants.tsv").write_bytes(text.encode())
    assert [(p.name, p.split) for p in read_pairs([people], "T1w", "T2w")] == [("sub-01", "train"), ("sub-02", "test"), ("sub-03", "test")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "sub-01\tfine\ttrain\n" + "".join(ROWS).replace("\t", " "), ["line 3 has 1 cells", "separated by tabs"]),
        (HEAD + "sub-01\tfine\ttrain\nsub-02\tfine\ttest\n", ["no split for sub-03"]),
        (HEAD + "sub-01\tfine\ttrain\n", ["no split for sub-02, sub-03"]),
        (HEAD + "sub-01\tfine\ttrain\n" + ROWS[0] + "sub-03\tfine\tn/a\n", ["no split for sub-03"]),
        (HEAD + "1\tfine\ttrain\n" + "".join(ROWS), ["no split for sub-01"]),
        (HEAD + "sub-01\ttrain\n" + "".join(ROWS), ["line 2 has 2 cells"]),
    ],
    ids=["blanks for tabs", "a missing row", "missing rows", "n/a", "a number that lost its zero", "a missing cell"],
)
def test_a_person_whose_split_is_not_known_stops_the_fit_and_is_named(people, text, words):
    (people / "participants.tsv").write_text(text)
    with pytest.raises(UsageError) as error:
        read_pairs([people], "T1w", "T2w")
    assert all(word in str(error.value) for word in words)


def test_whoever_is_left_out_needs_no_split(people):
    (people / "participants.tsv").write_text(HEAD + "sub-01\tfine\ttrain\n" + ROWS[0])
    pairs = without(read_pairs([people], "T1w", "T2w", exclude=("sub-03",)), ("sub-03",))
    assert [p.split for p in pairs] == ["train", "test"]


@pytest.mark.parametrize("name", ["participants.csv", "Participants.tsv", "participants.tsv.txt"])
def test_a_table_of_participants_under_another_name_is_not_passed_over(people, name):
    (people / name).write_text(HEAD)
    with pytest.raises(UsageError, match=r"expected participants\.tsv"):
        read_pairs([people], "T1w", "T2w")


def test_a_table_whose_content_is_not_fetched_is_not_taken_for_none(people):
    (people / "participants.tsv").symlink_to(".git/annex/objects/x/MD5E-s1.tsv")
    with pytest.raises(UsageError, match=r"datalad get participants\.tsv"):
        read_pairs([people], "T1w", "T2w")
    (people / "participants.tsv").unlink()
    (people / "participants.tsv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        read_pairs([people], "T1w", "T2w")


def test_a_table_one_folder_up_counts_for_the_folder_of_some_patients(people):
    (people / "participants.tsv").write_text(HEAD + "".join(ROWS))
    assert [p.split for p in read_pairs([people / "sub-02"], "T1w", "T2w")] == ["test"]


def test_cells_without_a_value_and_blank_rows_say_nothing(tmp_path):
    rows = ("name\tcondition\ttarget\tmask", "a\ta.nii\tb.nii\tn/a", "\t\t\t", "b\tb.nii\tN/A\tm.nii")
    source = table(tmp_path / "p.tsv", "\n".join(rows))
    pairs = read_pairs(source, "T1w", "T2w")
    assert [(p.name, p.target is None, p.mask is None) for p in pairs] == [("a", False, True), ("b", True, False)]


@pytest.mark.parametrize("cell", ["", "n/a"])
def test_a_row_without_a_split_stops_the_fit_where_the_table_has_a_column_for_it(tmp_path, cell):
    with pytest.raises(UsageError, match="line 3 \\(b\\) has no split"):
        read_pairs(table(tmp_path / "p.tsv", f"condition\tsplit\na.nii\ttest\nb.nii\t{cell}\n"), "T1w", "T2w")


def test_copies_in_derivatives_and_hidden_folders_are_nobody_of_their_own(people):
    copies = ("derivatives/prep/sub-01/sub-01_desc-preproc", "sub-01/sub-01_desc-denoised", "sourcedata/sub-02/sub-02")
    for place in (*copies, ".Trash-1000/files/sub-09"):
        touch(people, f"{place}_T1w.nii", f"{place}_T2w.nii")
    said = []
    assert [p.name for p in read_pairs([people], "T1w", "T2w", said.append)] == ["sub-01", "sub-02", "sub-03"]
    assert sum("left alone" in line for line in said) == 2
    assert any("processed copy" in line for line in said)


def test_patients_whose_folders_are_links_are_found(people, tmp_path_factory):
    data = tmp_path_factory.mktemp("linked")
    for k in (1, 2):
        (data / f"sub-0{k}").symlink_to(people / f"sub-0{k}")
    (data / "sub-03").symlink_to(people / "gone")
    said = []
    assert [p.name for p in read_pairs([data], "T1w", "T2w", said.append)] == ["sub-01", "sub-02"]
    assert any(line.startswith("sub-03: a link to") for line in said)


def test_a_mask_of_another_visit_is_nobody_elses(tmp_path):
    touch(tmp_path, "sub-01_T1w.nii", "sub-01_T2w.nii", "sub-01_ses-2_mask.nii", "sub-01_acq-x_brain.nii")
    assert read_pairs([tmp_path], "T1w", "T2w") == [Pair("sub-01", tmp_path / "sub-01_T1w.nii", tmp_path / "sub-01_T2w.nii")]


def test_a_lesion_mask_is_not_taken_for_the_brain(tmp_path):
    touch(tmp_path, "sub-01_T1w.nii", "sub-01_mask.nii")
    assert read_pairs([tmp_path], "T1w", None)[0].brain is None


def test_two_masks_of_one_scan_are_refused_and_named(tmp_path):
    touch(tmp_path, "sub-01_T1w.nii", "sub-01_mask.nii", "sub-01_seg.nii")
    with pytest.raises(UsageError, match=r"2 partners: sub-01_mask.nii, sub-01_seg.nii"):
        read_pairs([tmp_path], "T1w", None)


@pytest.mark.parametrize("content", [b"{", b'{"EchoTime": inf}', b"[1]"])
def test_nothing_is_trained_on_what_may_be_synthetic(tmp_path, content):
    touch(tmp_path, "sub-01_T1w.nii")
    (tmp_path / "sub-01_T1w.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"sub-01_T1w.json .* synthetic is not known"):
        read_pairs([tmp_path], "T1w", None)
