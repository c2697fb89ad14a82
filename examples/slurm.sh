#!/bin/bash
# A billion images on a Slurm cluster: every task of the array writes its share, one more job joins them.
#
#     sbatch examples/slurm.sh && sbatch --dependency=singleton --job-name=synthgen --wrap='synthgen merge /shared/billion'
#
# A task that fails or is requeued is simply run again: shards that are there are kept.
# Ask for nodes of one kind (--constraint): processors that round otherwise are refused.
#SBATCH --job-name=synthgen
#SBATCH --array=0-99
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -eu
OUT=${OUT:-/shared/billion}
COUNT=${COUNT:-1000000000}
# Slurm counts from SLURM_ARRAY_TASK_MIN; without Slurm this script writes the whole set as one share.
synthgen export --count "$COUNT" --format tfrecord --out "$OUT" \
    --shard "$((${SLURM_ARRAY_TASK_ID:-0} - ${SLURM_ARRAY_TASK_MIN:-0}))" --of "${SLURM_ARRAY_TASK_COUNT:-1}" \
    --workers "${SLURM_CPUS_PER_TASK:-1}"
