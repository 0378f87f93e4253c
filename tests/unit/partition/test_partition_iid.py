import numpy as np
import torch

from fedexp.core.examples import Split
from fedexp.partition.iid import Iid
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()


def test_sizes_differ_by_at_most_one_and_every_row_is_dealt():
    train = Split(torch.zeros(103, 1, 2, 2), torch.zeros(103, dtype=torch.int64))
    shards = Iid()(train, 10, np.random.default_rng(0)).shards
    assert sorted(len(shard) for shard in shards) == [10] * 7 + [11] * 3
    assert sorted(np.concatenate(shards)) == list(range(103))


def test_rows_are_shuffled_over_the_whole_part():
    train = Split(torch.zeros(1000, 1, 2, 2), torch.arange(1000) // 500)
    counts = Iid()(train, 2, np.random.default_rng(0)).label_counts(2, TASK)
    # Hypergeometric with mean 250 and deviation 8: five deviations.
    assert np.abs(counts - 250).max() < 40
