"""The experiments as tables: ``python -m localdiff_cli.benchmarks.paper --part mri --data DATA``, and the page made of them.

Each part is a list of rows of mri.py. Its TSV, the exact settings and a figure go to ``--out``; ``--page`` writes ``RESULTS.md`` from
what lies there: for each part its table, its figure and the reading in ``<part>.md``, which a person writes.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from localdiff_cli.benchmarks import mri
from localdiff_cli.benchmarks.mri import Row
from localdiff_cli.benchmarks.translation import patients
from localdiff_cli.benchmarks.wrong_maps import FAULTS
from localdiff_cli.volumes.whole import whole_file, write_text

SIZES = {"erode": (2, 4, 8), "dilate": (4, 8, 16), "shift": (4, 8, 16), "holes": (0.25, 0.5, 0.75), "islands": (1, 3)}
TITLES = {
    "mri": "Does the lesion survive?",
    "fusion": "Branching and fusion",
    "wrong-map": "A wrong OOD map",
    "sampling": "Sampler and steps",
}
PLAIN = Row("plain", "none")
TRUE = Row("true target contrast", "true")


def _with(source: str, expert: bool, **changes: object) -> Row:
    told = ", ".join(f"{name} {value}" for name, value in changes.items())
    return Row(f"{source}{', expert' if expert else ''}, {told}", source, expert, changes=tuple(changes.items()))


def rows_of(part: str, expert: bool) -> tuple[Row, ...]:
    """The rows of a part; without an ``expert`` in the bundle the training-free ones. Raises ``KeyError`` for an unknown part."""
    parts = {
        "mri": tuple(row for row in mri.TABLE if expert or not row.expert),
        "fusion": (
            PLAIN,
            *(_with("truth", expert, fusion_step=k) for k in (0, 1, 2, 4)),
            *(_with("truth", expert, branch_step=k) for k in (2, 5, 8)),
            *(_with("truth", expert, context=v) for v in (0.0, 0.5, 0.8, 1.0)),
            _with("segmenter", expert, soft=True),
            _with("segmenter", expert, soft=False),
        ),
        "wrong-map": (
            PLAIN,
            Row("true mask", "truth", expert),
            *(Row(f"{fault} {size:g}", "truth", expert, wrong=(fault, size)) for fault in FAULTS for size in SIZES[fault]),
        ),
        "sampling": (
            Row("polynomial", "polynomial"),
            Row("plain, ddim, 10 steps, mean of 10", "none", samples=10),
            *(Row(f"plain, ddim, {n} steps", "none", changes=(("steps", n),)) for n in (2, 5, 10, 20)),
            *(Row(f"plain, dpmpp, {n} steps", "none", changes=(("sampler", "dpmpp"), ("steps", n))) for n in (5, 10)),
            Row("plain, ddpm, 50 steps", "none", changes=(("sampler", "ddpm"), ("steps", 50))),
            *(Row(f"segmenter map, ddim, {n} steps", "segmenter", expert, changes=(("steps", n),)) for n in (2, 5, 10, 20)),
        ),
    }  # fmt: skip
    return parts[part]


def figure(path: Path, title: str, table: list[dict[str, str]]) -> None:
    """Missed against invented slices, one point a row."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    def share(line: dict[str, str], key: str) -> float | None:
        return None if line[key].startswith("n/a") else float(line[key].split(" ")[0])

    points = [(share(line, "invented %"), share(line, "missed %"), line["row"]) for line in table]
    known = [(x, y, name) for x, y, name in points if x is not None and y is not None]
    canvas = Figure(figsize=(9, 4.5), layout="constrained")
    axes = canvas.subplots()
    for number, (x, y, name) in enumerate(known):
        axes.scatter([x], [y], label=f"{number + 1} {name}", s=30)
        axes.annotate(str(number + 1), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="invented, % of lesion-free slices", ylabel="missed, % of found lesions", title=title, ylim=(-3, 103))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    # Without a salt matplotlib names its marks at random, and equal figures would differ.
    with mpl.rc_context({"svg.hashsalt": "localdiff"}), whole_file(path) as partial:
        canvas.savefig(partial, format="svg", metadata={"Date": None})


def run_part(part: str, bench: mri.Bench, options: argparse.Namespace) -> None:
    """Measure a part and write its TSV, settings and figure."""
    rows = rows_of(part, bench.networks.expert is not None)
    cases = [p for p in patients(bench.bundle, options.data, options.split, options.work) if p.masked]
    table = mri.table(mri.run(bench, rows, cases, options.every, options.work / "mri"))
    stem = f"{part}-{bench.bundle.name}-{options.split}"
    command = (
        f"python -m localdiff_cli.benchmarks.paper --part {part} --model {bench.bundle.name} --split {options.split} "
        f"--every {options.every} --data DATA"
    )
    account = {"command": command} | mri.account_of(bench, rows, cases, options.split, options.every)
    write_text(options.out / f"{stem}.tsv", mri.to_tsv(table))
    write_text(options.out / f"{stem}.json", json.dumps(account, indent=1) + "\n")
    figure(options.out / f"{stem}.svg", f"{TITLES[part]} ({bench.bundle.name}, {options.split})", table)


def page(folder: Path) -> str:
    """``RESULTS.md`` of what lies in ``folder``."""
    parts = ["# Results", (folder / "first-page.md").read_text(encoding="utf-8").strip()]
    for part, title in TITLES.items():
        tables = sorted(folder.glob(f"{part}-*.tsv"))
        reading = folder / f"{part}.md"
        if not tables:
            continue
        parts += [f"## {title}", *([reading.read_text(encoding="utf-8").strip()] if reading.is_file() else [])]
        for path in tables:
            account = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            patients_slices = f"{len(account['patients'])} {account['split']} patients, every {account['every']}. slice"
            parts += [f"`{account['command']}` ({patients_slices})", _markdown(path), f"![{title}]({path.with_suffix('.svg').name})"]
    return "\n\n".join(parts) + "\n"


def _markdown(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle, delimiter="\t"))
    head = list(lines[0])
    cells = [head, ["---"] * len(head), *(list(line.values()) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def main() -> None:
    """Measure parts, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=tuple(TITLES), default=[])
    parser.add_argument("--model", default="t1-to-flair")
    parser.add_argument("--data", nargs="+", type=Path)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--every", type=int, default=3, help="every n-th slice")
    parser.add_argument("--work", type=Path, default=Path("bench.work"), help="caches; an interrupted run goes on from there")
    parser.add_argument("--out", type=Path, default=Path("examples/benchmarks"))
    parser.add_argument("--page", action="store_true", help="write RESULTS.md")
    options = parser.parse_args()
    if options.part and not options.data:
        parser.error("--part needs --data")
    bench = mri.load(options.model, None, None) if options.part else None
    for part in options.part:
        assert bench is not None
        run_part(part, bench, options)
    if options.page:
        write_text(options.out / "RESULTS.md", page(options.out))


if __name__ == "__main__":
    main()
