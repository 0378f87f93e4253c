"""Natural clients: sites, their names, their own patients, and skews within them."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.partition.check import checked
from fedexp.partition.dirichlet import Dirichlet
from fedexp.partition.feature import Feature
from fedexp.partition.iid import Iid
from fedexp.partition.own_sites import own_by_site
from fedexp.partition.site import Sites
from fedexp.partition.within_sites import WithinSites

RNG = np.random.default_rng(0)
NAMES = ("north", "south", "clinic")


def split(*sites):
    n = len(sites)
    return Split(torch.zeros(n, 1, 2, 2), torch.arange(n) % 2, site=torch.tensor(sites))


TRAIN, TEST = split(2, 0, 1, 0, 2, 2), split(0, 0, 2, -1)


def dataset(train=TRAIN, names=NAMES):
    return Dataset("ward", train, TEST, TEST, ("a", "b"), names)


def rows(arrays):
    return [array.tolist() for array in arrays]


def dealt(partitioner, train=TRAIN, n_clients=3, names=NAMES):
    partition = partitioner.of(dataset(train, names))(train, n_clients, np.random.default_rng(0))
    return checked(partition, train, n_clients, "it")


def test_a_client_is_a_site_with_its_name_and_its_own_patients():
    partition = dealt(Sites())
    assert partition.names == NAMES
    assert rows(partition.shards) == [[1, 3], [2], [0, 4, 5]]
    own = partition.own(TEST, "test")
    assert own.part is TEST
    assert rows(own.rows) == [[0, 1], [], [2]]  # the south has none; row 3 is of nowhere
    assert rows(partition.own(split(1), "validation").rows) == [[], [0], []]


def test_sites_without_names_have_numbers():
    assert dealt(Sites(), names=()).names == ("site 0", "site 1", "site 2")


def test_a_part_that_does_not_know_its_sites_has_nobodys_patients():
    unknown = Split(TEST.x, TEST.y)
    assert rows(dealt(Sites()).own(unknown, "test").rows) == [[], [], []]


@pytest.mark.parametrize("partitioner", [Sites(), WithinSites(1, Iid())], ids=["site", "within"])
def test_what_is_refused_of_sites(partitioner):
    nowhere = Split(TRAIN.x, TRAIN.y)
    with pytest.raises(InputError, match=r"partition=site: goes by .* and ward does not say it"):
        partitioner.of(dataset(nowhere))
    with pytest.raises(InputError, match="south: no training example is from there"):
        dealt(partitioner, split(0, 0, 2))
    with pytest.raises(InputError, match=r"1 of 4 training examples have no site.*row 3"):
        dealt(partitioner, split(0, 1, 2, -1))
    with pytest.raises(InputError, match=r"n_clients=4: .*use n_clients=3"):
        dealt(partitioner, n_clients=4)


def test_how_many_clients_there_are_is_asked_of_the_data():
    assert Sites().clients(lambda: 5) == 5
    assert WithinSites(3, Iid()).clients(lambda: 5) == 15


def test_a_skew_within_sites_stays_within_them():
    sites = np.repeat([0, 1, 2], [60, 40, 80])
    train = split(*RNG.permutation(sites).tolist())
    partition = dealt(WithinSites(2, Dirichlet(0.3, 2, 1000)), train, 6)
    assert partition.names == ("north-1", "north-2", "south-1", "south-2", "clinic-1", "clinic-2")
    of_clients = [set(train.site[torch.from_numpy(s)].tolist()) for s in partition.shards]
    assert of_clients == [{0}, {0}, {1}, {1}, {2}, {2}]
    assert sorted(np.concatenate(partition.shards)) == list(range(180))
    sizes = [len(shard) for shard in partition.shards]
    assert (sizes[0] + sizes[1], sizes[2] + sizes[3]) == (60, 40)
    assert rows(partition.own(TEST, "test").rows) == [[0, 1], [0, 1], [], [], [2], [2]]


def test_the_inner_partition_sees_one_site_only_and_names_it_where_it_refuses():
    with pytest.raises(InputError, match="clients_per_site=2: at south: every client needs"):
        dealt(WithinSites(2, Iid()), n_clients=6)
    with pytest.raises(InputError, match=r"inner.min_size=2: at north: "):
        dealt(WithinSites(2, Dirichlet(0.3, 2, 10)), n_clients=6)
    blurred = Feature("blur", 1.0, 45.0, 0.8, 1.5, 0.3)
    with pytest.raises(InputError, match="inner=Feature: changes the examples"):
        dealt(WithinSites(1, blurred))
    with pytest.raises(InputError, match="clients_per_site=0"):
        WithinSites(0, Iid())


def test_one_client_a_site_is_the_site():
    assert dealt(WithinSites(1, Iid())).names == NAMES
    assert rows(dealt(WithinSites(1, Iid())).shards) == rows(dealt(Sites()).shards)


def test_whose_examples_are_from_several_sites_has_no_patients_of_its_own():
    assert own_by_site(TRAIN, [np.array([0, 1]), np.array([2])]) is None
    assert own_by_site(Split(TRAIN.x, TRAIN.y), [np.array([0])]) is None
    assert own_by_site(TRAIN, [np.array([4]), np.array([0])]).sites == (2, 2)
