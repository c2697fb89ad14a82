#!/bin/bash
# A billion images on a Slurm cluster: every task of the array writes its share, one more job joins them.
#
#     sbatch examples/slurm.sh && sbatch --dependency=singleton --job-name=synthgen --wrap='synthgen merge /shared/billion'
#
# A task that fails or is requeued is simply run again: shards that are there are kept. To run some tasks again, name
# them: sbatch --array=3,17 examples/slurm.sh
# Nodes may be of different kinds: every processor draws the same pixels.
#SBATCH --job-name=synthgen
#SBATCH --array=0-99
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -eu
OUT=${OUT:-/shared/billion}
COUNT=${COUNT:-1000000000}
# The shards are dealt out among the whole array of above, however few of its tasks are run again: every run must say
# the same number. Without Slurm this script writes the whole set as one share.
OF=${OF:-$([ -n "${SLURM_ARRAY_TASK_ID:-}" ] && echo 100 || echo 1)}
synthgen export --count "$COUNT" --format tfrecord --out "$OUT" \
    --shard "${SLURM_ARRAY_TASK_ID:-0}" --of "$OF" \
    --workers "${SLURM_CPUS_PER_TASK:-1}"
