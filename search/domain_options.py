"""What may a domain say besides its values? When it exists, what scales it, what a person expects, and tags."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from search.matching import MATCHES_SCHEMA, Match, dump_matches, parse_matches
from search.scalars import OneScalar, StrictFloat
from trainables.hyperparameters import Frozen

Confidence = Literal["low", "medium", "high"]


class Scaling(Frozen):
    """The searched value holds for one value of another parameter, and the trial gets it scaled to its own.

    Source: linear rule of arXiv:1706.02677 for SGD; square root for adaptive optimizers, arXiv:2205.10287.
    """

    parameter: str = Field(description="Which other one, such as batch_size.")
    reference: StrictFloat = Field(default=256.0, gt=0, description="Value of the parameter at which nothing changes.")
    rule: Literal["linear", "sqrt"] = Field(default="linear", description="In proportion, or to its square root.")

    def factor(self, value: float) -> float:
        """What the searched value is multiplied by beside a value of the parameter."""
        ratio = value / self.reference
        return ratio if self.rule == "linear" else math.sqrt(ratio)


class Prior(Frozen):
    """A value that a person expects to be good, and how sure they are."""

    value: OneScalar = Field(description="What is expected to be good; `prior: 0.01` says no more than this.")
    confidence: Confidence = Field(default="medium", description="Share of the starting trials drawn near the value.")


def _scaling(raw: object) -> object:
    return {"parameter": raw} if isinstance(raw, str) else raw


def _prior(raw: object) -> object:
    return raw if isinstance(raw, dict | Prior) else {"value": raw}


def _when(raw: object) -> dict[str, Match] | None:
    return None if raw is None else parse_matches(raw, example="when: {optimizer: sgd}")


def _dump_when(when: dict[str, Match] | None) -> dict[str, Any] | None:
    return None if when is None else dump_matches(when)


_SCALING_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["parameter"],
            "properties": {
                "parameter": {"type": "string"},
                "reference": {"type": "number", "exclusiveMinimum": 0},
                "rule": {"enum": ["linear", "sqrt"]},
            },
            "additionalProperties": False,
        },
    ]
}
_PRIOR_SCHEMA = {
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        {
            "type": "object",
            "required": ["value"],
            "properties": {
                "value": {"type": ["string", "number", "boolean", "null"]},
                "confidence": {"enum": ["low", "medium", "high"]},
            },
            "additionalProperties": False,
        },
    ]
}
Tag = Annotated[str, Field(min_length=1)]


class Options(Frozen):
    """The keys that domains of every type share."""

    when: Annotated[
        dict[str, Match] | None,
        PlainValidator(_when),
        PlainSerializer(_dump_when),
        WithJsonSchema(MATCHES_SCHEMA),
    ] = Field(default=None, description="The parameter exists only beside these values of others, all of them.")
    scaled_by: Annotated[Scaling | None, BeforeValidator(_scaling), WithJsonSchema(_SCALING_SCHEMA)] = Field(
        default=None,
        description="The value is per 256 (or `reference`) of another parameter, such as batch_size; the trial gets "
        "it scaled.",
    )
    prior: Annotated[Prior | None, BeforeValidator(_prior), WithJsonSchema(_PRIOR_SCHEMA)] = Field(
        default=None, description="A value expected to be good: tried first, and more often near it at the start."
    )
    tags: tuple[Tag, ...] = Field(default=(), strict=False, description="Words of your own, kept with the run.")
