"""What may a run's files say? Everything but secrets: tokens, passwords and keys are written as `***`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"

# The value of an environment variable with such a word in its name is a secret: RAY_AUTH_TOKEN, AWS_SECRET_ACCESS_KEY.
_SECRET_NAME = r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)"
_SECRET_VARIABLE = re.compile(rf"(?:^|_){_SECRET_NAME}(?:_|$)", re.IGNORECASE)
# Shorter ones are words that a text may hold by chance, and no secrets.
_SHORTEST = 8

_PATTERNS = (
    # https://user:password@host, redis://:password@host
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"), HIDDEN),
    # token=..., --password ..., "api_key": "...", X-Amz-Signature=... of a signed address
    (
        re.compile(
            rf"((?<![A-Za-z0-9])(?:[\w-]*[_-])?(?:{_SECRET_NAME.replace('_', '[_-]')}|Signature)['\"]?"
            r"(?:\s*[=:]\s*|\s+))(['\"]?)[^\s'\"&,;]+\2",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}\2",
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/-]{8,}=*"), rf"\1 {HIDDEN}"),
    # As they are given out by Hugging Face, GitHub, AWS.
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b"), HIDDEN),
)


def redacted(text: str, *, environment: Mapping[str, str] | None = None) -> str:
    """The text without secrets: values of secret environment variables, and what looks like one.

    >>> redacted("python -m search.run x.yaml --address http://me:pass@head:8265", environment={})
    'python -m search.run x.yaml --address http://***@head:8265'

    Args:
        environment: this process's by default.
    """
    known = os.environ if environment is None else environment
    secrets = {value for name, value in known.items() if _SECRET_VARIABLE.search(name) and not _is_place(value)}
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, hidden in _PATTERNS:
        text = pattern.sub(hidden, text)
    return text


def _is_place(value: str) -> bool:
    """Whether a value is the path of a file that holds the secret, as RAY_AUTH_TOKEN_PATH is."""
    return value.startswith(("/", "~", "./"))
