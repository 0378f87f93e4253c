"""Figures that two keys give: what is printed and counted on goes by the part that runs."""

import re

import numpy as np
import pytest
from scipy import stats

from fedexp.config.build import build
from fedexp.core.rng import generator
from fedexp.privacy.accounting import Event, epsilon
from tests.support.composing import config_for
from tests.support.refusing import refusal

QUICK = ("model.hidden=[8]", "backend=in_process", "partition=iid", "train_examples=200")
DRAWS = 400


def built(*overrides):
    return build(config_for(*QUICK, *overrides))


def drawn(number):
    """Settings in which the federation, the cohort and the sampler's own cohort are all random."""
    rng = np.random.Generator(np.random.PCG64(number))
    n = int(rng.integers(5, 40))
    stated, sampled = (int(k) for k in rng.integers(1, n + 1, 2))
    sampler = ("poisson", "uniform")[number % 2]
    return n, stated, sampled, sampler


@pytest.mark.parametrize("number", range(6))
def test_the_rate_of_the_statement_is_the_share_that_is_drawn(number):
    n, stated, sampled, sampler = drawn(number)
    run = built(
        *[f"n_clients={n}", f"cohort_size={stated}", f"sampler={sampler}"],
        *[f"sampler.cohort_size={sampled}", "rounds=10", "privacy=client_dp"],
        *["privacy.noise_multiplier=1", f"privacy.delta={0.1 / n}", "privacy.accountant=rdp"],
        *(["privacy.sampling=fixed_size"] if sampler == "uniform" else []),
    )
    exp = run.experiment
    state = exp.account.init()
    for _ in range(10):
        state = exp.account.at_most(state, [])
    statement = exp.account.statement(state)
    counts = sum(len(exp.sampler(n, generator(7, "cohort", r))) for r in range(DRAWS))
    if sampler == "poisson":
        rate = float(re.search(r"probability (\S+);", statement["sampling"])[1])
        assert stats.binomtest(counts, DRAWS * n, rate).pvalue > 1e-4
        again = epsilon([Event(1.0, sampled / n, 10)], 0.1 / n, "rdp").epsilon
        assert statement["epsilon"] == pytest.approx(again)
    else:
        m, of = re.search(r"(\d+) of (\d+) clients a round", statement["sampling"]).groups()
        assert (int(m) * DRAWS, int(of)) == (counts, n)
    assert statement["expected_cohort"] == sampled
    said = [remark for remark in run.remarks if "is not what the sampler draws" in remark]
    assert bool(said) == (stated != sampled)


def test_rules_and_channels_go_by_the_cohort_that_is_drawn():
    # Two are stated, with which Krum cannot do, and twelve are drawn, with which it can.
    built("n_clients=20", "cohort_size=2", "sampler.cohort_size=12", "aggregator=krum")
    line = refusal(
        config_for(
            *["cohort_size=9", "sampler.cohort_size=3", "channel=secure_aggregation"],
            *["channel.groups=3", "aggregator=median"],
        )
    )
    assert "needs at least 3 x 3 clients, but 3 are in" in line


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("aggregator=foolsgold", "aggregator.n_clients=5"),
            "n_clients=5: client 9 answered, and aggregator.n_clients says",
        ),
        (
            ("aggregator=foolsgold", "aggregator.n_clients=5", "cohort_size=4"),
            "n_clients=5: client 9 answered, and aggregator.n_clients says",
        ),
        (("attack=label_flip", "attack.num_classes=5"), "attack.num_classes=5: gives label -"),
        (("attack=label_flip", "attack.num_classes=12"), "attack.num_classes=12: gives label 1"),
        (
            ("attack=backdoor", "attack.num_classes=12", "attack.target_label=11"),
            "attack.num_classes=12: gives label 11, and there are classes 0 to 9",
        ),
    ],
)
def test_a_part_that_was_told_another_number_is_refused_before_training(overrides, message):
    assert refusal(config_for(*overrides)).startswith(message)
