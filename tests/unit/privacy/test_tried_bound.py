"""A rule's word on how far one client moves it is held against what it does."""

import numpy as np
import pytest
import torch

from fedexp.aggregation.mean import Mean
from fedexp.config.build import build
from fedexp.core.capabilities import sensitivity_of
from fedexp.core.checks import InputError
from fedexp.core.stateless import Stateless
from fedexp.privacy.tried_bound import refuse_false_bound
from tests.support.composing import config_for


class Says(Stateless):
    """A rule that says C, and takes so many times the mean."""

    def __init__(self, bound=1.0, factor=1.0):
        self.bound, self.factor = bound, factor

    def sensitivity(self, clip_norm, n):
        return self.bound * clip_norm

    def __call__(self, updates, state, rng):
        return self.factor * updates.matrix.mean(dim=0), state


class Sum(Says):
    def __call__(self, updates, state, rng):
        return updates.matrix.sum(dim=0), state


class Momentum(Says):
    """Keeps what it made, before there is noise in it: in its state, or in itself."""

    def __init__(self, within):
        super().__init__()
        self.within, self.own = within, 0.0

    def init(self, d):
        return {} if self.within else {"mean": torch.zeros(d)}

    def __call__(self, updates, state, rng):
        mean = 0.5 * (self.own if self.within else state["mean"]) + updates.matrix.mean(dim=0)
        if self.within:
            self.own = mean
            return mean, state
        return mean, {"mean": mean}


class Counts(Says):
    """Keeps a number that says nothing of anybody."""

    def init(self, d):
        return {"rounds": torch.zeros(())}

    def __call__(self, updates, state, rng):
        return updates.matrix.mean(dim=0), {"rounds": state["rounds"] + 1}


class OfMany(Says):
    """A mean, and from eight rows on their median, of which one client moves more."""

    def __call__(self, updates, state, rng):
        rows = updates.matrix
        return rows.mean(dim=0) if len(rows) < 8 else rows.median(dim=0).values, state


class Weighs(Says):
    """A mean in which one client, by its number, counts for three."""

    def __init__(self, client):
        super().__init__()
        self.client = client

    def __call__(self, updates, state, rng):
        weights = torch.tensor([3.0 if c == self.client else 1.0 for c in updates.client_ids])
        return weights @ updates.matrix / weights.sum(), state


class WarmsUp(Momentum):
    """Adds what it keeps from its third round on."""

    def init(self, d):
        return {"mean": torch.zeros(d), "rounds": torch.zeros(())}

    def __call__(self, updates, state, rng):
        mean = updates.matrix.mean(dim=0)
        step = mean + (state["rounds"] >= 2) * state["mean"]
        return step, {"mean": 0.9 * state["mean"] + mean, "rounds": state["rounds"] + 1}


def tried(rule, largest=10, n_clients=20):
    refuse_false_bound(rule, 2.0, lambda n: sensitivity_of(rule, 2.0, n), 7, largest, n_clients)


@pytest.mark.parametrize(
    "rule", [Mean("uniform"), Says(), Says(2.0, 2.0), Says(1.0, 0.5), Counts()]
)
def test_true_words(rule):
    tried(rule)
    tried(rule, largest=1)


@pytest.mark.parametrize("rule", [Says(1.0, 1.1), Says(0.5), Says(1.0, np.nan), Sum()])
def test_a_client_that_moves_the_step_further_is_refused(rule):
    with pytest.raises(InputError, match=r"says that one client moves \d times its step by"):
        tried(rule)


@pytest.mark.parametrize("within", [True, False])
def test_a_rule_that_keeps_rows_without_noise_is_refused(within):
    rule = Momentum(within)
    with pytest.raises(InputError, match="keeps something of a round's rows"):
        tried(rule)
    assert rule.own == 0.0


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_a_bound_that_is_no_length_is_refused(bound):
    with pytest.raises(InputError, match="must say how far one client moves it") as refused:
        sensitivity_of(Says(bound), 1.0, 3)
    assert refused.value.key == "aggregator"


def test_client_dp_tries_it():
    place = f"aggregator._target_={__name__}.Sum"
    config = config_for(
        "trust=[tests.]",
        "privacy=client_dp",
        "privacy.delta=1e-3",
        "privacy.accountant=rdp",
        place,
        "~aggregator.weighting",
    )
    with pytest.raises(InputError, match="says that one client moves 2 times its step") as refused:
        build(config)
    assert refused.value.key == "aggregator"  # and not privacy.aggregator, which there is not


@pytest.mark.parametrize("rule", [OfMany(), Weighs(0), Weighs(1), Weighs(19)])
def test_a_client_that_moves_further_among_many_or_by_its_number_is_refused(rule):
    """Cohorts of one, two and five were all that was tried, of clients 0 to 4."""
    with pytest.raises(InputError, match=r"says that one client moves \d+ times its step by"):
        tried(rule)


def test_a_rule_that_keeps_rows_for_the_third_round_is_refused():
    with pytest.raises(InputError, match="keeps something of a round's rows"):
        tried(WarmsUp(within=False))


def test_the_mean_of_a_thousand_rows_is_believed():
    tried(Mean("uniform"), largest=1000, n_clients=1000)
