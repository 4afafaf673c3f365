#!/usr/bin/env bash
# A Ray cluster on machines that are there: over ssh, without root, and without touching any other Ray on them.
#
#   cluster/start_on_premise.sh start  HEAD [WORKER...]     # a machine that runs already is left as it is
#   cluster/start_on_premise.sh status HEAD [WORKER...]
#   cluster/start_on_premise.sh stop   HEAD [WORKER...]     # of this cluster only, workers first
#
# HEAD and WORKER are as for ssh: a name, an address, or user@host, with a key and no password. On every machine the
# checkout lies in the same folder, with its environment in .venv (make setup), and results/ is the same shared folder.
#
# Settings, by environment variable:
#   VISTUNE_DIR             the checkout on the machines (default: the path of this one)
#   VISTUNE_HEAD_IP         address of HEAD for the workers (default: HEAD, less user@, as this machine finds it)
#   VISTUNE_PORT            of the cluster (default: 6379); another one for a second cluster
#   VISTUNE_DASHBOARD_PORT  of dashboard and job server on HEAD's loopback (default: 8265)
#   VISTUNE_RAY_ARGS        more arguments for each `ray start`, as "--num-gpus=2"
#   VISTUNE_CACHE           decoded images, on each machine's own disk (default: ~/.cache/vistune)
set -euo pipefail

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
(($# >= 2)) || usage
action=$1 head=$2
shift 2
workers=("$@")

folder=${VISTUNE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
port=${VISTUNE_PORT:-6379}
dashboard_port=${VISTUNE_DASHBOARD_PORT:-8265}
head_ip=${VISTUNE_HEAD_IP:-${head#*@}}
# The interface for groups of workers is found by a numeric address. Of its own name a machine may have a loopback one.
if [[ ! $head_ip =~ ^[0-9.]+$ ]]; then
  found=$(getent ahostsv4 "$head_ip" 2> /dev/null | awk '!found && $1 !~ /^127\./ {print $1; found = 1}') || true
  head_ip=${found:-$head_ip}
fi

# Runs a function of this file on a machine, with its arguments; what comes on standard input arrives there.
on() {
  local host=$1 name=$2 words script
  shift 2
  printf -v words ' %q' "$@"
  script="$(declare -f is_running "$name"); $name$words"
  # In single quotes, which every login shell understands, whatever it is.
  ssh -o BatchMode=yes -o ConnectTimeout=10 "$host" "bash -c '${script//\'/\'\\\'\'}'"
}

# Whether the process that a file names was started here and lives: after a reboot its number may be any other's.
is_running() {
  [[ -f $1 ]] && ps -o args= -p "$(< "$1")" 2> /dev/null | grep -q 'ray start'
}

# The token comes by standard input: arguments can be read by every user of a machine. Its file is this cluster's own.
node_start() {
  local key=$1 folder=$2 cache=$3 state=$HOME/.vistune token
  shift 3
  set -eu
  umask 077
  mkdir -p "$state"
  token=$(cat)
  if is_running "$state/$key.pid"; then
    [[ $token == "$(< "$state/$key.token")" ]] && echo "runs already" && return
    echo "runs already, with another token: give that of $state/$key.token there as RAY_AUTH_TOKEN, or stop the cluster" >&2
    return 1
  fi
  printf '%s\n' "$token" > "$state/$key.token"
  cd "$folder"
  export PATH=$folder/.venv/bin:$PATH RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/$key.token
  export RAY_USAGE_STATS_ENABLED=0 VISTUNE_RESULTS=${VISTUNE_RESULTS:-$folder/results}
  [[ -z $cache ]] || export VISTUNE_CACHE=$cache
  # In a session of its own, so that it outlives this connection and can be ended as a whole.
  setsid nohup ray start "$@" --disable-usage-stats --block > "$state/$key.log" 2>&1 < /dev/null &
  echo $! > "$state/$key.pid"
  for ((waited = 0; waited < 60; waited++)); do
    if grep -q 'Ray runtime started' "$state/$key.log"; then
      echo "started"
      return
    fi
    kill -0 "$(< "$state/$key.pid")" 2> /dev/null || break
    sleep 1
  done
  tail -n 20 "$state/$key.log" >&2
  echo "Ray did not start; the log is in $state/$key.log" >&2
  return 1
}

node_status() {
  local key=$1 state=$HOME/.vistune
  if is_running "$state/$key.pid"; then echo "runs"; else echo "stopped"; return 1; fi
}

# `ray stop` would end every Ray of this user on the machine. What was started here is a session, known by its leader.
node_stop() {
  local key=$1 state=$HOME/.vistune pid only=()
  if [[ ! -f $state/$key.pid ]]; then
    echo "stopped before"
    return
  fi
  pid=$(< "$state/$key.pid")
  # Without its leader, the session may be another's by now, and what is Ray's there is what is left of this one.
  if is_running "$state/$key.pid"; then kill -TERM "$pid" 2> /dev/null || true; else only=(-f ray); fi
  for ((waited = 0; waited < 30; waited++)); do
    pgrep -s "$pid" "${only[@]}" > /dev/null || break
    sleep 1
  done
  pkill -KILL -s "$pid" "${only[@]}" || true
  rm -f "$state/$key.pid" "$state/$key.token"
  echo "stopped"
}

key_of() { echo "ray-$port-${1//[^A-Za-z0-9._-]/_}"; }

start() {
  local host token failed=0 more=()
  # shellcheck disable=SC2206 # words, as the caller wrote them
  more=(${VISTUNE_RAY_ARGS:-})
  ray get-auth-token --generate > /dev/null
  token=$(ray get-auth-token)
  echo -n "$head (head): "
  on "$head" node_start "$(key_of "$head")" "$folder" "${VISTUNE_CACHE:-}" --head --node-ip-address="$head_ip" \
    --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" "${more[@]}" <<< "$token"
  for host in "${workers[@]}"; do
    echo -n "$host: "
    on "$host" node_start "$(key_of "$host")" "$folder" "${VISTUNE_CACHE:-}" --address="$head_ip:$port" "${more[@]}" \
      <<< "$token" || failed=1
  done
  cat << END
search on it from $head:     RAY_AUTH_TOKEN_PATH=~/.vistune/$(key_of "$head").token python -m search.run SPACE.yaml --address $head_ip:$port
from here, first a tunnel:   ssh -N -L $dashboard_port:127.0.0.1:$dashboard_port $head
then a job:                  python -m cluster.submit SPACE.yaml --address http://127.0.0.1:$dashboard_port
END
  return "$failed"
}

# Runs a function of this file on machines, one after the other, whatever becomes of those before.
on_each() {
  local name=$1 host failed=0
  shift
  for host in "$@"; do
    echo -n "$host: "
    on "$host" "$name" "$(key_of "$host")" < /dev/null || failed=1
  done
  return "$failed"
}

status() {
  on_each node_status "$head" "${workers[@]}"
}

stop() {
  on_each node_stop "${workers[@]}" "$head"
}

case $action in
  start | status | stop) "$action" ;;
  *) usage ;;
esac
