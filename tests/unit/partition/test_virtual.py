"""Clients who are computed: who holds what without a list of it."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.core.rng import generator
from fedexp.core.shards import all_rows, are_listed, blocks, partition_hash, sizes_of
from fedexp.partition.check import checked
from fedexp.partition.document import partition_document
from fedexp.partition.virtual import FEW, LISTED, Permutation, Virtual, VirtualShards
from fedexp.tasks.multiclass import Multiclass


def rows(n):
    return Split(torch.zeros(n, 1), torch.arange(n) % 3)


def keys(seed):
    return generator(seed, "keys").integers(2**63, size=(6, 2), dtype=np.uint64)


def dealt(n, n_clients, examples=None, seed=0):
    return Virtual(examples)(rows(n), n_clients, generator(seed, "partition"))


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 1000, 4097])
def test_a_permutation_has_every_number_once(n):
    assert sorted(Permutation(n, keys(n))(np.arange(n)).tolist()) == list(range(n))


def test_a_permutation_by_hand():
    # 4 numbers, one round with the keys 2 (made odd: 3) and 1: x ^ (x >> 1) is 0 1 3 2 (shift 1),
    # times 3 plus 1 is 1 4 10 7, modulo 4 is 1 0 2 3.
    assert Permutation(4, np.array([[2, 1]], np.uint64))(np.arange(4)).tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 1000, 4097, 2**33])
def test_one_number_goes_where_it_goes_among_many(n):
    many = np.arange(min(n, 4 * FEW))
    permutation = Permutation(n, keys(n % 1000))
    alone = [int(permutation(many[k : k + 1])[0]) for k in range(len(many))]
    assert alone == permutation(many).tolist()


def test_neighbours_in_the_deal_are_no_neighbours_in_the_data():
    n, draws = 100, 4000
    firsts = [Permutation(n, keys(seed))(np.arange(10)) for seed in range(draws // 10)]
    counts = np.bincount(np.concatenate(firsts), minlength=n)
    assert ((counts - draws / n) ** 2).sum() / (draws / n) < 160  # chi-square, 99 degrees: p 1e-4
    order = Permutation(5000, keys(0))(np.arange(5000)).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.06
    assert abs(np.corrcoef(order, np.arange(5000))[0, 1]) < 0.06


def test_computed_shards_are_what_a_list_of_them_would_be():
    shards = dealt(7001, 1003).shards
    assert not are_listed(shards)
    listed = tuple(shards)
    assert len(listed) == len(shards) == 1003
    assert sorted(np.concatenate(listed).tolist()) == list(range(7001))
    assert all((np.diff(shard) > 0).all() for shard in listed)
    assert sizes_of(shards).tolist() == sizes_of(listed).tolist() == [len(s) for s in listed]
    assert set(sizes_of(shards).tolist()) == {6, 7}
    assert all_rows(shards).tolist() == all_rows(listed).tolist()
    assert partition_hash(shards) == partition_hash(listed)
    assert shards[-1].tolist() == listed[1002].tolist()
    assert [s.tolist() for s in shards[3:5]] == [s.tolist() for s in listed[3:5]]
    for wrong in (1003, -1004):
        with pytest.raises(IndexError):
            shards[wrong]


def test_blocks_end_where_clients_do(monkeypatch):
    monkeypatch.setattr("fedexp.core.shards.AT_ONCE", 100)
    shards = dealt(7001, 1003).shards
    found = list(blocks(shards))
    assert [len(sizes) for sizes, _ in found] == [100] * 10 + [3]
    assert np.concatenate([r for _, r in found]).tolist() == np.concatenate(shards).tolist()


def test_few_clients_are_listed_and_hold_the_same():
    few, many = dealt(9000, LISTED, 6), dealt(9000, LISTED + 1, 6)
    assert isinstance(few.shards, tuple)
    assert not are_listed(many.shards)
    assert [s.tolist() for s in few.shards] == [s.tolist() for s in many.shards[:LISTED]]


def test_the_document_of_too_many_says_so_and_lists_nothing():
    partition = dealt(9000, 1200, 6)
    document = partition_document(partition, "abc", Multiclass())
    assert document == {
        "n_clients": 1200,
        "class_names": ["a", "b", "c"],
        "held": 7200,
        "left_out": 1800,
        "hash": partition_hash(tuple(partition.shards)),
        "clients": "too many to list",
        "skew": {"size_coefficient_of_variation": 0.0},
    }


@pytest.mark.parametrize(
    ("examples", "n", "n_clients", "reason"),
    [
        (7, 100, 15, "15 clients would need 105 examples and there are 100: use at most 14"),
        (None, 100, 101, "every client needs at least one example"),
        (0, 100, 1, "examples=0"),
    ],
)
def test_what_cannot_be_dealt_is_refused(examples, n, n_clients, reason):
    with pytest.raises(InputError, match=reason):
        dealt(n, n_clients, examples)


class Theirs:
    """Computed shards of somebody who computes them wrongly."""

    def __init__(self, fault):
        self.fault = fault
        self.right = VirtualShards(Permutation(60, keys(0)), 60, 20)

    def __len__(self):
        return 20

    def __getitem__(self, client):
        return self.right[client]

    def sizes(self):
        return self.right.sizes() * (self.fault != "empty")

    def between(self, first, last):
        rows = self.right.between(first, last)
        if self.fault == "twice":
            rows[4] = rows[7]
        if self.fault == "outside":
            rows[4] = 60
        return rows[:-1] if self.fault == "fewer" else rows


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("twice", "gave a row more than once"),
        ("outside", "gave a client a row that there is not; rows are 0 to 59"),
        ("fewer", "gave clients other numbers of rows than it says"),
        ("empty", "left a client without an example"),
    ],
)
def test_computed_shards_are_checked_as_others_are(fault, reason):
    with pytest.raises(InputError, match=reason):
        checked(Partition(rows(60), Theirs(fault)), rows(60), 20, "Theirs")
