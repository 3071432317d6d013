#!/usr/bin/env bash
# Train on the GPUs of one node or several: torchrun starts a process for each GPU; --data, --out and --work lie on a disk that all see.
#   sbatch examples/slurm_fit.sh translator --data pairs.tsv --condition T1w --target T2w --precision bf16 --out my-model
#   sbatch --nodes=4 --gpus-per-node=8 examples/slurm_fit.sh expert --base my-model --data pairs.tsv --out my-model
#   PROCESSES=2 sbatch --gpus-per-node=0 examples/slurm_fit.sh translator … --device cpu      two processes of a node without GPUs
# Make localdiff with its extra 'training' available (activate its environment) before sbatch, which takes your environment along.
#
# Before the time is up every process finishes its step, the first writes a checkpoint, and the job queues itself again and goes on from
# there, to the same weights. So does the same line after a failure. The batch of a step is --batch-size × --accumulate × processes.
#SBATCH --job-name=localdiff-fit
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=localdiff-fit-%j.log
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage: sbatch [--nodes=N] slurm_fit.sh translator|expert|segmenter OPTION of localdiff fit..." >&2
    exit 2
fi
read -r host < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-$processes} / processes))

stopped=
trap 'stopped=yes; kill -TERM "$run" 2>/dev/null || true' TERM
srun --kill-on-bad-exit=1 torchrun --nnodes="${SLURM_JOB_NUM_NODES:-1}" --nproc-per-node="$processes" \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$host:$((20000 + SLURM_JOB_ID % 12000))" \
    --no-python localdiff fit "$@" &
run=$!
code=0
wait "$run" || code=$?
if [ -n "$stopped" ]; then
    wait "$run" || true # the first wait ended with the signal; srun passes it on and ends when the checkpoint is written
    scontrol requeue "$SLURM_JOB_ID"
    exit 143
fi
exit "$code"
