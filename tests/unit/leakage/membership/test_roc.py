"""The figures of membership inference against answers by hand, and against chance by formula."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score, roc_curve

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.leakage.membership.roc import Roc, auc_interval, null_intervals, pooled
from fedexp.leakage.membership.shadows import halves

# Ten scores in order: .9+ .8+ .7- .6+ .6- .5+ .4- .3+ .2- .1-; one tie between the two kinds.
MEMBERS = np.array([0.9, 0.8, 0.6, 0.5, 0.3])
NON_MEMBERS = np.array([0.7, 0.6, 0.4, 0.2, 0.1])


def test_ten_scores_by_hand():
    roc = Roc.of(MEMBERS, NON_MEMBERS)
    assert roc.auc == pytest.approx(18.5 / 25)  # pairs in the right order, the tie half
    points = [(0, 0), (0, 0.2), (0, 0.4), (0.2, 0.4), (0.4, 0.6), (0.4, 0.8)]
    points += [(0.6, 0.8), (0.6, 1), (0.8, 1), (1, 1)]
    np.testing.assert_allclose(np.stack([roc.fpr, roc.tpr], axis=1), points)
    assert roc.balanced_accuracy == pytest.approx(0.7)


def test_no_point_is_interpolated():
    roc = Roc.of(MEMBERS, NON_MEMBERS)
    assert [roc.tpr_at(fpr) for fpr in (0.2, 0.39, 0.4, 0.6)] == [0.4, 0.4, 0.8, 1.0]


def test_ties_are_accepted_together_or_not_at_all():
    # Accepting the members at 1.0 costs two false alarms of four, more than a quarter.
    roc = Roc.of(np.array([2.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert roc.tpr_at(0.25) == 0.25
    assert roc.tpr_at(0.5) == 1.0


@pytest.mark.parametrize(
    ("members", "non_members", "auc", "tpr", "balanced_accuracy"),
    [
        (np.arange(1000.0, 1500), np.arange(1000.0), 1, 1, 1),
        (np.arange(500.0), np.arange(500.0, 1500), 0, 0, 0.5),
        (np.zeros(500), np.zeros(1000), 0.5, 0, 0.5),
    ],
    ids=["perfect", "reversed", "constant"],
)
def test_extremes(members, non_members, auc, tpr, balanced_accuracy):
    assert Roc.of(members, non_members).figures() == {
        "auc": auc,
        "tpr_at_1_percent_fpr": tpr,
        "tpr_at_0.1_percent_fpr": tpr,
        "balanced_accuracy": balanced_accuracy,
    }


@pytest.mark.parametrize(("n", "percent", "tenth"), [(99, False, False), (100, True, False)])
def test_rates_that_so_few_non_members_do_not_have(n, percent, tenth):
    figures = Roc.of(np.ones(3), np.zeros(n)).figures()
    assert math.isfinite(figures["tpr_at_1_percent_fpr"]) is percent
    assert math.isfinite(figures["tpr_at_0.1_percent_fpr"]) is tenth


@pytest.mark.parametrize(
    ("n", "expected"), [(999, math.nan), (1000, 0.2), (2999, 0.3), (3000, 0.4)]
)
def test_so_many_false_alarms_are_a_tenth_of_a_percent(n, expected):
    # Ten members and ten non-members take turns at the top: k false alarms buy k + 1 members.
    members = np.arange(20.0, 0, -2)
    non_members = np.concatenate([np.arange(19.0, 0, -2), np.full(n - 10, -1.0)])
    found = Roc.of(members, non_members).figures()["tpr_at_0.1_percent_fpr"]
    assert found == pytest.approx(expected, nan_ok=True)


def naive(members, non_members, rate):
    """Every threshold there is, counted."""
    thresholds = [math.inf, *np.unique(np.concatenate([members, non_members]))]
    allowed = [t for t in thresholds if (non_members >= t).mean() <= rate]
    return max((members >= t).mean() for t in allowed)


@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_the_curve_is_scikit_learns(levels):
    rng = generator(1, "test_roc")
    members, non_members = rng.integers(0, levels, 300) + levels // 9, rng.integers(0, levels, 500)
    roc = Roc.of(members * 1.0, non_members * 1.0)
    truth, scores = np.repeat([1, 0], [300, 500]), np.concatenate([members, non_members])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_array_equal(roc.fpr, fpr)
    np.testing.assert_array_equal(roc.tpr, tpr)
    assert roc.auc == pytest.approx(roc_auc_score(truth, scores))


def test_many_ties_against_counting():
    rng = generator(0, "test_roc")
    members, non_members = rng.integers(0, 40, 300) + 3.0, rng.integers(0, 40, 1000) * 1.0
    roc = Roc.of(members, non_members)
    wins = (members[:, None] > non_members).mean() + (members[:, None] == non_members).mean() / 2
    assert roc.auc == pytest.approx(wins)
    for rate in (0.001, 0.01, 0.05, 0.3):
        assert roc.tpr_at(rate) == pytest.approx(naive(members, non_members, rate))


def test_null_interval_of_the_auc_is_that_of_ranks():
    m, n = 80, 120
    rng = generator(0, "test_roc")
    scores = rng.normal(size=m + n)
    low, high = null_intervals(scores[:m], scores[m:], 2000, rng)["auc"]
    deviation = math.sqrt((m + n + 1) / (12 * m * n))  # Mann and Whitney 1947
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.06)
    assert (high + low) / 2 == pytest.approx(0.5, abs=0.01)


def test_null_interval_does_not_ask_who_was_a_member():
    scores = np.arange(400.0)
    told = null_intervals(scores[200:], scores[:200], 200, generator(0, "test_roc"))
    assert told["auc"][0] < 0.5 < told["auc"][1] < 0.6
    assert told["tpr_at_1_percent_fpr"][1] < 0.1
    assert 0.5 <= told["balanced_accuracy"][0] < told["balanced_accuracy"][1] < 0.6
    assert np.isnan(told["tpr_at_0.1_percent_fpr"]).all()  # 200 non-members do not have it
    again = null_intervals(scores[200:], scores[:200], 200, generator(0, "test_roc"))
    assert again["auc"] == told["auc"]


def test_constant_scores_leave_chance_no_room():
    told = null_intervals(np.zeros(200), np.zeros(200), 40, generator(0, "test_roc"))
    assert told["auc"] == (0.5, 0.5)
    assert told["tpr_at_1_percent_fpr"] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("members", "non_members", "reason"),
    [
        (np.zeros(0), np.zeros(3), "there are 0 and 3"),
        (np.zeros(3), np.zeros(0), "there are 3 and 0"),
        (np.array([1.0, np.nan]), np.zeros(3), "1 of 5 scores are not finite"),
        (np.zeros(3), np.array([np.inf]), "1 of 4 scores are not finite"),
    ],
)
def test_scores_that_cannot_be_ranked(members, non_members, reason):
    with pytest.raises(InputError, match=reason):
        Roc.of(members, non_members)


def test_too_few_permutations_for_a_tail():
    with pytest.raises(InputError, match="permutations=39: must be a whole number, 40 or above"):
        null_intervals(MEMBERS, NON_MEMBERS, 39, generator(0, "test_roc"))


@pytest.mark.parametrize(("rate", "n"), [(0.01, 500), (0.001, 2000)])
def test_the_interval_of_a_rate_holds_the_attacks_own(rate, n):
    truth = norm.sf(norm.isf(rate) - 1.5)  # members score 1.5 deviations higher
    held = 0
    for i in range(60):
        rng = generator(i, "test_roc")
        roc = Roc.of(rng.normal(1.5, 1, n), rng.normal(0, 1, n))
        held += roc.tpr_interval(rate).holds(truth)
    assert held >= 55


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("n", [3, 5, 10, 20, 50])
def test_the_interval_of_an_auc_holds_the_attacks_own(n, shift):
    rng, truth, held = generator(n, "test_roc", shift), norm.cdf(shift / math.sqrt(2)), 0
    for _ in range(400):
        low, high = auc_interval(rng.normal(shift, 1, n), rng.normal(0, 1, n))
        held += low <= truth <= high
    assert held >= 0.92 * 400


def test_scores_of_one_example_by_several_models_are_no_more_examples():
    held, alone, n, models = 0, 0, 60, 16
    examples = np.tile(np.arange(n), models)
    for i in range(200):
        rng = generator(i, "test_roc_models")
        leaks = 1 + 2 * np.abs(rng.normal(size=n))  # some much more than others
        inside = halves(i, models, n)
        scores = (leaks * inside + rng.normal(size=(models, n))).ravel()
        sides = np.flatnonzero(inside.ravel()), np.flatnonzero(~inside.ravel())
        members, non_members = (scores[side] for side in sides)
        low, high = auc_interval(members, non_members, examples[np.concatenate(sides)])
        held += low <= 0.9275 <= high  # the integral of Phi((1 + 2 |z|) / sqrt(2))
        low, high = auc_interval(members, non_members)
        alone += low <= 0.9275 <= high
    assert held >= 180 > alone


def test_where_all_members_are_above_the_interval_has_a_width():
    low, high = auc_interval(np.array([1.0]), np.array([0.0]))
    assert (round(low, 2), high) == (0.21, 1)
    low, high = auc_interval(np.arange(100.0, 200), np.arange(100.0))
    assert (round(low, 2), high) == (0.96, 1)


def test_the_interval_of_a_rate_by_hand():
    # 100 non-members, 1 % of them is 1 alarm; of Binomial(100, 0.01) between 0 and 4 at 98.75 %
    # either side. With 0 the threshold may be out of reach; with 4, 30 of 40 members pass.
    non_members = np.arange(100.0)
    members = np.concatenate([np.full(10, 98.5), np.full(20, 95.5), np.full(10, -1.0)])
    interval = Roc.of(members, non_members).tpr_interval(0.01)
    assert interval.mean == 10 / 40
    assert interval.low == 0
    exact = binomtest(30, 40).proportion_ci(0.975, "exact").high
    assert interval.high == pytest.approx(exact)
    assert np.isnan(Roc.of(members, non_members).tpr_interval(0.001)).all()


def test_the_interval_of_a_rate_counts_alarms_and_not_shares_of_them():
    # Of Binomial(147, 0.01) up to 5 at 98.75 %; (5 / 147) * 147 is above 5.
    members = np.concatenate([np.full(10, 141.5), np.full(30, -1.0)])  # 5 of 0 to 146 are above
    interval = Roc.of(members, np.arange(147.0)).tpr_interval(0.01)
    assert interval.high == pytest.approx(binomtest(10, 40).proportion_ci(0.975, "exact").high)


def test_pooled_runs_have_thresholds_of_their_own():
    rng = generator(0, "test_pooled")
    runs = [(rng.normal(1, 1, 600), rng.normal(0, 1, 600)) for _ in range(3)]
    shifted = [(1e3 * k + 10**k * m, 1e3 * k + 10**k * o) for k, (m, o) in enumerate(runs)]
    roc, again = pooled(runs), pooled(shifted)
    assert (roc.n_members, roc.n_non_members) == (1800, 1800)
    np.testing.assert_array_equal(roc.tpr, again.tpr)
    assert roc.tpr_at(0.01) == pytest.approx(
        np.mean([Roc.of(m, o).tpr_at(0.01) for m, o in runs]), abs=0.02
    )
