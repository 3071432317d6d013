#!/usr/bin/env bash
# Run examples/gpu/check.py or train.py on a machine with an NVIDIA card, after installing what is missing there.
#   bash examples/gpu/run.sh check [OPTION...]      bash examples/gpu/run.sh train [OPTION...]
# The python3 of the machine is taken where it has a PyTorch for CUDA; else a venv in gpu.work gets the build that pip finds.
#   WHEELS=folder     install from a folder of wheels, without a network
#   TORCH_INDEX=URL   PyTorch's index for your CUDA version (pytorch.org, "Get started")
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:?usage: run.sh check|train [OPTION...]}
python=${PYTHON:-python3}
site=$PWD/gpu.work/site
mkdir -p "$site"
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=PASSIVE LOGNAME="${LOGNAME:-localdiff}"

if [[ " $* " != *" --rehearse "* ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    "$python" -m venv gpu.work/venv
    python=gpu.work/venv/bin/python
    "$python" -m pip install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
fi
# Only what this python lacks is installed, beside it: its own torch stays.
for _ in 1 2 3 4; do
    missing=$("$python" -m examples.gpu.missing)
    [ -n "$missing" ] || break
    echo "installing into gpu.work/site: $missing"
    # shellcheck disable=SC2086
    "$python" -m pip install --quiet --no-deps --target "$site" ${WHEELS:+--no-index --find-links "$WHEELS"} $missing
done
exec "$python" -m "examples.gpu.$what" "${@:2}"
