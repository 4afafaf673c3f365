#!/usr/bin/env bash
# Starts the search of a name, or goes on with it: what a scheduler that starts a job again needs.
#
#   cluster/run_or_resume.sh SPACE.yaml NAME RESULTS [ARGUMENT of search.run...]
#
# RESULTS is the folder that holds runs, the same on all nodes. The exit status is that of search.run; the process
# becomes search.run, so that a signal sent to it arrives there.
set -euo pipefail

if (($# < 3)); then
  echo "usage: $0 SPACE.yaml NAME RESULTS [ARGUMENT of search.run...]" >&2
  exit 2
fi
space=$1 name=$2 results=$3
shift 3

if [[ -f $results/$name/config.yaml ]]; then
  echo "going on with $results/$name"
  exec python -m search.run --resume "$name" --storage-path "$results" "$@"
fi
if [[ -d $results/$name ]]; then
  # Killed before the run had a configuration: its folder holds at most the lock of a process that is gone.
  rm -f "$results/$name/.lock"
  rmdir "$results/$name" || { echo "$results/$name: is no run of vistune; remove it, or take another NAME" >&2; exit 2; }
fi
exec python -m search.run "$space" --name "$name" --storage-path "$results" "$@"
