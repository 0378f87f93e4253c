"""What every dataset of conf/dataset that needs no download must keep, and those of one's own."""

import copy
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.folders import conf_folder
from fedexp.config.schema import register
from fedexp.data.loader import Facts, facts_of, load, load_anew
from tests.support.composing import choices
from tests.support.own_files import own_loader

NOWHERE = Path("/nowhere")


def published(name):
    """The loader of a choice, from its own YAML: the whole config is nobody's business here."""
    register()
    node = OmegaConf.create({"dataset": OmegaConf.load(conf_folder() / "dataset" / f"{name}.yaml")})
    for key in OmegaConf.missing_keys(node):
        OmegaConf.update(node, key, "somewhere")
    if node.dataset.input_shape is None:  # found in the data
        node.dataset.update({"input_shape": [1, 8, 8], "num_classes": 2})
    return instantiate(OmegaConf.to_container(node.dataset, resolve=True))


LOADERS = {name: published(name) for name in choices("dataset")}
OWN = [name for name, loader in LOADERS.items() if hasattr(loader, "path")]
AT_HAND = [n for n, loader in LOADERS.items() if not loader.files(NOWHERE) and n not in OWN]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", params=[*AT_HAND, *OWN])
def loader(request, data_dir):
    return own_loader(request.param, data_dir) if request.param in OWN else LOADERS[request.param]


def test_the_configs_were_found():
    assert {"digits", "breast_cancer"} <= set(AT_HAND)
    assert {"images", "arrays", "table"} <= set(OWN)
    assert {"mnist", "breastmnist"} <= set(LOADERS)


@pytest.mark.parametrize("name", LOADERS)
def test_it_goes_by_the_name_of_its_config_and_says_what_it_gives(name):
    loader = LOADERS[name]
    assert loader.name == name
    assert all(size > 0 for size in loader.input_shape)
    assert loader.num_classes >= 2


@pytest.mark.parametrize("name", LOADERS)
def test_what_it_downloads_lies_in_the_data_folder(name):
    for file in LOADERS[name].files(Path("/data")):
        assert file.path.is_relative_to("/data")
        assert file.urls
        assert file.dataset == name


def test_it_gives_what_it_declares(loader, data_dir):
    dataset, facts = load_anew(loader, data_dir), facts_of(loader, data_dir)
    assert dataset.input_shape == tuple(loader.input_shape or facts.input_shape)
    assert dataset.num_classes == loader.num_classes or facts.num_classes
    assert facts == Facts.of(dataset)
    assert all(len(part) for part in dataset.parts.values())
    assert torch.equal(dataset.train.y.unique(), torch.arange(dataset.num_classes))


def test_images_are_stored_as_small_as_they_are_and_lie_in_0_to_1(loader, data_dir):
    for part_ in load(loader, data_dir).parts.values():
        assert part_.x.dtype == (torch.uint8 if part_.are_images else torch.float32)
        if not part_.are_images:
            continue
        pixels = part_.as_floats().x
        assert pixels.dtype == torch.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert pixels.max() > 0.5  # or the divisor is another one's


def test_the_same_loader_gives_the_same_and_loads_once(loader, data_dir):
    first, again = load(loader, data_dir), load(copy.deepcopy(loader), data_dir)
    assert first is again
    anew = load_anew(loader, data_dir)
    for name, part_ in anew.parts.items():
        assert torch.equal(part_.x, first.parts[name].x)
        assert torch.equal(part_.y, first.parts[name].y)
