"""What a command loads: the parent of its workers neither torch nor MONAI, a translation without a certificate no statistics."""

import subprocess
import sys

SCRIPT = """
import sys
from localdiff_cli import app
from localdiff_cli.commands import translate, segment, detect, evaluate
from localdiff_cli.batch import engine
parent = [name for name in ("torch", "monai", "skimage", "matplotlib", "faiss") if name in sys.modules]
from localdiff_cli.tasks import translation, sampling
from localdiff_cli.recipes.detector import choose_detector
worker = [name for name in ("monai", "skimage", "matplotlib", "pandas", "scipy.stats", "torch._dynamo") if name in sys.modules]
print(parent, worker)
"""


def test_parent_and_worker_load_what_they_need():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[] []"
