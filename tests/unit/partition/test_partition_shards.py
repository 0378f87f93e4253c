import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.partition.shards import Shards
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()


def split(labels):
    return Split(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels))


def test_eight_rows_two_clients_two_shards_each():
    # By label: rows 1 3 | 5 7 | 0 2 | 4 6.
    train = split([2, 0, 2, 0, 3, 1, 3, 1])
    pieces = [{1, 3}, {5, 7}, {0, 2}, {4, 6}]
    seen = set()
    for seed in range(50):
        first, second = (
            set(shard.tolist()) for shard in Shards(2)(train, 2, np.random.default_rng(seed)).shards
        )
        assert first | second == set(range(8))
        assert sum(piece <= first for piece in pieces) == 2
        seen.add(frozenset(first))
    assert len(seen) == 6  # all ways of choosing two shards of four


def test_rows_of_one_label_keep_their_order():
    # Many rows: few are sorted stably by any method.
    shards = Shards(1)(split([0, 1] * 500), 4, np.random.default_rng(0)).shards
    assert sorted(shard.tolist() for shard in shards) == [
        list(range(0, 500, 2)),
        list(range(1, 500, 2)),
        list(range(500, 1000, 2)),
        list(range(501, 1000, 2)),
    ]


def test_shards_that_do_not_divide_differ_by_at_most_one_row():
    shards = Shards(1)(split([0] * 11), 4, np.random.default_rng(0)).shards
    assert sorted(len(shard) for shard in shards) == [2, 3, 3, 3]


def test_the_paper_s_deal_gives_at_most_two_digits():
    train = split(np.repeat(np.arange(10), 600).tolist())
    counts = Shards(2)(train, 100, np.random.default_rng(0)).label_counts(10, TASK)
    assert (counts.sum(axis=1) == 60).all()
    assert (np.count_nonzero(counts, axis=1) <= 2).all()


def test_more_shards_than_rows_and_no_shards_are_refused():
    with pytest.raises(
        InputError,
        match=r"shards_per_client=3: 4 clients make 12 shards and there are 11 .* most 2",
    ):
        Shards(3)(split([0] * 11), 4, np.random.default_rng(0))
    with pytest.raises(InputError, match="shards_per_client=0"):
        Shards(0)
