"""Rules that weigh, clip or vote, against hand-computed cases and loops typed from the papers."""

import math
from dataclasses import replace

import byzfl
import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from fedexp.aggregation.fltrust import FLTrust
from fedexp.aggregation.foolsgold import FoolsGold, foolsgold_weights
from fedexp.aggregation.mean import Mean
from fedexp.aggregation.norm_bounding import NormBounding
from fedexp.aggregation.robust_learning_rate import RobustLearningRate
from fedexp.aggregation.sign_majority import SignMajority
from fedexp.core.checks import InputError
from tests.support.updates import updates

HONEST, LIARS = 16, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def random_rows(n=9, d=40_000, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def sign_flipped(d=3000, seed=0):
    """Similar honest rows that mostly point up, the last fifth turned round."""
    rows = 1 + random_rows(HONEST + LIARS, d, seed)
    rows[HONEST:] *= -1
    return rows


def step_of(rule, given):
    return rule(given, rule.init(given.matrix.shape[1]), rng())[0]


# --- FLTrust


def naive_fltrust(rows, clean):
    """Equations of section IV: trust scores, normalised rows, weighted mean."""
    rows, clean = rows.double(), clean.double()
    cosine = cosine_similarity(rows.numpy(), clean[None].numpy())[:, 0]
    scores = [max(0.0, c) for c in cosine.tolist()]
    scaled = [clean.norm() / row.norm() * row for row in rows]
    return sum(s * row for s, row in zip(scores, scaled, strict=True)) / sum(scores)


def test_fltrust_against_the_loop():
    rows = random_rows() * torch.logspace(-2, 2, 9)[:, None] + 0.01
    clean = random_rows(1, seed=1)[0] + 0.05
    step = step_of(FLTrust(100), updates(rows, reference=clean))
    torch.testing.assert_close(step.double(), naive_fltrust(rows, clean), rtol=0, atol=1e-5)


def test_fltrust_by_hand():
    # Cosines with (2, 0): 1, 0, 0.6, -1. Scaled to norm 2: (2, 0) and (1.2, 1.6), weighted 1, 0.6.
    rows = torch.tensor([[7.0, 0.0], [0.0, 9.0], [3.0, 4.0], [-1.0, 0.0]])
    step = step_of(FLTrust(100), updates(rows, reference=torch.tensor([2.0, 0.0])))
    torch.testing.assert_close(step, torch.tensor([(2 + 0.6 * 1.2) / 1.6, 0.6 * 1.6 / 1.6]))


def test_fltrust_gives_flipped_rows_no_influence_however_many_and_long_they_are():
    rows, clean = sign_flipped(), torch.ones(3000)
    rows[4:HONEST] *= -1
    step = step_of(FLTrust(100), updates(rows, reference=clean))
    rows[4:] *= 1e6
    assert torch.equal(step_of(FLTrust(100), updates(rows, reference=clean)), step)
    torch.testing.assert_close(step, step_of(FLTrust(100), updates(rows[:4], reference=clean)))


@pytest.mark.parametrize(
    ("rows", "clean"),
    [
        ([[-1.0, 0.0], [-3.0, 1.0]], [1.0, 0.0]),  # nobody is trusted
        ([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0]),
        ([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0]),
        ([[1e30, 1e30], [-1e30, 1e30]], [1.0, 0.0]),  # too long for float32
        ([[0.0], [0.0]], [0.0]),
    ],
)
def test_fltrust_that_trusts_nobody_stays_where_it_is(rows, clean):
    step = step_of(FLTrust(100), updates(torch.tensor(rows), reference=torch.tensor(clean)))
    assert step.tolist() == [0.0] * len(clean)


def test_fltrust_needs_root_data():
    with pytest.raises(InputError, match="needs root data"):
        step_of(FLTrust(100), updates(torch.zeros(3, 2)))
    with pytest.raises(InputError, match="root_examples=0"):
        FLTrust(0)


# --- FoolsGold


def naive_foolsgold(histories, confidence=1.0):
    """Algorithm 1, with the clipping and the 0.99 of the authors' code, entry by entry."""
    n = len(histories)
    cs = cosine_similarity(histories.double().numpy())
    np.fill_diagonal(cs, 0)
    v = [max(cs[i]) for i in range(n)]
    for i in range(n):
        for j in range(n):
            if v[j] > v[i]:
                cs[i][j] *= v[i] / v[j]
    alpha = [min(1.0, max(0.0, 1 - max(cs[i]))) for i in range(n)]
    alpha = [a / max(alpha) for a in alpha]
    alpha = [0.99 if a == 1 else a for a in alpha]
    logit = [confidence * (math.log(a / (1 - a)) + 0.5) if a > 0 else 0 for a in alpha]
    return torch.tensor([min(1.0, max(0.0, a)) for a in logit], dtype=torch.float64)


def histories_with_structure(n=8, d=400):
    rows = random_rows(n, d) + torch.linspace(0, 2, n)[:, None]  # later rows are more alike
    rows[-2] = rows[-1] + 0.5 * rows[0]
    return rows


@pytest.mark.parametrize("confidence", [1.0, 0.3])
def test_foolsgold_against_the_loop_over_three_rounds(confidence):
    rule = FoolsGold(n_clients=20, confidence=confidence)
    state, total = rule.init(400), torch.zeros(20, 400)
    for r, ids in enumerate([(3, 0, 7, 19, 2, 11, 5, 4), (0, 1, 2, 3, 4, 5, 6, 7), (19, 3, 8)]):
        rows = histories_with_structure()[-len(ids) :] * (r + 1)
        total[list(ids)] += rows
        step, state = rule(updates(rows, client_ids=ids), state, rng())
        weights = naive_foolsgold(total[list(ids)], confidence)
        assert len({round(w, 6) for w in weights.tolist()}) > 1
        expected = (weights / weights.sum()) @ rows.double()
        torch.testing.assert_close(step.double(), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(state["history"], total)


def test_foolsgold_by_hand():
    # v = 0.9, 0.9, 0.6. Pardoned, row 3 becomes 0.6 x 0.6 / 0.9 = 0.4 and 0.3 x 0.6 / 0.9 = 0.2.
    # 1 - maxima: 0.1, 0.1, 0.6; over 0.6: 1/6, 1/6, 1. Logits: ln(0.2) + 0.5 < 0 and above 1.
    cs = torch.tensor([[1.0, 0.9, 0.6], [0.9, 1.0, 0.3], [0.6, 0.3, 1.0]], dtype=torch.float64)
    assert foolsgold_weights(cs, 1.0).tolist() == [0, 0, 1]
    # A milder kappa shows the logit of 0.99: 0.1 x (ln 99 + 0.5).
    assert foolsgold_weights(cs, 0.1)[2].item() == pytest.approx(0.1 * (math.log(99) + 0.5))


def test_foolsgold_silences_sybils_whoever_they_are_and_however_many():
    honest = random_rows(6, 5000)
    sybils = random_rows(1, 5000, seed=9).repeat(30, 1)
    step = step_of(FoolsGold(36, 1.0), updates(torch.cat([sybils, honest])))
    torch.testing.assert_close(step, honest.mean(dim=0), rtol=0, atol=1e-6)


def test_foolsgold_remembers():
    first, second = torch.eye(3), torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    rule = FoolsGold(3, 1.0)
    _, state = rule(updates(first * torch.tensor([5.0, 5, 1])), rule.init(3), rng())
    remembered, _ = rule(updates(second), state, rng())
    forgotten, _ = rule(updates(second), rule.init(3), rng())
    assert forgotten.tolist() == [0, 0, 1]  # twins in this round alone
    assert remembered[0] > 0.3  # but their pasts differ


def test_foolsgold_among_nothing_but_sybils_is_the_mean():
    rows = torch.tensor([[1.0, 2.0], [2.0, 4.0], [6.0, 12.0]])
    torch.testing.assert_close(step_of(FoolsGold(3, 1.0), updates(rows)), torch.tensor([3.0, 6.0]))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("row", [[0.0], [-2.0], [1.0, -3.0]])
def test_foolsgold_of_clients_that_agree(n, row):
    row = torch.tensor(row)
    torch.testing.assert_close(step_of(FoolsGold(5, 1.0), updates(row.repeat(n, 1))), row)


def test_foolsgold_in_any_order():
    given = updates(histories_with_structure())
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    shuffled = replace(given, matrix=given.matrix[order], client_ids=tuple(order.tolist()))
    rule = FoolsGold(8, 1.0)
    step, state = rule(given, rule.init(400), rng())
    other, other_state = rule(shuffled, rule.init(400), rng())
    torch.testing.assert_close(other, step, rtol=0, atol=1e-5)
    assert torch.equal(other_state["history"], state["history"])


def test_foolsgold_refuses_rows_that_are_no_clients():
    rule = FoolsGold(n_clients=10, confidence=1.0)
    with pytest.raises(InputError, match="mixed"):
        step_of(rule, updates(torch.zeros(2, 1), client_ids=(3, -1)))
    with pytest.raises(InputError, match="n_clients=10: client 10 answered"):
        step_of(rule, updates(torch.zeros(2, 1), client_ids=(3, 10)))
    with pytest.raises(InputError, match="confidence=0"):
        FoolsGold(10, 0)


def test_foolsgold_of_the_last_layer_goes_by_its_columns_and_moves_all():
    # Twins in the last two columns, far apart in the first: sybils by the last layer, not by all.
    rows = torch.tensor([[9.0, 1.0, 0.0], [-9.0, 2.0, 0.0], [1.0, 0.0, 5.0]])
    rule = FoolsGold(3, 1.0, "last_layer").of_head(slice(1, 3))
    step, state = rule(updates(rows), rule.init(3), rng())
    assert step.tolist() == [1, 0, 5]
    assert torch.equal(state["history"], rows[:, 1:])
    assert step_of(FoolsGold(3, 1.0), updates(rows)).tolist() != [1, 0, 5]


def test_foolsgold_does_not_guess_where_the_last_layer_lies():
    with pytest.raises(InputError, match="features=last_layer: needs to know where it lies"):
        step_of(FoolsGold(3, 1.0, "last_layer"), updates(torch.eye(3)))


# --- norm bounding


@pytest.mark.parametrize("bound", [0.5, 150.0, 1e6])
def test_norm_bounding_against_byzfl(bound):
    rows = random_rows(9, 5000) * torch.linspace(0.5, 4, 9)[:, None]
    expected = byzfl.Average()(byzfl.Clipping(c=bound)(rows))
    step = step_of(NormBounding(bound, 0.0, "uniform"), updates(rows))
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)


def test_norm_bounding_by_hand():
    rows = torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0], [0.0, 10.0]])
    given = updates(rows, [1.0, 2.0, 4.0, 1.0])
    step = step_of(NormBounding(5.0, 0.0, "examples"), given)
    torch.testing.assert_close(step, torch.tensor([9 / 8, 17 / 8]))
    # Norms 0, 5, 10, 50: the median is 7.5.
    step = step_of(NormBounding(None, 0.0, "uniform"), given)
    torch.testing.assert_close(step, torch.tensor([7.5 / 4, 17.5 / 4]))


def test_norm_bounding_keeps_a_scaled_minority_within_its_weight():
    rows = sign_flipped()
    bounded = step_of(NormBounding(None, 0.0, "uniform"), updates(rows))
    rows[HONEST:] *= 1e5
    step = step_of(NormBounding(None, 0.0, "uniform"), updates(rows))
    assert (step - bounded).norm() < 0.05 * bounded.norm()
    assert step_of(Mean("uniform"), updates(rows)).norm() > 1e4 * bounded.norm()


def test_norm_bounding_noise():
    rows = torch.ones(2, 10_000)
    rule = NormBounding(1e6, 0.3, "uniform")
    noise = step_of(rule, updates(rows)).double() - 1
    # 10 000 draws: the standard deviation is good to 0.7 percent.
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.012)
    assert torch.equal(step_of(rule, updates(rows)), step_of(rule, updates(rows)))


@pytest.mark.parametrize("wrong", [(0.0, 0.0, "uniform"), (1.0, -1.0, "uniform"), (1.0, 0.0, "x")])
def test_norm_bounding_refuses_nonsense(wrong):
    with pytest.raises(InputError, match=r"must be|Allowed"):
        NormBounding(*wrong)


# --- robust learning rate and majority vote


def naive_robust_learning_rate(rows, weights, theta):
    """The paper's learning rate a coordinate, times FedAvg's mean."""
    step = []
    for i in range(rows.shape[1]):
        column = rows[:, i].tolist()
        votes = abs(sum((x > 0) - (x < 0) for x in column))
        mean = sum(w * x for w, x in zip(weights, column, strict=True)) / sum(weights)
        step.append(mean if votes >= theta else -mean)
    return torch.tensor(step)


@pytest.mark.parametrize("theta", [1, 4, 9])
@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_robust_learning_rate_against_the_loop(theta, weighting):
    rows = random_rows(9, 500)
    rows[:, :50] = 0
    rows[:5, 50:100] = 0
    examples = [1.0, 2, 3, 4, 5, 6, 7, 8, 9]
    weights = examples if weighting == "examples" else [1.0] * 9
    step = step_of(RobustLearningRate(0, theta, weighting), updates(rows, examples))
    expected = naive_robust_learning_rate(rows, weights, theta)
    torch.testing.assert_close(step, expected, rtol=1e-5, atol=1e-6)
    assert (step != 0).any()


def test_robust_learning_rate_turns_a_backdoor_round():
    # Four attackers push the last coordinate, on which the others cancel: the mean follows them,
    # the rule goes the other way; where the honest agree it is the mean.
    rows = torch.ones(20, 3)
    rows[::2, 2] = -1.0
    rows[16:, 2] = 9.0
    step = step_of(RobustLearningRate(LIARS, None, "uniform"), updates(rows))
    torch.testing.assert_close(step, torch.tensor([1.0, 1.0, -1.8]))


def test_robust_learning_rate_takes_f_plus_1_votes_for_enough():
    rows = torch.tensor([[1.0, 1.0]] * 6 + [[1.0, -1.0]] * 4)  # net votes: 10 and 2
    for f, expected in ((1, [1.0, 0.2]), (2, [1.0, -0.2])):
        step = step_of(RobustLearningRate(f, None, "uniform"), updates(rows))
        torch.testing.assert_close(step, torch.tensor(expected))


def test_robust_learning_rate_refuses_what_no_vote_can_reach():
    with pytest.raises(InputError, match="threshold=4: no coordinate can get so many votes: 3"):
        step_of(RobustLearningRate(0, 4, "uniform"), updates(torch.zeros(3, 1)))
    with pytest.raises(InputError, match="assumed_malicious=2: needs more than 2 x 2 clients"):
        step_of(RobustLearningRate(2, None, "uniform"), updates(torch.zeros(4, 1)))
    with pytest.raises(InputError, match="threshold=0"):
        RobustLearningRate(0, 0, "uniform")


def test_sign_majority_by_hand():
    rows = torch.tensor([[1.0, -2.0, 0.0], [8.0, 3.0, -1.0], [-1.0, -5.0, 0.0], [1.0, 5.0, 0.0]])
    # Votes: +2, 0, -1. Mean magnitudes 1, 4, 2, 2: the median is 2.
    assert step_of(SignMajority(1, None), updates(rows)).tolist() == [2.0, 0.0, -2.0]
    assert step_of(SignMajority(1, 0.5), updates(rows)).tolist() == [0.5, 0.0, -0.5]


def test_sign_majority_against_the_loop():
    rows = random_rows(7, 40_000)
    size = float(np.median([float(row.double().abs().mean()) for row in rows]))
    votes = sum(torch.sign(row) for row in rows)
    torch.testing.assert_close(step_of(SignMajority(3, None), updates(rows)), size * votes.sign())


def test_sign_majority_gives_a_minority_no_influence_where_the_others_agree():
    rows = random_rows(HONEST + LIARS, 3000).abs() + 0.1
    honest = step_of(SignMajority(LIARS, 1.0), updates(rows))
    rows[HONEST:] *= -1e6
    assert torch.equal(step_of(SignMajority(LIARS, 1.0), updates(rows)), honest)
    # The step size is a median: no minority can take it out of the honest range.
    largest = rows[:HONEST].abs().mean(dim=1).max()
    assert step_of(SignMajority(LIARS, None), updates(rows)).max() <= largest


def test_sign_majority_refuses_a_majority_of_liars_and_no_step():
    with pytest.raises(InputError, match="assumed_malicious=2: needs more than 2 x 2 clients"):
        step_of(SignMajority(2, None), updates(torch.zeros(4, 1)))
    with pytest.raises(InputError, match="step_size=0"):
        SignMajority(0, 0)


@pytest.mark.parametrize(
    "rule",
    [
        NormBounding(None, 0.0, "examples"),
        NormBounding(100.0, 0.0, "uniform"),
        RobustLearningRate(0, None, "examples"),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_clients_that_agree_or_say_nothing(rule, n):
    for row in (torch.zeros(1), torch.tensor([-2.0]), torch.tensor([0.0, 1.0, -3.0])):
        torch.testing.assert_close(step_of(rule, updates(row.repeat(n, 1))), row)
