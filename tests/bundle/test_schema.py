"""The published JSON schema: it is that of the code, takes the shipped bundles and refuses what opening a bundle refuses."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from localdiff_cli.bundle import METADATA
from localdiff_cli.bundle.published import FILE, json_schema

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in (ROOT / "models").glob(f"*/{METADATA}"))


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json.loads((ROOT / FILE).read_text()))


def metadata_of(name):
    return json.loads((ROOT / "models" / name / METADATA).read_text())


def test_the_published_schema_is_that_of_the_code():
    assert json.loads((ROOT / FILE).read_text()) == json.loads(json.dumps(json_schema())), "make it again: make schema"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_shipped_bundle_is_valid(validator, bundle):
    assert [error.message for error in validator.iter_errors(metadata_of(bundle.name))] == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), 2),
        (("task",), "paint"),
        (("condition", "contrast"), "../../x"),
        (("condition", "colour"), 1),
        (("grid", "shape"), [0, 40]),
        (("grid", "spacing"), "1"),
        (("defaults", "steps"), 2.5),
        (("defaults", "sampler"), "magic"),
        (("network", "channels"), [32] * 100),
        (("schedule", "beta_end"), 5.0),
        (("files", "models/translator.safetensors"), "no hash"),
    ],
    ids=str,
)
def test_what_localdiff_refuses_is_not_valid(validator, place, value):
    metadata = copy.deepcopy(metadata_of("t1-to-flair"))
    inner = metadata
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert not validator.is_valid(metadata)


def test_every_setting_of_a_translator_and_a_segmenter_says_what_it_means():
    parts = json_schema()["$defs"]
    for name in ("Defaults", "SegmenterDefaults"):
        assert all("description" in field for field in parts[name]["properties"].values())
