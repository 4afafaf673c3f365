"""iNaturalist's folders, in small; torchvision reads the same labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.images import write_classes
from trainables.config import DataConfig
from trainables.data import ImageData, load_data
from trainables.errors import DataError

SPECIES = {
    "00000_Animalia_Chordata_Aves_Passeriformes_Paridae_Parus_major": 3,
    "00001_Animalia_Chordata_Mammalia_Carnivora_Felidae_Lynx_lynx": 2,
    "00002_Plantae_Tracheophyta_Magnoliopsida_Fagales_Fagaceae_Quercus_robur": 2,
}


def load(root: Path, **options: Any) -> ImageData:
    config = DataConfig(name="inaturalist", root=str(root), **options)
    return load_data(config, cache_root=root.parent / "cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_classes(tmp_path / "inat" / "2021_train_mini", SPECIES)
    return tmp_path / "inat"


@pytest.mark.parametrize(
    ("target", "class_names"),
    [
        (None, ("Parus major", "Lynx lynx", "Quercus robur")),
        ("kingdom", ("Animalia", "Plantae")),
        ("class", ("Aves", "Magnoliopsida", "Mammalia")),
        ("genus", ("Lynx", "Parus", "Quercus")),
    ],
)
def test_ranks(root: Path, target: str | None, class_names: tuple[str, ...]) -> None:
    from torchvision.datasets import INaturalist

    data = load(root, version="2021_train_mini", target=target)
    assert data.class_names == class_names
    reference = INaturalist(root, "2021_train_mini", target_type=target or "full")
    expected = {file: reference.category_name("full", category) for category, file in reference.index}
    assert len(expected) == 3  # the species share the names of their files
    assert data.names is not None
    for name, label in zip(data.names, data.labels.tolist(), strict=True):
        species = name.split("/")[1]
        category = reference.all_categories.index(species)
        if target is not None:
            number = reference.categories_map[category][target]
            assert data.class_names[label] == reference.category_name(target, number)
        else:
            assert label == category
    assert (data.given_split == -1).all()


def test_published_validation_is_the_test(root: Path) -> None:
    write_classes(root / "2021_valid", dict.fromkeys(SPECIES, 1))
    data = load(root, version="2021_train_mini")
    assert data.given_split.tolist() == [-1] * 7 + [2] * 3
    assert (load(root, version="2021_valid").given_split == -1).all()


def test_before_2021(tmp_path: Path) -> None:
    write_classes(tmp_path / "inat" / "2018", {"Aves/10": 1, "Aves/2": 1, "Plantae/7": 1})
    assert load(tmp_path / "inat", version="2018").class_names == ("Aves/10", "Aves/2", "Plantae/7")
    data = load(tmp_path / "inat", version="2018", target="super")
    assert data.class_names == ("Aves", "Plantae")
    assert data.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "2021_train of inaturalist is missing, found 2021_train_mini; correct task.data.version"),
        ({"version": "2020"}, "task.data.version: unknown for inaturalist, found 2020; use 2017, 2018"),
        ({"version": "2021_train_mini", "target": "super"}, "found super; use full, kingdom, phylum"),
    ],
)
def test_wrong_settings(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(root, **options)
    assert message in str(caught.value)


def test_other_folders(root: Path) -> None:
    write_classes(root / "2021_train_mini", {"birds": 1})
    with pytest.raises(DataError, match=r"1 folder\(s\) are not called NUMBER_KINGDOM_.*for instance birds"):
        load(root, version="2021_train_mini")
