"""Keys for settings that others published: left at their defaults they are as if not there."""

from copy import deepcopy

import pytest

from fedexp.config.build import build
from fedexp.run_folder.format import config_hash
from tests.support.composing import config_for

KEYS = [
    (("aggregator=geometric_median",), "aggregator.start", "zero"),
]


@pytest.mark.parametrize(("overrides", "key", "other"), KEYS, ids=[key for _, key, _ in KEYS])
def test_a_run_of_before_the_key_goes_on_and_one_with_it_is_another(overrides, key, other):
    config = config_for(*overrides)
    group, name = key.split(".")
    before = deepcopy(config)
    del before[group][name]
    assert config_hash(before) == config_hash(config)
    build(before).experiment.backend.close()
    config[group][name] = other
    assert config_hash(config) != config_hash(before)
