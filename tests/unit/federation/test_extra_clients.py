"""Malicious clients on top of the honest ones, and what counts them."""

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.config.schema import share
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.federation.extra_clients import with_extra_clients
from tests.support.composing import config_for

ON_TOP = ("attack.extra_clients=true", "attack.n_malicious=3", "n_clients=6", "backend=in_process")


@pytest.fixture(scope="module")
def plain():
    return build(config_for("n_clients=6", "backend=in_process"))


@pytest.fixture(scope="module")
def flipped():
    return build(config_for("attack=label_flip", *ON_TOP))


def test_copies_are_rows_of_their_own_behind_the_training_part():
    train = Split(torch.arange(10.0)[:, None], torch.arange(10), site=torch.arange(10) % 2)
    honest = Partition(train, (np.array([0, 1, 2]), np.array([4, 5, 6, 7, 8])), names=("a", "b"))
    whole = with_extra_clients(honest, 2, seed=0)
    assert torch.equal(whole.train.x[:10], train.x)
    assert [shard.tolist() for shard in whole.shards[2:]] == [[10, 11, 12, 13], [14, 15, 16, 17]]
    held = {0, 1, 2, 4, 5, 6, 7, 8}  # 3 and 9 are nobody's, and stay so
    for shard in whole.shards[2:]:
        copied = whole.train.rows(torch.from_numpy(shard))
        assert len(set(copied.y.tolist())) == 4
        assert set(copied.y.tolist()) <= held
        assert torch.equal(copied.x[:, 0].long(), copied.y)
        assert torch.equal(copied.site, copied.y % 2)
    assert with_extra_clients(honest, 0, seed=0) is honest
    other = with_extra_clients(honest, 2, seed=1).train.y[10:]
    assert not torch.equal(other, whole.train.y[10:])


def test_the_honest_keep_their_data_whatever_the_adversary_does(plain, flipped):
    assert [s.tolist() for s in flipped.partition.shards] == [
        s.tolist() for s in plain.partition.shards
    ]
    n = len(plain.dataset.train)
    assert torch.equal(flipped.dataset.train.y[:n], plain.dataset.train.y)
    assert torch.equal(flipped.dataset.train.x[:n], plain.dataset.train.x)
    assert len(flipped.dataset.train) == n + 3 * round(n / 6)


def test_they_are_the_last_and_count_as_clients(flipped):
    exp = flipped.experiment
    assert exp.n_clients == exp.server.n_clients == 9
    assert exp.malicious.tolist() == [False] * 6 + [True] * 3
    assert len(exp.sampler(9, np.random.default_rng(0))) == 9
    assert len(exp.evaluator.class_mixes) == 6  # who has patients


def test_what_is_counted_follows_from_the_config():
    config = config_for("attack=sign_flip", "aggregator=foolsgold", *ON_TOP)
    assert (config["cohort_size"], config["assumed_malicious"]) == (9, 3)
    assert config["aggregator"]["n_clients"] == 9
    among = config_for("attack=sign_flip", "cohort_size=5", "attack.fraction=0.5", "n_clients=6")
    assert (among["attack"]["n_malicious"], among["assumed_malicious"]) == (3, 3)
    half = config_for("attack=sign_flip", "cohort_size=5", *ON_TOP)
    assert half["assumed_malicious"] == 2  # 3 x 5 / 9, rounded up


def test_a_fraction_is_one_of_all_clients():
    assert share(0.25, 9, extra=True) == 3  # of 12
    assert share(0.25, 9) == 2
    config = config_for("attack=sign_flip", "attack.extra_clients=true", "n_clients=9")
    assert config["attack"]["n_malicious"] == 3
    with pytest.raises(InputError, match=r"attack.fraction=1: .*less than 1"):
        share(1, 9, extra=True)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("attack=none",), "with attack=none they would do nothing"),
        (("attack=sign_flip", "attack.n_malicious=0"), "and that is 0"),
        (("attack=sign_flip", "privacy=client_dp"), "no privacy mechanism counts"),
        (("attack=sign_flip", "channel=secure_skellam"), "no privacy mechanism counts"),
        (("attack=sign_flip", "leakage=loss_threshold"), "would count them twice"),
    ],
)
def test_where_copies_would_make_something_untrue_they_are_refused(overrides, reason):
    with pytest.raises(InputError, match=f"attack.extra_clients=True: .*{reason}"):
        build(config_for(*ON_TOP, *overrides))


def test_other_refusals():
    config = config_for("attack=sign_flip", *ON_TOP)
    for wrong in ("yes", 1, None):
        config["attack"]["extra_clients"] = wrong
        with pytest.raises(InputError, match=r"attack.extra_clients=.*: must be true or false"):
            build(config)
    config["attack"]["extra_clients"], config["cohort_size"] = True, 10
    with pytest.raises(InputError, match=r"cohort_size=10: .*n_clients=6, and 3 malicious ones"):
        build(config)


def test_a_saved_config_of_before_has_no_such_keys():
    config = config_for("attack=sign_flip", *ON_TOP)
    config["cohort_size"] = config["sampler"]["cohort_size"] = 6
    del config["attack"]["extra_clients"], config["dataset"]["imbalance"]
    assert build(config).experiment.n_clients == 6
