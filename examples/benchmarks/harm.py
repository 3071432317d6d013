"""First, do no harm: what the defaults draw into people of every kind, and what they leave out.

``python -m examples.benchmarks.paper --part harm --model t1-to-flair --data DATA --split val --every 3``

Every person of a split who has the condition is translated as ``localdiff translate`` does by default, and plainly. No target and no mask
are needed; what can be measured without them is. Figures are of every n-th slice, millilitres scaled to the whole brain.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.benchmarks import harm_figures as figures
from examples.benchmarks.harm_figures import LOOKS, Drawn, Lesion, Scene
from examples.benchmarks.harm_people import Person, Ready, Slices, digest, people, slices_of, stamps
from examples.benchmarks.table import Table, decimal, percent
from localdiff_cli.bundle import Bundle
from localdiff_cli.commands.detector import DetectorOptions
from localdiff_cli.commands.translate import TranslateOptions, TranslateRecipe
from localdiff_cli.errors import UsageError
from localdiff_cli.evaluation.cohort.statistics import Bootstrap, bootstrap_mean, bootstrap_ratio
from localdiff_cli.tasks.detection import DetectorBinding, mask_of, unknown_of
from localdiff_cli.tasks.sampling import SliceSampler
from localdiff_cli.tasks.slices import Chunk
from localdiff_cli.tasks.translation import UNKNOWN, TranslateWork, source_labels
from localdiff_cli.volumes.whole import write_text

VERSION = 1
"""Of what a record holds."""
NINE_OF_TEN = 0.9
AMOUNTS = ("false", "invented", "invented_plain", "ventricles", "flagged", "unknown")

Record = dict[str, Any]
"""What was measured in one person: AMOUNTS (ml; ventricles a share of the range), ``whole`` and ``lesions``; None where not measurable."""


@dataclass(frozen=True, eq=False)
class Bench:
    """The command's own work on a volume, and whose bundle it is."""

    bundle: Bundle
    work: TranslateWork

    def scene(self, ml: float) -> Scene:
        """What decides the figures where a pixel stands for ``ml`` millilitres."""
        target = self.bundle.target
        return Scene(LOOKS[target.contrast], target.window, self.work.mask.threshold, self.bundle.grid.spacing, ml)


def load(model: str) -> Bench:
    """The defaults of ``localdiff translate --model``, on the CPU. Raises :class:`UsageError` for a target of unknown look."""
    work = TranslateRecipe(Path("."), TranslateOptions(model=model, device="cpu"), DetectorOptions()).load(lambda _: None)
    assert isinstance(work, TranslateWork)
    if work.bundle.target.contrast not in LOOKS:
        raise UsageError(
            f"--model {model}: makes {work.bundle.target.contrast}; expected a target among {', '.join(LOOKS)}", code="contrast"
        )
    return Bench(work.bundle, work)


def chunk_of(slices: Slices, rows: Sequence[int]) -> Chunk:
    """Some of a person's slices as the networks take them."""
    numbers = tuple(int(slices.numbers[row]) for row in rows)
    condition = torch.from_numpy(_unit(slices.condition[list(rows)]))[:, None]
    return Chunk(numbers, tuple(range(len(numbers))), condition, torch.from_numpy(slices.brain[list(rows)])[:, None])


def _unit(stack: NDArray[np.uint16]) -> NDArray[np.float32]:
    return np.asarray(stack / np.float32(65535), np.float32)


def draw(bench: Bench, slices: Slices, rows: Sequence[int]) -> Drawn:
    """Both translations of some slices, with the map and what is known of them."""
    work, chunk = bench.work, chunk_of(slices, rows)
    assert isinstance(work.bind, DetectorBinding)
    detection = work.bind.detect(chunk)
    mask = mask_of(detection, chunk.brain, work.mask, bench.bundle.grid.spacing)
    plain = SliceSampler(work.networks, replace(work.sample, mode="plain"), slices.fingerprint)(chunk, detection.ood_map, mask)[0]
    local = _local(work, slices, chunk, plain, detection.ood_map, mask)
    weight, brain = detection.ood_map[:, 0].numpy(), chunk.brain[:, 0].numpy()
    unknown = unknown_of(detection, mask, chunk.brain, work.unknown, work.mask.open_mm, bench.bundle.grid.spacing)
    labels = source_labels(mask[:, 0].numpy(), unknown[:, 0].numpy(), weight, brain, work.sample)
    taken = list(rows)
    return Drawn(
        None if slices.target is None else _unit(slices.target[taken]),
        plain[:, 0].numpy(), local[:, 0].numpy(), weight, labels == UNKNOWN, brain, slices.lesions[taken],
        None if slices.ventricles is None else slices.ventricles[taken],
    )  # fmt: skip


def _local(work: TranslateWork, slices: Slices, chunk: Chunk, plain: Tensor, ood_map: Tensor, mask: Tensor) -> Tensor:
    """The local translation; where nothing is out of distribution it is the plain one."""
    local, rows = plain.clone(), torch.nonzero(mask.flatten(1).any(dim=1))[:, 0].tolist()
    if rows:
        numbers = tuple(chunk.numbers[row] for row in rows)
        part = Chunk(numbers, tuple(range(len(rows))), chunk.condition[rows], chunk.brain[rows])
        local[rows] = SliceSampler(work.networks, work.sample, slices.fingerprint)(part, ood_map[rows], mask[rows])[0]
    return local


def measure_person(bench: Bench, slices: Slices, every: int) -> Record:
    """One person's record."""
    rows = range(0, len(slices.numbers), every)
    drawn = draw(bench, slices, rows)
    return record_of(drawn, bench.scene(bench.bundle.grid.spacing**2 * slices.thickness * every / 1000)) | {"slices": len(rows)}


def record_of(drawn: Drawn, scene: Scene) -> Record:
    """The figures of what was drawn."""
    whole = figures.whole_contrast(drawn, scene)
    return {
        "false": figures.false_ml(drawn, scene),
        "invented": figures.invented_ml(drawn.local, drawn, scene), "invented_plain": figures.invented_ml(drawn.plain, drawn, scene),
        "ventricles": figures.ventricle_change(drawn), "flagged": figures.flagged_ml(drawn, scene),
        "unknown": figures.unknown_ml(drawn, scene), "whole": None if whole is None else asdict(whole),
        "lesions": [asdict(lesion) for lesion in figures.lesions_of(drawn, scene)],
    }  # fmt: skip


def remembered(bench: Bench, person: Person, every: int, options: argparse.Namespace) -> Record | None:
    """A person's record, from ``--work`` if the same files were translated with the same settings; None for files that cannot be used."""
    path = options.work / "harm" / f"{digest([VERSION, bench.work.settings, stamps(person), every])}.json"
    if not path.is_file():
        prepare = bench.work.prepare
        ready = Ready(prepare, replace(prepare, window=bench.bundle.target.window))
        slices = slices_of(person, ready, options.work / "cache" / "harm", print)
        if slices is None:
            return None
        write_text(path, json.dumps(measure_person(bench, slices, every)))
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
    "false": ("false, ml", 2), "invented": ("invented, ml", 2), "invented_plain": ("invented by plain, ml", 2),
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
    bench = load(options.model)
    bundle = bench.bundle
    everybody = people(options.data, bundle.condition.contrast, bundle.target.contrast, options.split)
    found = [(person, remembered(bench, person, options.every, options)) for person in everybody]
    measured = [(person, record) for person, record in found if record is not None]
    if not measured:
        raise UsageError(f"--split {options.split}: found nobody with {bundle.condition.contrast}; expected at least one person")
    kinds = {kind: [r for p, r in measured if p.kind == kind] for kind in sorted({p.kind for p, _ in measured})}
    stem, about = f"{bundle.name}-{options.split}", f"{len(measured)} {options.split} people, every {options.every}. slice"
    account = {"bundle": bundle.name, "settings": bench.work.settings, "split": options.split, "every": options.every}
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
