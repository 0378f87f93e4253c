"""How often a round has more attackers than a rule counts on: by formula, and by drawing rounds."""

from dataclasses import replace

import numpy as np
import pytest

from fedexp.config.assumption import share_of_rounds_above
from fedexp.config.construction import construct
from fedexp.config.refusals import remarks
from fedexp.core.rng import generator
from tests.support.composing import config_for

HUNDRED = ("n_clients=100", "attack=sign_flip", "attack.n_malicious=25", "aggregator=trimmed_mean")


def parts_of(*overrides):
    return construct(config_for(*overrides)).combination


def test_a_quarter_of_a_hundred_in_cohorts_of_ten():
    parts = parts_of(*HUNDRED, "sampler=uniform", "cohort_size=10", "assumed_malicious=3")
    assert share_of_rounds_above(parts) == pytest.approx(0.215, abs=0.001)
    assert any(
        "assumed_malicious=3 will be malicious in 21.5 % of" in said for said in remarks(parts)
    )


@pytest.mark.parametrize("sampler", ["uniform", "poisson"])
def test_against_rounds_that_are_drawn(sampler):
    parts = parts_of(*HUNDRED, f"sampler={sampler}", "cohort_size=20", "assumed_malicious=6")
    lying = np.arange(100) < 25
    counts = [
        int(lying[parts.sampler(100, generator(0, "assumption", r))].sum()) for r in range(4000)
    ]
    drawn = np.mean(np.array(counts) > 6)
    assert share_of_rounds_above(parts) == pytest.approx(drawn, abs=0.02)


@pytest.mark.parametrize(("number", "said"), [(3, False), (4, True)])
def test_a_cohort_has_as_many_attackers_as_are_asked_for(number, said):
    parts = parts_of(
        *(*HUNDRED, "sampler=uniform", "cohort_size=10", "assumed_malicious=3"),
        f"+attack.schedule.clients_a_round={number}",
    )
    assert share_of_rounds_above(parts) == said
    assert any("will be malicious in every round" in each for each in remarks(parts)) == said
    assert any("nothing is promised of the rule" in each for each in remarks(parts)) == said


@pytest.mark.parametrize(
    "overrides",
    [
        ("aggregator=mean",),
        ("attack.n_malicious=0",),
        ("attack=none",),
        ("sampler=full", "cohort_size=100", "assumed_malicious=25"),
    ],
)
def test_nothing_is_said_where_it_cannot_happen_or_nobody_counts(overrides):
    parts = parts_of(*HUNDRED, "sampler=uniform", "cohort_size=10", *overrides)
    assert not share_of_rounds_above(parts)
    assert not any("nothing is promised of the rule" in said for said in remarks(parts))


def test_a_sampler_that_does_not_say_how_it_draws_is_not_reckoned_with():
    parts = parts_of(*HUNDRED, "sampler=uniform", "cohort_size=10")
    assert share_of_rounds_above(replace(parts, sampler=lambda n, rng: np.arange(3))) is None


@pytest.mark.parametrize(("assumed", "share"), [(24, 1.0), (25, 0.0)])
def test_where_everybody_takes_part_nothing_is_drawn(assumed, share):
    parts = parts_of(*HUNDRED, "sampler=full", f"assumed_malicious={assumed}")
    assert share_of_rounds_above(parts) == share
