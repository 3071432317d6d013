#!/usr/bin/env bash
# Translate a folder as a Slurm array: every task does its share of the volumes, all into one folder. Needs no Dask.
#   sbatch examples/slurm_array.sh IN OUT [MODEL [OPTION...]]
#   sbatch --array=1-64 --gres=gpu:1 examples/slurm_array.sh IN OUT t1-to-t2 --device cuda
#   SHARDS=16 sbatch --array=3,7 examples/slurm_array.sh IN OUT      some of the 16 tasks again
# Make localdiff available (activate its environment) before sbatch, which takes your environment along.
#
# Exit codes, as sacct shows them: 0 all done; 1 done but for the volumes in OUT/failures.tsv; 143 stopped before the time was up.
# After 143, or anything that ended a task early, submit the same line again: finished volumes are skipped.
#SBATCH --job-name=localdiff
#SBATCH --array=1-16
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=localdiff-%A_%a.log
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    echo "usage: sbatch [--array=1-N] slurm_array.sh IN OUT [MODEL [OPTION of localdiff translate...]]" >&2
    exit 2
fi

# exec: the SIGTERM that Slurm sends a minute before the end (--signal=B:) goes to the script's process, so localdiff has to be that one.
exec localdiff translate --in "$1" --out "$2" --model "${3:-t1-to-t2}" --jobs "${JOBS:-1}" \
    --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}" "${@:4}"
