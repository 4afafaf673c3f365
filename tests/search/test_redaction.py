"""Secrets never reach a run's files: not by the command line, not by the text of an error."""

from __future__ import annotations

import errno
import io
import logging
import sys
from pathlib import Path

import pytest

from search.redacted_stream import redacted_output
from search.redaction import redacted

_HF, _AWS = "hf_" + "aB3" * 10, "AKIA" + "ABCD1234" * 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "search.run x.yaml --address http://me:pa55word@head:8265",
            "search.run x.yaml --address http://***@head:8265",
        ),
        ("--address https://s3cr3tword@head", "--address https://***@head"),
        ("redis://:hunter2hunter2@vistune-redis:6379/0", "redis://***@vistune-redis:6379/0"),
        ("--token abcdef --name first", "--token *** --name first"),
        ("RAY_AUTH_TOKEN=0123abc python -m x", "RAY_AUTH_TOKEN=*** python -m x"),
        ('{"api_key": "0123abc", "lr": 0.1}', '{"api_key": "***", "lr": 0.1}'),
        ("GET /x?X-Amz-Signature=00ff&part=1", "GET /x?X-Amz-Signature=***&part=1"),
        ("Authorization: Bearer eyJhbGciOi.J9", "Authorization: Bearer ***"),
        (f"401 for {_HF} at hub", "401 for *** at hub"),
        (f"key {_AWS}", "key ***"),
        ("AWS_SECRET_ACCESS_KEY='abc/def'", "AWS_SECRET_ACCESS_KEY='***'"),
        ('password="my secret pass" next', 'password="***" next'),
        ("postgres://u:p@ss/w0rd@host/db", "postgres://***@host/db"),
        ("--api-key 'a b' --lr 1", "--api-key '***' --lr 1"),
        ("AccountKey=abc/d==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
        ("https://x.blob/c?sv=1&sig=a%2Fb&se=2", "https://x.blob/c?sv=1&sig=***&se=2"),
        ("github_pat_" + "1Ab_" * 10, "***"),
        ("sk-proj-" + "aB3" * 10, "***"),
        (f"jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{'s' * 20}", "jwt ***"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, told: str) -> None:
    assert redacted(text, environment={}) == told


@pytest.mark.parametrize(
    "text",
    [
        "python -m search.run spaces/small_dataset.yaml -o space.lr=0.001 --name first",
        "results/tokens/a@b: the image cannot be read",
        "http://127.0.0.1:8265 and ray://head:10001",
        "space.arch: unknown architecture, found 'vit_tiny_patch16_224'; write one of resnet18, cnn",
        "trial 3: tokenizer=bert keyboard=us monkey=1",
        "2026-01-02 03:04:05 epoch 3 of 9",
        "the token was wrong; a password is needed",
        "pip install git+https://github.com/x/y@v1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text, environment={"HOME": "/home/me", "RAY_AUTH_TOKEN_PATH": "/home/me/.ray/auth_token"}) == text


def test_values_of_secret_variables_are_hidden_wherever_they_stand() -> None:
    environment = {
        "RAY_AUTH_TOKEN": "correct horse",
        "WANDB_API_KEY": "c0ffee" * 3,
        "SHORT_TOKEN": "abc",
        "GITHUB_PAT": "ghpgithubpat",
        "DB_PWD": "dbpassword1",
        "WANDB_KEY": "wandbkey12",
        "PWD": "/home/me",
        "LANG": "de_DE",
    }
    text = f"abc de_DE (correct horse) {'c0ffee' * 3}/x ghpgithubpat dbpassword1 wandbkey12 /home/me"
    assert redacted(text, environment=environment) == "abc de_DE (***) ***/x *** *** *** /home/me"


def test_a_key_that_begins_like_a_path_is_hidden_and_the_path_of_a_key_is_not(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    environment = {
        "AWS_SECRET_ACCESS_KEY": "/abcDEF123+xyz/789",
        "RAY_AUTH_TOKEN_PATH": "/no/such/token",
        "SSH_KEY": str(tmp_path / "key"),
        "A_TOKEN": "~nobody-of-this-name",
    }
    told = redacted(" ".join(environment.values()), environment=environment)
    assert told == f"*** /no/such/token {tmp_path}/key ***"


def test_the_command_of_a_run_is_kept_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.config import SearchConfig
    from search.preflight import check_search, describe_run

    monkeypatch.setenv("RAY_AUTH_TOKEN", "correct-horse-battery")
    monkeypatch.setattr(sys, "argv", ["run.py", "x.yaml", "--address", "http://me:secret@h:1", "correct-horse-battery"])
    config = SearchConfig.model_validate(
        {"task": {"data": {"name": "digits"}}, "space": {"arch": "small_cnn"}, "scheduler": {"max_epochs": 1},
         "budget": {"trials": 1}}
    )  # fmt: skip
    command = describe_run(config, check_search(config))["command"]
    assert command == "run.py x.yaml --address http://***@h:1 ***"


def test_the_cause_of_a_failed_trial_is_told_without_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The text of a library's error may hold the address that it called."""
    import ray.tune

    from search.launch import FAILURE, TrialTask, report_failure_of

    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    reported: list[dict[str, object]] = []
    monkeypatch.setattr(ray.tune, "report", reported.append)

    def body() -> None:
        raise OSError("no answer from https://me:secret@hub/x?token=abc, asked with correct-horse-battery")

    report_failure_of(body, TrialTask(number=0, trial={}, trial_dir=str(tmp_path), num_threads=1))
    assert reported[0][FAILURE] == "no answer from https://***@hub/x?token=***, asked with ***"
    told = (tmp_path / "failure.txt").read_text()
    assert "OSError: no answer from https://***@hub" in told
    assert "correct-horse" not in told


def test_what_python_prints_into_the_log_is_redacted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by pieces, by loggers that were there before, and without an end of line."""
    secret = "s3cr3t-enough"
    monkeypatch.setenv("MY_TOKEN", secret)
    handler, logger = logging.StreamHandler(sys.stderr), logging.getLogger("a library")
    logger.addHandler(handler)
    before = sys.stdout, sys.stderr
    with redacted_output():
        print("first", secret[:5], end="")
        print(secret[5:], flush=True)
        logger.error("error with %s", secret)
        try:
            raise ValueError(f"https://me:{secret}@host")
        except ValueError:
            logger.exception("with a traceback")
        print("last", secret, end="", file=sys.stderr)
    assert (sys.stdout, sys.stderr, handler.stream) == (*before, before[1])
    logger.removeHandler(handler)
    out, err = capsys.readouterr()
    assert out == "first ***\n"
    assert {"error with ***", "ValueError: https://***@host", "last ***"} <= {*err.splitlines()}
    assert secret not in err


def test_a_full_disk_keeps_nobody_from_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    full = Full()
    monkeypatch.setattr(sys, "stderr", full)
    with redacted_output():
        print("not written", file=sys.stderr)
    assert sys.stderr is full
