"""The process that anomalib runs in: it is asked and answers, and its end is a message; the script with a small model in its place."""

import sys

import numpy as np
import pytest
import torch

from examples.benchmarks import anomalib_process, anomalib_script
from localdiff_cli.errors import UsageError

ANSWERS = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "fail":
        sys.exit("no such thing")
    print(json.dumps(request | {"arrays": sys.argv[1], "threads": sys.argv[2]}), flush=True)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    path = tmp_path / "script.py"
    path.write_text(ANSWERS)
    monkeypatch.setattr(anomalib_process, "SCRIPT", path)
    monkeypatch.setattr(anomalib_process, "environment", lambda folder: sys.executable)


def test_requests_are_answered_one_by_one(script, tmp_path):
    with anomalib_process.anomalib(tmp_path, tmp_path / "patches.npz", 2) as other:
        assert other.ask(do="fit", ratio=0.1) == {"do": "fit", "ratio": 0.1, "arrays": str(tmp_path / "patches.npz"), "threads": "2"}
        assert other.ask(do="predict")["do"] == "predict"


def test_a_process_that_ends_says_why(script, tmp_path):
    with (
        pytest.raises(UsageError, match="no such thing"),
        anomalib_process.anomalib(tmp_path, tmp_path / "patches.npz", 2) as other,
    ):
        other.ask(do="fail")


class Nearest:
    """A model with the interface of anomalib's ``PatchcoreModel``."""

    memory_bank = torch.zeros(0)

    def subsample_embedding(self, ratio):
        (embedding,) = self.embedding_store
        self.memory_bank = embedding[: int(len(embedding) * ratio)]

    def nearest_neighbors(self, embedding, n_neighbors):
        return torch.cdist(embedding, self.memory_bank).min(dim=1)

    def compute_anomaly_score(self, scores, locations, embedding):
        assert scores.shape == locations.shape == (1, len(embedding))
        return scores.amax(dim=1)


def test_the_script_fits_and_scores_slice_by_slice():
    model = Nearest()
    assert anomalib_script.fit(model, torch.arange(20.0).reshape(10, 2), 0.2) >= 0
    assert model.memory_bank.shape == (2, 2)
    query = torch.tensor([[0.0, 1.0], [2.0, 3.0], [2.0, 7.0]])
    seconds, patches, slices = anomalib_script.predict(model, query, [2, 1])
    assert seconds >= 0
    assert np.allclose(patches, [0, 0, 4])
    assert np.allclose(slices, [0, 4])
