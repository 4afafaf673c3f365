#!/usr/bin/env bash
# Tells the cluster that this node goes: nothing new is placed on it, and what runs on it has SECONDS to end.
#
#   cluster/drain_node.sh [SECONDS]     # 60 by default; for a spot notice, a pod that ends, maintenance
#
# Returns once the time is over or Ray has left this node, never with an error: whoever takes the node does not wait.
set -uo pipefail

seconds=${1:-60}
ray drain-node ${RAY_ADDRESS:+--address "$RAY_ADDRESS"} ${RAY_NODE_ID:+--node-id "$RAY_NODE_ID"} \
  --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the node is taken away" \
  --deadline-remaining-seconds "$seconds" || exit 0
for ((waited = 0; waited < seconds; waited++)); do
  pgrep -u "$(id -u)" -x raylet > /dev/null || exit 0
  sleep 1
done
