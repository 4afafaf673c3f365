"""Is this YAML a valid search? Errors carry file, line, dotted key, what was found, and a remedy; all at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from search.config_checks import cross_problems, dump_space, parse_start_from, parse_whole_space
from search.config_errors import Loc, Problem, dotted, problems_of, raise_problems
from search.config_schema import recipe_schema, space_schema
from search.config_types import Duration, Metric, Pipelines, Slug, duration_s, slug
from search.domains import Param, Scalar, StrictFloat, StrictInt
from search.overrides import apply_override, release_starting_points
from search.space import Space
from search.yaml_file import YamlFile, read_yaml
from search.yaml_syntax import dump_yaml
from trainables.config import DataConfig, Frozen, SplitConfig, TrialConfig
from trainables.errors import ConfigError

_MAX_SEED = 2**32 - 1  # NumPy's


class TaskConfig(Frozen):
    """What every trial of the search has in common: images, their division, and the score."""

    data: DataConfig = Field(description="Which images.", examples=["{name: digits}"])
    split: SplitConfig = Field(default=SplitConfig(), description="Division into training, validation and test.")
    metric: Metric = Field(default="val_top1", description="Validation metric that the search improves.")


class SamplerConfig(Frozen):
    """Who proposes the next trial."""

    name: Literal["tpe", "random"] = Field(default="tpe", description="tpe learns from finished trials.")
    seed: StrictInt = Field(default=0, ge=0, le=_MAX_SEED, description="Seed of the proposals and of the trials.")
    startup_trials: StrictInt = Field(default=10, ge=0, description="Random trials before tpe begins to learn.")


class SchedulerConfig(Frozen):
    """Which trials are stopped early."""

    name: Literal["asha", "none"] = Field(default="asha", description="asha stops trials (arXiv:1810.05934).")
    max_epochs: StrictInt = Field(
        ge=1, description="Epochs of a trial that is not stopped; its lr_schedule spans them.", examples=[50]
    )
    grace_period: StrictInt = Field(default=1, ge=1, description="Epochs before a trial may be stopped.")
    reduction_factor: StrictInt = Field(default=3, ge=2, description="Of this many trials one goes on at each rung.")


class ResourcesConfig(Frozen):
    """On what one trial runs, and how many run at a time."""

    workers: StrictInt = Field(default=1, ge=1, description="Processes of one trial; 2 or more train with DDP.")
    cpus_per_worker: StrictFloat = Field(default=1.0, gt=0, description="CPU cores of each worker.")
    gpus_per_worker: StrictFloat = Field(default=0.0, ge=0, description="GPUs of each worker; may be a fraction.")
    max_concurrent_trials: StrictInt | None = Field(
        default=None, ge=1, description="Trials at a time; by default as many as the cluster holds."
    )


class BudgetConfig(Frozen):
    """When the search ends: at whichever limit is reached first."""

    trials: StrictInt | None = Field(default=None, ge=1, description="Number of trials.")
    epochs: StrictInt | None = Field(default=None, ge=1, description="Epochs over all trials.")
    time: Duration = Field(default=None, description="90s, 30m, 2h, 1d, or seconds.")

    @property
    def time_s(self) -> float | None:
        """The time limit in seconds."""
        return None if self.time is None else duration_s(self.time)


class SearchConfig(Frozen):
    """A whole search, as in a file of `spaces/`."""

    name: Slug = Field(default="search", description="Name of the run; by default that of the file.")
    task: TaskConfig = Field(description="What the trials learn, and how they are scored.", examples=["{data: ...}"])
    space: Annotated[dict[str, Param], PlainValidator(parse_whole_space), PlainSerializer(dump_space)] = Field(
        description="Parameters of a trial: a domain, or one value for all trials.",
        examples=["{lr: {type: float, low: 1e-4, high: 0.1, log: true}}"],
    )
    augmentations: Pipelines = Field(default={}, description="albumentations pipelines, for space.augment to name.")
    sampler: SamplerConfig = Field(default=SamplerConfig(), description="Who proposes the next trial.")
    scheduler: SchedulerConfig = Field(description="Which trials are stopped early.", examples=["{max_epochs: 50}"])
    resources: ResourcesConfig = Field(default=ResourcesConfig(), description="On what one trial runs.")
    budget: BudgetConfig = Field(default=BudgetConfig(), description="When the search ends.")
    start_from: Annotated[tuple[dict[str, Scalar], ...], BeforeValidator(parse_start_from)] = Field(
        default=(), description="Recipes tried first; parameters left out are sampled."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _tell_all_problems(cls, data: Any, handler: ModelWrapValidatorHandler[SearchConfig]) -> SearchConfig:
        # Checks across sections run on what is sound of each, even where another part has failed.
        across = cross_problems(data) if isinstance(data, Mapping) else []
        try:
            config = handler(data)
        except ValidationError as error:
            raise_problems(cls.__name__, problems_of(error, cls) + across)
            raise
        raise_problems(cls.__name__, across)
        return config

    def shared_by_trials(self) -> dict[str, Any]:
        """The fields of `TrialConfig` that are the same in every trial, as plain values."""
        return {
            **Space(self.space).fixed,
            "data": self.task.data.model_dump(mode="json"),
            "split": self.task.split.model_dump(mode="json"),
            "metric": self.task.metric,
            "augmentations": self.model_dump(mode="json")["augmentations"],
            "max_epochs": self.scheduler.max_epochs,
            "seed": self.sampler.seed,
        }

    def trial_config(self, params: Mapping[str, Any]) -> TrialConfig:
        """What a trial with these parameters trains; fixed values need not be repeated.

        Raises:
            ConfigError: if the parameters are not those of a valid trial.
        """
        try:
            return TrialConfig.model_validate({**self.shared_by_trials(), **params})
        except ValidationError as error:
            told = (f"{dotted(loc) or 'trial'}: {text}" for loc, text in problems_of(error, TrialConfig))
            raise ConfigError("\n".join(told)) from error


def load_search(path: Path, *, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read a search from a YAML file.

    Args:
        path: the file.
        overrides: `dotted.key=value` each, applied in order. A starting point of the file gives up values that an
            overridden domain does not hold.

    Raises:
        ConfigError: with every problem on a line of its own.
    """
    file = read_yaml(path)
    data = {"name": slug(path.stem), **file.data}
    problems: list[Problem] = []
    applied: dict[Loc, str] = {}
    refused: list[str] = []
    for text in overrides:
        loc, problem = apply_override(data, text)
        if problem is None:
            applied[loc] = text
        else:
            refused.append(f"-o {text}: {problem.text}")
    release_starting_points(data, applied)
    config = None
    try:
        # JSON is validated strictly: "0.1" is no number and 1 is not true.
        config = SearchConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        problems += problems_of(error, SearchConfig)
    if config is None or refused:
        problems.sort(key=lambda problem: file.line_of(problem.loc) or 0)
        raise ConfigError("\n".join([*(_line(problem, file, applied) for problem in problems), *refused]))
    return config


def with_absolute_root(config: SearchConfig) -> SearchConfig:
    """The search with its images at an absolute path, so that it means the same from any working directory."""
    data = config.task.data
    if data.root is None:
        return config
    data = data.model_copy(update={"root": str(Path(data.root).expanduser().absolute())})
    return config.model_copy(update={"task": config.task.model_copy(update={"data": data})})


def to_yaml(config: SearchConfig) -> str:
    """The configuration with every default written out; `load_search` reads it back as an equal one."""
    return dump_yaml(config.model_dump())


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a search file, for editors; made from the models that validate it."""
    schema = SearchConfig.model_json_schema()
    properties = schema["properties"]
    properties["space"] |= space_schema()
    properties["start_from"] |= recipe_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "vistune search"}


def _line(problem: Problem, file: YamlFile, applied: Mapping[Loc, str]) -> str:
    """One line of the error: where in the file or in the overrides, the dotted key, and the problem."""
    loc = problem.loc
    made = [text for place, text in applied.items() if loc[: len(place)] == place]
    if not made and loc not in file.lines:  # a section that only an override made
        made = [text for place, text in applied.items() if loc and place[: len(loc)] == loc]
    line = file.line_of(loc)
    where = f"-o {made[-1]}" if made else f"{file.path}:{line}" if line else f"{file.path}"
    return f"{where}: {dotted(loc)}: {problem.text}" if loc else f"{where}: {problem.text}"
