"""``localdiff-slicer``: a command-line module of 3D Slicer, one volume in and one out; ``--xml`` prints its description."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localdiff_cli import __version__
from localdiff_cli.errors import EXIT_OK, UsageError
from localdiff_cli.interfaces.described import Described, describe
from localdiff_cli.startup import prepare_process

if TYPE_CHECKING:
    from localdiff_cli.options import TranslateOptions

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
CHOICES = {
    "model": ("t1-to-flair", "t1-to-t2", "flair-to-t1"),
    "mode": ("local", "plain"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
ELEMENTS = {int: "integer", float: "double", bool: "boolean", str: "string"}


@app.command()
def slicer(
    input_volume: Annotated[Path, typer.Argument(help="The volume to translate.", exists=True, dir_okay=False)],
    output_volume: Annotated[Path, typer.Argument(help="The synthetic volume, on the grid of the input.", dir_okay=False)],
    model: Annotated[str, typer.Option("--model", help="Which contrast to translate to which.")] = "t1-to-flair",
    mode: Annotated[str, typer.Option("--mode", help="local: Local Diffusion; plain: the ordinary sampler, for comparison.")] = "local",
    brain: Annotated[
        Path | None, typer.Option("--brain", help="Brain mask on the grid of the input; without it the brain is extracted.")
    ] = None,
    ood_map: Annotated[
        Path | None, typer.Option("--oodmap", help="Where the input is unlike anything seen in training (local only).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all noise.")] = 0,
    device: Annotated[str, typer.Option("--device", help="Where to compute; a device that is not there is an error.")] = "auto",
) -> None:
    """Translate one volume, as 3D Slicer asks for it. For research use; not for diagnosis."""
    from localdiff_cli.commands.run import guarded
    from localdiff_cli.options import TranslateOptions

    options = TranslateOptions(
        model=model, mode=mode, seed=seed, device=device, brain=str(brain or "auto"), save_map=ood_map is not None and mode == "local"
    )
    wanted = Wanted(input_volume, brain, output_volume, ood_map if options.save_map else None)
    raise typer.Exit(guarded(lambda: _translate(wanted, options), debug=False))


@dataclass(frozen=True)
class Wanted:
    """The files that Slicer names: two to read, two to write; those that may be None are not asked for."""

    volume: Path
    brain: Path | None
    image: Path
    ood_map: Path | None

    def check(self) -> None:
        """Raise :class:`UsageError` for a file whose format cannot be read or written, or that would be overwritten."""
        from localdiff_cli.volumes.files import files_of
        from localdiff_cli.volumes.formats import readable, suffix_of

        written = [path for path in (self.image, self.ood_map) if path is not None]
        for path in (self.volume, *written):
            if suffix_of(path) is None:
                raise UsageError(f"{path}: has no known format by its ending; expected {readable()}", code="not-an-image")
        read = {os.path.realpath(part) for path in (self.volume, self.brain) if path is not None for part in files_of(path)}
        places = [os.path.realpath(path) for path in written]
        for path, place in zip(written, places, strict=True):
            if place in read or places.count(place) > 1:
                raise UsageError(f"{path}: is named twice; expected another file, inputs are never overwritten", code="in-is-out")


def _translate(wanted: Wanted, options: TranslateOptions) -> int:
    """Translate one volume, say the verdict and put the results where Slicer wants them; the exit code."""
    from localdiff_cli.batch.report import say
    from localdiff_cli.commands.translate import translate
    from localdiff_cli.options import Asked, DetectorOptions, RunOptions
    from localdiff_cli.volumes.contrast import beside, read_sidecar

    wanted.check()
    with tempfile.TemporaryDirectory() as folder:
        code = translate(RunOptions(str(wanted.volume), Path(folder), quiet=True, how=Asked(jobs=0)), options, DetectorOptions())
        if code != EXIT_OK:
            return code
        made = Path(folder) / wanted.volume.name
        _hand_over(made, wanted.image)
        if wanted.ood_map is not None:
            _hand_over(beside(made, "ood"), wanted.ood_map)
        reasons = read_sidecar(made).get("ReviewReasons")
        for reason in reasons if isinstance(reasons, list) else []:
            say(f"to review: {reason}")
    say(f"wrote {wanted.image}")
    return EXIT_OK


def _hand_over(made: Path, wanted: Path) -> None:
    """Put a volume where Slicer wants it, in the format that its name asks for."""
    from localdiff_cli.volumes.formats import suffix_of
    from localdiff_cli.volumes.whole import whole_file

    with whole_file(wanted) as partial:
        if suffix_of(made) == suffix_of(wanted):
            shutil.copyfile(made, partial)
            return
        import SimpleITK

        SimpleITK.WriteImage(SimpleITK.ReadImage(str(made)), str(partial))


def description() -> str:
    """Return the module's description in Slicer's XML."""
    root = ET.Element("executable")
    for tag, text in (
        ("category", "Synthesis"),
        ("title", "Local Diffusion"),
        (
            "description",
            "Translates one MRI contrast into another without inventing or erasing disease. For research use; not for diagnosis.",
        ),
        ("version", __version__),
        ("documentation-url", "https://pypi.org/project/localdiff/"),
        ("license", "Apache-2.0"),
        ("contributor", "the localdiff project"),
    ):
        ET.SubElement(root, tag).text = text
    found = describe(slicer)
    volumes = [each for each in found if each.kind is Path]
    _group(root, "Volumes", "What is read and what is written", volumes)
    _group(root, "Translation", "How it is made", [each for each in found if each not in volumes])
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _group(root: ET.Element, label: str, text: str, parameters: list[Described]) -> None:
    group = ET.SubElement(root, "parameters")
    ET.SubElement(group, "label").text = label
    ET.SubElement(group, "description").text = text
    arguments = [each for each in parameters if each.flag is None]
    for each in parameters:
        element = _element(group, each)
        for tag, value in _parts(each, arguments):
            ET.SubElement(element, tag).text = value


def _parts(each: Described, arguments: list[Described]) -> Iterator[tuple[str, str]]:
    """What a parameter's element holds, in the order that the schema of command-line modules asks for."""
    yield "name", each.name
    yield ("index", str(arguments.index(each))) if each.flag is None else ("longflag", each.flag.removeprefix("--"))
    yield "description", each.help
    yield "label", each.name.replace("_", " ")
    if each.kind is Path:
        yield "channel", "output" if each.name in ("output_volume", "ood_map") else "input"
    elif each.default is not None:
        yield "default", str(each.default)
    for choice in CHOICES.get(each.name, ()):
        yield "element", choice


def _element(group: ET.Element, each: Described) -> ET.Element:
    if each.kind is Path:
        return ET.SubElement(group, "image", {"type": "label"} if each.name == "brain" else {})
    return ET.SubElement(group, "string-enumeration" if each.name in CHOICES else ELEMENTS[each.kind])


def main() -> None:
    """Entry point of ``localdiff-slicer``."""
    # See localdiff_cli/app.py: both must be set before torch and MONAI are loaded.
    prepare_process()
    if sys.argv[1:] == ["--xml"]:
        sys.stdout.write(description())
        return
    app(prog_name="localdiff-slicer")


if __name__ == "__main__":
    main()
