"""One picture of a translation: condition, OOD map, plain, local and the true contrast side by side, and the volume from the side.

    python examples/picture.py OUT.png T1 OOD PLAIN LOCAL REFERENCE BRAIN

All seven are volumes on one grid. The reference is shown on the translations' scale (robust z of its brain, window −6 to 8).
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

TITLES = ("T1w, the condition", "OOD map", "FLAIR, plain", "FLAIR, Local Diffusion", "FLAIR, true")


def canonical(path: str) -> np.ndarray:
    """A volume as slices that a radiologist would look at: ``(slice, row, column)``."""
    reader = SliceReader(open_volume(Path(path)))
    return np.stack([reader.read(k) for k in range(reader.volume.frame.shape[0])])


def normalised(path: str, brain: np.ndarray, contrast: str) -> np.ndarray:
    """A real volume on the translations' scale."""
    prepared = prepare(open_volume(Path(path)), PrepareSettings(window=WINDOWS[contrast]), brain=Brain(brain, "given"))
    return np.stack([prepared.scale.normalise(prepared.corrected(k)) * brain[k] for k in range(len(brain))])


def main(out: str, t1: str, ood: str, plain: str, local: str, reference: str, brain: str) -> None:
    """Draw the most out-of-distribution slice, the middle slice and the view from the side."""
    inside = canonical(brain) > 0
    columns = [normalised(t1, inside, "T1w"), canonical(ood), canonical(plain), canonical(local), normalised(reference, inside, "FLAIR")]
    worst = int(columns[1].sum(axis=(1, 2)).argmax())
    side = inside.shape[2] // 2
    rows = [lambda a: a[worst], lambda a: a[len(a) // 2], lambda a: a[::-1, :, side]]
    figure = Figure(figsize=(15, 8.2), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 5, height_ratios=(4, 4, 1.2))
    for i, view in enumerate(rows):
        for j, volume in enumerate(columns):
            axes[i, j].imshow(view(volume), cmap="inferno" if j == 1 else "gray", vmin=0, vmax=(0.8, 1, 0.75, 0.75, 0.75)[j])
            axes[i, j].axis("off")
            if i == 0:
                axes[i, j].set_title(TITLES[j], color="white", fontsize=13)
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    if len(sys.argv) != 8:
        sys.exit(__doc__)
    main(*sys.argv[1:])
