"""A sampler's word on how it draws is held against draws: of clients, and of pairs of them."""

from dataclasses import dataclass

import numpy as np
import pytest

from fedexp.core.capabilities import sampling_of
from fedexp.core.checks import InputError
from fedexp.core.draws import contradiction
from fedexp.federation.sampling import Full, Poisson, Uniform


class AllOrNobody:
    def __call__(self, n, rng):
        return np.arange(n if rng.random() < 0.2 else 0)


class Neighbours:
    def __call__(self, n, rng):
        return np.sort((rng.integers(n) + np.arange(n // 5)) % n)


class InTurn:
    """A fifth after the other, in an order that is drawn anew after each turn."""

    def __init__(self):
        self.left = np.arange(0)

    def __call__(self, n, rng):
        self.left = self.left if len(self.left) else rng.permutation(n)
        drawn, self.left = self.left[: n // 5], self.left[n // 5 :]
        return np.sort(drawn)


@pytest.mark.parametrize("n", [1, 2, 20, 20_000])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.9, 1.0])
def test_ours_are_believed(n, share):
    m = max(1, round(share * n))
    assert contradiction(Poisson(m), n, "poisson", m / n) == ""
    assert contradiction(Uniform(m), n, "fixed_size", m / n) == ""
    assert contradiction(Full(n), n, "fixed_size", 1.0) == ""


@pytest.mark.parametrize("kind", ["poisson", "fixed_size"])
@pytest.mark.parametrize("sampler", [AllOrNobody(), Neighbours()])
def test_pairs_tell_who_draws_clients_together(sampler, kind):
    assert "two clients together" in contradiction(sampler, 20, kind, 0.2)


def test_a_sampler_that_goes_by_earlier_rounds_is_told():
    sampler = InTurn()
    assert "goes by earlier rounds" in contradiction(sampler, 20, "fixed_size", 0.2)
    assert not len(sampler.left)


@dataclass
class SaysOfItsRate:
    rate: object
    sampling = "poisson"


@pytest.mark.parametrize(
    "rate", [0.2, lambda n: float("nan"), lambda n: 0.0, lambda n: "half", lambda n: None]
)
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(InputError, match=r"must say by a method rate\(n_clients\)") as refused:
        sampling_of(SaysOfItsRate(rate), 10)
    assert refused.value.key == "sampler"
