"""BIDS names taken apart and put together."""

import pytest

from localdiff_cli.bids.names import ENTITIES, derived, parse_name


def test_a_name_comes_back_as_it_was():
    name = "sub-01_ses-a_acq-mprage_run-02_T1w.nii.gz"
    parsed = parse_name(name)
    assert str(parsed) == name
    assert (parsed.subject, parsed.session, parsed.get("run"), parsed.suffix, parsed.extension) == ("01", "a", "02", "T1w", ".nii.gz")


@pytest.mark.parametrize(
    "name", ["T1w.nii.gz", "sub-01.nii.gz", "sub-01_T1w", "sub-01_T1_w.nii.gz", "sub-01_sub-02_T1w.nii.gz", "sub-_T1w.nii", "notes.txt"]
)
def test_what_is_no_bids_name_is_none(name):
    assert parse_name(name) is None


def test_entities_are_put_where_the_specification_has_them():
    raw = parse_name("sub-01_run-1_chunk-2_T1w.nii.gz")
    made = derived(raw, "mask", {"desc": "synthetic", "label": "lesion", "space": "T1w"})
    assert str(made) == "sub-01_run-1_space-T1w_chunk-2_label-lesion_desc-synthetic_mask.nii.gz"


def test_the_order_is_that_of_the_schema():
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    order = [schema.objects.entities[name].name for name in schema.rules.entities]
    assert [key for key in order if key in ENTITIES] == list(ENTITIES)
