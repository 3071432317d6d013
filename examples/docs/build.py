"""The documentation as a site: ``python -m examples.docs.build``, offline, with every link checked.

Pages are files of the project: ``README.md``, those of this folder, and the pages beside the examples. The pages on commands
and on Python are generated: from the command line itself, and from the docstrings.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

COPIED = {
    "index.md": "README.md",
    "start.md": "examples/docs/start.md",
    "use.md": "examples/docs/use.md",
    "concepts.md": "examples/docs/concepts.md",
    "numbers.md": "examples/docs/numbers.md",
    "cluster.md": "examples/docs/cluster.md",
    "models.md": "examples/docs/models.md",
    "inside.md": "examples/docs/inside.md",
    "adapters.md": "examples/adapters.md",
    "dicom.md": "examples/DICOM.md",
    "viewer.md": "examples/VIEWER.md",
    "guarantees.md": "examples/GUARANTEES.md",
    "bids.md": "examples/bids.md",
    "monai.md": "examples/monai.md",
    "other_tools.md": "examples/other_tools.md",
    "offline.md": "examples/OFFLINE.md",
    "scale.md": "examples/SCALE.md",
    "gpu.md": "examples/GPU.md",
    "results.md": "examples/benchmarks/RESULTS.md",
    "experiments.md": "examples/benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
"""Page → file of the project."""

NAVIGATION = [
    {"Start": ["index.md", "start.md", "use.md"]},
    {"Concepts": ["concepts.md", "numbers.md", "guarantees.md"]},
    {"Reference": ["commands.md", "api.md", "viewer.md", "adapters.md", "dicom.md", "bids.md", "monai.md", "other_tools.md"]},
    {"Cluster": ["cluster.md", "offline.md", "scale.md", "gpu.md"]},
    {"Models": ["models.md"]},
    {"Results": ["results.md", "experiments.md"]},
    {"Contributing": ["contributing.md", "inside.md", "changes.md"]},
]


def pages() -> dict[str, str]:
    """Every page by its name, as Markdown."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in COPIED.items()}
    made["api.md"] = (HERE / "api.md").read_text(encoding="utf-8") + "\n" + "\n".join(api())
    made["commands.md"] = "\n".join(commands())
    return made


def commands() -> Iterator[str]:
    """The page on the command line, from the commands themselves."""
    from localdiff_cli.app import app

    yield "# Commands\n\nGenerated from the command line; `localdiff COMMAND --help` says the same.\n"
    yield from _command(typer.main.get_command(app), ("localdiff",))


def _command(command: Any, names: tuple[str, ...]) -> Iterator[str]:
    """One command, or those below it."""
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from _command(each, (*names, name))
    if below:
        return
    yield f"## {' '.join(names)}\n"
    yield inspect.cleandoc(command.help or "").replace("\nExample: ", "\n\nExample: ") + "\n"
    yield "| option | what it does | default |\n|---|---|---|"
    for parameter in command.params:
        yield _option(parameter)
    yield ""


def _option(parameter: Any) -> str:
    """A row of the table of options."""
    given = [*parameter.opts, *parameter.secondary_opts]
    argument = parameter.param_type_name == "argument"
    names = f"`{parameter.name.upper()}`" if argument else ", ".join(f"`{name}`" for name in given)
    meaning = (getattr(parameter, "help", "") or "").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
    default = parameter.default
    shown = "required" if parameter.required else "" if default is None or callable(default) else f"`{default}`"
    return f"| {names} | {meaning} | {shown} |"


def api() -> Iterator[str]:
    """What the package exports, with its docstrings."""
    import localdiff_cli

    yield "## Reference\n"
    for name in sorted(localdiff_cli.__all__):
        if name.startswith("_"):
            continue
        thing = getattr(localdiff_cli, name)
        signature = _signature(thing)
        yield f"### {name}\n\n```text\n{name}{_folded(signature)}\n```\n\n{_plain(inspect.getdoc(thing) or '')}\n"


def _signature(thing: Callable[..., Any]) -> str:
    """Parameters, types and defaults; of a type that is an option of the command line, the type alone."""
    found = inspect.signature(thing)
    plain = [each.replace(annotation=_bare(each.annotation)) for each in found.parameters.values()]
    return str(found.replace(parameters=plain)).replace("'", "").replace("pathlib.", "")


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _folded(signature: str) -> str:
    """A long signature, one parameter a line."""
    if len(signature) < 100:
        return signature
    return re.sub(r", (?=\*|\w+: )", ",\n    ", signature).replace("(", "(\n    ", 1).replace(") ->", "\n) ->")


def _plain(docstring: str) -> str:
    """A docstring as Markdown."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring).replace("``", "`")


def links(page: str, text: str, known: dict[str, str]) -> str:
    """The page with links to the project's files turned into links to their pages, or to nothing where a file is no page."""

    def turned(match: re.Match[str]) -> str:
        label, target = match[1], match[2]
        if re.match(r"\w+:|#", target):
            return match[0]
        path = target.partition("#")[0]
        name = path.rpartition("/")[2]
        return f"[{label}]({known.get(path, known.get(name, name))})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", turned, text)


def assemble(folder: Path) -> None:
    """Write every page and picture into ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    known = {source: page for page, source in COPIED.items()}
    known |= {Path(source).name: page for source, page in known.items() if Path(source).name != "README.md"}
    for page, text in pages().items():
        (folder / page).write_text(_pictures(links(page, text, known), folder), encoding="utf-8")


def _pictures(text: str, folder: Path) -> str:
    """The page with its pictures beside it."""

    def copied(match: re.Match[str]) -> str:
        found = next(iter([*ROOT.glob(f"examples/{Path(match[2]).name}"), *ROOT.glob(f"examples/benchmarks/{Path(match[2]).name}")]))
        shutil.copy(found, folder / found.name)
        return f"![{match[1]}]({found.name})"

    return re.sub(r"!\[([^\]]*)\]\((?!\w+:)([^)\s]+)\)", copied, text)


def configuration(docs: Path, site: Path) -> dict[str, object]:
    """The configuration of mkdocs: no fonts or scripts from elsewhere, and any doubtful link is an error."""
    return {
        "site_name": "localdiff", "docs_dir": str(docs), "site_dir": str(site), "nav": NAVIGATION, "use_directory_urls": False,
        "theme": {"name": "readthedocs", "highlightjs": False, "navigation_depth": 2},
        "plugins": ["search"],
        "markdown_extensions": ["tables", "toc", "fenced_code"],
        "validation": {"nav": {"omitted_files": "warn", "not_found": "warn"}, "links": {"not_found": "warn", "anchors": "warn"}},
    }  # fmt: skip


def main() -> None:
    """Assemble the pages and build the site."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder for docs/ (the pages) and site/")
    out = parser.parse_args().out.resolve()
    assemble(out / "docs")
    # JSON is YAML.
    (out / "mkdocs.yml").write_text(json.dumps(configuration(out / "docs", out / "site")), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", str(out / "mkdocs.yml")], check=False)
    print(out / "site" / "index.html")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
