"""The cards of the shipped bundles: made from their metadata, and readable as Hugging Face's."""

import json
from pathlib import Path

import pytest

from localdiff_cli.bundle import METADATA
from localdiff_cli.bundle.card import card

BUNDLES = sorted(path.parents[1] for path in (Path(__file__).resolve().parents[2] / "models").glob(f"*/{METADATA}"))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_shipped_card_is_that_of_its_metadata(bundle):
    assert (bundle / "README.md").read_text() == card(json.loads((bundle / METADATA).read_text()))


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_card_is_read_as_a_model_card_of_hugging_face(bundle):
    hub = pytest.importorskip("huggingface_hub")
    read = hub.ModelCard((bundle / "README.md").read_text())
    data, metadata = read.data, json.loads((bundle / METADATA).read_text())
    assert data.pipeline_tag == ("image-to-image" if metadata["task"] == "translate" else "image-segmentation")
    assert (data.library_name, data.license) == ("localdiff", "other")
    assert metadata["condition"]["contrast"] in data.tags
    assert read.text.strip().startswith(f"# {bundle.name}")
    assert "## Terms" in read.text
