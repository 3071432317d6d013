"""The examples for clusters and containers: what they would run, with stubs in place of localdiff, Slurm and Dask."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from localdiff_cli.app import app

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

LOCALDIFF = """#!/bin/bash
trap 'touch "$RECORD/localdiff.terminated"; exit 143' TERM
(IFS=$'\\x1f'; echo "$*" >>"$RECORD/calls")
echo $$ >"$RECORD/localdiff.pid"
for _ in $(seq "${STUB_TICKS:-0}"); do sleep 0.02; done
if [ "$1" = evaluate ]; then
    while [ "$1" != --out ]; do shift; done
    mkdir -p "$2" && touch "$2/report.html"
    exit "${STUB_EVALUATE_EXIT:-0}"
fi
exit "${STUB_EXIT:-0}"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do echo "$1" >>"$RECORD/srun"; shift; done
exec "$@"
"""
DASK = """
import os, signal, socket, sys, time
from pathlib import Path

role, arguments = sys.argv[1], sys.argv[2:]
record = Path(os.environ["RECORD"])
(record / role).write_text("\\n".join(arguments))
threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
(record / (role + ".threads")).write_text(" ".join(os.environ.get(name, "") for name in threads))
if os.environ.get("STUB_BROKEN") == role:
    sys.exit(1)

def stop(number, frame):
    (record / (role + ".terminated")).touch()
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
if role == "scheduler":
    server = socket.create_server(("127.0.0.1", int(arguments[arguments.index("--port") + 1])))
time.sleep(20)
"""


def options_of(command):
    """Every option that a localdiff command knows."""
    return {option for parameter in typer.main.get_command(app).commands[command].params for option in parameter.opts}


class Stage:
    """A folder of stubs, an environment that finds them first, and what they recorded."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in (("localdiff", LOCALDIFF), ("srun", SRUN), ("dask", f"#!{sys.executable} -ES\n{DASK}")):
            script = folder / "bin" / name
            script.parent.mkdir(exist_ok=True)
            script.write_text(text)
            script.chmod(0o755)
        ours = ("SLURM", "LOCALDIFF", "MAKE", "OMP", "MKL")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(ours) and key not in ("JOBS", "SHARDS")}
        self.environment |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "RECORD": str(folder)}

    def start(self, *command, **environment):
        environment = {key: str(value) for key, value in environment.items()}
        return subprocess.Popen(
            list(map(str, command)), cwd=self.folder, env=self.environment | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *command, **environment):
        process = self.start(*command, **environment)
        try:
            text, _ = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, text

    def calls(self):
        """The localdiff commands so far; their options are checked against the real ones."""
        path = self.folder / "calls"
        calls = [line.split("\x1f") for line in path.read_text().splitlines()] if path.exists() else []
        for command, *arguments in calls:
            assert {word for word in arguments if word.startswith("--")} <= options_of(command)
        return calls

    def appears(self, name):
        """Wait for a file, at most five seconds."""
        until = time.monotonic() + 60
        while not (self.folder / name).exists() and time.monotonic() < until:
            time.sleep(0.02)
        return (self.folder / name).exists()


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def value(arguments, option):
    assert arguments.count(option) == 1
    return arguments[arguments.index(option) + 1]


@pytest.mark.parametrize("name", ["slurm_array.sh", "slurm_dask.sh"])
def test_slurm_reads_every_directive_and_warns_in_time(name):
    lines = (EXAMPLES / name).read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(directives) < first_command  # sbatch stops reading there
    assert lines[first_command] == "set -euo pipefail"
    assert {"#SBATCH --signal=B:TERM@60", "#SBATCH --requeue"} <= {lines[i] for i in directives}


ARRAY = {"SLURM_ARRAY_TASK_ID": 3, "SLURM_ARRAY_TASK_COUNT": 16}


def array(stage, *arguments, **environment):
    return stage.run("bash", EXAMPLES / "slurm_array.sh", *arguments, **ARRAY | environment)


def test_an_array_task_does_its_share(stage):
    assert array(stage, "my t1", "t2")[0] == 0
    assert array(stage, "t1", "t2", "./mine", "--suffix", "T2w", JOBS=4, SHARDS=64)[0] == 0
    common = ["--model", "t1-to-t2", "--jobs", "1", "--shard", "3/16"]
    assert stage.calls() == [
        ["translate", "--in", "my t1", "--out", "t2", *common],
        ["translate", "--in", "t1", "--out", "t2", "--model", "./mine", "--jobs", "4", "--shard", "3/64", "--suffix", "T2w"],
    ]


@pytest.mark.parametrize("code", [0, 1, 4, 143])
def test_an_array_task_ends_with_localdiffs_exit_code(stage, code):
    assert array(stage, "t1", "t2", STUB_EXIT=code)[0] == code


def test_slurms_warning_reaches_localdiff_in_an_array(stage):
    process = stage.start("bash", EXAMPLES / "slurm_array.sh", "t1", "t2", **ARRAY, STUB_TICKS=500)
    assert stage.appears("localdiff.pid")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (stage.folder / "localdiff.terminated").exists()
    assert int((stage.folder / "localdiff.pid").read_text()) == process.pid


@pytest.mark.parametrize("script", ["slurm_array.sh", "slurm_dask.sh"])
@pytest.mark.parametrize("arguments", [(), ("t1",), ("t1", "t2")], ids=len)
def test_without_folders_or_slurm_a_script_says_its_usage(stage, script, arguments):
    environment = {} if len(arguments) == 2 else ARRAY | {"SLURM_JOB_ID": 1}
    code, text = stage.run("bash", EXAMPLES / script, *arguments, **environment)
    assert code == 2
    assert text.startswith(f"usage: sbatch [--{'array=1-N' if 'array' in script else 'nodes=N'}] {script} IN OUT")
    assert stage.calls() == []


FIT = ("translator", "--data", "my pairs.tsv", "--out", "m")
FIT_JOB = {"SLURM_JOB_ID": 5, "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": 2, "SLURM_GPUS_ON_NODE": 4, "SLURM_CPUS_PER_TASK": 16}


@pytest.fixture
def fit_stage(stage):
    """torchrun runs its program once and records its own options; scontrol records what it is asked."""
    for name, text in {
        "scontrol": '#!/bin/bash\necho "$*" >>"$RECORD/scontrol"\n[ "$1" != show ] || printf "n1\\nn2\\n"\n',
        "torchrun": SRUN.replace("/srun", "/torchrun").replace("exec", 'echo $OMP_NUM_THREADS >"$RECORD/threads"\nexec'),
    }.items():
        (stage.folder / "bin" / name).write_text(text)
        (stage.folder / "bin" / name).chmod(0o755)
    return stage


def fit_calls(stage):
    return [line.split("\x1f") for line in (stage.folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize("code", [0, 2])
def test_a_training_job_starts_a_process_for_each_gpu_of_each_node_and_ends_with_their_code(fit_stage, code):
    assert fit_stage.run("bash", EXAMPLES / "slurm_fit.sh", *FIT, **FIT_JOB, STUB_EXIT=code)[0] == code
    assert fit_calls(fit_stage) == [["fit", *FIT]]
    told = (fit_stage.folder / "torchrun").read_text().split()
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=n1:20005", "--no-python"} <= set(told)
    assert (fit_stage.folder / "threads").read_text().strip() == "4"
    assert "requeue" not in (fit_stage.folder / "scontrol").read_text()


def test_slurms_warning_stops_a_training_job_and_queues_it_again(fit_stage):
    process = fit_stage.start("bash", EXAMPLES / "slurm_fit.sh", *FIT, **FIT_JOB, STUB_TICKS=3000)
    assert fit_stage.appears("localdiff.pid")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (fit_stage.folder / "localdiff.terminated").exists()
    assert (fit_stage.folder / "scontrol").read_text().splitlines()[-1] == "requeue 5"


def test_a_training_job_without_slurm_says_its_usage(fit_stage):
    assert fit_stage.run("bash", EXAMPLES / "slurm_fit.sh", *FIT)[0] == 2


@pytest.fixture
def slurm_job():
    """The environment of a job whose port is free."""
    for job in range(os.getpid() % 12000, 12000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20000 + job)):
                return {"SLURM_JOB_ID": 12000 * 7 + job, "SLURMD_NODENAME": "127.0.0.1", "SLURM_CPUS_PER_TASK": 6}
    raise AssertionError("no free port")


def dask(stage, job, **environment):
    return stage.run("bash", EXAMPLES / "slurm_dask.sh", "t1", "t2", "t1-to-t2", "--suffix", "T2w", **job | environment)


def test_a_dask_job_starts_scheduler_and_workers_and_uses_them(stage, slurm_job):
    code, text = dask(stage, slurm_job, STUB_TICKS=20)
    assert code == 0, text
    address = f"127.0.0.1:{20000 + slurm_job['SLURM_JOB_ID'] % 12000}"
    assert stage.calls() == [
        ["translate", "--in", "t1", "--out", "t2", "--model", "t1-to-t2", "--cluster", f"dask://{address}", "--suffix", "T2w"]
    ]
    worker = (stage.folder / "worker").read_text().splitlines()
    assert worker[0] == f"tcp://{address}"
    assert (value(worker, "--nthreads"), value(worker, "--memory-limit")) == ("1", "0")
    assert {"--ntasks-per-node=1", "--cpus-per-task=6"} <= set((stage.folder / "srun").read_text().split())
    assert (stage.folder / "worker.threads").read_text() == "6 6 6 PASSIVE"
    assert stage.appears("worker.terminated")
    assert stage.appears("scheduler.terminated")


@pytest.mark.parametrize("code", [1, 4])
def test_a_dask_job_ends_with_localdiffs_exit_code(stage, slurm_job, code):
    assert dask(stage, slurm_job, STUB_EXIT=code, STUB_TICKS=10)[0] == code


def test_slurms_warning_reaches_localdiff_in_a_dask_job(stage, slurm_job):
    process = stage.start("bash", EXAMPLES / "slurm_dask.sh", "t1", "t2", **slurm_job, STUB_TICKS=500)
    assert stage.appears("localdiff.pid")
    assert stage.appears("worker.threads")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert (stage.folder / "localdiff.terminated").exists()
    assert stage.appears("worker.terminated")


def test_a_dask_job_without_workers_does_not_wait_for_ever(stage, slurm_job):
    assert dask(stage, slurm_job, STUB_BROKEN="worker", STUB_TICKS=500)[0] == 143


def test_a_dask_job_without_a_scheduler_says_so(stage, slurm_job):
    code, text = dask(stage, slurm_job, STUB_BROKEN="scheduler")
    assert (code, stage.calls()) == (4, [])
    assert "the scheduler did not start" in text


@pytest.fixture
def benchmark(stage):
    """Runs the benchmark's Makefile on two T1w and their references; the calls that it made since the last time."""
    for name in ("t1/a_T1w.nii", "t1/sub/b_T1w.nii", "ref/a_T2w.nii"):
        path = stage.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1, 1))
    seen = [0]

    def run(*arguments, expected=0, **environment):
        code, text = stage.run("make", "-f", EXAMPLES / "benchmark.mk", *arguments, **environment)
        assert code == expected, text
        calls = stage.calls()[seen[0] :]
        seen[0] += len(calls)
        return calls if expected == 0 else text

    return run


FOLDERS = ("IN=t1", "REF=ref", "OUT=bench")
SETTINGS = ("SETTINGS=x y", "OPTIONS_x=--steps 5", "OPTIONS_y=--model ./mine", "LOCAL_y=--tau 0.4")


def test_a_benchmark_translates_both_ways_and_evaluates_each_setting(benchmark):
    calls = benchmark(*FOLDERS, *SETTINGS, "TRUTH=ref", JOBS=3)
    assert sorted(calls) == sorted([
        ["translate", "--in", "t1", "--out", "bench/x/plain", "--mode", "plain", "--steps", "5", "--jobs", "3", "--overwrite"],
        ["translate", "--in", "t1", "--out", "bench/x/local", "--steps", "5", "--jobs", "3", "--overwrite"],
        ["translate", "--in", "t1", "--out", "bench/y/plain", "--mode", "plain", "--model", "./mine", "--jobs", "3", "--overwrite"],
        ["translate", "--in", "t1", "--out", "bench/y/local", "--model", "./mine", "--tau", "0.4", "--jobs", "3", "--overwrite"],
        *(
            ["evaluate", "--in", f"bench/{name}/local", "--baseline", f"bench/{name}/plain", "--ref", "ref", "--truth", "ref",
             "--condition", "t1", "--out", f"bench/{name}/report", "--jobs", "3"]
            for name in "xy"
        ),
    ])  # fmt: skip
    for name in "xy":
        assert [call[0] for call in calls if f"bench/{name}/" in " ".join(call)] == ["translate", "translate", "evaluate"]


def test_a_benchmark_does_only_what_changed(benchmark, stage):
    assert len(benchmark(*FOLDERS, *SETTINGS)) == 6
    assert benchmark(*FOLDERS, *SETTINGS) == []
    (stage.folder / "ref" / "a_T2w.nii").touch()
    assert [call[0] for call in benchmark(*FOLDERS, *SETTINGS)] == ["evaluate"] * 2
    (stage.folder / "t1" / "sub" / "b_T1w.nii").touch()
    assert len(benchmark(*FOLDERS, *SETTINGS)) == 6
    changed = benchmark(*FOLDERS, *SETTINGS[:-1], "LOCAL_y=--tau 0.5")
    assert [call[0] for call in changed] == ["translate", "translate", "evaluate"]
    assert all("bench/y/" in " ".join(call) for call in changed)


def test_a_benchmark_with_a_failed_volume_is_not_evaluated_and_goes_on_later(benchmark):
    benchmark(*FOLDERS, *SETTINGS, STUB_EXIT=1, expected=2)
    calls = benchmark(*FOLDERS, *SETTINGS)
    assert [call[0] for call in calls].count("translate") == 4  # the one that failed and stopped make, and the others
    assert [call[0] for call in calls].count("evaluate") == 2


def test_a_report_of_an_evaluation_that_failed_is_made_again(benchmark):
    benchmark(*FOLDERS, *SETTINGS, STUB_EVALUATE_EXIT=1, expected=2)
    assert [call[0] for call in benchmark(*FOLDERS, *SETTINGS)].count("evaluate") == 2


def test_make_shows_the_benchmarks_commands_without_running_them(benchmark, stage):
    _, text = stage.run("make", "-n", "-f", EXAMPLES / "benchmark.mk", *FOLDERS)
    assert benchmark("-n", *FOLDERS) == []
    assert text.count("localdiff translate") == 4
    assert text.count("localdiff evaluate") == 2
    assert not (stage.folder / "bench").exists()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_benchmark_names_what_is_missing(benchmark, missing):
    given = [folder for i, folder in enumerate(FOLDERS) if i != missing]
    assert f"{FOLDERS[missing].partition('=')[0]} is missing" in benchmark(*given, expected=2)


def docker_lines():
    text = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def sections():
    """The definition file's sections: stripped lines without comments."""
    name, found = "header", {"header": []}
    for line in map(str.strip, (EXAMPLES / "localdiff.def").read_text().splitlines()):
        if line.startswith("%"):
            name = line[1:]
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


def copied(image):
    """What an image takes from the checkout: source → place."""
    if image == "localdiff.def":
        return dict(line.split() for line in sections()["files"])
    found = {}
    for _, line in (entry for entry in docker_lines() if entry[0] == "COPY"):
        *sources, place = line.split()
        found |= {source: place + source if place.endswith("/") else place for source in sources}
    return found


@pytest.mark.parametrize("image", ["Dockerfile", "localdiff.def"])
def test_an_image_takes_from_the_checkout_what_the_build_needs(image):
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    needed |= {*build["packages"], *(path.split("/")[0] for path in build["force-include"])}
    assert set(copied(image)) == needed
    for source, place in copied(image).items():
        assert (ROOT / source).exists()
        assert place == f"/src/{source}"


def test_both_images_install_the_same_way():
    docker = dict(docker_lines())
    header = dict(line.split(": ") for line in sections()["header"])
    run = next(line for word, line in docker_lines() if word == "RUN" and "pip" in line)
    installs = [step.strip() for step in run.split("&&") if "pip install" in step]
    ours = [line.replace("{{ TORCH_INDEX }}", "$TORCH_INDEX") for line in sections()["post"] if line.startswith("pip install")]
    assert installs == ours
    assert len(ours) == 2
    assert all(value(shlex.split(line), "-c") == "constraints.txt" for line in ours)
    assert docker["FROM"] == header["From"]
    assert docker["ARG"] == sections()["arguments"][0]
    assert docker["ARG"].startswith("TORCH_INDEX=https://")
    assert shlex.split(ours[1])[-1] == ".[cluster,bids,dicom]"
    python = tuple(map(int, re.search(r"python:(\d+)\.(\d+)", docker["FROM"]).groups()))
    assert python >= tuple(map(int, PROJECT["project"]["requires-python"].strip(">=").split(".")))


def test_an_image_runs_localdiff_and_not_as_root():
    docker = dict(docker_lines())
    assert docker["ENTRYPOINT"] == '["localdiff"]'
    assert int(docker["USER"]) > 0
    assert f"useradd --uid {docker['USER']}" in (EXAMPLES / "Dockerfile").read_text()
    assert sections()["runscript"] == ['exec localdiff "$@"']
    assert "localdiff" in PROJECT["project"]["scripts"]


def test_nothing_is_written_but_outputs_and_into_tmp():
    docker = (EXAMPLES / "Dockerfile").read_text()
    for setting in ("MPLCONFIGDIR=/tmp/matplotlib", "XDG_CACHE_HOME=/tmp/cache", "PYTHONDONTWRITEBYTECODE=1"):
        assert setting in docker
        assert setting in " ".join(sections()["environment"])
    assert "HOME=/tmp" in docker


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed here")
    found = subprocess.run([hadolint, "--no-color", EXAMPLES / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def can_be_like_a_container():
    try:
        return subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def readable_by_all(path):
    return all(folder.stat().st_mode & 0o001 for folder in Path(path).resolve().parents)


@pytest.mark.skipif(not can_be_like_a_container(), reason="no mount and network namespaces here")
def test_localdiff_runs_with_a_read_only_root_another_uid_no_home_and_no_network(tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    check = "id -u; touch /etc/x || true; touch here; ls -d ~ || true; localdiff models list; cat /proc/net/dev"
    uid = "54321" if readable_by_all(sys.executable) and readable_by_all(ROOT / "x") else "0"
    kept = [str(folder) for folder in {ROOT, Path(sys.prefix)} if Path("/tmp") in folder.parents]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "LIKE_UID": uid, "LIKE_KEEP": ":".join(kept)}
    command = ["bash", EXAMPLES / "like_container.sh", tmp_path, "bash", "-c", check]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0] == uid
    assert "Read-only file system" in found.stderr
    assert (tmp_path / "here").exists()
    assert "t1-to-flair" in found.stdout
    assert "eth0" not in found.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".sh", ".mk", ".md", ".def", "")))
def test_every_example_that_is_named_exists(name):
    path = EXAMPLES / name
    text = path.read_text() if path.is_file() else ""
    for named in re.findall(r"examples/[\w./-]*\w", text):
        assert (ROOT / named).exists(), named
    for extras in re.findall(r"\[(\w+)\]'", text):
        assert extras in PROJECT["project"]["optional-dependencies"]
    assert re.findall(r"localdiff-env/bin/(\w+)", text) == (["pip", "localdiff"] if name == "OFFLINE.md" else [])
