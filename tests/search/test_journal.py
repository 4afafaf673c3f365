"""The run's journal: the lines that Optuna would write, in batches, beside whatever other programs append."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from search.journal import RunJournal, RunStorage


def study_in(journal: JournalFileBackend) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    storage = RunStorage(journal) if isinstance(journal, RunJournal) else JournalStorage(journal)
    return optuna.create_study(
        storage=storage, study_name="x", load_if_exists=True, sampler=sampler, direction="maximize"
    )


def propose(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_categorical("arch", ["a", "b"])
    trial.set_user_attr("outcome", {"status": "stopped", "best_epoch": None})
    return trial


def content(trials: list[FrozenTrial]) -> list[object]:
    return [(t.number, t.state, t.params, t.values, t.user_attrs, t.intermediate_values) for t in trials]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.log"


def test_others_read_what_it_wrote(path: Path) -> None:
    journal = RunJournal(path)
    study = study_in(journal)
    for number in range(5):
        with journal.batch():
            trial = propose(study)
        study._storage.set_trial_intermediate_value(trial._trial_id, 1, number / 10)
        study.tell(trial, number / 10)
    study.enqueue_trial({"arch": "b"})
    by_optuna = study_in(JournalFileBackend(str(path))).get_trials()
    assert len(by_optuna) == 6
    assert content(study.get_trials()) == content(by_optuna)
    assert content(study_in(RunJournal(path)).get_trials()) == content(by_optuna)


def test_a_batch_is_answered_from_memory_and_written_at_its_end(path: Path) -> None:
    journal = RunJournal(path)
    study = study_in(journal)
    before = path.read_bytes()
    with journal.batch():
        with journal.batch():
            propose(study)
        assert path.read_bytes() == before
        assert study.trials[0].params.keys() == {"lr", "arch"}
    assert path.read_bytes().count(b"\n") == before.count(b"\n") + 4


def test_what_others_append_is_seen(path: Path) -> None:
    journal = RunJournal(path)
    ours, theirs = study_in(journal), study_in(JournalFileBackend(str(path)))
    theirs.set_user_attr("before", 1)
    propose(ours)
    with journal.batch():
        trial = propose(ours)
        theirs.set_user_attr("meanwhile", 2)
        trial.set_user_attr("note", "ours")
    assert ours.user_attrs == theirs.user_attrs == {"before": 1, "meanwhile": 2}
    propose(ours)
    assert content(ours.get_trials()) == content(theirs.get_trials())


def test_an_unfinished_line_of_a_killed_driver_is_cut_off(path: Path) -> None:
    propose(study_in(RunJournal(path)))
    sound = path.read_bytes()
    path.write_bytes(sound + b'{"op_code":5,"wor')
    study = study_in(RunJournal(path))
    assert len(study.trials) == 1
    study.set_user_attr("after", True)
    assert path.read_bytes().startswith(sound + b'{"op_code":0,')
    assert study_in(JournalFileBackend(str(path))).user_attrs == {"after": True}


def test_what_cannot_be_written_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = RunJournal(path)
    study = study_in(journal)
    propose(study)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", descriptor)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        study._storage.set_trial_state_values(0, TrialState.COMPLETE, [1.0])
    assert path.read_bytes() == before
    assert study.trials[0].state is TrialState.RUNNING
    study._storage.set_trial_state_values(0, TrialState.COMPLETE, [1.0])
    assert content(study_in(JournalFileBackend(str(path))).get_trials()) == content(study.get_trials())


def test_waiting_trials_are_proposed_in_their_order_whenever_they_came(path: Path) -> None:
    study = study_in(RunJournal(path))
    for lr in (0.01, 0.02):
        study.enqueue_trial({"lr": lr})
    assert propose(study).params["lr"] == 0.01
    study.enqueue_trial({"lr": 0.03})
    study = study_in(RunJournal(path))  # as after a restart
    assert [propose(study).params["lr"] for _ in range(2)] == [0.02, 0.03]
    assert propose(study).params["lr"] not in (0.01, 0.02, 0.03)
    study.enqueue_trial({"lr": 0.04})
    assert propose(study).params["lr"] == 0.04


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files may grow to so many bytes, as on a disk with no room for more."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal = RunJournal(path)
    journal.append_logs([{"epoch": 1}])
    with room_for(path.stat().st_size + 5), pytest.raises(OSError, match="File too large"):
        journal.append_logs([{"epoch": 2}])
    assert path.read_text() == '{"epoch":1}\n'
    assert not os.path.lexists(f"{path}.lock")
    journal.append_logs([{"epoch": 2}, {"epoch": 3}])
    assert list(RunJournal(path).read_logs(0)) == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]


@pytest.mark.parametrize("half", ['{"epoch', "x" * 200_000])
@pytest.mark.parametrize("whole", ["", '{"epoch":1}\n'])
def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path, whole: str, half: str) -> None:
    path = tmp_path / "study.log"
    path.write_text(whole + half)
    RunJournal(path).append_logs([{"epoch": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()][-1] == {"epoch": 2}
    assert path.read_text() == whole + '{"epoch":2}\n'
