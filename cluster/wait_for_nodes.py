"""Waits until a Ray cluster has its nodes: `python -m cluster.wait_for_nodes 4 --address HEAD:6379`."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence

_EVERY_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 once so many nodes are alive, 1 when the time is over."""
    parser = argparse.ArgumentParser(prog="python -m cluster.wait_for_nodes", description=__doc__)
    parser.add_argument("nodes", type=int, help="nodes that there should be, the head among them")
    parser.add_argument("--address", required=True, help="address of the Ray cluster, HOST:PORT")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        help="seconds to wait (default: 300)",
    )
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.timeout
    alive = 0
    while alive < options.nodes:
        alive, reason = _alive_within(options.address, max(0.0, until - time.monotonic()))
        if alive >= options.nodes:
            break
        if time.monotonic() >= until:
            why = f" ({reason})" if reason else ""
            sys.stderr.write(
                f"{options.address}: {alive} of {options.nodes} nodes joined within {options.timeout:g} s{why}; "
                "look into the logs of the others\n"
            )
            return 1
        time.sleep(_EVERY_S)
    return 0


def _alive_within(address: str, timeout_s: float) -> tuple[int, str]:
    """The same, if Ray says it in time: an attempt at an address where nobody answers takes it a minute."""
    answer = (0, "the head does not answer")

    def ask() -> None:
        nonlocal answer
        answer = _alive(address)

    attempt = threading.Thread(target=ask, daemon=True)  # not waited for when the process ends
    attempt.start()
    attempt.join(timeout_s)
    return answer


def _alive(address: str) -> tuple[int, str]:
    """How many nodes are alive, and why none, where the head does not answer yet."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return sum(node["Alive"] for node in ray.nodes()), ""
    except (ConnectionError, RuntimeError, ValueError) as error:
        return 0, str(error).strip().splitlines()[0]
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
