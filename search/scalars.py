"""What is one plain value of a search file? Its types, when two are the same, and how a person reads it."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator, Strict

from search.config_errors import found

Scalar = str | int | float | bool | None
StrictFloat = Annotated[float, Strict()]  # a whole number is accepted, text is not
StrictInt = Annotated[int, Strict()]
StrictBool = Annotated[bool, Strict()]


def one_scalar(value: object) -> object:
    """For a pydantic validator, before pydantic tries, and reports, each kind of scalar in turn.

    Raises:
        ValueError: if it is no single finite value.
    """
    if not isinstance(value, str | int | float | bool | None) or value in (math.inf, -math.inf) or value != value:
        raise ValueError(f"must be one finite value, found {found(value)}; write a number, text, true or false")
    return value


OneScalar = Annotated[Scalar, BeforeValidator(one_scalar)]


def same(one: Scalar, other: Scalar) -> bool:
    """Whether two values are the same to a person: 1 and 1.0 are, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)  # True == 1 for Python


def word(value: Scalar) -> str:
    """A value as it stands in a YAML file, without quotes."""
    return value if isinstance(value, str) else "null" if value is None else found(value)
