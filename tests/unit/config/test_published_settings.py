"""Keys for settings that others published: left at their defaults they are as if not there."""

from copy import deepcopy

import pytest

from fedexp.config.build import build, refuse_parts
from fedexp.core.flat import vector_of
from fedexp.run_folder.format import config_hash
from tests.support.composing import config_for

KEYS = [
    (("aggregator=geometric_median",), "aggregator.start", "zero"),
    (("aggregator=foolsgold",), "aggregator.features", "last_layer"),
    (("partition=classes",), "partition.assignment", "free"),
    ((), "partition.balanced", True),
    (("attack=mimic",), "attack.warmup", 2),
    ((), "training.drop_last", True),
    (("worker_momentum=momentum",), "worker_momentum.malicious_too", False),
]


@pytest.mark.parametrize(("overrides", "key", "other"), KEYS, ids=[key for _, key, _ in KEYS])
def test_a_run_of_before_the_key_goes_on_and_one_with_it_is_another(overrides, key, other):
    config = config_for(*overrides)
    group, name = key.split(".")
    before = deepcopy(config)
    del before[group][name]
    assert config_hash(before) == config_hash(config)
    refuse_parts(before)
    config[group][name] = other
    assert config_hash(config) != config_hash(before)


def test_the_builder_tells_a_rule_where_the_last_layer_lies():
    config = config_for("aggregator=foolsgold", "aggregator.features=last_layer")
    built = build({**config, "train_examples": 100})
    built.experiment.backend.close()
    *_, weight, bias = built.model.parameters()
    history = built.experiment.server.aggregator.init(len(vector_of(built.model)))["history"]
    assert history.shape == (10, weight.numel() + bias.numel())
