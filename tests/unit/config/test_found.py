"""What a config leaves to its data is asked of them, and written into the config."""

from dataclasses import dataclass

import pytest
import torch
from omegaconf import OmegaConf

from fedexp.config.found import settle
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.data.loader import Facts, facts_of
from tests.support.composing import config_for

HERE = "tests.unit.config.test_found"


@dataclass
class Unsaid:
    """Rows of 5 numbers, 3 classes, 2 sites; nothing is declared."""

    name: str
    input_shape: list[int] | None = None
    num_classes: int | None = None
    says: bool = True

    def __call__(self, data_dir):
        part = Split(torch.zeros(6, 5), torch.arange(6) % 3, site=torch.arange(6) % 2)
        return Dataset(self.name, part, part, part, ("a", "b", "c"))

    def files(self, data_dir):
        return ()


@dataclass
class Saying(Unsaid):
    """The same, but says it without loading anything."""

    def facts(self, data_dir):
        return Facts((5,), 3, 2)

    def __call__(self, data_dir):
        raise AssertionError("was loaded")


def composed(**dataset):
    config = OmegaConf.create(config_for("model=mlp") | {"trust": ["tests."]})
    node = {"_target_": f"{HERE}.Unsaid", "name": "u", "input_shape": None, "num_classes": None}
    config.dataset = node | dataset
    config.model.input_shape = "${dataset.input_shape}"
    config.model.num_classes = "${dataset.num_classes}"
    return config


@pytest.mark.parametrize("kind", ["Unsaid", "Saying"])
def test_what_is_null_is_found_and_the_model_knows_it(kind):
    config = composed(_target_=f"{HERE}.{kind}")
    settle(config)
    assert config.dataset.input_shape == config.model.input_shape == [5]
    assert config.dataset.num_classes == config.model.num_classes == 3


def test_what_was_said_is_held_against_what_there_is():
    with pytest.raises(InputError, match=r"dataset\.num_classes=7: u has 3 classes"):
        settle(composed(num_classes=7))


def test_data_are_not_looked_at_where_nothing_is_left_to_them():
    config = composed(_target_="not.there", num_classes=7, input_shape=[5])
    settle(config)
    assert config.dataset.num_classes == 7


def test_a_target_that_may_not_be_built_is_refused_before_anything_is_asked():
    config = composed(_target_="os.system")
    with pytest.raises(InputError, match=r"dataset\._target_=os\.system: is no part of fedexp's"):
        settle(config)


def test_what_has_to_be_said_is_asked_for():
    with pytest.raises(InputError, match=r"dataset\.path=: must be said: dataset\.path=\.\.\."):
        settle(composed(path="???"))


def test_sites_without_names_are_counted():
    assert facts_of(Unsaid("u"), None) == Facts((5,), 3, 2)
