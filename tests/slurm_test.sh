#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# verify/examples/slurm_sweep.sh on a Slurm cluster of one node, started here as the user who runs this, on loopback
# alone, and stopped at the end: tasks are requeued while they run, and the merged report is that of one sweep.
#
#   tests/slurm_test.sh PATH/TO/mlstm        exit status 77: Slurm is not installed (said aloud)
set -euo pipefail
mlstm=$(realpath "$1")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$(dirname "$mlstm"):$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch; do
  if [ -z "$(command -v $program)" ]; then
    echo "NOT TESTED: $program is not there. The package slurm-wlm has it."
    exit 77
  fi
done

work=$(mktemp -d /tmp/mlstm_slurm_XXXXXX)
chmod 711 "$work"  # munged wants everybody to reach its socket
daemons=()
stop() {
  local status=$?
  # The daemons that were started here, last first; those of slurmd's jobs go with it.
  timeout 10 scancel --user="$(id -un)" >/dev/null 2>&1 || true
  for ((n = ${#daemons[@]} - 1; n >= 0; --n)); do
    kill "${daemons[n]}" 2>/dev/null || continue
    for ((patience = 50; patience > 0; --patience)); do
      kill -0 "${daemons[n]}" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "${daemons[n]}" 2>/dev/null || true
  done
  if [ $status -ne 0 ]; then
    for log in "$work"/*.log "$work"/sweep/log/*; do [ ! -e "$log" ] || { echo "== $log"; tail -n 30 "$log"; }; done
  fi
  rm -rf "$work"
  exit $status
}
trap stop EXIT

# A free port. Between here and the daemon's start somebody else may take it; then the test fails, and says so.
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

user=$(id -un)
mkdir -m 700 "$work/spool" "$work/state"
(umask 077 && head -c 1024 /dev/urandom >"$work/munge.key")
munged --foreground --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
  --log-file="$work/munge.log" --seed-file="$work/munge.seed" 2>"$work/munged.log" &
daemons+=($!)
# No cgroups, no accounting, no privileges: the daemons are ordinary processes.
# A requeued task waits until its credential has expired.
cat >"$work/slurm.conf" <<CONF
ClusterName=mlstm
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=$(port)
SlurmdPort=$(port)
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmdSpoolDir=$work/spool
StateSaveLocation=$work/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
KillWait=1
MpiDefault=none
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=localhost Default=YES MaxTime=10 State=UP
CONF
export SLURM_CONF=$work/slurm.conf
slurmctld -D -L "$work/slurmctld.log" >/dev/null 2>&1 &
daemons+=($!)
slurmd -D -N localhost -L "$work/slurmd.log" >/dev/null 2>&1 &
daemons+=($!)
for ((n = 0; ; ++n)); do
  [ "$(timeout 5 sinfo --noheader --format=%T 2>/dev/null)" != idle ] || break
  [ $n -lt 600 ] || { echo "the cluster did not come up"; exit 1; }
  sleep 0.1
done

selection=(--suite golden --dtype 'float32,bfloat16')
"$mlstm" verify "${selection[@]}" --report "$work/whole" >/dev/null 2>&1
merge=$("$root/verify/examples/slurm_sweep.sh" 3 "$work/sweep" "${selection[@]}")
array=$((merge - 1))
# Whatever runs is stopped, and begun again, a few times.
requeued=0
for ((n = 0; n < 1500; ++n)); do
  state=$(squeue --noheader --format='%i %T' --jobs="$merge" 2>/dev/null | cut -d' ' -f2)
  [ -n "$state" ] || break
  if [ $requeued -lt 3 ]; then
    for task in $(squeue --noheader --array --states=RUNNING --format=%i --jobs="$array" 2>/dev/null); do
      if scontrol requeue "$task" 2>/dev/null; then requeued=$((requeued + 1)); fi
    done
  fi
  sleep 0.1
done
[ -z "$state" ] || { squeue; echo "the jobs did not end"; exit 1; }
for name in report.json junit.xml summary.txt; do cmp "$work/whole/$name" "$work/sweep/report/$name"; done
[ $requeued -gt 0 ] || { echo "no task was requeued while it ran"; exit 1; }
echo "3 tasks, $requeued requeued while they ran: the merged report is that of one sweep"
tail -n 1 "$work/sweep/log/merge.txt"
