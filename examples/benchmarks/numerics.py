"""Same numbers, other machine: how far voxels, lesions and the OOD region move with the processor's code path and with precision.

``python -m examples.benchmarks.numerics`` translates slices of the packaged patient (``--data`` for others) in processes of their own:
as it is, without oneDNN's kernels (``mkldnn off``), with the vector instructions of older processors (``AVX2``, ``no vectors``), with two
threads, and the networks in bfloat16. Each is compared with the first: the share of the brain decided otherwise by the detector, the
difference of translations, and the Dice of the lesions that the segmenter finds on both.

The same for verdicts: the middle slices of every patient go as a volume through ``translate`` with the bundle's defaults and through
``segment``. Of the reasons to review (``qc.tsv``) it is counted how many are said by one alone, with and without the numbers in them; of
the lesions, in three dimensions, how many the other finds too.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from examples.benchmarks.table import to_tsv
from localdiff_cli.batch.discover import discover
from localdiff_cli.bundle import Bundle, load_expert, load_translator, open_bundle
from localdiff_cli.diffusion.device import on_device
from localdiff_cli.options import DetectorOptions, SegmentOptions, TranslateOptions
from localdiff_cli.recipes.translate import TranslateRecipe
from localdiff_cli.tasks.sampling import Networks
from localdiff_cli.training.loop import ReducedPrecision
from localdiff_cli.training.pairs import Pair, read_pairs

AS_IS = "as it is"
VARIANTS: dict[str, dict[str, str]] = {
    AS_IS: {},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "mkldnn off": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "bf16": {},
}
"""Name → environment of the process."""
Results = dict[str, NDArray[Any]]


@contextmanager
def without_onednn() -> Iterator[None]:
    """Within the block torch uses its own kernels."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def path_of(variant: str) -> AbstractContextManager[object]:
    """The context in which a variant runs its networks."""
    return without_onednn() if variant == "mkldnn off" else nullcontext()


def reduced(networks: Networks, bundle: Bundle) -> Networks:
    """The same networks in bfloat16, as ``--precision bf16`` runs them on a card. Autocast belongs to a thread; slices have their own."""
    model = on_device(ReducedPrecision(load_translator(bundle, networks.device)), networks.device, "fp32")
    expert = load_expert(bundle, networks.device) if networks.expert is not None else None
    return replace(networks, model=model, expert=expert and on_device(ReducedPrecision(expert), networks.device, "fp32"))


def middle(source: Path, into: Path, slices: int) -> Path:
    """The middle ``slices`` of a NIfTI volume as a volume of its own."""
    image = nib.load(source)
    assert isinstance(image, nib.Nifti1Image)
    first = max(0, (image.shape[2] - slices) // 2)
    nib.save(image.slicer[:, :, first : first + slices], into)
    return into


def through_the_commands(variant: str, pair: Pair, bundle: Bundle, slices: int) -> Results:
    """A volume's reasons to review, by ``translate`` and ``segment``, and the lesions found on its translation ``(I, J, K)``."""
    from localdiff_cli.api import segment_volume
    from localdiff_cli.tasks.translation import TranslateWork

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = middle(pair.condition, folder / f"in_{bundle.condition.contrast}.nii.gz", slices)
        brain = str(middle(pair.brain, folder / "in_brain.nii.gz", slices)) if pair.brain else "auto"
        recipe = TranslateRecipe(folder / "out", TranslateOptions(model=bundle.name, brain=brain), DetectorOptions())
        work, (item,) = recipe.load(lambda text: None), discover(str(source), bundle.condition.contrast).items
        if variant == "bf16" and isinstance(work, TranslateWork):
            work = replace(work, networks=reduced(work.networks, work.bundle))
        with path_of(variant):
            outcome = work(item, lambda done, total: None)
            image = nib.load(recipe.plan.wanted(item)["image"].path)
            assert isinstance(image, nib.Nifti1Image)
            judge = SegmentOptions(model=bundle.target.segmenter, brain=brain)
            lesions = segment_volume(image.get_fdata(), image.affine, options=judge, facts=outcome.facts)
    return {"reasons": np.array([*outcome.review, *lesions.review], dtype=str), "lesions": lesions.mask}


def verdicts(variant: str, options: argparse.Namespace) -> Results:
    """What the commands say of every patient: ``name/reasons`` and ``name/lesions``."""
    bundle = open_bundle(options.model)
    pairs = read_pairs(options.data, bundle.condition.contrast, bundle.target.contrast)
    found = {p.name: through_the_commands(variant, p, bundle, options.slices) for p in pairs if p.split == options.split}
    return {f"{name}/{key}": value for name, said in found.items() for key, value in said.items()}


def results(variant: str, options: argparse.Namespace) -> Results:
    """Detector's mask, translations of both modes, and lesions found on them, of the chosen slices."""
    from examples.benchmarks import mri
    from examples.benchmarks.speed import slices_of
    from examples.benchmarks.translation import patients
    from localdiff_cli.segmentation.network import lesion_probability
    from localdiff_cli.tasks.sampling import SliceSampler

    bench = mri.load(options.model, None, None)
    networks = reduced(bench.networks, bench.bundle) if variant == "bf16" else bench.networks
    made: dict[str, list[NDArray[Any]]] = {"brain": [], "mask": [], "plain": [], "local": [], "lesions plain": [], "lesions local": []}
    with path_of(variant):
        for patient in patients(bench.bundle, options.data, options.split, options.work):
            slices = slices_of(bench, patient, max(options.every, -(-len(patient.condition) // options.slices)))
            made["brain"].append(slices.chunk.brain.numpy())
            made["mask"].append(slices.ood_mask.numpy())
            for mode in ("plain", "local"):
                sampler = SliceSampler(networks, replace(bench.settings, mode=mode), patient.name)
                image = sampler(slices.chunk, slices.ood_map, slices.ood_mask)[0].float()
                made[mode].append(image.numpy())
                found = lesion_probability(bench.segmenter, image, slices.chunk.brain) >= bench.cut
                made[f"lesions {mode}"].append(found.numpy())
    return {name: np.concatenate(arrays) for name, arrays in made.items()}


def compared(variant: str, ours: Results, theirs: Results) -> dict[str, str]:
    """A row: ``theirs`` against ``ours``."""
    brain = ours["brain"]
    row = {"row": variant, "B decided otherwise, % of the brain": f"{100 * (ours['mask'] != theirs['mask'])[brain].mean():.4f}"}
    for mode in ("plain", "local"):
        apart = np.abs(ours[mode] - theirs[mode])[brain]
        figures = {"mean |Δ|": apart.mean(), "99.9 %": np.quantile(apart, 0.999), "most": apart.max()}
        row |= {f"{mode}: {name}": f"{value:.2e}" for name, value in figures.items()}
    return row | {f"lesions {mode}, Dice": f"{dice(ours[f'lesions {mode}'], theirs[f'lesions {mode}']):.4f}" for mode in ("plain", "local")}


def compared_verdicts(ours: Results, theirs: Results) -> dict[str, str]:
    """A row's columns on verdicts: patients, reasons that one alone says, lesions that one alone finds, and their number."""
    names = [key.removesuffix("/reasons") for key in ours if key.endswith("/reasons")]
    said = [(set(ours[f"{name}/reasons"].tolist()), set(theirs[f"{name}/reasons"].tolist())) for name in names]
    kinds = [tuple({re.sub(r"[\d.,]+", "#", reason) for reason in one} for one in pair) for pair in said]
    lost = [alone(ours[f"{name}/lesions"], theirs[f"{name}/lesions"]) for name in names]
    new = [alone(theirs[f"{name}/lesions"], ours[f"{name}/lesions"])[0] for name in names]
    return {
        "patients": str(len(names)),
        "review for one alone": str(sum(bool(a) != bool(b) for a, b in said)),
        "reasons of one alone": str(sum(len(a ^ b) for a, b in kinds)),
        "with other numbers": str(sum(len(a ^ b) for a, b in said)),
        "lesions": str(sum(count for _, count in lost)),
        "of one alone": str(sum(count for count, _ in lost) + sum(new)),
    }


def alone(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    """How many lesions of mask ``a`` share no voxel with ``b``, and how many ``a`` has; touching by a corner is one lesion."""
    labels, count = ndimage.label(a, structure=np.ones((3,) * a.ndim))
    return count - len(set(np.unique(labels[b]).tolist()) - {0}), count


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """1 where both are empty."""
    total = a.sum() + b.sum()
    return 1.0 if total == 0 else float(2 * (a & b).sum() / total)


def main() -> None:
    """Every variant in a process of its own; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="t1-to-flair")
    parser.add_argument("--data", nargs="+", type=Path, default=[Path("examples/data")])
    parser.add_argument("--split", default="train", choices=("train", "val", "test"), help="a folder without participants.tsv is train")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--slices", type=int, default=8, help="at most so many of a patient")
    parser.add_argument("--work", type=Path, default=Path("bench.work"))
    parser.add_argument("--variant", choices=tuple(VARIANTS), help="internal: only this one, into --into")
    parser.add_argument("--into", type=Path, help="internal: file for the results")
    options = parser.parse_args()
    if options.variant:
        np.savez(options.into, **(results(options.variant, options) | verdicts(options.variant, options)))  # type: ignore[arg-type]
        return
    with tempfile.TemporaryDirectory() as folder:
        held: dict[str, Results] = {}
        for number, (variant, environment) in enumerate(VARIANTS.items()):
            into = Path(folder) / f"{number}.npz"
            command = [sys.executable, "-m", "examples.benchmarks.numerics", *sys.argv[1:], "--variant", variant, "--into", str(into)]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)
            held[variant] = dict(np.load(into))
            print(to_tsv([compared(variant, held[AS_IS], held[variant])]).splitlines()[-1], flush=True)
    print(to_tsv([compared(variant, held[AS_IS], found) | compared_verdicts(held[AS_IS], found) for variant, found in held.items()]))


if __name__ == "__main__":
    main()
