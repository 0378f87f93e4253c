"""Cohorts have the distribution that their samplers promise; all bounds are 5 deviations wide."""

import numpy as np
import pytest

from fedexp.core.rng import generator
from fedexp.federation.sampling import Poisson, Uniform

N_CLIENTS, COHORT_SIZE, ROUNDS = 40, 10, 6000
P = COHORT_SIZE / N_CLIENTS


def taken(sampler, seed=0):
    """`[ROUNDS, N_CLIENTS]`: 1 where the client took part; a stream a round, as in a run."""
    mask = np.zeros((ROUNDS, N_CLIENTS))
    for r in range(ROUNDS):
        mask[r, sampler(N_CLIENTS, generator(seed, "cohort", r))] = 1
    return mask


@pytest.fixture(scope="module")
def uniform():
    return taken(Uniform(COHORT_SIZE))


@pytest.fixture(scope="module")
def poisson():
    return taken(Poisson(COHORT_SIZE))


@pytest.mark.parametrize("name", ["uniform", "poisson"])
def test_every_client_is_equally_likely(name, request):
    often = request.getfixturevalue(name).mean(axis=0)
    assert np.abs(often - P).max() < 5 * np.sqrt(P * (1 - P) / ROUNDS)


def test_the_size_of_a_poisson_cohort_is_binomial(poisson):
    sizes = poisson.sum(axis=1)
    variance = N_CLIENTS * P * (1 - P)  # 7.5; of Uniform's cohorts it is 0
    assert abs(sizes.mean() - COHORT_SIZE) < 5 * np.sqrt(variance / ROUNDS)
    # The variance of a sample variance is about (2 + kurtosis) sigma^4 / n, and the kurtosis < 0.
    assert abs(sizes.var(ddof=1) - variance) < 5 * variance * np.sqrt(2 / ROUNDS)


def test_an_empty_poisson_cohort_is_as_likely_as_it_should_be():
    sampler = Poisson(1)
    empty = np.mean([len(sampler(4, generator(0, "cohort", r))) == 0 for r in range(ROUNDS)])
    p = 0.75**4
    assert abs(empty - p) < 5 * np.sqrt(p * (1 - p) / ROUNDS)


@pytest.mark.parametrize(
    ("name", "both"),
    [
        ("poisson", P * P),
        ("uniform", P * (COHORT_SIZE - 1) / (N_CLIENTS - 1)),
    ],
)
def test_pairs_of_clients(name, both, request):
    mask = request.getfixturevalue(name)
    together = (mask.T @ mask / ROUNDS)[np.triu_indices(N_CLIENTS, 1)]
    # 780 pairs, of which the worst is looked at: 5 deviations for each, and far fewer for the mean.
    assert np.abs(together - both).max() < 5 * np.sqrt(both * (1 - both) / ROUNDS)
    # 0.0625 and 0.0577 are told apart by the mean over the pairs.
    assert abs(together.mean() - both) < 0.002


@pytest.mark.parametrize("name", ["uniform", "poisson"])
def test_rounds_do_not_depend_on_each_other(name, request):
    mask = request.getfixturevalue(name)
    twice = (mask[1:] * mask[:-1]).mean(axis=0)
    assert np.abs(twice - P * P).max() < 5 * np.sqrt(P * P * (1 - P * P) / ROUNDS)


def test_another_seed_draws_other_cohorts(uniform):
    other = taken(Uniform(COHORT_SIZE), seed=1)
    overlap = (uniform * other).sum(axis=1).mean()  # of 10, by chance 2.5
    assert 2.3 < overlap < 2.7
