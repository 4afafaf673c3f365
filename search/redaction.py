"""What may a run's files say? Everything but secrets: tokens, passwords and keys are written as `***`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

HIDDEN = "***"

_WORDS = r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY|PRIVATE_?KEY"
# The value of an environment variable with such a word in its name is a secret: RAY_AUTH_TOKEN, AWS_SECRET_ACCESS_KEY.
_SECRET_VARIABLE = re.compile(rf"(?:^|_)(?:{_WORDS}|PAT|PWD)(?:_|$)|_KEY$", re.IGNORECASE)
# How the names of those end that say where a secret lies.
_PLACES = ("_PATH", "_FILE", "_DIR", "_CREDENTIALS")
# Shorter ones are words that a text may hold by chance, and no secrets.
_SHORTEST = 8

_NAME = rf"(?:[\w-]*[_-])?(?:{_WORDS.replace('_', '[_-]')}|Signature)"
_VALUE = r"(?:(?P<quote>['\"])(?:(?!(?P=quote)).)*(?P=quote)|[^\s'\"&,;]+)"
_SHOWN = rf"\1\g<quote>{HIDDEN}\g<quote>"
_PATTERNS = (
    # https://user:password@host, redis://:password@host; a password may hold anything but blanks and quotes.
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^\s'\"]+(?=@)"), HIDDEN),
    # https://token@host
    (re.compile(r"(?<=://)[^\s/:@'\"]+(?=@)"), HIDDEN),
    # token=..., password: "...", "api_key": "...", X-Amz-Signature=... or sig=... of a signed address
    (re.compile(rf"((?<![A-Za-z0-9])(?:{_NAME}|sig)['\"]?\s*[=:]\s*){_VALUE}", re.IGNORECASE), _SHOWN),
    # --password ...
    (re.compile(rf"((?<![\w-])--?{_NAME}\s+){_VALUE}", re.IGNORECASE), _SHOWN),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/-]{8,}=*"), rf"\1 {HIDDEN}"),
    # As they are given out by Hugging Face, GitHub, GitLab, AWS, Google, Slack, OpenAI; and signed JSON.
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[abeprs]-[\w-]{10,}|sk-[\w-]{20,}"
            r"|eyJ[\w-]{10,}\.eyJ[\w-]+\.[\w-]+)\b"
        ),
        HIDDEN,
    ),
)


def redacted(text: str, *, environment: Mapping[str, str] | None = None) -> str:
    """The text without secrets: values of secret environment variables, and what looks like one.

    >>> redacted("python -m search.run x.yaml --address http://me:pass@head:8265", environment={})
    'python -m search.run x.yaml --address http://***@head:8265'

    Args:
        environment: this process's by default.
    """
    known = os.environ if environment is None else environment
    secrets = {value for name, value in known.items() if _SECRET_VARIABLE.search(name) and not _is_place(name, value)}
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, hidden in _PATTERNS:
        text = pattern.sub(hidden, text)
    return text


def _is_place(name: str, value: str) -> bool:
    """Whether a variable has the path of a file that holds the secret, as RAY_AUTH_TOKEN_PATH has.

    A key in base64 may begin with a slash as well.
    """
    if not value.startswith(("/", "~", "./")):
        return False
    try:
        return name == "PWD" or name.upper().endswith(_PLACES) or Path(value).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path; the home of a user that is not known
        return False
