"""The archive's record says what the citation file says."""

import json
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_zenodo_and_the_citation_file_agree():
    record = json.loads((ROOT / ".zenodo.json").read_text())
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (record["title"], record["license"]) == (cited["title"], cited["license"])
    assert [creator["name"] for creator in record["creators"]] == [author["name"] for author in cited["authors"]]
    paper = cited["references"][0]["identifiers"][0]["value"]
    assert [identifier["identifier"] for identifier in record["related_identifiers"]] == [paper]
