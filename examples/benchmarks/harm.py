"""First, do no harm: what the defaults draw into people of every kind, and what they leave out.

``python -m examples.benchmarks.paper --part harm --model t1-to-flair --data DATA --split val --every 3``

Every person of a split who has the condition is translated as ``localdiff translate`` does by default, and plainly. No target and no mask
are needed; what can be measured without them is. Figures are of every n-th slice, millilitres scaled to the whole brain.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from examples.benchmarks.table import Table, decimal, percent
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean, bootstrap_ratio
from localdiff_cli.evaluation.metrics import harm as figures
from localdiff_cli.evaluation.metrics.harm import Drawn, Lesion, Scene
from localdiff_cli.options import DetectorOptions, TranslateOptions
from localdiff_cli.recipes.translate import TranslateRecipe
from localdiff_cli.tasks.judged import check_look, draw, ready_for, scene_of
from localdiff_cli.tasks.translation import TranslateWork
from localdiff_cli.training.people import Person, Slices, digest, people, slices_of, stamps
from localdiff_cli.volumes.whole import write_text

VERSION = 2
"""Of what a record holds."""
NINE_OF_TEN = 0.9
AMOUNTS = ("false", "farther", "invented", "invented_plain", "ventricles", "flagged", "unknown")

Record = dict[str, Any]
"""What was measured in one person: AMOUNTS (ml; ventricles a share of the range), ``whole`` and ``lesions``; None where not measurable."""


def load(model: str) -> TranslateWork:
    """The defaults of ``localdiff translate --model``, on the CPU. Raises :class:`UsageError` for a target of unknown look."""
    work = TranslateRecipe(Path("."), TranslateOptions(model=model, device="cpu"), DetectorOptions()).load(lambda _: None)
    assert isinstance(work, TranslateWork)
    check_look(work)
    return work


def measure_person(work: TranslateWork, slices: Slices, every: int) -> Record:
    """One person's record."""
    rows, tau = range(0, len(slices.numbers), every), work.mask.threshold
    (drawn,) = draw(work, slices, rows, [tau])
    return record_of(drawn, scene_of(work, slices, every, tau)) | {"slices": len(rows)}


def record_of(drawn: Drawn, scene: Scene) -> Record:
    """The figures of what was drawn."""
    whole = figures.whole_contrast(drawn, scene)
    return {
        "false": figures.false_ml(drawn, scene), "farther": figures.farther_ml(drawn, scene),
        "invented": figures.invented_ml(drawn.local, drawn, scene), "invented_plain": figures.invented_ml(drawn.plain, drawn, scene),
        "ventricles": figures.ventricle_change(drawn), "flagged": figures.flagged_ml(drawn, scene),
        "unknown": figures.unknown_ml(drawn, scene), "whole": None if whole is None else asdict(whole),
        "lesions": [asdict(lesion) for lesion in figures.lesions_of(drawn, scene)],
    }  # fmt: skip


def remembered(work: TranslateWork, person: Person, every: int, options: argparse.Namespace) -> Record | None:
    """A person's record, from ``--work`` if the same files were translated with the same settings; None for files that cannot be used."""
    path = options.work / "harm" / f"{digest([VERSION, work.settings, stamps(person), every])}.json"
    if not path.is_file():
        slices = slices_of(person, ready_for(work), options.work / "cache" / "harm", print)
        if slices is None:
            return None
        write_text(path, json.dumps(measure_person(work, slices, every)))
        print(f"harm: {person.name}, {person.kind}", flush=True)
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def person_line(person: Person, record: Record) -> dict[str, str]:
    """One person in the table by person."""
    lesions, whole = _lesions([record]), record["whole"]
    kept = {way: figures.share_kept(lesions, way) for way in ("plain", "local", "unknown")}
    return {
        "person": person.name, "kind": person.kind, "slices": str(record["slices"]),
        **{name: _number(record[key], digits) for key, (name, digits) in NAMES.items()},
        "lesions": str(kept["local"][1]), **{f"lesions {way}": str(number) for way, (number, _) in kept.items()},
        **{f"contrast {name}": _number(whole and whole[name], 3) for name in ("true", "plain", "local")},
    }  # fmt: skip


NAMES = {
    "false": ("false, ml", 2), "farther": ("false and farther from the truth than plain, ml", 2),
    "invented": ("invented, ml", 2), "invented_plain": ("invented by plain, ml", 2),
    "ventricles": ("ventricles against plain", 3), "flagged": ("flagged, ml", 1), "unknown": ("unknown, ml", 1),
}  # fmt: skip
"""Column and decimals of each amount."""


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def _lesions(records: Sequence[Record]) -> list[Lesion]:
    return [Lesion(**lesion) for record in records for lesion in record["lesions"]]


def kind_line(kind: str, records: Sequence[Record]) -> dict[str, str]:
    """One kind of people: means with 95 % intervals over them, of false volume also what nine of ten stay below, and the most."""
    false = [record["false"] for record in records]
    changes = _known(records, "ventricles")
    return {
        "kind": kind, "people": str(len(records)),
        **{name: _mean(_known(records, key), digits) for key, (name, digits) in NAMES.items()},
        "false, nine of ten below": f"{np.quantile(false, NINE_OF_TEN, method='higher'):.2f}", "false, most": f"{max(false):.2f}",
        "ventricles, most": _number(max(changes, key=abs), 3) if changes else "n/a",
        "lesions": str(sum(figures.share_kept(_lesions([record]), "local")[1] for record in records)),
        **{f"{told} %": _share(records, way) for way, told in WAYS.items()},
        **{f"contrast {name}": _mean(_contrasts(records, name), 3) for name in ("true", "plain", "local")},
    }  # fmt: skip


WAYS = {"plain": "kept by plain", "local": "kept", "unknown": "called unknown", "answered": "kept or unknown"}


def _known(records: Sequence[Record], key: str) -> list[float]:
    return [record[key] for record in records if record[key] is not None]


def _contrasts(records: Sequence[Record], name: str) -> list[float]:
    return [record["whole"][name] for record in records if record["whole"] is not None]


def _mean(values: Sequence[float], digits: int) -> str:
    return decimal(bootstrap_mean(values, Bootstrap()), digits) if values else "n/a"


def _share(records: Sequence[Record], way: str) -> str:
    """Lesions of all people together, whole people resampled."""
    counts = [figures.share_kept(_lesions([record]), way) for record in records]
    counts = [each for each in counts if each[1]]
    if not counts:
        return "n/a"
    return percent(bootstrap_ratio([kept for kept, _ in counts], [number for _, number in counts], Bootstrap(), "no lesion"))


def measure(options: argparse.Namespace) -> list[Table]:
    """Two tables: by kind of people, and person by person. Raises :class:`UsageError` where nobody could be measured."""
    work = load(options.model)
    bundle = work.bundle
    everybody = people(options.data, bundle.condition.contrast, bundle.target.contrast, options.split)
    found = [(person, remembered(work, person, options.every, options)) for person in everybody]
    measured = [(person, record) for person, record in found if record is not None]
    if not measured:
        raise UsageError(f"--split {options.split}: found nobody with {bundle.condition.contrast}; expected at least one person")
    kinds = {kind: [r for p, r in measured if p.kind == kind] for kind in sorted({p.kind for p, _ in measured})}
    stem, about = f"{bundle.name}-{options.split}", f"{len(measured)} {options.split} people, every {options.every}. slice"
    account = {"bundle": bundle.name, "settings": work.settings, "split": options.split, "every": options.every}
    by_kind = [kind_line(kind, records) for kind, records in kinds.items()]
    by_person = [person_line(*each) for each in sorted(measured, key=lambda each: (each[0].kind, each[0].name))]
    return [
        Table(f"harm-{stem}", by_kind, about, account, lambda canvas: _draw_false(canvas, kinds)),
        Table(f"harm-people-{stem}", by_person, about, account, lambda canvas: _draw_lesions(canvas, kinds)),
    ]


def _draw_false(canvas: Any, kinds: dict[str, list[Record]]) -> None:
    """False volume and what is flagged, a point a person."""
    panels = canvas.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, ("false", "flagged"), strict=True):
        for place, records in enumerate(kinds.values()):
            axes.scatter([record[key] for record in records], np.full(len(records), place), s=18, alpha=0.7)
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set(xlabel=NAMES[key][0], yticks=range(len(kinds)), yticklabels=list(kinds), ylim=(-0.5, len(kinds) - 0.5))


def _draw_lesions(canvas: Any, kinds: dict[str, list[Record]]) -> None:
    """Contrast of every lesion, translated against true."""
    panels = canvas.subplots(1, 2, sharey=True)
    way_of: dict[str, Callable[[Lesion], float]] = {"plain": lambda each: each.plain, "local": lambda each: each.local}
    for axes, (title, contrast) in zip(panels, way_of.items(), strict=True):
        for kind, records in kinds.items():
            lesions = _lesions(records)
            axes.scatter([each.true for each in lesions], [contrast(each) for each in lesions], s=14, alpha=0.7, label=kind)
        axes.axline((0, 0), slope=1, color="0.7", linewidth=1)
        axes.axline((0, 0), slope=figures.HALF, color="0.7", linewidth=1, linestyle=":")
        axes.set(title=title, xlabel="contrast on the true target", ylabel="contrast on the translation")
    panels[1].legend(fontsize=7)
