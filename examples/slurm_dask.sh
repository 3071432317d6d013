#!/usr/bin/env bash
# Translate a folder on several nodes with Dask: one Slurm job with a scheduler and a worker a node. Needs localdiff[cluster].
#   sbatch --nodes=4 examples/slurm_dask.sh IN OUT [MODEL [OPTION...]]
#   sbatch --nodes=4 --gres=gpu:1 examples/slurm_dask.sh IN OUT t1-to-t2 --device cuda
# Make localdiff available (activate its environment) before sbatch; IN, OUT and the environment must be on a file system of all nodes.
# Whoever reaches the scheduler's port can run code as you: where others use the same network, take slurm_array.sh.
#
# Exit codes: those of localdiff; 143 also when the workers ended. Then submit the same line again: finished volumes are skipped.
#SBATCH --job-name=localdiff-dask
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=localdiff-%j.log
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage: sbatch [--nodes=N] slurm_dask.sh IN OUT [MODEL [OPTION of localdiff translate...]]" >&2
    exit 2
fi
host=${SLURMD_NODENAME:-$(hostname)}
port=$((20000 + SLURM_JOB_ID % 12000))
cores=${SLURM_CPUS_PER_TASK:-1}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

dask scheduler --port "$port" --no-dashboard &
scheduler=$!
until (: <"/dev/tcp/$host/$port") 2>/dev/null; do
    kill -0 "$scheduler" 2>/dev/null || { echo "the scheduler did not start" >&2; exit 4; }
    sleep 0.2
done

# A worker does one volume at a time (--nthreads 1) on all its cores: Dask by itself would leave it one. Slurm watches the memory.
export OMP_NUM_THREADS=$cores MKL_NUM_THREADS=$cores OPENBLAS_NUM_THREADS=$cores OMP_WAIT_POLICY=PASSIVE
srun --ntasks-per-node=1 --cpus-per-task="$cores" --kill-on-bad-exit=0 \
    dask worker "tcp://$host:$port" --nthreads 1 --memory-limit 0 --no-dashboard &
localdiff translate --in "$1" --out "$2" --model "${3:-t1-to-t2}" --cluster "dask://$host:$port" "${@:4}" &
run=$!

# The wait is over when the run is, when Slurm warns, or when workers or scheduler end: without them the run would wait for ever.
trap : TERM
code=0
wait -n || code=$?
if kill -0 "$run" 2>/dev/null; then
    kill -TERM "$run"
    code=0
    wait "$run" || code=$?
fi
exit "$code"
