"""Put weights that ``make gpu-train`` made into bundles: ``python -m examples.gpu.adopt gpu.work --out models``.

Only files whose figure on the val split is better than the shipped one's are taken (``--all`` takes the others too). A bundle that is not
in ``--out`` yet is copied there first. What was measured with the weights before is forgotten; a new translator takes the old expert out,
and either of them the old interval network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from localdiff_cli.bundle import EXPERT, SEGMENTER, TRANSLATOR, copy_bundle, drop_parts, open_bundle, save_bundle
from localdiff_cli.bundle.card import card
from localdiff_cli.errors import UsageError

PARTS = {"translator": TRANSLATOR, "expert": EXPERT, "segmenter": SEGMENTER}


def account_of(path: Path) -> dict[str, Any]:
    """What the file says of its training. Raises :class:`UsageError` for weights of another origin."""
    with safe_open(path, "pt") as stored:
        told = (stored.metadata() or {}).get("account")
    if told is None:
        raise UsageError(f"{path}: found no account of a training; expected a file that examples.gpu.train made")
    return json.loads(told)


def adopt(path: Path, out: Path) -> Path:
    """Put one file's weights into its bundle in ``out``; the bundle's folder."""
    told, folder = account_of(path), out / account_of(path)["bundle"]
    if not folder.exists():
        copy_bundle(open_bundle(told["bundle"]), folder)
    with safe_open(path, "pt") as stored:
        state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    bundle = open_bundle(str(folder))
    if told["part"] != "segmenter":
        bundle = drop_parts(bundle, "interval", *(["expert"] if told["part"] == "translator" else []))
    before = dict(bundle.metadata)
    training = before.get("training", {})
    made = {"command": "python -m examples.gpu.train", "loop": told["loop"], "seconds": told["seconds"], "curve": told["curve"]} | {
        key: told[key] for key in ("slices", "patients")
    }
    training = training | {told["part"]: training.get(told["part"], {}) | made}
    merged = before | {"training": training, "results": {}}
    save_bundle(folder, merged, {PARTS[told["part"]]: state}, card(merged))
    return folder


def main() -> None:
    """Translators before experts: an expert belongs to its translator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where make gpu-train wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundles")
    parser.add_argument("--all", action="store_true", help="also weights that are not better on val")
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.safetensors"), key=lambda path: "translator" not in path.name)
    for path in files:
        told = account_of(path)
        figures = f"{told['what']}: {told['trained']:.4g} against {told['shipped']:.4g}"
        if told["better"] or options.all:
            print(f"{path.name} into {adopt(path, options.out)} ({figures})")
        else:
            print(f"{path.name} left alone ({figures})")


if __name__ == "__main__":
    main()
