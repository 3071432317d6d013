"""Weights that only experiments need: in ``models/bench``, each beside a JSON that says exactly how they were made.

The repository keeps the JSON; ``make bench-weights`` makes the weights (remake.py). They are used where the JSON names the same network,
settings and training images; otherwise they are trained into the work folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from localdiff_cli.training.loop import LoopSettings, LossOf, Progress, train, trained_seconds
from localdiff_cli.volumes.whole import whole_file, write_text

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "bench"


@dataclass(frozen=True, eq=False)
class Training:
    """One small network and all that decides its weights; ``identity`` (JSON values) says what it is trained on, and its size.

    ``about`` says the same in words.
    """

    name: str
    make: Callable[[], nn.Module]
    loss_of: LossOf
    loop: LoopSettings
    identity: dict[str, Any]
    about: str

    @property
    def recipe(self) -> dict[str, Any]:
        """What the JSON beside the weights must say for them to be these."""
        told: dict[str, Any] = json.loads(json.dumps({"identity": self.identity, "loop": asdict(self.loop)}))
        return told

    @property
    def digest(self) -> str:
        """A short name of the recipe: what was measured with one is not measured with another."""
        return hashlib.sha256(json.dumps([self.name, self.recipe], sort_keys=True).encode()).hexdigest()[:16]


def digest_of(images: NDArray) -> str:
    """SHA-256 of an array's values, shortened: which images a network has seen."""
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]


def obtain(training: Training, work: Path, command: str) -> nn.Module:
    """The network with its weights, fp32 and frozen: from ``models/bench``, trained earlier in ``work``, or trained now."""
    for folder in (SHIPPED, work / "bench"):
        if _made_so(folder, training):
            return _filled(training, folder)
    print(f"{training.name}: no weights of this recipe in {SHIPPED}; training them now. {how_to_make(training.name)}", flush=True)
    return fit(training, work / "bench", work, command)


def fit(training: Training, folder: Path, work: Path, command: str) -> nn.Module:
    """Train (or go on), write ``<name>.safetensors`` (fp16) and ``<name>.json`` into ``folder``, and return what was written."""
    checkpoint = work / "bench" / f"{training.name}-{training.digest}.pt"
    torch.manual_seed(training.loop.seed)
    network, curve = train(training.make(), training.loss_of, training.loop, checkpoint, _report(training.name), identity=training.identity)
    with whole_file(folder / f"{training.name}.safetensors") as partial:
        partial.write_bytes(save({key: _half(value) for key, value in network.state_dict().items()}))
    account = {
        "command": command,
        "about": training.about,
        **training.recipe,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(trained_seconds(checkpoint)),
        "loss": [[step, round(loss, 6)] for step, loss in curve],
    }
    write_text(folder / f"{training.name}.json", json.dumps(account, indent=1) + "\n")
    return _filled(training, folder)


def how_to_make(name: str) -> str:
    """What to do where the weights of the recorded network ``name`` are not here."""
    return f"Make them with: make bench-weights DATA=FOLDER ONLY={name}"


def _half(value: torch.Tensor) -> torch.Tensor:
    return (value.half() if value.is_floating_point() else value).contiguous()


def _made_so(folder: Path, training: Training) -> bool:
    path = folder / f"{training.name}.json"
    if not path.is_file() or not path.with_suffix(".safetensors").is_file():
        return False
    account = json.loads(path.read_text(encoding="utf-8"))
    account["loop"] = asdict(LoopSettings()) | account.get("loop", {})  # settings that came later were at their defaults
    return bool(training.recipe.items() <= account.items())


def _filled(training: Training, folder: Path) -> nn.Module:
    network = training.make()
    network.load_state_dict(load_file(folder / f"{training.name}.safetensors"))
    return network.eval().requires_grad_(False)


def _report(name: str) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        left = f"{progress.seconds_left:.0f} s left"
        print(f"{name}: step {progress.step} of {progress.steps}, loss {progress.loss:.4f}, {left}", flush=True)

    return report
