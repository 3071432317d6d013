"""The experiments as tables: ``python -m examples.benchmarks.paper --part mri --data DATA``, and the page made of them.

Each part leaves its TSV, the exact settings and a figure in ``--out``; ``--page`` writes ``RESULTS.md`` from what lies there: for each
part its tables, figures and the reading in ``<part>.md``, which a person writes. What a part has measured stays in ``--work``, so that
an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from examples.benchmarks import (
    colour,
    detectors,
    digits,
    emphasis,
    harm,
    inserted,
    photographs,
    promise,
    quantile,
    resolution,
    rows,
    sizes,
    speed,
    steps,
    subtle,
    texture,
    unlabelled,
)
from examples.benchmarks.table import Table, save, to_markdown
from localdiff_cli.batch.report import recorded_arguments
from localdiff_cli.volumes.whole import write_text


@dataclass(frozen=True)
class Part:
    """One experiment: the title of its section, and what measures it (``options`` → tables)."""

    title: str
    measure: Callable[[argparse.Namespace], list[Table]]


PARTS = {
    "harm": Part("First, do no harm", harm.measure),
    "promise": Part("A promise with a number", promise.measure),
    "emphasis": Part("What the emphasis buys and costs", emphasis.measure),
    "quantile": Part("Bands by a network of their own", quantile.measure),
    "mri": Part("Does the lesion survive?", partial(rows.measure, "mri")),
    "detectors": Part("Which detector", detectors.measure),
    "unlabelled": Part("Which detector, without a single lesion label", unlabelled.measure),
    "fusion": Part("Branching and fusion", partial(rows.measure, "fusion")),
    "steps": Part("What each step knows", steps.measure),
    "wrong-map": Part("A wrong OOD map", partial(rows.measure, "wrong-map")),
    "sizes": Part("Size and complexity of the lesion", lambda options: [*sizes.measure(options), *inserted.measure(options)]),
    "subtle": Part("Subtle anomalies", subtle.measure),
    "texture": Part("Textures that are no lesion", texture.measure),
    "digits": Part("Super-resolution: digits of an unseen class", digits.measure),
    "photographs": Part("Super-resolution: photographs of defects", photographs.measure),
    "colour": Part("Super-resolution: colour defects and colour shifts", colour.measure),
    "resolution": Part("Resolution, and from slice to slice", resolution.measure),
    "sampling": Part("Sampler and steps", partial(rows.measure, "sampling")),
    "expert": Part("How many healthy regions the expert learns", partial(rows.measure, "expert")),
    "augment": Part("Region augmentation", partial(rows.measure, "augment")),
    "speed": Part("Speed", speed.measure),
}


def page(folder: Path) -> str:
    """``RESULTS.md`` of what lies in ``folder``."""
    sections = ["# Results", (folder / "first-page.md").read_text(encoding="utf-8").strip()]
    for name, part in PARTS.items():
        tables = sorted({*folder.glob(f"{name}.tsv"), *folder.glob(f"{name}-*.tsv")})
        reading = folder / f"{name}.md"
        if not tables:
            continue
        sections += [f"## {part.title}", *([reading.read_text(encoding="utf-8").strip()] if reading.is_file() else [])]
        for path in tables:
            account = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            figure = f"![{part.title}]({path.with_suffix('.svg').name})"
            sections += [f"`{account['command']}` ({account['about']})", to_markdown(path, account.get("shown")), figure]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    """Measure parts, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=tuple(PARTS), default=[])
    parser.add_argument("--model", default="t1-to-flair", help="translator bundle, where a part needs one")
    parser.add_argument("--data", nargs="+", type=Path, default=[], help="pairs with lesion masks, digits, photographs: as the part needs")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--every", type=int, default=3, help="every n-th slice")
    parser.add_argument("--most", type=int, help="the first so many digits of a class, or good and defective photographs of a category")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="caches; an interrupted run goes on from there")
    parser.add_argument("--out", type=Path, default=Path("examples/benchmarks"))
    parser.add_argument("--page", action="store_true", help="write RESULTS.md")
    options = parser.parse_args()
    if options.part and not options.data:
        parser.error("--part needs --data")
    command = f"python -m examples.benchmarks.paper {recorded_arguments(sys.argv[1:])}"
    for name in options.part:
        for table in PARTS[name].measure(options):
            save(table, options.out, command)
    if options.page:
        write_text(options.out / "RESULTS.md", page(options.out))


if __name__ == "__main__":
    main()
