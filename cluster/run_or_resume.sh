#!/usr/bin/env bash
# Starts the search of a name, or goes on with it: what a scheduler that starts a job again needs.
#
#   cluster/run_or_resume.sh SPACE.yaml NAME RESULTS [ARGUMENT of search.run...]
#
# RESULTS is the folder that holds runs, the same on all nodes, or s3://BUCKET/FOLDER. The exit status is that of
# search.run; the process becomes search.run, so that a signal sent to it arrives there.
set -euo pipefail

if (($# < 3)); then
  echo "usage: $0 SPACE.yaml NAME RESULTS [ARGUMENT of search.run...]" >&2
  exit 2
fi
space=$1 name=$2 results=$3
shift 3

exec python -m search.run "$space" --name "$name" --storage-path "$results" --or-resume "$@"
