"""Every mistake in a search file is told at once, each with its line, its key, what was found and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config import load_search
from tests.search.space_files import GOOD, refusal, space_file, write
from trainables.metric_names import METRIC_MODES

BROKEN = [
    # what is replaced in GOOD, by what, the line, and the key with the sentence
    ("low: 1e-4", "low: 0", 9, "space.lr.low: log scale needs low > 0, found 0; set low: 0.00001 or log: false"),
    ("high: 1e-2", "high: 1e-5", 9, "space.lr.low: must be below high, found low 0.0001 and high 1e-05; exchange them"),
    ("high: 1e-2", "high: 99", 9, "space.lr.high: must be at most 10, found 99; write 10 or less"),
    ("low: 1e-4", "low: '1e-4'", 9, "space.lr.low: must be a number, found '1e-4'; write it without quotes"),
    ("low: 1e-4, ", "", 9, "space.lr.low: is missing; add low: VALUE"),
    ("log: true", "log: yes", 9, "space.lr.log: must be true or false, found 'yes'; write true or false"),
    (
        "log: true",
        "lgo: true",
        9,
        "space.lr.lgo: unknown key, found 'lgo'; did you mean low or log? valid here: low, high",
    ),
    ("log: true", "step: 0.004", 9, "space.lr.step: high - low must be a multiple of step, found step 0.004"),
    ("type: float, ", "", 9, "space.lr.type: is missing; add type: float or type: int or type: categorical"),
    ("type: float, ", "typ: float, ", 9, "space.lr.typ: unknown key, found 'typ'; write type"),
    ("type: float", "type: flot", 9, "space.lr.type: must be float, int, categorical, found 'flot'; write type: float"),
    ("{type: float, low: 1e-4, high: 1e-2, log: true}", "[1e-4, 1e-2]", 9, "space.lr: found a list without a type"),
    ("batch_size: 64", "batch_size: big", 10, "space.batch_size: must be a whole number, found 'big'; write digits"),
    ("batch_size: 64", "batch_size: 64.0", 10, "space.batch_size: must be a whole number, found 64.0"),
    (
        "batch_size: 64",
        "batch_size: {type: float, low: 1, high: 2}",
        10,
        "space.batch_size.type: batch_size is a whole number, found type: float; write type: int or type: categorical",
    ),
    (
        "batch_size: 64",
        "pretrained: {type: int, low: 0, high: 1}",
        10,
        "space.pretrained.type: pretrained is a true or false, found type: int; write type: categorical",
    ),
    ("batch_size: 64", "max_epochs: 3", 10, "space.max_epochs: is no parameter of the space, found 'max_epochs'; it"),
    ("batch_size: 64", "seed: 3", 10, "it belongs to sampler.seed"),
    ("batch_size: 64", "learning_rate: 3", 10, "unknown parameter, found 'learning_rate'; write lr"),
    ("batch_size: 64", "batchsize: 64", 10, "unknown parameter, found 'batchsize'; did you mean batch_size?"),
    (
        "batch_size: 64",
        "dropout: {type: float, low: 0, high: 1.5}",
        10,
        "space.dropout.high: must be below 1, found 1.5",
    ),
    ("batch_size: 64", "optimizer: adam", 10, "space.optimizer: 'adam' is one of timm's optimizers; write timm/adam"),
    (
        "batch_size: 64",
        "warmup_epochs: {type: int, low: 0, high: 5}",
        10,
        "space.warmup_epochs.high: must be below scheduler.max_epochs, found 5 of 5 epochs; write a smaller number",
    ),
    ("batch_size: 64", "mixup: 0.2", 10, "unknown parameter, found 'mixup'; write mixup_alpha"),
    ("batch_size: 64", "img_size: 64", 10, "it belongs to task.data.image_size (the decoded images) or space.input_s"),
    ("batch_size: 64", "micro_batch_size: 8", 10, "it belongs to resources.micro_batch_size"),
    ("batch_size: 64", "input_size: {type: int, low: 8, high: 16.5}", 10, "space.input_size.high: must be a whole nu"),
    ("batch_size: 64", "cnn_kernel: 4", 10, "space.cnn_kernel: a kernel has a middle, so its side is odd, found 4; w"),
    ("batch_size: 64", "dropout: .nan", 10, "space.dropout: must be a finite number, found nan"),
    ("- resnet18", "- resnt18", 8, "space.arch.values.1: unknown architecture 'resnt18'; nearest: resnet18"),
    (
        "- resnet18",
        "- alexnet",
        8,
        "space.arch.values.1: 'alexnet' is not in timm but in torchvision; write torchvision/",
    ),
    ("- resnet18", "- small_cnn", 8, "space.arch.values.1: written twice, found 'small_cnn' again; remove one"),
    ("- resnet18", "- [resnet18]", 8, "space.arch.values.1: must be one finite value, found a list"),
    ("[none, shift]", "[]", 11, "space.augment.values: must hold at least 1 value, found 0; add one"),
    ("[none, shift]", "[none, shfit]", 11, "space.augment.values.1: unknown augmentation, found 'shfit'; write shift"),
    ("Affine", "Afine", 14, "augmentations.shift.0.Afine: albumentations has no transform 'Afine'; nearest: Affine"),
    (
        "name: tpe",
        "name: tpee",
        15,
        "sampler.name: must be tpe, gp, cmaes, qmc, nsga2, nsga3, random, grid, forest or curve_gp, found 'tpee'; "
        "write tpe",
    ),
    ("name: tpe", "seed: -1", 15, "sampler.seed: must be at least 0, found -1; write 0 or more"),
    (
        "max_epochs: 5",
        "max_epoch: 5",
        16,
        "scheduler.max_epoch: unknown key, found 'max_epoch'; did you mean max_epochs?",
    ),
    ("max_epochs: 5", "grace_period: 1", 16, "scheduler.max_epochs: is missing; add max_epochs: 50"),
    (
        "max_epochs: 5",
        "max_epochs: 5, grace_period: 6",
        16,
        "scheduler.grace_period: must be at most max_epochs, found 6 of 5 epochs; write 5 or less",
    ),
    (
        "max_epochs: 5",
        "max_epochs: 5, grace_period: 5, fidelity: image_size",
        16,
        "scheduler.fidelity: rises at the rungs, found none below max_epochs with grace_period 5 of 5 epochs; lower",
    ),
    (
        "max_epochs: 5",
        "max_epochs: 5, reduction_factor: 1",
        16,
        "scheduler.reduction_factor: must be at least 2, found 1",
    ),
    ("workers: 1", "workers: 0", 17, "resources.workers: must be at least 1, found 0; write 1 or more"),
    (
        "workers: 1",
        'cpus_per_worker: "2"',
        17,
        "resources.cpus_per_worker: must be a number, found '2'; write it without",
    ),
    (
        "trials: 10",
        "time: 5y",
        18,
        "budget.time: must be a duration above 0, found '5y'; write it as 90s, 30m, 2h or 1d",
    ),
    (
        "trials: 10",
        "",
        18,
        "budget: the space has no end, found no limit; add trials: 60, epochs: 1000, time: 30m or device_hours: 8",
    ),
    ("lr: 1e-3, arch", "lr: 1, arch", 20, "start_from.0.lr: must lie from 0.0001 to 0.01, found 1.0; write a value"),
    (
        "arch: resnet18",
        "batch_size: 32",
        20,
        "start_from.0.batch_size: is fixed to 64 by the space, found 32; remove it",
    ),
    ("arch: resnet18", "dropout: 0.5", 20, "start_from.0.dropout: is not in the space, found 'dropout'; "),
    ("  - {lr: 1e-3, arch: resnet18}", "  - 3", 20, "start_from.0: must map parameters to values, found 3"),
    ("name: digits", "name: digit", 2, "found 'digit'; write digits"),
    ("name: digits", "name: folder", 2, "task.data: a data set of name folder needs `root`; add root: PATH/TO/IMAGES"),
    ("name: digits", "name: digits, image_size: big", 2, "task.data.image_size: must be a whole number, found 'big'"),
    ("task:", "name: My Run\ntask:", 1, "name: must be of a-z, 0-9, - and _ only, found 'My Run'; write my-run"),
    (
        "sampler: {name: tpe}",
        "sampler: 3",
        15,
        "sampler: must be a mapping, found 3; write `key: value` lines below it",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "sentence"), BROKEN, ids=lambda value: str(value)[:40])
def test_broken(tmp_path: Path, old: str, new: str, line: int, sentence: str) -> None:
    assert GOOD.count(old) >= 1
    head, tail = GOOD.rsplit(old, 1) if old == "arch: resnet18" else GOOD.split(old, 1)
    path = write(tmp_path, head + new + tail)
    told = refusal(path)
    assert any(each.startswith(f"{path}:{line}: ") and sentence in each for each in told)
    assert all(": " in each and ("; " in each) for each in told)


def test_metric_and_missing_sections(tmp_path: Path) -> None:
    path = write(tmp_path, "task: {metric: val_acc}\nspace: {}\n")
    assert refusal(path) == [
        f"{path}: scheduler: is missing; add scheduler: {{max_epochs: 50}}",
        f"{path}:1: task.data: is missing; add data: {{name: digits}}",
        f"{path}:1: task.metric: must be {', '.join(METRIC_MODES)}, found 'val_acc'; write val_auroc",
        f"{path}:2: space: must hold a parameter, found none; add lr: {{type: float, low: 1e-4, high: 0.1, log: true}}",
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = GOOD
    for old, new in [
        ("name: digits", "name: digit"),
        ("- resnet18", "- resnt18"),
        ("low: 1e-4", "low: 0"),
        ("batch_size: 64", "bach_size: 64"),
        ("[none, shift]", "[none, shfit]"),
        ("Affine", "Afine"),
        ("name: tpe", "name: tpee"),
        ("max_epochs: 5", "max_epochs: 5, grace_period: 6"),
        ("workers: 1", "workers: 0"),
        ("trials: 10", "trials: many"),
        ("lr: 1e-3, arch", "dropout: 2, arch"),
    ]:
        text = text.replace(old, new, 1)
    path = write(tmp_path, text)
    told = refusal(path, "resources.gpus_per_worker=-1")
    keys = [line.split(": ")[1] for line in told]
    assert keys == [
        "task.data.name",
        "space.arch.values.1",
        "space.lr.low",
        "space.bach_size",
        "space.augment.values.1",
        "augmentations.shift.0.Afine",
        "sampler.name",
        "scheduler.grace_period",
        "resources.workers",
        "resources.gpus_per_worker",
        "budget.trials",
        "start_from.0.dropout",
    ]
    assert told[9].startswith("-o resources.gpus_per_worker=-1: ")
    assert told[0].startswith(f"{path}:2: ")


def test_local_weights_exclude_published_ones(tmp_path: Path) -> None:
    path = space_file(tmp_path, space="{weights: a.pt, pretrained: {type: categorical, values: [true, false]}}")
    assert refusal(path) == [
        f"{path}:1: space.weights: excludes pretrained: true, found weights: a.pt; keep one of them"
    ]
    truth = "pretrained: {type: categorical, values: [true, false]}"
    when = "weights: {type: categorical, values: [a.pt, b.pt], when: {pretrained: false}}"
    assert load_search(space_file(tmp_path, space=f"{{{truth}, {when}}}")).space["pretrained"]
    either = "weights: {type: categorical, values: [null, a.pt]}"
    assert refusal(space_file(tmp_path, space=f"{{{truth}, {either}}}"))
    load_search(space_file(tmp_path, space=f"{{{truth}, {either}}}", forbid="[{pretrained: true, weights: a.pt}]"))
