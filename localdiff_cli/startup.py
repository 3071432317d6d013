"""A process's start: what must be set before torch is loaded, and MONAI without the packages that only its other parts need."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

OURS = "LOCALDIFF_PROCESS"
"""The environment variable that says: this process runs localdiff alone, nobody else's code uses MONAI in it."""
UNNEEDED = (
    "cv2", "h5py", "huggingface_hub", "ignite", "itk", "matplotlib", "mlflow", "nrrd", "pandas", "pyarrow", "pydicom", "requests",
    "scipy.signal", "skimage", "sklearn", "tensorboard", "torch.utils.tensorboard", "torchvision", "transformers",
)  # fmt: skip
"""Optional packages of MONAI; loading those that happen to be installed takes longer than all that is needed."""


def prepare_process() -> None:
    """For the entry points of commands: settings of this process and of its workers, before torch is loaded."""
    # Threads that wait in turns cost far more than they gain where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # MONAI asks for the user's name when it is loaded; in a container the user may have none.
    os.environ.setdefault("LOGNAME", "localdiff")
    os.environ[OURS] = "1"


def load_monai() -> None:
    """Import MONAI; in a process of ours without its optional packages, which stay importable for everybody else."""
    with _hidden(UNNEEDED) if os.environ.get(OURS) else nullcontext():
        import monai  # noqa: F401


def load_libraries() -> None:
    """Import what every command with a network needs."""
    import torch  # noqa: F401

    load_monai()
    import SimpleITK  # noqa: F401


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Within the block these packages count as not installed, unless they are loaded already."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
