"""The card of a bundle: what it is, what it was made from and how, what it measured; generated from its metadata.

It begins as a model card of Hugging Face does, with fields that its hub and tools read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NOTICE = "For research use; not for diagnosis."


def card(metadata: dict[str, Any]) -> str:
    """Return the card as Markdown."""
    parts = [_fields(metadata), f"# {metadata.get('name', 'bundle')}", NOTICE, _what(metadata)]
    parts += [_made(part, account) for part, account in metadata.get("training", {}).items()]
    parts += [_results(metadata["results"])] if metadata.get("results") else []
    parts += [_terms(metadata)]
    return "\n\n".join(parts) + "\n"


def _fields(metadata: dict[str, Any]) -> str:
    """The YAML block of a Hugging Face model card; the terms themselves stand under Terms."""
    translates = metadata["task"] == "translate"
    contrasts = [metadata["condition"]["contrast"], metadata.get("target", {}).get("contrast")]
    tags = ["medical", "MRI", "MONAI", "safetensors", *(name for name in contrasts if name)]
    lines = [
        "library_name: localdiff",
        f"pipeline_tag: image-{'to-image' if translates else 'segmentation'}",
        "license: other",
        "license_name: see-terms",
        "license_link: '#terms'",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _what(metadata: dict[str, Any]) -> str:
    condition, target = metadata["condition"]["contrast"], metadata.get("target", {}).get("contrast")
    grid, rows_columns = metadata["grid"], " × ".join(map(str, metadata["grid"]["shape"]))
    translates = metadata["task"] == "translate" and target
    task = f"Translates {condition} to {target}." if translates else f"Task {metadata['task']} on {condition}."
    lines = [
        task,
        "",
        f"- Works on the brain alone ({metadata['brain']}), axial slices at {grid['spacing']} mm, {rows_columns} pixels.",
        f"- Intensity: bias field {metadata['bias']}, robust z window {metadata['condition']['window']} of {condition}"
        + (f", {metadata['target']['window']} of {target}." if target else "."),
    ]
    packed = sorted(Path(name).stem for name, storage in metadata.get("storage", {}).items() if storage == "int8")
    lines += [f"- Stored in 8 bits a weight, with a scale for each filter: {', '.join(packed)}."] if packed else []
    return "\n".join([*lines, *_defaults(metadata)])


def _defaults(metadata: dict[str, Any]) -> list[str]:
    """How it is used unless the user says otherwise."""
    told = ", ".join(f"{name} {value}" for name, value in metadata.get("defaults", {}).items())
    return [f"- Defaults: {told}."] if told else []


def _made(part: str, account: dict[str, Any]) -> str:
    lines = [f"## How the {part}{' network' if part == 'interval' else ''} was made", "", "```", account["command"], "```", ""]
    lines.append(f"{account['slices']} slices; {account['seconds'] / 60:.0f} minutes.")
    if account.get("curve"):
        first, last = account["curve"][0], account["curve"][-1]
        lines.append(f"Loss {first[1]:.4f} at step {first[0]}, {last[1]:.4f} at step {last[0]}; the curve is in `configs/metadata.json`.")
    if "start" in account:
        start, seen = account["start"], account["start"]["patients"]
        lines.append(f"- started from the {start['part']} of {start['bundle']}, which learnt from ({len(seen)}): {', '.join(seen)}")
    if "between" in account:
        share = account["between"]["share"]
        lines.append(f"- weights: {1 - share:g} of those at its start and {share:g} of those at its end")
    for split, names in account["patients"].items():
        lines.append(f"- {split} ({len(names)}): {', '.join(names)}")
    return "\n".join(lines)


def _results(results: dict[str, Any]) -> str:
    lines = ["## What it measured", ""]
    for title, block in results.items():
        lines += [f"### {title}", ""]
        lines += [f"Command: `{block['command']}`", ""] if "command" in block else []
        lines += [block["note"], ""] if "note" in block else []
        rows = block.get("rows", [])
        if rows:
            columns = list(rows[0])
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows] + [""]
    return "\n".join(lines).rstrip()


def _terms(metadata: dict[str, Any]) -> str:
    data = f"## Data\n\n{metadata['data']}\n\n" if metadata.get("data") else ""
    return f"{data}## Terms\n\n{metadata.get('licence', 'unstated')}"
