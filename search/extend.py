"""How does a run go on beyond its budget? `--resume RUN --extend +30` gives it a new one, counted from where it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from search.budget_config import BudgetConfig
from search.config import SearchConfig, to_yaml
from search.config_types import duration_s
from search.report_source import read_trials, records_of
from search.results import RunPaths, write_json, write_text
from search.spending import Spending
from trainables.errors import ConfigError

_EXTENSION = re.compile(r"\+([0-9]+(?:\.[0-9]+)?)(|s|m|h|d|epochs|device-hours)")
_EXAMPLES = "write +30 for trials, +2h for time, +500epochs, or +8device-hours"


@dataclass(frozen=True)
class Used:
    """What a run has used of each kind of budget, over all its sessions.

    Attributes:
        trials: begun so far; those that took over another's weights are none of their own.
        elapsed_s: seconds that the search has run.
    """

    trials: int
    epochs: int
    device_hours: float
    elapsed_s: float


def used_by(config: SearchConfig, paths: RunPaths) -> Used:
    """What the study of a run says; zeros where there is none yet."""
    from search.trial_attrs import ELAPSED_S

    study = read_trials(paths)
    records = records_of(study.trials, config)
    spending = Spending(BudgetConfig(), config.resources)
    for record in records:
        workers = config.workers_of(record.params)
        spending.add(epochs=record.trained_epochs, train_s=record.train_s, workers=workers)
    return Used(
        trials=sum(record.lineage is None for record in records),
        epochs=spending.epochs,
        device_hours=spending.device_hours,
        elapsed_s=float(study.user_attrs.get(ELAPSED_S, 0.0)),
    )


def extended(config: SearchConfig, used: Used, asked: Sequence[str], *, ended: bool = True) -> SearchConfig:
    """The search with a budget that ends where the extensions say; limits of other kinds no longer hold.

    A run that has used up its time would otherwise end at once, however many trials it is given.

    Args:
        asked: +30, +2h, +500epochs, +8device-hours; of several, whichever comes first.
        ended: whether the run has ended by itself. Of one that has not, what was left of its budget comes on top.

    Raises:
        ConfigError: for an extension that is none of these, or two of a kind.
    """
    budget: dict[str, Any] = {}
    if not ended:
        used = _with_what_was_left(used, config.budget)
    for text in asked:
        kind, limit = _limit(text, used)
        if kind in budget:
            raise ConfigError(f"--extend: {kind} is extended twice, found {', '.join(asked)}; keep one of them")
        budget[kind] = limit
    return config.model_copy(update={"budget": BudgetConfig(**budget)})


def record_extension(config: SearchConfig, paths: RunPaths, asked: Sequence[str]) -> None:
    """Writes the new budget into the run's folder, and into its history when it was changed, from what to what."""
    before = json.loads(paths.environment.read_text(encoding="utf-8"))
    note = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": list(asked),
        "budget": config.budget.model_dump(mode="json", exclude_none=True),
    }
    write_json(paths.environment, {**before, "extended": [*before.get("extended", []), note]})
    write_text(paths.config, to_yaml(config))


def _with_what_was_left(used: Used, budget: BudgetConfig) -> Used:
    return Used(
        trials=max(used.trials, budget.trials or 0),
        epochs=max(used.epochs, budget.epochs or 0),
        device_hours=max(used.device_hours, budget.device_hours or 0.0),
        elapsed_s=max(used.elapsed_s, budget.time_s or 0.0),
    )


def _limit(text: str, used: Used) -> tuple[str, Any]:
    match = _EXTENSION.fullmatch(text.strip())
    amount = float(match[1]) if match else 0.0
    unit = match[2] if match else ""
    if amount <= 0 or (unit in ("", "epochs") and not amount.is_integer()):
        raise ConfigError(f"--extend: must be by how much, found {text!r}; {_EXAMPLES}")
    if unit == "":
        return "trials", used.trials + int(amount)
    if unit == "epochs":
        return "epochs", used.epochs + int(amount)
    if unit == "device-hours":
        return "device_hours", used.device_hours + amount
    return "time", used.elapsed_s + duration_s(f"{match[1]}{unit}" if match else text)
