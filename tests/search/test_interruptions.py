"""A trial's own error is told from the loss of its worker, also inside what Ray wraps around both."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from search.interruptions import NodeTakenBackError, interruption_from_text, interruption_of
from search.launch import interruption_of_files
from search.restarts import Kind, Restarts
from trainables.errors import CrowdedError

DIED = RayActorError(actor_id="0a", error_msg="The actor died.\nIt was killed by signal 9.")
PREEMPTED = RayActorError(actor_id="0a", error_msg="The node was preempted.", preempted=True)
NEVER_STARTED = RayActorError(actor_id="0a", error_msg="No module named vistune", actor_init_failed=True)
MEMORY = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory. It had 2 GB.\nPages follow.")
GLOO = RuntimeError("[/pytorch/third_party/gloo] Connection closed by peer [127.0.0.1]:22334")
GLOO_TIMED_OUT = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting")
OWN = ValueError("lr must be above 0")


def in_task(error: Exception) -> RayTaskError:
    return RayTaskError("train", "Traceback ...", error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DIED, Kind.LOST),
        (ActorDiedError(), Kind.LOST),
        (PREEMPTED, Kind.PREEMPTED),
        (NodeTakenBackError("connection reset"), Kind.PREEMPTED),
        (MEMORY, Kind.MEMORY),
        (in_task(DIED), Kind.LOST),
        (WorkerGroupError("", {0: GLOO, 1: DIED}), Kind.LOST),
        (WorkerGroupError("", {0: GLOO, 1: PREEMPTED}), Kind.PREEMPTED),
        (WorkerGroupError("", {0: GLOO, 1: MEMORY}), Kind.MEMORY),
        (WorkerGroupError("", {0: GLOO}), Kind.LOST),  # the dead one has not been noticed yet
        (WorkerGroupError("", {0: GLOO_TIMED_OUT}), Kind.LOST),
        (ControllerError(DIED), Kind.LOST),
        (WorkerGroupError("", {0: WorkerHealthCheckFailedError("A health check failed.", failure=DIED)}), Kind.LOST),
        (WorkerGroupError("", {0: WorkerHealthCheckFailedError("", failure=PREEMPTED)}), Kind.PREEMPTED),
        (WorkerGroupError("", {0: WorkerHealthCheckTimeoutError("A worker does not answer.")}), Kind.LOST),
        (WorkerGroupError("", {0: WorkerHealthCheckFailedError("", failure=in_task(OWN))}), None),
        (OWN, None),
        (in_task(OWN), None),
        (NEVER_STARTED, None),
        (WorkerGroupError("", {0: OWN, 1: in_task(OWN)}), None),
    ],
)
def test_losses_are_told_from_errors(error: Exception, kind: Kind | None) -> None:
    found = interruption_of(error, in_group=True)
    assert (None if found is None else found.kind) == kind


def test_a_trial_with_one_worker_has_no_peer_to_lose() -> None:
    assert interruption_of(GLOO) is None


def test_what_is_said_is_one_line() -> None:
    died, memory = interruption_of(DIED), interruption_of(MEMORY)
    assert died is not None
    assert died.message == "It was killed by signal 9."
    assert memory is not None
    assert memory.message == "1 worker(s) were killed due to the node running low on memory. It had 2 GB."


def test_text_alone_tells_memory_from_the_rest() -> None:
    assert interruption_from_text(f"Failure # 1\n{MEMORY}").kind is Kind.MEMORY
    broken = interruption_from_text("Failure # 1\nCUDA error: \x1b[31mdevice-side assert\x1b[0m\n")
    assert (broken.kind, broken.message) == (Kind.BROKEN, "CUDA error: device-side assert")
    assert interruption_from_text("").message == "its process ended without a message"


def test_losses_are_counted_anew_after_an_epoch() -> None:
    restarts = Restarts()
    for epoch, in_a_row in ((0, 1), (0, 2), (3, 1), (3, 2), (4, 1)):
        restarts = restarts.after(Kind.LOST, epoch=epoch)
        assert restarts.in_a_row == in_a_row
    restarts = restarts.after(Kind.PREEMPTED, epoch=4)
    assert restarts.words == "restarted: 5 after a lost worker, 1 after a preemption"


def test_what_is_told_of_a_loss_has_no_secrets() -> None:
    found = interruption_from_text("Traceback\nConnectionError: GET /x?token=abcdef123 connection refused")
    assert found.message == "ConnectionError: GET /x?token=*** connection refused"


def test_trials_that_crowd_each_other_out_go_on_until_one_is_alone() -> None:
    found = interruption_of_files(CrowdedError(15, "CUDA out of memory"))
    assert found is not None and found.may_go_on
    restarts = Restarts()
    for _ in range(6):
        restarts = restarts.after(found.kind, epoch=0)
    assert (restarts.in_a_row, restarts.lost) == (0, 6)
