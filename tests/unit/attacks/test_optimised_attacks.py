"""Attacks that search: against the papers' own searches, byzfl, and the rules that they aim at."""

import math

import numpy as np
import pytest
import torch
from byzfl.attacks.attacks import Optimal_ALittleIsEnough, Optimal_InnerProductManipulation

from fedexp.aggregation.krum import Krum
from fedexp.aggregation.mean import Mean
from fedexp.aggregation.median import Median
from fedexp.attacks.alie import Alie
from fedexp.attacks.fang import FangKrum, krum_selects_malicious
from fedexp.attacks.ipm import Ipm
from fedexp.attacks.min_max import MinMax, MinSum
from fedexp.attacks.optimal import OptimalAlie, OptimalIpm, most_damaging
from fedexp.core.checks import InputError
from tests.support.updates import updates

LIARS = (1, 4, 9)
N = 12
MASK = torch.tensor([k in LIARS for k in range(N)])


def random_rows(n=N, d=300, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 0.3 + torch.randn(n, d, generator=g) * torch.linspace(0.5, 2, n)[:, None]


def rewritten(attack, matrix, malicious, rule=None):
    mask = torch.zeros(len(matrix), dtype=torch.bool)
    mask[list(malicious)] = True
    result = attack.rewrite(updates(matrix), mask, rule, np.random.default_rng(0)).matrix
    assert torch.equal(result[~mask], matrix[~mask])
    return result


def crafted(attack, matrix, malicious, rule=None):
    """The one row that all malicious clients send."""
    rows = rewritten(attack, matrix, malicious, rule)[list(malicious)]
    assert torch.equal(rows, rows[:1].expand_as(rows))
    return rows[0]


def rule_of(aggregator):
    return lambda matrix: aggregator(updates(matrix), {}, None)[0]


# Min-Max and Min-Sum.


def min_max_allows(rows, row):
    largest = max((a - b).norm() for a in rows for b in rows)
    return max((row - a).norm() for a in rows) <= largest


def min_sum_allows(rows, row):
    largest = max(sum((a - b).norm() ** 2 for b in rows) for a in rows)
    return sum((row - a).norm() ** 2 for a in rows) <= largest


def halving_search(rows, allows, perturbation, first, tolerance):
    """Algorithm 1 of Shejwalkar and Houmansadr, on the rows, in float64.

    It reaches factors from first / 2 to 3 first / 2, and never ends below them.
    """
    rows = rows.double()
    mean = rows.mean(dim=0)
    p = {
        "unit_vector": -mean / mean.norm(),
        "std": rows.std(dim=0),
        "std_down": -rows.std(dim=0),
        "sign": -mean.sign(),
    }[perturbation]
    step, gamma, success = first / 2, first, 0.0
    while abs(success - gamma) > tolerance:
        assert step > tolerance / 2, f"the factor is not between {first / 2} and {3 * first / 2}"
        if allows(rows, mean + gamma * p):
            success = gamma
            gamma += step / 2
        else:
            gamma -= step / 2
        step /= 2
    return mean + success * p


@pytest.mark.parametrize("perturbation", ["unit_vector", "std", "std_down", "sign"])
@pytest.mark.parametrize(("attack", "allows"), [(MinMax, min_max_allows), (MinSum, min_sum_allows)])
def test_min_max_and_min_sum_are_where_the_papers_search_ends(attack, allows, perturbation):
    matrix = random_rows(9, 50)
    honest = matrix[[0, 2, 3, 5, 6, 7, 8]]
    first = {"unit_vector": 20.0, "std": 2.0, "std_down": 2.0, "sign": 3.0}[perturbation]
    expected = halving_search(honest, allows, perturbation, first, 1e-9)
    ours = crafted(attack(perturbation), matrix, (1, 4))
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("perturbation", ["unit_vector", "std", "std_down", "sign"])
@pytest.mark.parametrize(("attack", "allows"), [(MinMax, min_max_allows), (MinSum, min_sum_allows)])
def test_a_little_further_is_not_allowed(attack, allows, perturbation):
    matrix = random_rows(9, 50)
    honest = matrix[2:].double()
    offset = crafted(attack(perturbation), matrix, (0, 1)).double() - honest.mean(dim=0)
    assert allows(honest, honest.mean(dim=0) + 0.9999 * offset)
    assert not allows(honest, honest.mean(dim=0) + 1.0001 * offset)


def test_min_max_and_min_sum_by_hand():
    # Honest: 1 and 5 on a line, mean 3, furthest distance 4. Below the mean: 3 - gamma is no
    # further than 4 from 5 up to 1; the sum of squares, gamma = 2, ends at the same place.
    matrix = torch.tensor([[1.0], [5.0], [0.0]])
    assert crafted(MinMax("sign"), matrix, (2,)).item() == pytest.approx(1.0)
    assert crafted(MinSum("sign"), matrix, (2,)).item() == pytest.approx(1.0)
    # Honest 0, 0, 3, mean 1: Min-Max may go to 3 - 3 = 0; Min-Sum to 1 - 2 = -1.
    matrix = torch.tensor([[0.0], [0.0], [3.0], [0.0]])
    assert crafted(MinMax("unit_vector"), matrix, (3,)).item() == pytest.approx(0.0, abs=1e-6)
    assert crafted(MinSum("unit_vector"), matrix, (3,)).item() == pytest.approx(-1.0)


@pytest.mark.parametrize("attack", [MinMax("unit_vector"), MinMax("sign"), MinSum("std")])
def test_honest_rows_that_are_all_the_same_are_sent_again(attack):
    row = torch.randn(30, generator=torch.Generator().manual_seed(1))
    rows = row.repeat(12, 1)
    malicious = torch.arange(12) < 3
    given = updates(rows)
    sent = attack.rewrite(given, malicious, None, np.random.default_rng(0)).matrix[malicious]
    torch.testing.assert_close(sent, rows[malicious])


def test_min_max_where_the_honest_rows_agree_to_three_digits():
    matrix = 100 + 0.1 * random_rows(9, 20_000)
    honest = matrix[2:].double()
    largest = torch.cdist(honest, honest).max()
    row = crafted(MinMax("std"), matrix, (0, 1)).double()
    assert float((honest - row).norm(dim=1).max() / largest) == pytest.approx(1, abs=1e-4)


# Fang et al. against Krum.


def krum_choice(rows, f):
    """Blanchard et al., section 4, a loop a sentence; the first of equals."""
    n, best, lowest = len(rows), -1, math.inf
    for k in range(n):
        distances = sorted(float((rows[k] - rows[j]).norm() ** 2) for j in range(n) if j != k)
        score = sum(distances[: n - f - 2])
        if score < lowest:
            best, lowest = k, score
    return best


def fang_search(honest, f, threshold):
    """Section 4.2 of Fang et al. with w_Re = 0: the bound of theorem 1, halved."""
    honest = honest.double()
    h, d = honest.shape
    n = h + f
    sums = []
    for i in range(h):
        distances = sorted(float((honest[i] - honest[j]).norm() ** 2) for j in range(h) if j != i)
        sums.append(sum(distances[: n - f - 2]))
    direction = honest[sums.index(min(sums))].sign()
    furthest = max(float(row.norm()) for row in honest)
    size = math.sqrt(min(sums) / ((n - 2 * f - 1) * d)) + furthest / math.sqrt(d)
    while size > threshold:
        rows = torch.cat([honest, (-size * direction).expand(f, d)])  # ties go to the honest
        if krum_choice(rows, f) >= h:
            break
        size /= 2
    return -size * direction


@pytest.mark.parametrize("f", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_fang_krum_against_the_loop(f, seed):
    matrix = random_rows(13, 40, seed)
    expected = fang_search(matrix[f:], f, 1e-5)
    ours = crafted(FangKrum(1e-5), matrix, tuple(range(f)))
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_krum_selects_the_row_that_fang_krum_made_for_it(seed):
    matrix = random_rows(seed=seed)
    rows = rewritten(FangKrum(1e-5), matrix, LIARS)
    step = rule_of(Krum(len(LIARS), selected=1))(rows)
    assert torch.equal(step, rows[LIARS[0]])
    before = rule_of(Krum(len(LIARS), selected=1))(matrix[~MASK])
    assert (step * before).sum() < 0


def test_fang_krum_by_hand():
    # Honest 1, 2, 3, 4, f = 1: n - f - 2 = 2 neighbours; scores 1+4, 1+1, 1+1, 1+4. Krum would
    # select 2, so s = 1, and lambda <= sqrt(2 / 2) + 4 = 5. At -5: 36 + 49 against 2; at -2.5:
    # 12.25 + 20.25; at -1.25: 5.0625 + 10.5625; ...; nowhere on this side are there two within
    # 2, so the search runs down to the threshold: 5 / 2^3 = 0.625 is the first below 0.7.
    matrix = torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]])
    assert crafted(FangKrum(0.7), matrix, (4,)).tolist() == [-0.625]


def test_krum_prefers_equal_rows_only_where_they_are_strictly_nearer():
    between = torch.tensor([[math.inf, 4.0], [4.0, math.inf]], dtype=torch.float64)
    for to_malicious, selected in [([1.0, 9.0], False), ([3.0, 3.5], False), ([4.0, 5.0], False)]:
        assert krum_selects_malicious(between, torch.tensor(to_malicious), 1, 1) is selected
    # A second attacker is a neighbour at distance 0.
    assert krum_selects_malicious(between, torch.tensor([1.0, 9.0]), 2, 1) is True


# The factor searched against the rule in use.

RULES = {
    "mean": rule_of(Mean("uniform")),
    "median": rule_of(Median(len(LIARS))),
    "krum": rule_of(Krum(len(LIARS), selected=1)),
    "multi_krum": rule_of(Krum(len(LIARS), selected=None)),
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


UP, DOWN = 1, -1


def damage(attack, matrix, rule, towards):
    """How far the step lies from the honest mean, along a direction `[d]`."""
    step = rule(rewritten(attack, matrix, LIARS, rule))
    return float((step - matrix[~MASK].mean(dim=0)) @ towards / towards.norm())


@each_rule
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("z", [None, 0.3, 1.5])
def test_optimal_alie_does_at_least_the_damage_of_alie(rule, seed, z):
    matrix = random_rows(seed=seed)
    towards = matrix[~MASK].std(dim=0)
    optimal = damage(OptimalAlie(z, 20, 10.0, 0.8, "up"), matrix, rule, towards)
    assert optimal >= damage(Alie(z, "up"), matrix, rule, towards) - 1e-6


@each_rule
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 2.0])
def test_optimal_ipm_does_at_least_the_damage_of_ipm(rule, seed, epsilon):
    matrix = random_rows(seed=seed)
    towards = -matrix[~MASK].mean(dim=0)
    optimal = damage(OptimalIpm(epsilon, 20, 10.0, 0.8), matrix, rule, towards)
    assert optimal >= damage(Ipm(epsilon), matrix, rule, towards) - 1e-6


def test_the_search_helps_against_the_mean():
    matrix, rule = random_rows(), RULES["mean"]
    honest = matrix[~MASK]
    for optimal, plain, towards in [
        (OptimalAlie(1.5, 20, 10.0, 0.8, "up"), Alie(1.5, "up"), honest.std(dim=0)),
        (OptimalAlie(1.5, 20, 10.0, 0.8, "down"), Alie(1.5, "down"), -honest.std(dim=0)),
        (OptimalIpm(2.0, 20, 10.0, 0.8), Ipm(2.0), -honest.mean(dim=0)),
    ]:
        assert damage(optimal, matrix, rule, towards) > 1000 * damage(plain, matrix, rule, towards)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "attack", [OptimalIpm(2.0, 20, 0.05, 0.8), OptimalAlie(0.1, 20, 0.05, 0.8, "up")]
)
def test_krum_selects_what_an_optimal_attack_sends_and_not_another_honest_row(attack, seed):
    matrix = random_rows(seed=seed)
    rows = rewritten(attack, matrix, LIARS, RULES["krum"])
    assert torch.equal(RULES["krum"](rows), rows[LIARS[0]])


@pytest.mark.parametrize("seed", range(3))
def test_the_search_against_byzfls(seed):
    """Against the mean, where our damage and theirs, ||step - m||, are the same."""
    matrix, rule = random_rows(seed=seed), RULES["mean"]
    order = [*torch.nonzero(~MASK).flatten().tolist(), *LIARS]
    back = torch.tensor(order).argsort()  # byzfl puts the attackers last
    theirs = {"agg": lambda rows: rule(rows[back]), "pre_agg_list": [], "f": len(LIARS)}
    # A plain factor that does next to nothing, so that the search decides.
    ours = crafted(OptimalIpm(1e-9, 12, 10.0, 0.8), matrix, LIARS, rule)
    ipm = Optimal_InnerProductManipulation(**theirs, evals=12)(matrix[~MASK])
    torch.testing.assert_close(ours, ipm, rtol=1e-5, atol=1e-5)
    ours = crafted(OptimalAlie(0.0, 12, 10.0, 0.8, "up"), matrix, LIARS, rule)
    alie = Optimal_ALittleIsEnough(**theirs, evals=12)(matrix[~MASK])
    torch.testing.assert_close(ours, alie, rtol=1e-5, atol=1e-5)


def test_optimal_ipm_by_hand():
    # Honest 1 and 3, mean 2; the mean of three rows is (4 - 2 epsilon) / 3, so that the damage
    # grows with epsilon: 0, 10, 30, 70.
    matrix = torch.tensor([[1.0], [3.0], [0.0]])
    ours = crafted(OptimalIpm(2.0, 4, 10.0, 0.8), matrix, (2,), RULES["mean"])
    assert ours.tolist() == [-140.0]


@pytest.mark.parametrize(("evaluations", "factor"), [(1, 0.0), (2, 0.0), (3, 6.0), (6, 10.4)])
def test_the_search_by_hand(evaluations, factor):
    # One peak at 10.5, and nothing beyond 12. Trials: 0, 12.5 (no), 6 (12.5 * 0.48), 8.88 (6 +
    # 2.88), 10.2624 (8.88 + 1.3824) ...
    def peak(x):
        return 100 - (x - 10.5) ** 2 if x < 12 else -math.inf

    found = most_damaging(peak, 0.0, evaluations, 12.5, 0.48)
    assert found == pytest.approx(factor, abs=0.5)
    assert peak(found) >= peak(0.0)


def test_the_plain_factor_is_kept_where_the_search_misses_a_narrow_peak():
    assert most_damaging(lambda x: 9.0 if x == 1.3 else x / 1000, 1.3, 8, 10.0, 0.8) == 1.3


def test_the_rule_is_called_as_often_as_it_says_and_sees_the_honest_rows_as_they_are():
    matrix, calls = random_rows(), []

    def rule(rows):
        calls.append(torch.equal(rows[~MASK], matrix[~MASK]))
        return rows.mean(dim=0)

    rewritten(OptimalIpm(2.0, 7, 10.0, 0.8), matrix, LIARS, rule)
    rewritten(OptimalAlie(1.5, 4, 10.0, 0.8, "up"), matrix, LIARS, rule)
    assert calls == [True] * (7 + 1 + 4 + 1)


@pytest.mark.parametrize("z", [1.5, None])
def test_where_every_trial_fails_the_plain_factor_is_left(z):
    matrix = random_rows()

    def refuses(rows):
        raise InputError("never enough clients")

    def diverges(rows):
        return rows.mean(dim=0) * math.nan

    for rule in (refuses, diverges):
        optimal = crafted(OptimalAlie(z, 20, 10.0, 0.8, "up"), matrix, LIARS, rule)
        assert torch.equal(optimal, crafted(Alie(z, "up"), matrix, LIARS))
        optimal = crafted(OptimalIpm(2.0, 20, 10.0, 0.8), matrix, LIARS, rule)
        assert torch.equal(optimal, crafted(Ipm(2.0), matrix, LIARS))


@pytest.mark.parametrize("how", ["refuses", "diverges"])
def test_a_trial_that_fails_is_no_success(how):
    matrix = random_rows()
    allowed = 5 * float(matrix[~MASK].mean(dim=0).norm())

    def rule(rows):
        if rows[list(LIARS)].norm(dim=1).max() > allowed:
            if how == "refuses":
                raise InputError("too long")
            return rows.mean(dim=0) * math.inf
        return rows.mean(dim=0)

    length = float(crafted(OptimalIpm(0.1, 20, 10.0, 0.8), matrix, LIARS, rule).norm())
    assert 0.5 * allowed < length <= allowed


def test_other_errors_of_a_rule_are_not_hidden():
    def broken(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rewritten(OptimalIpm(2.0, 3, 10.0, 0.8), random_rows(), LIARS, broken)
