"""Long-tailed classes, against the formula of Cao et al. 2019."""

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.data.imbalance import check_factor, long_tailed, sizes_kept
from fedexp.run_folder.format import config_hash
from tests.support.composing import config_for


def dataset(y):
    part = Split(torch.arange(len(y))[:, None].float(), y)
    return Dataset("made up", part, part, part, tuple("abcd"))


@pytest.mark.parametrize("factor", [0.01, 0.02, 0.1, 0.5, 1.0])
def test_sizes_are_those_of_the_authors_code(factor):
    # LDAM-DRW, imbalance_cifar.py: int(img_max * imb_factor ** (cls_idx / (cls_num - 1.0)))
    theirs = [int(5000 * factor ** (c / 9.0)) for c in range(10)]
    assert np.abs(sizes_kept(np.full(10, 5000), factor) - theirs).max() <= (factor in (0.01, 0.1))
    assert sizes_kept(np.full(10, 5000), factor)[-1] == round(5000 * factor)


def test_a_class_keeps_at_least_one_and_gains_none():
    assert sizes_kept(np.array([10, 10, 10]), 0.001).tolist() == [10, 1, 1]
    assert sizes_kept(np.array([3, 0, 90, 5]), 0.1).tolist() == [3, 0, 19, 5]
    assert sizes_kept(np.array([7]), 0.1).tolist() == [7]


def test_rows_are_drawn_within_classes_and_keep_their_order():
    y = torch.arange(400) % 4
    first, again, other = (
        long_tailed(dataset(y), 0.08, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert torch.bincount(first.train.y).tolist() == [100, 43, 18, 8]
    rows = first.train.x[:, 0].long()
    assert (rows.diff() > 0).all()
    assert torch.equal(y[rows], first.train.y)
    assert torch.equal(rows, again.train.x[:, 0].long())
    assert not torch.equal(rows, other.train.x[:, 0].long())
    assert torch.equal(first.test.y, y)
    assert first.remarks == (
        "dataset.imbalance=0.08 keeps 169 of 400 training examples: 100 of the first class, 8 of "
        "the last",
    )


def test_all_parts_may_be_thinned_out_and_train_is_as_without():
    y = torch.arange(400) % 4
    of_train = long_tailed(dataset(y), 0.08, np.random.default_rng(0))
    of_all = long_tailed(dataset(y), 0.08, np.random.default_rng(0), "all")
    assert torch.equal(of_all.train.x, of_train.train.x)
    for part in (of_all.validation, of_all.test):
        assert torch.bincount(part.y).tolist() == [100, 43, 18, 8]
    assert not torch.equal(of_all.validation.x, of_all.test.x)
    assert len(of_all.remarks) == 3
    assert "169 of 400 test examples" in of_all.remarks[-1]


def test_parts_are_named_only_where_something_is_thinned_out():
    check_factor(None, "train")
    with pytest.raises(InputError, match=r"dataset.imbalance_of=all: has no effect without"):
        check_factor(None, "all")
    with pytest.raises(InputError, match=r"dataset.imbalance_of=test: Allowed: train, all"):
        check_factor(0.1, "test")


def test_several_labels_have_no_class_to_thin_out():
    several = dataset(torch.zeros(3, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"dataset.imbalance=0.1: .*any number of labels"):
        long_tailed(several, 0.1, np.random.default_rng(0))


def test_a_run_trains_on_the_tail_and_says_so():
    config = config_for()
    config["dataset"]["imbalance"] = 0.1
    built = build(config)
    built.experiment.backend.close()
    counts = torch.bincount(built.dataset.train.y)
    assert counts.tolist() == [124, 99, 76, 59, 46, 35, 27, 21, 16, 12]
    assert sum(len(shard) for shard in built.partition.shards) == counts.sum()
    assert any("dataset.imbalance=0.1 keeps" in remark for remark in built.remarks)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "much", True])
def test_refusals(wrong):
    config = config_for()
    config["dataset"]["imbalance"] = wrong
    with pytest.raises(InputError, match=r"dataset\.imbalance="):
        build(config)


def test_keys_that_do_nothing_leave_the_hash_of_a_config_as_it_was():
    config = config_for()
    before = {**config, "attack": dict(config["attack"]), "dataset": dict(config["dataset"])}
    del before["attack"]["extra_clients"], before["dataset"]["imbalance"]
    assert config_hash(before) == config_hash(config)
    for group, key, value in (("dataset", "imbalance", 0.1), ("attack", "extra_clients", True)):
        other = {**config, group: {**config[group], key: value}}
        assert config_hash(other) != config_hash(config)
