"""Samplers, by hand."""

import numpy as np
import pytest

from fedexp.core.checks import InputError
from fedexp.federation.sampling import Full, Poisson, Uniform


class Fixed:
    """A generator whose random numbers were written down."""

    def __init__(self, *numbers):
        self.numbers = np.array(numbers)

    def random(self, n):
        assert n == len(self.numbers)
        return self.numbers


def rng(seed=0):
    return np.random.default_rng(seed)


def test_full_takes_all():
    assert Full(4)(4, rng()).tolist() == [0, 1, 2, 3]


def test_uniform_takes_so_many():
    for seed in range(50):
        cohort = Uniform(3)(10, rng(seed))
        assert len(set(cohort.tolist())) == 3
        assert cohort.tolist() == sorted(cohort.tolist())


def test_every_cohort_can_be_drawn():
    seen = {tuple(Uniform(2)(4, rng(seed)).tolist()) for seed in range(200)}
    assert len(seen) == 6


def test_poisson_asks_each_client_by_itself():
    # 2 of 5 expected: each with probability 0.4.
    draw = Poisson(2)
    assert draw(5, Fixed(0.39, 0.41, 0.0, 0.4, 0.9)).tolist() == [0, 2]
    assert draw(5, Fixed(0.5, 0.5, 0.5, 0.5, 0.5)).tolist() == []
    assert draw(5, Fixed(0.1, 0.1, 0.1, 0.1, 0.1)).tolist() == [0, 1, 2, 3, 4]


def test_an_empty_poisson_cohort_can_index_clients():
    nobody = Poisson(1)(3, Fixed(0.9, 0.9, 0.9))
    assert np.zeros(3, dtype=bool)[nobody].shape == (0,)


@pytest.mark.parametrize("sampler", [Uniform, Poisson])
def test_refusals(sampler):
    with pytest.raises(InputError, match="cohort_size=0: must be a whole number, 1 or above"):
        sampler(0)
    with pytest.raises(InputError, match=r"cohort_size=4: .*\(n_clients=3\)"):
        sampler(4)(3, rng())


@pytest.mark.parametrize("cohort_size", [3, 5])
def test_full_with_another_size_is_refused(cohort_size):
    with pytest.raises(InputError, match=f"cohort_size={cohort_size}: sampler=full takes all 4"):
        Full(cohort_size)(4, rng())
