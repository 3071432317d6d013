"""The viewer as HTML: a page of its own, or a part of another page; either is one file that requests nothing from a
network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from localdiff_cli import __version__
from localdiff_cli.viewer.layers import BUDGET_BYTES, IMAGE, ViewCase, fit, manifest


@dataclass(frozen=True)
class Still:
    """The middle slice of an image as PNG, with what it shows in words and its shape in mm, for browsers without the viewer."""

    source: str
    alt: str
    aspect: str


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("localdiff_cli.viewer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def asset(name: str) -> Markup:
    """Return the viewer's script or style sheet, as it stands in a page."""
    return Markup(resources.files("localdiff_cli.viewer").joinpath("templates", name).read_text(encoding="utf-8"))


def stills(case: ViewCase) -> list[Still]:
    """Return the middle axial slice of every image of a case."""
    from matplotlib.image import imsave

    slices, rows, columns = case.shape
    made = []
    for layer in case.layers:
        if layer.kind == IMAGE:
            buffer = BytesIO()
            imsave(buffer, np.stack([layer.data[slices // 2]] * 3, axis=-1), format="png")
            source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
            alt = f"{layer.name}, axial slice {case.start[0] + slices // 2}"
            made.append(Still(source, alt, f"{columns * case.spacing[2]:g} / {rows * case.spacing[1]:g}"))
    return made


def viewer(cases: Sequence[ViewCase], budget: int = BUDGET_BYTES, *, with_stills: bool = True) -> Markup:
    """Return the viewer of some cases, of at most ``budget`` bytes of voxels; its page must hold ``viewer.css`` and, below,
    ``viewer.js``."""
    fitted = fit(cases, budget)
    told = json.dumps([manifest(case) for case, _ in fitted], ensure_ascii=True).replace("<", "\\u003c")
    return Markup(
        _environment()
        .get_template("viewer.html.j2")
        .render(
            stills=stills(fitted[0][0]) if with_stills else [],
            manifest=Markup(told),
            voxels=[(number, texts) for number, (_, texts) in enumerate(fitted)],
        )
    )


def part(cases: Sequence[ViewCase], budget: int = BUDGET_BYTES) -> Markup:
    """Return the viewer with its style and script, to stand anywhere in another page, which has still pictures of its own."""
    return Markup("<style>{}</style>{}<script>{}</script>").format(
        asset("viewer.css"), viewer(cases, budget, with_stills=False), asset("viewer.js")
    )


def page(cases: Sequence[ViewCase], title: str, budget: int = BUDGET_BYTES) -> str:
    """Return a page of its own."""
    template = _environment().get_template("page.html.j2")
    return template.render(
        title=title, viewer=viewer(cases, budget), style=asset("viewer.css"), script=asset("viewer.js"), version=__version__
    )
