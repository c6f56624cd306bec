#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A sweep as a Slurm job array: every task judges its share of the problems, a last job merges the reports.
#
#   verify/examples/slurm_sweep.sh TASKS OUT [options of "mlstm verify" that choose problems and variants]
#
# Needs `mlstm` on PATH (here and on the nodes) and OUT on a file system that all of them see. Options of sbatch go into
# SBATCH_... variables (SBATCH_PARTITION, SBATCH_TIMELIMIT, ...). Prints the number of the merging job. The result is
# OUT/report: report.json, junit.xml, summary.txt, the same as from one sweep.
#
# A task that is preempted, requeued, killed or run again goes on where it was (--resume), and so does the whole array
# if this script is called again with the same arguments. Remove OUT to begin anew.
#
#SBATCH --job-name=mlstm
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  [ $# -ge 2 ] || { sed -n '3,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
  tasks=$1 out=$(realpath -m "$2")
  mkdir -p "$out/log"
  array=$(sbatch --parsable --array="1-$tasks" --output="$out/log/task%a.txt" "$0" "$tasks" "$out" "${@:3}")
  # afterok: only if every task got through all of its problems, whatever the verdicts
  shards=()
  for ((task = 1; task <= tasks; ++task)); do shards+=("$out/shard$task"); done
  sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --job-name=mlstm-merge \
    --output="$out/log/merge.txt" --wrap "mlstm report merge $(printf '%q ' "$out/report" "${shards[@]}")"
  exit
fi

tasks=$1 out=$2
status=0
mlstm verify "${@:3}" --threads "${SLURM_CPUS_PER_TASK:-1}" --shard "$SLURM_ARRAY_TASK_ID/$tasks" \
  --report "$out/shard$SLURM_ARRAY_TASK_ID" --resume || status=$?
# 1: something failed; 3: this share held nothing to judge. Both are for the merged report to say.
[ $status -eq 1 ] || [ $status -eq 3 ] || exit $status
