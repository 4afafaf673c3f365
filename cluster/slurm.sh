#!/usr/bin/env bash
# A search on nodes of a SLURM cluster: a Ray cluster for the time of the job, started again where it was cut off.
#
#   sbatch cluster/slurm.sh SPACE.yaml NAME [ARGUMENT of search.run...]
#   sbatch --nodes=4 --gpus-per-node=8 cluster/slurm.sh spaces/large_dataset.yaml first
#
# From the root of the checkout, in a folder that all nodes share, with its environment in .venv (make setup). Results go
# to $VISTUNE_RESULTS, by default results/ there. Before the time limit, and when SLURM preempts the job, the search saves
# what it has, the job is queued again under the same number, and goes on.
#
#SBATCH --job-name=vistune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# USR1 to this script (B), not to the steps, 3 minutes before the end: so long may the last epochs take to be saved.
#SBATCH --signal=B:USR1@180
set -euo pipefail

if (($# < 2)); then
  echo "usage: sbatch $0 SPACE.yaml NAME [ARGUMENT of search.run...]" >&2
  exit 2
fi
space=$1 name=$2
shift 2
cd "$SLURM_SUBMIT_DIR"
[[ -z ${VISTUNE_VENV-.venv} ]] || PATH=$(cd "${VISTUNE_VENV-.venv}/bin" && pwd):$PATH
export PATH

# Short, since sockets lie below; on the node's own disk, as are decoded images.
export RAY_TMPDIR=${VISTUNE_RAY_TMPDIR-/tmp/ray-$SLURM_JOB_ID}
export VISTUNE_CACHE=${VISTUNE_CACHE:-${SLURM_TMPDIR:-/tmp}/vistune-cache-$(id -un)}
export RAY_USAGE_STATS_ENABLED=0
# Others on the network, and other users of the nodes, cannot speak to this cluster without the token in your home folder.
export RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null

# Two jobs on one node must not meet.
port=$((20000 + SLURM_JOB_ID % 10000))
# Read to their ends: under pipefail a reader that stops early ends the job, by the writer's SIGPIPE.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')
on_one=(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head")
# Debian's hosts file gives a machine's own name a loopback address, where no other node finds it.
address=$("${on_one[@]}" bash -c 'hostname --ip-address; hostname -I' | awk '
  {for (i = 1; i <= NF; i++) if (!found && $i ~ /^[0-9.]+$/ && $i !~ /^127\./) {print $i; found = 1}}')
if [[ -z $address ]]; then
  ((SLURM_JOB_NUM_NODES == 1)) || { echo "$head: has no IPv4 address but a loopback, so no node would find it" >&2; exit 1; }
  address=127.0.0.1
fi
address=$address:$port

# Since SLURM 22.05 a step does not take over --cpus-per-task.
cpus=${SLURM_CPUS_PER_TASK:-1}
node=(--num-cpus="$cpus" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)
steps=() driver='' again=0 to_end=0

stop_cluster() {
  local step
  for step in "${steps[@]}"; do kill -TERM "$step" 2> /dev/null || true; done
  for step in "${steps[@]}"; do wait "$step" 2> /dev/null || true; done
  steps=()
}
trap stop_cluster EXIT

# The search ends as on Ctrl-C: what is finished is saved, running trials keep their last epoch.
# shellcheck disable=SC2317,SC2329 # called by the traps
save() {
  to_end=1
  echo "$(date '+%F %T'): the job is to end; the search saves what it has"
  [[ -z $driver ]] || kill -TERM "$driver" 2> /dev/null || true
}
# Before the time limit (--signal above): the job is queued again. TERM comes on preemption, and then too; and from
# scancel, which means the end: then SLURM does not call the job running any more.
trap 'again=1; save' USR1
trap 'is_running && again=1; save' TERM
# shellcheck disable=SC2317,SC2329
is_running() { [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2> /dev/null) == RUNNING ]]; }

"${on_one[@]}" --cpus-per-task="$cpus" ray start --head --node-ip-address="${address%:*}" --port="$port" \
  --dashboard-host=127.0.0.1 --dashboard-port="${VISTUNE_DASHBOARD_PORT:-8265}" "${node[@]}" &
steps+=($!)
if ((SLURM_JOB_NUM_NODES > 1)); then
  others=$((SLURM_JOB_NUM_NODES - 1))
  # A worker that is there before the head tries again for a minute by itself.
  srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" --cpus-per-task="$cpus" \
    ray start --address="$address" "${node[@]}" &
  steps+=($!)
fi

# Runs a command to its end; a signal to this script ends `wait`, and by `save` the command. Its status is in `status`.
run() {
  "$@" &
  driver=$!
  while kill -0 "$driver" 2> /dev/null; do wait "$driver" || true; done
  status=0
  wait "$driver" || status=$?
  driver=''
}

# Trials at a time are counted from what has joined. Where some do not, the next nodes may.
status=130
((to_end)) || run python -m cluster.wait_for_nodes "$SLURM_JOB_NUM_NODES" --address "$address" --timeout 300
if ((status == 0)); then
  status=130
  ((to_end)) || run cluster/run_or_resume.sh "$space" "$name" "${VISTUNE_RESULTS:-results}" --address "$address" "$@"
fi
stop_cluster
# A search that ended by itself in these minutes is over; one that was interrupted goes on. So does one that broke: SLURM may
# have told Ray's processes too, before the search had saved.
if ((again && (status == 130 || status == 1 || status == 143))); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
