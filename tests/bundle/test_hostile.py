"""Bundles made to do harm: nothing is executed, and nothing outside their folder is read or written."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from localdiff_cli.bundle import METADATA, TRANSLATOR, load_detector, load_tensors, open_bundle, verify
from localdiff_cli.errors import ModelError
from localdiff_cli.ood.threshold import Calibration

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bundle(models_folder, tmp_path):
    shutil.copytree(models_folder / "t1-to-t2", tmp_path / "bundle")
    return tmp_path / "bundle"


def change(folder, **values):
    old = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(old | values))


def replace_weights(folder, name, raw):
    """Other bytes in a weight file, with the hash that makes them look right."""
    (folder / name).write_bytes(raw)
    change(folder, files={name: hashlib.sha256(raw).hexdigest()})


def with_header(raw, header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + int.from_bytes(raw[:8], "little") :]


@pytest.mark.parametrize("shape", [[2**40, 2**40], [2**62], [10**18, 10**18, 10**18], [-1], [2.5], "all"], ids=str)
def test_an_absurd_shape_in_a_weight_file_is_refused_before_it_takes_memory(bundle, shape):
    raw = (bundle / TRANSLATOR).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    header[min(key for key in header if key != "__metadata__")]["shape"] = shape
    replace_weights(bundle, TRANSLATOR, with_header(raw, header))
    with pytest.raises(ModelError, match="safetensors"):
        load_tensors(open_bundle(str(bundle)), TRANSLATOR)


@pytest.mark.parametrize("length", [0, 2**63, 2**64 - 1, 99_999_999, 7])
def test_an_absurd_length_of_a_weight_files_header_is_refused(bundle, length):
    replace_weights(bundle, TRANSLATOR, struct.pack("<Q", length) + (bundle / TRANSLATOR).read_bytes()[8:])
    with pytest.raises(ModelError, match="safetensors"):
        load_tensors(open_bundle(str(bundle)), TRANSLATOR)


def test_tensors_that_lie_over_each_other_are_refused(bundle):
    raw = (bundle / TRANSLATOR).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    first, second = [key for key in header if key != "__metadata__"][:2]
    header[second] = header[first]
    replace_weights(bundle, TRANSLATOR, with_header(raw, header))
    with pytest.raises(ModelError, match="safetensors"):
        load_tensors(open_bundle(str(bundle)), TRANSLATOR)


@pytest.mark.parametrize("name", [METADATA, TRANSLATOR])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(ModelError):
        load_tensors(open_bundle(str(bundle)), TRANSLATOR)


@pytest.mark.parametrize("name", [METADATA, TRANSLATOR])
def test_a_folder_in_place_of_a_file_is_refused(bundle, name):
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(ModelError):
        load_tensors(open_bundle(str(bundle)), TRANSLATOR)


@pytest.mark.parametrize(
    "values", [{"input_scale": 10**400}, {"calibration": {"levels": [0, 1], "values": [0, 10**400], "sigma_a": 1}}], ids=["scale", "values"]
)
def test_a_number_beyond_every_float_is_refused(bundle, values):
    old = json.loads((bundle / METADATA).read_text())
    change(bundle, detector=old["detector"] | values)
    with pytest.raises(ModelError):
        load_detector(open_bundle(str(bundle)), 0.05, CPU)


def test_a_calibration_beyond_every_float_is_refused():
    with pytest.raises(ModelError):
        Calibration.from_dict({"levels": [0, 1], "values": [0, 1], "sigma_a": 10**400})


@pytest.mark.parametrize("name", ["\ud800", "models/\udcff.safetensors"])
def test_a_weight_file_of_an_impossible_name_is_refused_in_words_that_can_be_printed(bundle, name):
    change(bundle, files={name: "0" * 64})
    with pytest.raises(ModelError) as error:
        verify(open_bundle(str(bundle)))
    str(error.value).encode()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def hostile(folder, secret, kind):
    """Turn a bundle into one that reaches for ``secret``, or would run code."""
    raw = (folder / TRANSLATOR).read_bytes()
    if kind == "pickle":
        replace_weights(folder, TRANSLATOR, pickle.dumps(Bomb(str(secret) + "-ran")))
    elif kind == "pickle beside":
        (folder / "models" / "translator.pt").write_bytes(pickle.dumps(Bomb(str(secret) + "-ran")))
        (folder / TRANSLATOR).unlink()
    elif kind == "script":
        (folder / "configs" / "__init__.py").write_text(f"import os; os.mkdir({str(secret) + '-ran'!r})")
        change(folder, network={"_target_": "os.mkdir", "path": f"{secret}-ran"}, imports=["$import os"])
    elif kind == "link":
        (folder / TRANSLATOR).unlink()
        (folder / TRANSLATOR).symlink_to(secret)
        change(folder, files={TRANSLATOR: hashlib.sha256(raw).hexdigest()})
    elif kind == "chain of links":
        (folder / "models" / "step").symlink_to(secret)
        (folder / TRANSLATOR).unlink()
        (folder / TRANSLATOR).symlink_to("step")
    elif kind == "loop of links":
        (folder / TRANSLATOR).unlink()
        (folder / TRANSLATOR).symlink_to("translator.safetensors")
    elif kind == "traversal":
        change(folder, files={"../secret": hashlib.sha256(raw).hexdigest(), str(secret): "0" * 64})
    else:
        change(folder, detector={"backbone": f"../{secret.name}", "input_scale": 1.0, "calibration": {}}, network={"channels": str(secret)})


KINDS = ("pickle", "pickle beside", "script", "link", "chain of links", "loop of links", "traversal", "settings")
PROGRAM = """
import json
import sys
import torch
from pathlib import Path
from localdiff_cli import bundle as b
from localdiff_cli.errors import LocaldiffError
from tests.faults.fuzz import Watch
cpu = torch.device("cpu")
loads = [lambda o: b.load_translator(o, cpu), lambda o: b.load_detector(o, 0.05, cpu), lambda o: b.load_segmenter(o, cpu), b.verify]
def attempt(folder):
    refusals = 0
    for load in loads:
        try:
            load(b.open_bundle(folder))
        except LocaldiffError:
            refusals += 1
    return refusals
assert attempt(sys.argv[1]) == 1  # whole: only the segmenter is missing
watch = Watch()
for folder in sys.argv[2:]:
    with watch.watching(Path(folder)) as noted:
        refusals = attempt(folder)
    print(json.dumps([refusals, noted]))
"""


def test_hostile_bundles_run_nothing_and_touch_nothing_outside_their_folder(models_folder, tmp_path):
    for number, kind in enumerate(KINDS):
        bundle, secret = tmp_path / str(number) / "bundle", tmp_path / str(number) / "secret"
        shutil.copytree(models_folder / "t1-to-t2", bundle)
        shutil.copy(bundle / TRANSLATOR, secret)
        hostile(bundle, secret, kind)
    before = sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*"))
    folders = [models_folder / "t1-to-t2", *(tmp_path / str(number) / "bundle" for number in range(len(KINDS)))]
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    for kind, line in zip(KINDS, said.stdout.splitlines(), strict=True):
        refusals, noted = json.loads(line)
        assert refusals >= 2, kind
        assert noted == [], kind
    assert sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_the_watch_sees_what_is_opened_outside(tmp_path):
    program = (
        "import sys; from pathlib import Path; from tests.faults.fuzz import Watch; watch = Watch()\n"
        "with watch.watching(Path(sys.argv[1]) / 'in') as noted:\n  open(sys.argv[1] + '/in/a'); open(sys.argv[1] + '/out')\nprint(noted)"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    (tmp_path / "out").touch()
    said = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.count("open ") == 1
    assert "/out" in said.stdout
