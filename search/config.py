"""Is this YAML a valid search? Errors carry file, line, dotted key, what was found, and a remedy; all at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from search.absolute_paths import absolute_data, absolute_weights
from search.algorithm_config import SamplerConfig, SchedulerConfig
from search.budget_config import BudgetConfig, FinalConfig, KeepConfig
from search.config_checks import cross_problems, dump_space, parse_whole_space, whole_space
from search.config_errors import Loc, Problem, dotted, problems_of, raise_problems
from search.config_schema import space_schema, start_schema
from search.config_types import Metrics, Pipelines, Slug, StaticObjective, slug
from search.domain_options import Tag
from search.domains import CategoricalDomain, Param
from search.forbid import Combination, dump_forbid, parse_forbid
from search.includes import INCLUDE, INCLUDE_SCHEMA, read_with_includes
from search.matching import MATCHES_SCHEMA
from search.overrides import apply_override, release
from search.pipeline_params import PREFIX, fill_pipelines
from search.priors import prior_points
from search.resources_config import ResourcesConfig
from search.scalars import StrictFloat
from search.scaling import scaled
from search.space import Space
from search.start_from import EarlierRun, Recipe, Start, dump_start_from, parse_start_from
from search.yaml_file import YamlFile
from search.yaml_syntax import dump_yaml
from trainables.config import DataConfig, SplitConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.hyperparameters import Frozen, Hyperparameters


class TaskConfig(Frozen):
    """What every trial of the search has in common: images, their division, and the score."""

    data: DataConfig = Field(description="Which images.", examples=["{name: digits}"])
    split: SplitConfig = Field(default=SplitConfig(), description="Division into training, validation and test.")
    metric: Metrics = Field(
        default=("val_top1",),
        description="Validation metric that the search improves. A list adds what a network is to cost little of: "
        "num_params, flops, model_mib or latency_ms; the search then looks for the best trade-offs.",
        examples=["[val_top1, latency_ms]"],
    )


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
    keep: KeepConfig = Field(default=KeepConfig(), description="Whose weights stay on disk.")
    final: FinalConfig = Field(default=FinalConfig(), description="How the winner is tried before the test.")
    forbid: Annotated[
        tuple[Combination, ...],
        PlainValidator(parse_forbid),
        PlainSerializer(dump_forbid),
        WithJsonSchema({"type": "array", "items": MATCHES_SCHEMA}),
    ] = Field(default=(), description="Combinations that no trial may have: values, lists of them, or bounds.")
    start_from: Annotated[
        tuple[Start, ...],
        PlainValidator(parse_start_from),
        PlainSerializer(dump_start_from),
        WithJsonSchema({"anyOf": [{"type": "array"}, {"type": "string"}]}),
    ] = Field(
        default=(),
        description="Recipes tried first, whose parameters left out are sampled; and earlier runs, whose trials are "
        "starting knowledge: {run: results/RUN}, or the folder alone.",
    )
    limits: dict[StaticObjective, Annotated[StrictFloat, Field(gt=0)]] = Field(
        default={},
        description="Most that a trial may have of num_params, flops, model_mib or latency_ms; one that has more is "
        "refused before it trains.",
        examples=["{num_params: 5e6, latency_ms: 3}"],
    )
    tags: tuple[Tag, ...] = Field(default=(), description="Words of your own, kept with the run.")

    @model_validator(mode="wrap")
    @classmethod
    def _tell_all_problems(cls, data: Any, handler: ModelWrapValidatorHandler[SearchConfig]) -> SearchConfig:
        # Checks across sections run on what is sound of each, even where another part has failed.
        across = cross_problems(data) if isinstance(data, Mapping) else []
        if isinstance(data, Mapping):
            data = {key: _as_tuples(part) if key in ("task", "tags") else part for key, part in data.items()}
        try:
            config = handler(data)
        except ValidationError as error:
            raise_problems(cls.__name__, problems_of(error, cls) + across)
            raise
        raise_problems(cls.__name__, across)
        return config

    @property
    def metric(self) -> str:
        """The validation metric: trials are stopped, ranked and finally chosen by it, or by it first."""
        return self.task.metric[0]

    @property
    def objectives(self) -> tuple[str, ...]:
        """What else the search makes small, as named in `trainables.metric_names.STATIC_OBJECTIVES`."""
        return self.task.metric[1:]

    @property
    def search_space(self) -> Space:
        """All that is searched: the section `space`, the arguments of its pipelines, less what is forbidden."""
        return Space(whole_space(self.space, self.augmentations), forbid=self.forbid)

    @property
    def earlier_runs(self) -> dict[int, EarlierRun]:
        """The earlier runs of `start_from`, by their places in it."""
        return {index: start for index, start in enumerate(self.start_from) if isinstance(start, EarlierRun)}

    @property
    def starting_points(self) -> tuple[Recipe, ...]:
        """What is tried first: the recipes of `start_from`, then what the priors of the parameters ask for."""
        return self.first_points(())

    def first_points(self, again: Sequence[Recipe]) -> tuple[Recipe, ...]:
        """The same with what earlier runs have to offer, which comes after the recipes and before the priors."""
        recipes = (start for start in self.start_from if not isinstance(start, EarlierRun))
        seed = self.sampler.seed
        priors = prior_points(self.search_space.domains, trials=self.sampler.startup_trials, seed=seed)
        return (*recipes, *again, *priors)

    @property
    def architectures(self) -> tuple[str, ...]:
        """Those that a trial may have."""
        param = self.space.get("arch", Hyperparameters.model_fields["arch"].default)
        return tuple(map(str, param.values)) if isinstance(param, CategoricalDomain) else (str(param),)

    def workers_of(self, params: Mapping[str, Any]) -> int:
        """How many workers a trial with these parameters has."""
        return self.resources.workers_of(str(params.get("arch", self.architectures[0])))

    @property
    def trial_sizes(self) -> tuple[int, ...]:
        """The numbers of workers that a trial may have, ascending."""
        return tuple(sorted({self.resources.workers_of(arch) for arch in self.architectures}))

    def shared_by_trials(self) -> dict[str, Any]:
        """The fields of `TrialConfig` that are the same in every trial, as plain values."""
        return {
            **Space(self.space).fixed,
            "data": self.task.data.model_dump(mode="json"),
            "split": self.task.split.model_dump(mode="json"),
            "metric": self.metric,
            "augmentations": fill_pipelines(self.augmentations, {}),
            "max_epochs": self.scheduler.max_epochs,
            "fidelity": self.scheduler.plan.model_dump(mode="json"),
            "micro_batch_size": self.resources.micro_batch_size,
            "seed": self.sampler.seed,
        }

    def trial_fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `TrialConfig` in which a trial differs from `shared_by_trials`, as plain values.

        Scaled values are computed here, and searched arguments go into their pipelines.

        Args:
            params: what the sampler chose, under the names of `search_space`; fixed values need not be repeated.
        """
        own = {name: value for name, value in params.items() if not name.startswith(PREFIX)}
        values = scaled(self.space, {**Space(self.space).fixed, **own})
        fields = {name: values[name] for name in own}
        if len(own) < len(params):
            fields["augmentations"] = fill_pipelines(self.augmentations, params)
        return fields

    def trial_config(self, params: Mapping[str, Any]) -> TrialConfig:
        """What a trial with these parameters trains; fixed values need not be repeated.

        Raises:
            ConfigError: if the parameters are not those of a valid trial.
        """
        try:
            return TrialConfig.model_validate({**self.shared_by_trials(), **self.trial_fields(params)})
        except ValidationError as error:
            told = (f"{dotted(loc) or 'trial'}: {text}" for loc, text in problems_of(error, TrialConfig))
            raise ConfigError("\n".join(told)) from error


def _as_tuples(value: Any) -> Any:
    """Lists as tuples: a strict validation takes no list for a tuple, not even from JSON, once Python has read it."""
    if isinstance(value, Mapping):
        return {key: _as_tuples(part) for key, part in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def load_search(path: Path, *, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read a search from a YAML file.

    Args:
        path: the file.
        overrides: `dotted.key=value` each, applied in order. A starting point of the file gives up values that an
            overridden domain does not hold.

    Raises:
        ConfigError: with every problem on a line of its own.
    """
    file = read_with_includes(path)
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
    release(data, applied)
    config = None
    try:
        # JSON is validated strictly: "0.1" is no number and 1 is not true.
        config = SearchConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        problems += problems_of(error, SearchConfig)
    if config is None or refused:
        problems.sort(key=lambda problem: _place(problem.loc, file))
        raise ConfigError("\n".join([*(_line(problem, file, applied) for problem in problems), *refused]))
    return config


def with_absolute_root(config: SearchConfig) -> SearchConfig:
    """The search with its images, weights and earlier runs at absolute paths: it means the same from anywhere."""
    task = config.task.model_copy(update={"data": absolute_data(config.task.data)})
    space, starts, forbid = absolute_weights(config.space, starts=config.start_from, forbid=config.forbid)
    return config.model_copy(update={"task": task, "space": space, "start_from": starts, "forbid": forbid})


def to_yaml(config: SearchConfig) -> str:
    """The configuration with every default written out; `load_search` reads it back as an equal one."""
    return dump_yaml(config.model_dump())


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a search file, for editors; made from the models that validate it."""
    schema = SearchConfig.model_json_schema()
    properties = schema["properties"]
    properties["space"] |= space_schema()
    properties["start_from"] |= start_schema()
    properties[INCLUDE] = INCLUDE_SCHEMA
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": [INCLUDE]}]  # which may bring the rest
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "vistune search"}


def _place(loc: Loc, file: YamlFile) -> tuple[bool, str, int]:
    """The order in which problems are told: the file itself, then those it includes, each from top to bottom."""
    path = file.path_of(loc)
    return path != file.path, str(path), file.line_of(loc) or 0


def _line(problem: Problem, file: YamlFile, applied: Mapping[Loc, str]) -> str:
    """One line of the error: where in the file or in the overrides, the dotted key, and the problem."""
    loc = problem.loc
    made = [text for place, text in applied.items() if loc[: len(place)] == place]
    if not made and loc not in file.lines:  # a section that only an override made
        made = [text for place, text in applied.items() if loc and place[: len(loc)] == loc]
    path, line = file.path_of(loc), file.line_of(loc)
    where = f"-o {made[-1]}" if made else f"{path}:{line}" if line else f"{path}"
    return f"{where}: {dotted(loc)}: {problem.text}" if loc else f"{where}: {problem.text}"
