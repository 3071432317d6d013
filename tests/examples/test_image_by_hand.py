"""examples/image_by_hand.sh with stubs of debootstrap and podman: what it would build, from what, and how the image is run."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEBOOTSTRAP = """#!/bin/bash
echo "debootstrap $*" >>"$RECORD"
mkdir -p "${!#}/usr/lib/python3.11" "${!#}/etc/ssl/certs"
touch "${!#}/usr/lib/python3.11/EXTERNALLY-MANAGED" "${!#}/etc/debian_version"
"""
PODMAN = """#!/bin/bash
echo "podman $*" >>"$RECORD"
if [ "$1" = import ]; then tar -t | sed 's/^/base /' >>"$RECORD"; fi
if [ "$1 $2" = "image exists" ]; then exit "${STUB_EXISTS:-1}"; fi
"""


@pytest.fixture
def recorded(tmp_path):
    """Run the script with arguments and an environment: the lines that the stubs noted, in order."""
    for name, text in (("debootstrap", DEBOOTSTRAP), ("podman", PODMAN)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(*arguments, **environment):
        found = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record")} | environment
        command = ["bash", str(ROOT / "examples" / "image_by_hand.sh"), *map(str, arguments)]
        subprocess.run(command, env=found, check=True, capture_output=True, text=True)
        return (tmp_path / "record").read_text().splitlines()

    return run


def the(lines, start):
    """The one line that begins so."""
    (line,) = (line for line in lines if line.startswith(start))
    return line


def test_the_base_takes_the_place_of_the_image_that_the_dockerfile_names(recorded, tmp_path):
    lines = recorded(tmp_path / "work")
    named = re.search(r"^FROM (\S+)", (ROOT / "examples" / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert the(lines, "podman import").endswith(f"library/{named}")
    assert {"base ./etc/debian_version"} <= set(lines)
    assert not any("EXTERNALLY-MANAGED" in line for line in lines)
    build = the(lines, "podman build")
    assert "--pull=never" in build
    assert build.endswith("--file examples/Dockerfile .")
    assert not (tmp_path / "work" / "base").exists()


def test_the_image_runs_without_network_home_or_writable_root(recorded, tmp_path):
    (tmp_path / "data").mkdir()
    lines = recorded(tmp_path / "work", tmp_path / "data", "translate", "--in", "t1", "--out", "t2", STUB_EXISTS="0")
    assert not any(line.startswith(("debootstrap", "podman build")) for line in lines)
    first, second = (line for line in lines if " run " in line)
    for line in (first, second):
        assert "--network none --read-only --tmpfs /tmp --user 54321:54321" in " ".join(line.split())
        assert f"--volume {tmp_path / 'data'}:/data" in line
    assert first.endswith("localdiff models verify")
    assert second.endswith("localdiff translate --in t1 --out t2")


def test_wheels_and_pytorchs_index_reach_the_build(recorded, tmp_path):
    (tmp_path / "wheels").mkdir()
    lines = recorded(tmp_path / "work", WHEELS=str(tmp_path / "wheels"), TORCH_INDEX="https://example.org/cpu")
    build = the(lines, "podman build")
    assert f"--volume {tmp_path / 'wheels'}:/wheels:ro" in build
    assert "--build-arg TORCH_INDEX=https://example.org/cpu" in build
    assert "base ./etc/pip.conf" in lines
