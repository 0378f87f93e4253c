"""The server's own examples: whose they were, who trains on them, and how."""

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from tests.support.composing import config_for

SMALL = ("n_clients=8", "train_examples=200", "model=logistic", "backend=in_process", "rounds=1")
FLTRUST = ("aggregator=fltrust", "aggregator.root_examples=40")


def test_root_data_come_from_the_clients_and_validation_is_everybodys():
    with_root, without = build(config_for(*SMALL, *FLTRUST)), build(config_for(*SMALL))
    held = np.concatenate(with_root.partition.shards)
    assert len(held) == len(set(held.tolist())) == 200 - 40
    for shard, before in zip(with_root.partition.shards, without.partition.shards, strict=True):
        assert 0 < len(shard) <= len(before)
        assert set(shard.tolist()) <= set(before.tolist())
    assert torch.equal(with_root.dataset.validation.x, without.dataset.validation.x)


def test_no_client_gives_its_last_example():
    held = config_for(*SMALL, *FLTRUST, "aggregator.root_examples=192")
    assert [len(shard) for shard in build(held).partition.shards] == [1] * 8
    with pytest.raises(InputError, match="root_examples=193: the clients can give 192"):
        build(config_for(*SMALL, *FLTRUST, "aggregator.root_examples=193"))


def test_root_data_are_clean_where_clients_poison_theirs():
    attack = ("attack=label_flip", "attack.n_malicious=4")
    poisoned = build(config_for(*SMALL, *FLTRUST, *attack))
    clean = build(config_for(*SMALL, *FLTRUST))
    root = np.setdiff1d(np.arange(200), np.concatenate(poisoned.partition.shards))
    assert torch.equal(poisoned.dataset.train.y[root], clean.dataset.train.y[root])
    assert not torch.equal(poisoned.dataset.train.y, clean.dataset.train.y)


def test_the_server_needs_no_noise_against_itself():
    private = ("privacy=dp_sgd", "privacy.noise_multiplier=1")
    built, bare = (build(config_for(*SMALL, *FLTRUST, *more)) for more in (private, ()))
    assert built.experiment.root.trainer == bare.experiment.trainer
    assert built.experiment.trainer != bare.experiment.trainer
