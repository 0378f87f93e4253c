"""Every file in conf/dataset: described, buildable without data, and true to the publisher."""

import re
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.schema import register
from fedexp.data.medmnist import published

register()  # what the files interpolate

OF_ONES_OWN = ["arrays", "images", "table"]  # which need a path: tests/contract/test_datasets.py
CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[3] / "conf" / "dataset").rglob("*.yaml"))
    if path.stem not in OF_ONES_OWN
]
MED = [name for name in published() if not name.endswith("3d")]


def test_there_is_one_for_each_collection() -> None:
    assert sorted(path.stem for path in CONFIGS) == sorted(
        [
            "breast_cancer",
            "digits",
            "mnist",
            "fashion_mnist",
            "cifar10",
            "cifar100",
            "emnist",
            "svhn",
            *MED,
        ]
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_without_data(path: Path) -> None:
    config = OmegaConf.load(path)
    loader = instantiate(config)
    assert loader.name == config.name == path.stem
    assert loader.input_shape == tuple(config.input_shape)
    assert all(type(size) is int for size in loader.input_shape)
    assert loader == instantiate(config)
    assert hash(loader) == hash(instantiate(config))
    assert [file.dataset for file in loader.files(Path("data"))] == [path.stem] * (
        {"breast_cancer": 0, "digits": 0, "mnist": 4, "fashion_mnist": 4, "svhn": 2}.get(
            path.stem, 1
        )
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_begins_with_its_description(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.fullmatch(r"# [A-Z].{10,86}[^.]", first)


@pytest.mark.parametrize("name", MED)
def test_declares_what_medmnist_declares(name: str) -> None:
    path = next(path for path in CONFIGS if path.stem == name)
    config, about = OmegaConf.load(path), published()[name]
    assert config.input_shape == [about["n_channels"], 28, 28]
    assert config.num_classes == len(about["label"])
    n = about["n_samples"]
    sizes = f"{n['train']:,} train, {n['val']:,} validation, {n['test']:,} test"
    assert sizes in path.read_text()
    assert about["license"] in path.read_text()
