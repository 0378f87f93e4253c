"""The two lower bounds on epsilon: known answers, other people's code, and mechanisms known."""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.leakage.audit.claim import DELTAS
from fedexp.leakage.audit.f_dp import (
    Curve,
    Guessed,
    check_confidence,
    fewest_right,
    guessed,
    guesses_of,
    ruled_out,
)
from fedexp.leakage.audit.many_runs import epsilon_of_errors, many_runs_lower_bound, upper_limit
from fedexp.privacy.accounting import gaussian_epsilon
from fedexp.privacy.analytic_gaussian import noise_multiplier_for

# One run.


def gaussian(z):
    """The pairs of Gaussian noise, as an account of one release would state them."""
    return Curve.of((gaussian_epsilon(z, delta), delta) for delta in DELTAS)


@dataclass(frozen=True)
class Exactly:
    """The trade-off curve of Gaussian noise itself."""

    mu: float

    def least(self, y):
        n = NormalDist()
        return n.cdf(n.inv_cdf(y) - self.mu) if 0 < y < 1 else float(y >= 1)


def naive(claim, m, c_guessed, c, tau):
    """Algorithm 3 of the paper's appendix, as lists."""
    h, r = [0.0] * (c + 1), [0.0] * (c + 1)
    h[c], r[c] = tau * (c_guessed - c) / m, tau * c / m
    for i in reversed(range(c)):
        h[i] = max(h[i + 1], claim.least(min(r[i + 1], 1.0)))
        r[i] = r[i + 1] + i / (c_guessed - i) * (h[i] - h[i + 1])
    return r[0] + h[0] > c_guessed / m


@pytest.mark.parametrize("claim", [Exactly(1.0), gaussian(1.0), Curve(((1.0, 0.0),))])
def test_ruled_out_is_the_papers_recursion(claim):
    for guesses in (1, 5, 20, 50):
        for right in range(guesses + 1):
            expected = naive(claim, 100, guesses, right, 0.05)
            assert ruled_out(claim, 100, guesses, right, 0.05) == expected, (guesses, right)


def test_the_bound_lies_between_what_the_papers_print():
    # Gaussian noise of 1 among 100,000 canaries, 1,429 of 1,500 guesses right (appendix B): the
    # paper's table has 3.61 at the best number of guesses, and 2.61 for Steinke et al.
    def ruled(epsilon):
        noise = noise_multiplier_for(epsilon, 1e-5)
        return ruled_out(Exactly(1 / noise), 100_000, 1500, 1429, 0.05)

    assert ruled(2.61)
    assert ruled(3.25)
    assert not ruled(3.61)


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "epsilon"),
    [  # of Steinke et al., as jax_privacy has them too
        (100, 100, 100, 0.0, 3.492965),
        (1000, 100, 100, 1e-5, 3.465376),
        (1000, 1000, 700, 1e-5, 0.731740),
        (1000, 500, 400, 1e-5, 1.197969),
    ],
)
def test_of_a_pair_alone_it_is_the_bound_of_steinke_et_al_nearly(m, r, v, delta, epsilon):
    found = Guessed(m, ((r, v),), 0.05)
    noise = found.least_noise_ruled_out(lambda s: Curve.of([(1.0 / s, delta)]))
    assert 1 / noise == pytest.approx(epsilon, rel=0.1)
    assert 1 / noise < epsilon * 1.01  # theirs is exact for a pair without delta


def test_all_right_without_delta_has_a_closed_form():
    q = 0.05 ** (1 / 40)  # q^r = 1 - confidence
    expected = math.log(q / (1 - q))
    assert ruled_out(Curve.of([(expected * 0.999, 0.0)]), 200, 40, 40, 0.05)
    assert not ruled_out(Curve.of([(expected * 1.001, 0.0)]), 200, 40, 40, 0.05)


def test_least_by_hand():
    pair = Curve.of([(math.log(2), 0.1)])
    assert pair.least(0.5) == pytest.approx(0.2)  # (y - delta) / 2
    assert pair.least(0.9) == pytest.approx(0.7)  # 1 - delta - 2 (1 - y)
    assert pair.least(0.05) == 0
    assert Curve.of([(math.inf, 1e-5)]).least(0.9) == 0
    for y in (1e-4, 1e-3, 0.05, 0.3, 0.9):
        pairs, exact = gaussian(0.7).least(y), Exactly(1 / 0.7).least(y)
        assert exact * 0.8 - 1e-6 < pairs <= exact * (1 + 1e-9)


def made_up(rng, m, separation):
    inside = rng.random(m) < 0.5
    return rng.normal(separation * inside), inside


@pytest.mark.parametrize(("z", "m"), [(1.0, 200), (0.5, 200), (3.0, 500)])
def test_exact_gaussian_noise_is_ruled_out_no_more_often_than_allowed(z, m):
    counts = (m // 10, 3 * m // 10, 6 * m // 10)
    needed = [fewest_right(gaussian(z), m, g, 0.05 / 3) for g in counts]
    alarms = {1.0: 0, 0.2: 0}
    rng = generator(0, "test_audit")
    for share in alarms:
        for _ in range(200):
            scores, inside = made_up(rng, m, 1 / (z * share))
            rights = [right for _, right in guessed(scores, inside, counts, 0.05).counts]
            alarms[share] += any(
                n is not None and r >= n for r, n in zip(rights, needed, strict=True)
            )
    assert alarms[1.0] <= 10  # of 200, by theory
    assert alarms[0.2] > 160 or z < 1  # of a claim of 10, 200 canaries show little


def test_randomised_response_is_ruled_out_as_often_as_allowed():
    # The mechanism that attains the claim: here the level is used up.
    q, claim = 1 / (1 + math.exp(-1.0)), Curve.of([(1.0, 0.0)])
    needed = fewest_right(claim, 300, 300, 0.05)
    assert 0.01 < binom.sf(needed - 1, 300, q) <= 0.05


def test_the_fewest_right_guesses_are_just_enough():
    claim = gaussian(1.0)
    n = fewest_right(claim, 500, 100, 0.05)
    assert ruled_out(claim, 500, 100, n, 0.05)
    assert not ruled_out(claim, 500, 100, n - 1, 0.05)
    assert fewest_right(claim, 500, 5, 0.05) is None
    assert fewest_right(claim, 500, 100, 0.01) > n


def test_several_thresholds_share_the_level():
    claim = gaussian(1.0)
    n = fewest_right(claim, 500, 100, 0.05)
    alone = Guessed(500, ((100, n),), 0.05)
    assert alone.rules_out(claim)
    assert not replace(alone, counts=((100, n), (200, 100))).rules_out(claim)
    assert alone.p_value(claim) < 0.05
    assert replace(alone, counts=((100, 50),)).p_value(claim) == 1


def test_bounds_and_alarm_agree():
    for right in (40, 80, 95):
        found = Guessed(500, ((100, right),), 0.05)
        least = found.least_noise_ruled_out(gaussian)
        assert (least is not None and least < 1) == found.rules_out(gaussian(1.0))
        assert (found.p_value(gaussian(1.0)) < 0.05) == found.rules_out(gaussian(1.0))


@pytest.mark.parametrize("r", [0, 1, 4, 5, 6])
def test_guesses_are_the_ends_of_the_order(r):
    scores = np.array([0.3, -1.0, 2.0, 0.1, -5.0, 0.2])
    by_score = guesses_of(scores, r)[np.argsort(-scores)].tolist()
    assert by_score == [1] * math.ceil(r / 2) + [0] * (6 - r) + [-1] * (r // 2)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, 1, 0, 0.05), "canaries"),
        ((10, 0, 0, 0.05), "guesses"),
        ((10, 11, 0, 0.05), "guesses"),
        ((10, 5, 6, 0.05), "right"),
        ((10, 5, -1, 0.05), "right"),
        ((10, 5, 5, 1.5), "level"),
    ],
)
def test_one_run_refuses_impossible_counts(arguments, key):
    with pytest.raises(InputError, match=f"^{key}="):
        ruled_out(Exactly(1.0), *arguments)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, float("nan")])
def test_a_confidence_is_strictly_between_0_and_1(confidence):
    with pytest.raises(InputError, match=r"^confidence="):
        check_confidence(confidence)
    with pytest.raises(InputError, match=r"^confidence="):
        epsilon_of_errors(0, 10, 0, 10, 0.0, confidence)


# Many runs.


@pytest.mark.parametrize(("errors", "trials"), [(0, 7), (3, 50), (499, 500), (12, 12)])
def test_upper_limits_are_scipys(errors, trials):
    exact = binomtest(errors, trials, alternative="less").proportion_ci(0.975, "exact").high
    assert upper_limit([errors], trials, 0.025)[0] == pytest.approx(exact, rel=1e-9)


def test_errors_by_hand():
    # No error among 100 either way: both rates are at most 1 - 0.025^(1/100) = 0.036217.
    limit = 1 - 0.025**0.01
    bound = epsilon_of_errors([0], 100, [0], 100, 0.01, 0.95)[0]
    assert bound == pytest.approx(math.log((1 - limit - 0.01) / limit))
    # Half of those with the member found, none of those without: only one of the two ratios helps.
    half = binomtest(50, 100, alternative="less").proportion_ci(0.975, "exact").high
    bound = epsilon_of_errors([50], 100, [0], 100, 0.0, 0.95)[0]
    assert bound == pytest.approx(math.log((1 - half) / limit))
    # The same errors the other way round are the same evidence.
    assert epsilon_of_errors([0], 100, [50], 100, 0.0, 0.95)[0] == pytest.approx(bound)
    assert epsilon_of_errors([50, 100], 100, [50, 0], 100, 0.0, 0.95).tolist() == [0.0, 0.0]


def test_many_runs_of_a_gaussian_mechanism():
    # At epsilon 8 another implementation found 1.68 / 2.07 / 3.33 with 500 / 1,000 / 10,000 runs a
    # world; at epsilon 1, 1,000 of them show next to nothing.
    def bounds(epsilon, runs):
        z = noise_multiplier_for(epsilon, 1e-5)
        for seed in range(10):
            rng = generator(seed, "test_audit")
            there, absent = rng.normal(1 / z, size=runs), rng.normal(size=runs)
            yield many_runs_lower_bound(there, absent, 1e-5, 0.95, rng)

    measured = {runs: list(bounds(8.0, runs)) for runs in (500, 1000, 10_000)}
    means = [np.mean(found) for found in measured.values()]
    assert means == pytest.approx([1.8, 2.2, 3.4], abs=0.3)
    assert max(max(found) for found in measured.values()) <= 8.0
    assert max(bounds(1.0, 1000)) < 0.3


def test_the_threshold_is_chosen_on_other_runs_than_those_that_count():
    # Two worlds that are the same one: a threshold chosen on the runs that count would show more
    # than 0 far more often than the confidence allows.
    shown = []
    for seed in range(200):
        rng = generator(seed, "test_audit")
        shown.append(many_runs_lower_bound(rng.normal(size=60), rng.normal(size=60), 0.0, 0.5, rng))
    assert np.mean(np.array(shown) > 0) < 0.5


@pytest.mark.parametrize(
    ("there", "absent", "key"),
    [
        ([1.0], [1.0, 2.0], "scores_with"),
        ([1.0, 2.0], [], "scores_without"),
        ([1.0, np.nan], [1.0, 2.0], "scores_with"),
    ],
)
def test_many_runs_refuses_scores_that_show_nothing(there, absent, key):
    with pytest.raises(InputError, match=f"^{key}="):
        many_runs_lower_bound(
            np.array(there), np.array(absent), 0.0, 0.95, generator(0, "test_audit")
        )
