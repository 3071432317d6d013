"""Run by anomalib_process.py in anomalib's environment: its PatchCore on patches that are embedded already.

``python -I anomalib_script.py ARRAYS THREADS``; ARRAYS is an ``.npz`` with ``fit`` ``(P, D)``, ``bank`` ``(M, D)``, ``query`` ``(Q, D)``,
all float32, and ``lengths`` ``(S,)``: how many of the queries belong to each slice. Only torch, NumPy and anomalib are imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def allow_missing_operators() -> None:
    """Declare torchvision's operators that it wants at its import, where its library does not fit this build of torch.

    PatchCore calls none of them; without this the package cannot be imported beside a CPU build of torch.
    """
    found = importlib.util.find_spec("torchvision")
    library = next(Path(found.origin).parent.glob("_C*.so"), None) if found and found.origin else None
    try:
        if library is not None:
            torch.ops.load_library(str(library))
    except OSError:
        declared = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_declared"] = declared  # they are there as long as this is


def fit(model: Any, patches: torch.Tensor, ratio: float) -> float:
    """Seconds of the coreset that becomes the model's bank."""
    model.embedding_store = [patches]
    started = time.perf_counter()
    model.subsample_embedding(ratio)
    return time.perf_counter() - started


def predict(model: Any, query: torch.Tensor, lengths: list[int]) -> tuple[float, np.ndarray, np.ndarray]:
    """Seconds, patch scores ``(Q,)`` and slice scores ``(S,)``, by what the model's forward calls after the embedding."""
    started = time.perf_counter()
    scores, locations = model.nearest_neighbors(embedding=query, n_neighbors=1)
    parts = zip(scores.split(lengths), locations.split(lengths), query.split(lengths), strict=True)
    slices = [model.compute_anomaly_score(s[None], k[None], e) for s, k, e in parts]
    return time.perf_counter() - started, scores.numpy(), torch.cat(slices).numpy()


def main() -> None:
    """Answer requests until the input ends."""
    arrays = np.load(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    allow_missing_operators()
    model = importlib.import_module("anomalib.models.image.patchcore.torch_model").PatchcoreModel(
        layers=["layer1"], backbone="resnet18", pre_trained=False
    )
    query, lengths = torch.from_numpy(arrays["query"]), arrays["lengths"].tolist()
    for line in sys.stdin:
        request = json.loads(line)
        torch.manual_seed(request["seed"])
        np.random.seed(request["seed"])
        if request["do"] == "fit":
            seconds = fit(model, torch.from_numpy(arrays["fit"]), request["ratio"])
            _, patches, slices = predict(model, query, lengths)
        else:
            model.memory_bank = torch.from_numpy(arrays["bank"])
            seconds, patches, slices = predict(model, query, lengths)
        np.savez(request["scores"], patches=patches, slices=slices)
        print(json.dumps({"seconds": seconds, "entries": len(model.memory_bank)}), flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
