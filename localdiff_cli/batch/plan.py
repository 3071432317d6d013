"""``--dry-run``: what a run would do, volume by volume, and what it would cost here."""

from __future__ import annotations

from localdiff_cli.batch.discover import Found, Item
from localdiff_cli.batch.engine import Execution, check_collisions, of_shard
from localdiff_cli.batch.report import Reporter, say
from localdiff_cli.batch.volume import state_of
from localdiff_cli.batch.work import VolumeRecipe, VolumeWork, printable
from localdiff_cli.errors import VolumeError
from localdiff_cli.volumes.reader import open_volume


def show_plan(recipe: VolumeRecipe, found: Found, how: Execution, reporter: Reporter, *, overwrite: bool) -> None:
    """Print a TSV of the plan to standard output and its sum to the reporter; nothing is written.

    Raise :class:`LocaldiffError` where the model or the options cannot be used.
    """
    check_collisions(recipe, found.items)
    items = of_shard(found.items, how.shard)
    work = recipe.load(reporter.line)
    say("\t".join(("volume", "state", "output", "shape", "seconds", "memory_mb", "reason")))
    lacking = work.lacking(items)
    seconds, megabytes, open_ = 0.0, 0.0, 0
    for item in items:
        state, shape, cost, reason = _row(recipe, work, item, overwrite=overwrite)
        if item.relative in lacking:
            state, reason = "refused", reason or lacking[item.relative]
        if state == "open":
            seconds, megabytes, open_ = seconds + cost[0], max(megabytes, cost[1]), open_ + 1
        numbers = (f"{cost[0]:.0f}", f"{cost[1]:.0f}") if state == "open" else ("", "")
        say("\t".join((printable(item.relative), state, recipe.outputs(item)[0].as_posix(), shape, *numbers, " ".join(reason.split()))))
    share = max(1, how.jobs)
    reporter.line(
        f"{open_} of {len(items)} volumes to do, about {seconds / 60:.1f} min with one process "
        f"({how.jobs or 1} asked for: the cores are divided among them), up to {megabytes * share / 1000:.1f} GB of memory"
    )


def _row(recipe: VolumeRecipe, work: VolumeWork, item: Item, *, overwrite: bool) -> tuple[str, str, tuple[float, float], str]:
    try:
        volume = open_volume(item.path, item.affine_from)
        state = state_of(work, item, recipe.outputs(item), overwrite=overwrite)
    except VolumeError as error:
        return "refused", "", (0.0, 0.0), str(error)
    cost = work.estimate(volume.frame.shape)
    return state, "x".join(map(str, volume.shape)), (cost.seconds, cost.megabytes), ""
