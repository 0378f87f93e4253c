"""What every dataset of conf/dataset that needs no download must keep."""

import copy
from pathlib import Path

import pytest
import torch

from fedexp.data.loader import load, load_anew
from tests.support.composing import choices, part

NOWHERE = Path("/nowhere")
LOADERS = {name: part("dataset", name) for name in choices("dataset")}
AT_HAND = [name for name, loader in LOADERS.items() if not loader.files(NOWHERE)]


@pytest.fixture(params=AT_HAND)
def loader(request):
    return LOADERS[request.param]


def test_the_configs_were_found():
    assert "digits" in AT_HAND
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


def test_it_gives_what_it_declares(loader):
    dataset = load_anew(loader, NOWHERE)
    assert dataset.input_shape == tuple(loader.input_shape)
    assert dataset.num_classes == loader.num_classes
    assert all(len(part) for part in dataset.parts.values())
    assert torch.equal(dataset.train.y.unique(), torch.arange(dataset.num_classes))


def test_examples_are_stored_as_small_as_they_are_and_lie_in_0_to_1(loader):
    for part_ in load(loader, NOWHERE).parts.values():
        assert part_.x.dtype == torch.uint8
        pixels = part_.as_floats().x
        assert pixels.dtype == torch.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert pixels.max() > 0.5  # or the divisor is another one's


def test_the_same_loader_gives_the_same_and_loads_once(loader):
    first, again = load(loader, NOWHERE), load(copy.deepcopy(loader), NOWHERE)
    assert first is again
    anew = load_anew(loader, NOWHERE)
    for name, part_ in anew.parts.items():
        assert torch.equal(part_.x, first.parts[name].x)
        assert torch.equal(part_.y, first.parts[name].y)
