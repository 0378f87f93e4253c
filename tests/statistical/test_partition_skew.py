"""Label skew follows alpha, and is measured by the mean total variation distance."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from fedexp.core.examples import Split
from fedexp.partition.dirichlet import Dirichlet
from fedexp.partition.dirichlet_balanced import DirichletBalanced
from fedexp.partition.document import label_skew
from fedexp.partition.iid import Iid
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()

ALPHAS = (0.05, 0.3, 1.0, 10.0, 1000.0)
N_CLASSES, N_CLIENTS = 10, 20


@pytest.fixture(scope="module")
def train():
    y = torch.arange(20_000) % N_CLASSES
    return Split(torch.zeros(len(y), 1, 1, 1), y)


def mean_total_variation(partitioner, train):
    return np.mean(
        [
            label_skew(
                partitioner(train, N_CLIENTS, np.random.default_rng(seed)).label_counts(
                    N_CLASSES, TASK
                )
            )[0]
            for seed in range(10)
        ]
    )


@pytest.mark.parametrize(
    "family",
    [lambda alpha: Dirichlet(alpha, min_size=1, max_tries=100_000), DirichletBalanced],
    ids=["dirichlet", "dirichlet_balanced"],
)
def test_skew_falls_with_alpha(family, train):
    skew = [mean_total_variation(family(alpha), train) for alpha in ALPHAS]
    assert all(stronger > weaker + 0.01 for stronger, weaker in pairwise(skew))
    assert skew[0] > 0.5
    assert skew[-1] < 0.1


def test_iid_has_less_skew_than_the_weakest_dirichlet(train):
    assert mean_total_variation(Iid(), train) < mean_total_variation(DirichletBalanced(10.0), train)


def test_dirichlet_sizes_vary_and_balanced_sizes_do_not(train):
    rng = np.random.default_rng(0)
    sizes = [len(shard) for shard in Dirichlet(0.3, 1, 1000)(train, N_CLIENTS, rng).shards]
    # A size is the sum of ten shares of variance (n-1)/(n^2 (n alpha + 1)): relative deviation
    # sqrt(19/7/10) = 0.52.
    assert np.std(sizes) / np.mean(sizes) == pytest.approx(0.52, rel=0.5)
    balanced = DirichletBalanced(0.3)(train, N_CLIENTS, rng).shards
    assert {len(shard) for shard in balanced} == {1000}
