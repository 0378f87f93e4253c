"""The two lower bounds on epsilon: known answers, other people's code, and mechanisms known."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.leakage.audit.many_runs import epsilon_of_errors, many_runs_lower_bound, upper_limit
from fedexp.leakage.audit.one_run import guesses_of, one_run_lower_bound, one_run_p_value
from fedexp.privacy.analytic_gaussian import noise_multiplier_for

# One run.


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "epsilon"),
    [
        (100, 100, 100, 0.0, 3.492965),
        (100, 100, 100, 1e-5, 3.490216),
        (1000, 100, 100, 1e-5, 3.465376),
        (1000, 1000, 700, 1e-5, 0.731740),
        (1000, 500, 400, 1e-5, 1.197969),
        (100, 100, 50, 1e-5, 0.0),
    ],
)
def test_one_run_known_answers(m, r, v, delta, epsilon):
    assert one_run_lower_bound(m, r, v, delta, 0.95) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "p"),
    [(1000, 100, 90, 1.0, 8.412886e-4), (1000, 1000, 700, 0.5, 1.867557e-4)],
)
def test_one_run_known_p_values(m, r, v, epsilon, p):
    assert one_run_p_value(m, r, v, epsilon, 1e-5) == pytest.approx(p, rel=1e-6)


def naive_p_value(m, r, v, epsilon, delta):
    """The formula of theorem 5.2, a term at a time."""
    q = math.exp(epsilon) / (math.exp(epsilon) + 1)
    point = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    alpha = max((sum(point[v - i : v]) / i for i in range(1, v + 1)), default=0)
    return min(1, sum(point[v:]) + 2 * m * delta * alpha)


@pytest.mark.parametrize("v", [0, 1, 7, 14, 20])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3, 0.1])
def test_one_run_p_value_against_the_formula(v, delta):
    expected = naive_p_value(50, 20, v, 0.7, delta)
    assert one_run_p_value(50, 20, v, 0.7, delta) == pytest.approx(expected, rel=1e-9)


def test_all_right_without_delta_has_a_closed_form():
    q = 0.05 ** (1 / 40)  # q^r = 1 - confidence
    expected = math.log(q / (1 - q))
    assert one_run_lower_bound(200, 40, 40, 0.0, 0.95) == pytest.approx(expected, abs=1e-8)


def test_the_bound_grows_with_right_guesses_and_falls_with_confidence_delta_and_canaries():
    by_right = [one_run_lower_bound(200, 40, v, 1e-5, 0.95) for v in range(41)]
    assert by_right == sorted(by_right)
    assert by_right[20] == 0 < by_right[30] < by_right[40]
    base = one_run_lower_bound(200, 40, 36, 1e-5, 0.95)
    assert one_run_lower_bound(200, 40, 36, 1e-5, 0.99) < base
    assert one_run_lower_bound(200, 40, 36, 1e-3, 0.95) < base
    assert one_run_lower_bound(2000, 40, 36, 1e-5, 0.95) < base


def deterministic_normal(mu, n):
    return norm.ppf((np.arange(n) + 0.5) / n) + mu


def upper_hull(points):
    """Corners of the upper hull of points in order of x, which are jax_privacy's thresholds."""
    hull = []
    for x, y in points:
        while len(hull) > 1:
            (x1, y1), (x2, y2) = hull[-2:]
            if (y2 - y1) * (x - x2) > (y - y2) * (x2 - x1):
                break
            hull.pop()
        hull.append((x, y))
    return hull


@pytest.mark.parametrize(("shift", "epsilon"), [(1, 1.13346), (2, 2.311945), (4, 4.395568)])
def test_p_values_give_the_known_answers_of_jax_privacy(shift, epsilon):
    # Its test: 10,000 deterministic normals each way, delta 1e-6, every threshold tried, for each
    # of which 0.05 is divided by their number. Its answer is where the best p-value is just that.
    n = 10_000
    there, absent = deterministic_normal(shift, n), deterministic_normal(0, n)
    thresholds = [*np.sort(np.concatenate([there, absent])), np.inf]
    missed, kept_out = np.searchsorted(there, thresholds), np.searchsorted(absent, thresholds)
    hull = upper_hull(zip(missed.tolist(), kept_out.tolist(), strict=True))
    allowed = 0.05 / len(hull)

    def best(at):
        guesses = [(2 * n - fn - tn, n - fn) for fn, tn in hull]
        q = 1 / (1 + math.exp(-at))
        hopeful = [(r, v) for r, v in guesses if r and binom.sf(v - 1, r, q) < 2 * allowed]
        return min((one_run_p_value(2 * n, r, v, at, 1e-6) for r, v in hopeful), default=1.0)

    assert best(epsilon * (1 - 2e-5)) < allowed < best(epsilon * (1 + 2e-5))


def right_guesses(scores, inside, r):
    said = guesses_of(scores, r)
    return int(np.sum((said == 1) & inside) + np.sum((said == -1) & ~inside))


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_one_run_of_a_correct_gaussian_mechanism_stays_below_its_epsilon(epsilon):
    z, bounds = noise_multiplier_for(epsilon, 1e-5), []
    for seed in range(40):
        rng = generator(seed, "test_audit")
        inside = rng.random(1000) < 0.5
        scores = rng.normal(inside / z)
        bounds.append(one_run_lower_bound(1000, 40, right_guesses(scores, inside, 40), 1e-5, 0.95))
    assert max(bounds) <= epsilon  # by theory in all but 2 of 40
    assert np.mean(bounds) > epsilon / 10


def test_one_run_of_randomised_response_is_as_tight_as_its_confidence_says():
    # The mechanism that attains the theorem: the bound may be above epsilon in 5 % of the runs.
    q = 1 / (1 + math.exp(-1.0))
    exceeds = [one_run_lower_bound(300, 300, v, 0.0, 0.95) > 1.0 for v in range(301)]
    probability = binom.pmf(np.arange(301), 300, q)[exceeds].sum()
    assert 0.02 < probability <= 0.05


def test_a_tenth_of_the_noise_is_more_than_a_claim_of_one():
    rng = generator(0, "test_audit")
    inside = rng.random(1000) < 0.5
    scores = rng.normal(10 * inside / noise_multiplier_for(1.0, 1e-5))
    right = right_guesses(scores, inside, 40)
    assert right == 40
    assert one_run_lower_bound(1000, 40, right, 1e-5, 0.95) == pytest.approx(2.525, abs=1e-3)


@pytest.mark.parametrize("r", [0, 1, 4, 5, 6])
def test_guesses_are_the_ends_of_the_order(r):
    scores = np.array([0.3, -1.0, 2.0, 0.1, -5.0, 0.2])
    by_score = guesses_of(scores, r)[np.argsort(-scores)].tolist()
    assert by_score == [1] * math.ceil(r / 2) + [0] * (6 - r) + [-1] * (r // 2)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, 0, 0, 1.0, 1e-5), "canaries"),
        ((10, 11, 0, 1.0, 1e-5), "guesses"),
        ((10, 5, 6, 1.0, 1e-5), "right"),
        ((10, 5, -1, 1.0, 1e-5), "right"),
        ((10, 5, 5, -1.0, 1e-5), "epsilon"),
        ((10, 5, 5, 1.0, 2.0), "delta"),
    ],
)
def test_one_run_refuses_impossible_counts(arguments, key):
    with pytest.raises(InputError, match=f"^{key}="):
        one_run_p_value(*arguments)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, float("nan")])
def test_a_confidence_is_strictly_between_0_and_1(confidence):
    with pytest.raises(InputError, match=r"^confidence="):
        one_run_lower_bound(10, 5, 5, 0.0, confidence)
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
