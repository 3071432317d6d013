"""``localdiff detect``: where is the condition unlike anything seen in training?"""

from __future__ import annotations

from pathlib import Path

from localdiff_cli.bundle import open_bundle
from localdiff_cli.commands.run import check_brain, check_detector, run_work
from localdiff_cli.declared import check
from localdiff_cli.options import DetectOptions, DetectorOptions, RunOptions
from localdiff_cli.recipes.detect import DetectRecipe
from localdiff_cli.recipes.network import batch_of


def detect_recipe(out: Path, options: DetectOptions, detector: DetectorOptions) -> DetectRecipe:
    """Return the recipe, its options checked. Raise :class:`UsageError` where they cannot be run."""
    check_brain(options.brain)
    batch_of(options.batch_size, 1)
    check(options)
    check_detector(detector)
    return DetectRecipe(out, options, detector)


def detect(run: RunOptions, options: DetectOptions, detector: DetectorOptions) -> int:
    """Detect in every volume of ``run.source``; return the exit code."""
    recipe = detect_recipe(run.out, options, detector)
    return run_work(run, open_bundle(options.model).condition.contrast, recipe)
