"""One picture of a translation: condition, source map, plain, local and the true contrast side by side, and the volume from the side.

    python examples/picture.py OUT.png T1 SOURCE PLAIN LOCAL REFERENCE BRAIN

All six are volumes on one grid. On the source map orange is what the OOD branch drew, yellow what is called unknown. The reference is shown
on the translations' scale (robust z of its brain, window −6 to 8).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from localdiff_cli.volumes.brain import Brain
from localdiff_cli.volumes.intensity import WINDOWS
from localdiff_cli.volumes.prepare import PrepareSettings, prepare
from localdiff_cli.volumes.reader import SliceReader, open_volume

TITLES = ("T1w, the condition", "drawn; unknown", "FLAIR, plain", "FLAIR, Local Diffusion", "FLAIR, true")
BRIGHTEST = (0.8, 1, 0.75, 0.75, 0.75)
"""The value that is white in each column."""


def canonical(path: str) -> np.ndarray:
    """A volume as slices that a radiologist would look at: ``(slice, row, column)``."""
    reader = SliceReader(open_volume(Path(path)))
    return np.stack([reader.read(k) for k in range(reader.volume.frame.shape[0])])


def normalised(path: str, brain: np.ndarray, contrast: str) -> np.ndarray:
    """A real volume on the translations' scale."""
    prepared = prepare(open_volume(Path(path)), PrepareSettings(window=WINDOWS[contrast]), brain=Brain(brain, "given"))
    return np.stack([prepared.scale.normalise(prepared.corrected(k)) * brain[k] for k in range(len(brain))])


def coloured(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The condition with what was drawn in orange and what is unknown in yellow: ``(slice, row, column, 3)``."""
    shown = np.repeat(np.clip(image / BRIGHTEST[0], 0, 1)[..., None], 3, axis=-1)
    for inside, colour in ((np.isin(source, (2, 3)), (1, 0.4, 0)), (source == 4, (1, 1, 0))):
        shown[inside] = 0.5 * shown[inside] + 0.5 * np.array(colour)
    return shown


def main(out: str, t1: str, source: str, plain: str, local: str, reference: str, brain: str) -> None:
    """Draw the slice of which least is ordinary, the middle slice and the view from the side."""
    inside = canonical(brain) > 0
    condition, labels = normalised(t1, inside, "T1w"), canonical(source)
    columns = [condition, coloured(condition, labels), canonical(plain), canonical(local), normalised(reference, inside, "FLAIR")]
    worst = int((labels > 1).sum(axis=(1, 2)).argmax())
    side = inside.shape[2] // 2
    rows = [lambda a: a[worst], lambda a: a[len(a) // 2], lambda a: a[::-1, :, side]]
    figure = Figure(figsize=(15, 8.2), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 5, height_ratios=(4, 4, 1.2))
    for i, view in enumerate(rows):
        for j, volume in enumerate(columns):
            axes[i, j].imshow(view(volume), cmap="gray", vmin=0, vmax=BRIGHTEST[j])
            axes[i, j].axis("off")
            if i == 0:
                axes[i, j].set_title(TITLES[j], color="white", fontsize=13)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    if len(sys.argv) != 8:
        sys.exit(__doc__)
    main(*sys.argv[1:])
