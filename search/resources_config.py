"""On what does one trial run, how many run at a time, and what if a worker is lost? Section `resources`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from search.config_errors import Problem, found, raise_problems
from search.config_types import Duration, duration_s
from search.scalars import StrictFloat, StrictInt
from trainables.hyperparameters import Frozen

# In a mapping of workers by architecture: that of all architectures that it does not name.
DEFAULT = "default"
AUTO = "auto"  # of `fused`

Workers = int | Mapping[str, int]


def _check_workers(value: Any) -> Workers:
    """One number, or numbers by architecture."""
    if not isinstance(value, Mapping):
        text = _count_problem(value, mapping=True)
        if text is not None:
            raise ValueError(text)
        return int(value)
    if not value:
        raise ValueError("must name an architecture, found an empty mapping; write {default: 1, resnet50: 2}")
    told = [(name, _count_problem(count, mapping=False)) for name, count in value.items()]
    raise_problems("workers", [Problem((str(name),), text) for name, text in told if text is not None])
    return {str(name): int(count) for name, count in value.items()}


def _count_problem(value: Any, *, mapping: bool) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        remedy = "write 2, or a number for each architecture: {default: 1, resnet50: 2}" if mapping else "write 2"
        return f"must be a whole number, found {found(value)}; {remedy}"
    return None if value >= 1 else f"must be at least 1, found {value}; write 1 or more"


def _check_fused(value: Any) -> Any:
    if isinstance(value, bool) or value == AUTO:
        return value
    raise ValueError(f"must be true, false or auto, found {found(value)}; write auto to have the faster one chosen")


class ResourcesConfig(Frozen):
    """On what one trial runs, and how many run at a time."""

    workers: Annotated[
        Workers,
        PlainValidator(_check_workers),
        PlainSerializer(lambda value: dict(value) if isinstance(value, Mapping) else value),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer", "minimum": 1}},
                ]
            }
        ),
    ] = Field(
        default=1,
        description="Processes of one trial; 2 or more train as a Ray Train group. Or by architecture: "
        "{default: 1, vit_base_patch16_224: 4}.",
    )
    cpus_per_worker: StrictFloat = Field(default=1.0, gt=0, description="CPU cores of each worker.")
    gpus_per_worker: StrictFloat = Field(
        default=0.0, ge=0, description="GPUs of each worker; below 1 a share of one, above it a whole number."
    )
    trials_per_device: StrictInt = Field(
        default=1,
        ge=1,
        description="One-worker trials at a time on what a worker asks for: each in a process of its own with its part "
        "of that, or with `fused` together in one process.",
    )
    fused: Annotated[
        Literal[True, False, "auto"], PlainValidator(_check_fused), WithJsonSchema({"enum": [True, False, AUTO]})
    ] = Field(
        default=False,
        description="The trials of a device train in one process, those of one architecture and batch size in one "
        "forward and backward pass. For small networks, which leave a GPU idle. With `auto` both are timed when the "
        "search begins, and each trial has a device of its own where fusing them is no faster.",
    )
    accelerator: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Only nodes with this kind of accelerator, by Ray's name: A100, H100, T4.",
    )
    placement: Literal["packed", "spread"] = Field(
        default="packed", description="The workers of a trial on as few nodes as possible, or on as many."
    )
    micro_batch_size: StrictInt | None = Field(
        default=None,
        ge=1,
        description="Most images that a worker passes through the network at once; the rest of its share of a batch "
        "follows, with gradients accumulated. By default as many as fit.",
    )
    max_concurrent_trials: StrictInt | None = Field(
        default=None, ge=1, description="Trials at a time; by default as many as the cluster holds."
    )
    retries: StrictInt = Field(
        default=2,
        ge=0,
        description="How often a trial whose worker was lost goes on from its checkpoint, before it counts as failed; "
        "counted anew after each epoch. Preemptions of a node are not counted.",
    )
    hang_timeout: Duration = Field(
        default=None,
        description="A trial that reports no epoch for so long is ended as failed. By default 20 times its longest "
        "epoch, at least 30m; before its first epoch, 20 times the longest of the search, at least 6h. The same for "
        "trainings of final.",
    )

    @model_validator(mode="after")
    def _whole_gpus(self) -> ResourcesConfig:
        gpus = self.gpus_per_worker
        if gpus > 1 and not gpus.is_integer():
            raise ValueError(f"gpus_per_worker above 1 must be a whole number, found {gpus:g}; write {int(gpus) + 1}")
        return self

    @model_validator(mode="after")
    def _own_gpu_of_each_worker(self) -> ResourcesConfig:
        if self.has_groups and 0 < self.gpus_per_worker < 1:
            raise ValueError(
                f"gpus_per_worker: {self.gpus_per_worker:g} may give two workers of a trial the same GPU, where NCCL "
                f"forms no group, found workers: {self.workers}; write gpus_per_worker: 1, or workers: 1"
            )
        return self

    @model_validator(mode="after")
    def _shared_devices(self) -> ResourcesConfig:
        if self.fused and self.trials_per_device == 1:
            raise ValueError(
                f"fused: {str(self.fused).lower()} has nothing to fuse with trials_per_device: 1; write "
                "trials_per_device: 16, or fused: false"
            )
        if self.trials_per_device > 1 and self.has_groups:
            raise ValueError(
                f"trials_per_device: {self.trials_per_device} is for trials of one worker, found workers: "
                f"{self.workers}; write workers: 1, or trials_per_device: 1"
            )
        if self.trials_per_device > 1 and self.gpus_per_worker > 1:
            raise ValueError(
                f"trials_per_device: {self.trials_per_device} shares one GPU, found gpus_per_worker: "
                f"{self.gpus_per_worker:g}; write gpus_per_worker: 1"
            )
        return self

    @property
    def trials_at_a_slot(self) -> int:
        """How many trials run on what `worker_resources` asks for once."""
        return self.trials_per_device if self.fused else 1

    @property
    def share(self) -> float:
        """The part of a worker's CPUs and GPUs that the process of a trial asks for."""
        return 1.0 if self.fused else 1.0 / self.trials_per_device

    @property
    def devices_per_worker(self) -> float:
        """The devices of a worker that shares them with no other trial: GPUs, or CPU cores where it has none."""
        return self.gpus_per_worker or self.cpus_per_worker

    @property
    def num_threads(self) -> int:
        """CPU threads of a worker's process."""
        return max(1, int(self.cpus_per_worker * self.share))

    @property
    def hang_timeout_s(self) -> float | None:
        """The limit for a trial that reports nothing, in seconds; None leaves it to what its epochs take."""
        return None if self.hang_timeout is None else duration_s(self.hang_timeout)

    @property
    def has_groups(self) -> bool:
        """Whether trials of some architecture are groups of workers."""
        return max(self.workers.values() if isinstance(self.workers, Mapping) else (self.workers,)) > 1

    def workers_of(self, arch: str) -> int:
        """The workers of a trial of this architecture."""
        if isinstance(self.workers, Mapping):
            return self.workers.get(arch, self.workers.get(DEFAULT, 1))
        return self.workers
