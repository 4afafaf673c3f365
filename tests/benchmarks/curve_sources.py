"""Which tasks are searches compared on? Spaces with the learning curves of all their trainings."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from search.config import load_search
from search.curve_table import CurveTable
from search.domains import Domain, parse_domain
from search.simulated_curves import Array, Curve, CurveSource, RecordedCurves
from search.space import Space

DIGITS = Path(__file__).parent / "curves" / "digits.npz"
LCBENCH_RECORDS = 52


@dataclass(frozen=True)
class Benchmark:
    """One task.

    Attributes:
        family: the set of curves that it is part of.
        curves: the curves for one more search, none of them taken yet.
        full_trainings: how many trainings to the end random search has.
    """

    family: str
    name: str
    space: Space
    max_epochs: int
    curves: Callable[[], CurveSource]
    full_trainings: int = 100


@dataclass(frozen=True)
class TestedCurve(Curve):
    """A curve with what the search never sees.

    Attributes:
        test: score on the test split after each epoch, (E,).
    """

    __test__ = False

    test: Array


class LcbenchSurrogate:
    """Curves of multilayer perceptrons on an OpenML task, from a surrogate network.

    Source: Zimmer et al., Auto-PyTorch Tabular, arXiv:2006.13799; surrogate of YAHPO Gym, arXiv:2109.03670.
    """

    # momentum has another name here: vistune knows that momentum has no effect beside adamw, the default optimizer.
    COLUMNS = (
        "batch_size",
        "learning_rate",
        "sgd_momentum",
        "weight_decay",
        "num_layers",
        "max_units",
        "max_dropout",
    )

    def __init__(self, folder: Path, *, task: str) -> None:
        self._session = _session(folder)
        self._task = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"][task]

    def curve(self, params: Mapping[str, Any]) -> TestedCurve:
        """Validation accuracy, cross entropy and seconds of 51 epochs; the test score is balanced accuracy.

        The first of the 52 records is of a network that has not trained yet (it is as good as guessing, and says
        nothing about the later ones), so it is left out. The clock of the surrogate does not always run forwards: its
        last time is spread evenly over the epochs.
        """
        records = np.arange(1, LCBENCH_RECORDS + 1)
        row = [params[name] for name in self.COLUMNS]
        x_cont = np.column_stack([records, np.tile(row, (LCBENCH_RECORDS, 1))]).astype(np.float32)
        x_cat = np.full((LCBENCH_RECORDS, 1), self._task, dtype=np.int32)
        found = self._session.run(None, {"x_cat": x_cat, "x_cont": x_cont})[0].astype(float)
        epochs = found[1:]
        seconds = np.full(len(epochs), max(float(found[-1, 0]), 1.0) / len(epochs))
        return TestedCurve(epochs[:, 1] / 100, epochs[:, 2], seconds, test=epochs[:, 5])


def lcbench(folder: Path, *, task: str) -> Benchmark:
    """A task of LCBench."""
    return Benchmark(
        family="LCBench",
        name=task,
        space=_lcbench_space(folder),
        max_epochs=LCBENCH_RECORDS - 1,
        curves=lambda: LcbenchSurrogate(folder, task=task),
    )


def digits() -> Benchmark:
    """Small networks on handwritten digits, from the curves that the project recorded."""
    table = CurveTable.read(DIGITS)
    return Benchmark(
        family="digits",
        name="digits",
        space=load_search(DIGITS.with_suffix(".yaml")).search_space,
        max_epochs=table.epochs,
        curves=lambda: RecordedCurves(table),
    )


def medquicktune(folder: Path, *, dataset: str) -> Benchmark:
    """Fine-tuning of ResNets and DenseNets on medical images; a trial gets a curve of the same network family.

    The seconds of a training are spread evenly over its epochs.
    """
    table = _medquicktune_table(folder)
    rows = np.array([row["dataset"] == dataset for row in _rows(folder / "config.csv")])
    part = replace(table, **{name: getattr(table, name)[rows] for name in ("params", "values", "losses", "seconds")})
    return Benchmark(
        family="MedQuickTune",
        name=dataset,
        space=Space(_MEDQUICKTUNE),
        max_epochs=table.epochs,
        curves=lambda: RecordedCurves(part, agree=("model",)),
        full_trainings=len(part) // 2,
    )


@cache
def _session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options)


@cache
def _lcbench_space(folder: Path) -> Space:
    listed = json.loads((folder / "config_space.json").read_text())["hyperparameters"]
    ranges = {each["name"]: each for each in listed if each["name"] not in ("OpenML_task_id", "epoch")}
    ranges["sgd_momentum"] = ranges.pop("momentum")
    return Space(
        {
            name: _domain(
                type=ranges[name]["type"].removeprefix("uniform_"),
                low=ranges[name]["lower"],
                high=ranges[name]["upper"],
                log=ranges[name]["log"],
            )
            for name in LcbenchSurrogate.COLUMNS
        }
    )


def _domain(**raw: Any) -> Domain:
    domain, problems = parse_domain(raw)
    assert domain is not None, problems
    return domain


def _choice(*values: Any, **when: Any) -> Domain:
    return _domain(type="categorical", values=list(values), **({"when": when} if when else {}))


def _float(low: float, high: float, *, log: bool = False, **when: Any) -> Domain:
    return _domain(type="float", low=low, high=high, log=log, **({"when": when} if when else {}))


def _int(low: int, high: int, **when: Any) -> Domain:
    return _domain(type="int", low=low, high=high, **({"when": when} if when else {}))


# The ranges that the 505 configurations span.
_MEDQUICKTUNE: Mapping[str, Domain] = {
    "model": _choice("densenet", "resnet"),
    "learning_rate": _float(1e-5, 1e-2, log=True),
    "optimizer_type": _choice("adam", "adamw", "sgd"),
    "scheduler_type": _choice("cosine_warmup", "warmup"),
    "warmup": _int(0, 5),
    "weight_decay": _float(1e-6, 1e-3, log=True),
    "batch_size": _int(1, 4),
    "gradient_accumulation_steps": _int(1, 2),
    "label_smoothing": _float(0.0, 0.2),
    "mixup": _float(0.0, 0.4),
    "act": _choice("gelu", "leakyrelu", "relu"),
    "densenet_type": _choice("densenet121", "densenet169", "densenet201", model="densenet"),
    "growth_rate": _int(12, 32, model="densenet"),
    "bn_size": _int(1, 4, model="densenet"),
    "init_features": _int(16, 64, model="densenet"),
    "dropout_prob": _float(0.0, 0.3, model="densenet"),
    "remove_last_block": _choice("False", "True", model="densenet"),
    "resnet_type": _choice("resnet18", "resnet34", "resnet50", model="resnet"),
    "widen_factor": _float(1.0, 2.0, model="resnet"),
    "conv1_t_size": _int(3, 7, model="resnet"),
    "conv1_t_stride": _int(1, 2, model="resnet"),
    "no_max_pool": _choice("False", "True", model="resnet"),
}

# Names that mean something else, or nothing, to vistune.
_COLUMN_OF = {"warmup": "warmup_epochs", "mixup": "mixup_alpha"}


@cache
def _medquicktune_table(folder: Path) -> CurveTable:
    curves = [[float(value) / 100 for key, value in row.items() if key] for row in _rows(folder / "curve.csv")]
    seconds = [float(row["cost"]) / len(curves[0]) for row in _rows(folder / "cost.csv")]
    table = CurveTable.empty(_MEDQUICKTUNE, metric="val_top1", epochs=len(curves[0]))
    for row, values, each in zip(_rows(folder / "config.csv"), curves, seconds, strict=True):
        params = {name: _value(row[_COLUMN_OF.get(name, name)]) for name in _MEDQUICKTUNE}
        losses = [1 - value for value in values]
        table = table.with_training(params, values=values, losses=losses, seconds=each)
    return table


def _value(text: str) -> Any:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return None if math.isnan(number) else number


@cache
def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
