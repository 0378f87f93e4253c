"""Attacks on updates: by hand, against loops typed from the papers, and against byzfl."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from byzfl.attacks.attacks import (
    ALittleIsEnough,
    InnerProductManipulation,
    SignFlipping,
)
from byzfl.attacks.attacks import Gaussian as ByzflGaussian
from byzfl.attacks.attacks import Mimic as ByzflMimic
from scipy.stats import ks_2samp, kstest

from fedexp.attacks.alie import Alie, formula_z
from fedexp.attacks.broken import Broken
from fedexp.attacks.fang import FangKrum, FangTrimmedMean
from fedexp.attacks.free_rider import FreeRider
from fedexp.attacks.gaussian import Gaussian
from fedexp.attacks.honest import CHUNK_COLUMNS, centred_gram, mean_and_deviation
from fedexp.attacks.ipm import Ipm
from fedexp.attacks.mimic import Mimic, most_different
from fedexp.attacks.min_max import MinMax, MinSum
from fedexp.attacks.optimal import OptimalAlie, OptimalIpm
from fedexp.attacks.scaling import Scaling
from fedexp.core.checks import InputError
from fedexp.core.types import Updates
from tests.support.updates import updates

FROM_HONEST = {
    "alie": Alie(1.5, "up"),
    "alie formula": Alie(None, "up"),
    "ipm": Ipm(2.0),
    "min_max": MinMax("std"),
    "min_sum": MinSum("unit_vector"),
    "mimic": Mimic(None),
    "fang_trimmed_mean": FangTrimmedMean(2.0),
    "fang_krum": FangKrum(1e-5),
    "optimal_alie": OptimalAlie(1.5, 5, 10.0, 0.8, "up"),
    "optimal_ipm": OptimalIpm(2.0, 5, 10.0, 0.8),
}
each_from_honest = pytest.mark.parametrize("attack", FROM_HONEST.values(), ids=FROM_HONEST)


def rng(seed=0):
    return np.random.default_rng(seed)


def rule(matrix):
    return matrix.nan_to_num(nan=0.0).mean(dim=0)


def marked(n, *malicious):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(malicious)] = True
    return mask


def random_rows(n=11, d=700, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 0.3 + torch.randn(n, d, generator=g)


def sent(attack, matrix, *malicious, seed=0):
    """The rows that the malicious clients send, after a look at the others."""
    mask = marked(len(matrix), *malicious)
    rewritten = attack.rewrite(updates(matrix), mask, rule, rng(seed)).matrix
    assert torch.equal(rewritten[~mask].nan_to_num(), matrix[~mask].nan_to_num())
    return rewritten[mask]


HONEST = torch.tensor([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]])
WITH_LIAR = torch.cat([HONEST, torch.tensor([[7.0, 7.0]])])  # client 3 lies


# What everybody is built on.


def test_mean_and_deviation_over_several_chunks_of_close_rows():
    rows = 1000 + 1e-2 * random_rows(5, 2 * CHUNK_COLUMNS + 7)
    mean, deviation = mean_and_deviation(rows)
    exact = rows.double()
    torch.testing.assert_close(mean.double(), exact.mean(dim=0), rtol=1e-6, atol=0)
    torch.testing.assert_close(deviation.double(), exact.std(dim=0), rtol=1e-2, atol=0)
    centred = exact - exact.mean(dim=0)
    torch.testing.assert_close(centred_gram(rows), centred @ centred.T, rtol=1e-3, atol=1e-4)


@each_from_honest
def test_a_row_that_is_not_finite_is_left_out(attack):
    matrix = random_rows()
    ill = torch.cat([matrix[:4], torch.full((1, 700), torch.nan), matrix[4:]])
    # Formulas with n in them see one client more; the plain ones see the same rows.
    if attack != FROM_HONEST["alie formula"] and not isinstance(attack, OptimalAlie | OptimalIpm):
        torch.testing.assert_close(sent(attack, ill, 0, 7), sent(attack, matrix, 0, 6))
    assert sent(attack, ill, 0, 7).isfinite().all()
    ill[4, 3:] = torch.inf
    assert sent(attack, ill, 0, 7).isfinite().all()


@each_from_honest
def test_where_nothing_is_finite_there_is_still_an_answer(attack):
    assert sent(attack, torch.full((6, 8), torch.nan), 0, 3).shape == (2, 8)


@each_from_honest
def test_one_honest_row_and_nobody_honest(attack):
    assert sent(attack, random_rows(3), 0, 2).isfinite().all()
    assert sent(attack, random_rows(3), 0, 1, 2).isfinite().all()
    assert sent(attack, random_rows(1), 0).isfinite().all()
    assert sent(attack, torch.zeros(5, 9), 0, 2).tolist() == [[0.0] * 9] * 2


@pytest.mark.parametrize(
    "attack",
    [Alie(1.5, "up"), MinMax("std"), MinSum("sign"), Mimic(None)],
    ids=["alie", "min_max", "min_sum", "mimic"],
)
def test_around_a_single_honest_row_there_is_no_spread_to_hide_in(attack):
    matrix = random_rows(3)
    torch.testing.assert_close(sent(attack, matrix, 0, 2), matrix[[1, 1]])


def test_refuses_what_makes_no_attack():
    for build, key in [
        (lambda: Gaussian(0.0, False), "std"),
        (lambda: Scaling(-1.0), "factor"),
        (lambda: Alie(math.nan, "up"), "z"),
        (lambda: Alie(math.inf, "up"), "z"),
        (lambda: Ipm(0.0), "epsilon"),
        (lambda: MinMax("stdd"), "perturbation"),
        (lambda: MinSum("mean"), "perturbation"),
        (lambda: Mimic(-1), "client"),
        (lambda: FangTrimmedMean(0.5), "b"),
        (lambda: FangKrum(0.0), "threshold"),
        (lambda: OptimalAlie(math.inf, 20, 10.0, 0.8, "up"), "z"),
        (lambda: OptimalAlie(1.5, 0, 10.0, 0.8, "up"), "evaluations"),
        (lambda: OptimalIpm(0.0, 20, 10.0, 0.8), "epsilon"),
        (lambda: OptimalIpm(2.0, 20, -1.0, 0.8), "first_step"),
        (lambda: OptimalIpm(2.0, 20, 10.0, 1.0), "ratio"),
    ]:
        with pytest.raises(InputError, match=f"^{key}="):
            build()


# Own data only.


def test_free_riders_send_zeros_and_broken_clients_nan():
    assert sent(FreeRider(), WITH_LIAR, 0, 3).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert sent(Broken(), WITH_LIAR, 3).isnan().all()


def test_scaling_by_hand():
    assert sent(Scaling(2.5), WITH_LIAR, 3).tolist() == [[17.5, 17.5]]
    assert sent(Scaling(None), WITH_LIAR, 3).tolist() == [[28.0, 28.0]]  # n / f = 4
    assert sent(Scaling(None), WITH_LIAR, 0, 3).tolist() == [[2.0, 20.0], [14.0, 14.0]]


def test_scaling_replaces_the_model_where_the_others_cancel_out():
    matrix = torch.tensor([[1.0, -2.0], [-1.0, 2.0], [5.0, 3.0], [0.0, 0.0]])
    rewritten = Scaling(None).rewrite(updates(matrix), marked(4, 2), rule, rng())
    assert rewritten.matrix.mean(dim=0).tolist() == [5.0, 3.0]


@pytest.mark.parametrize("added", [False, True])
def test_gaussian_noise_has_the_deviation_asked_for_and_no_other(added):
    matrix = random_rows(4, 5000)
    noise = sent(Gaussian(0.7, added), matrix, 0, 2) - (matrix[[0, 2]] if added else 0)
    for row in noise.double().numpy():
        assert kstest(row, "norm", args=(0, 0.7)).pvalue > 0.001
        for wrong in (0.7 * 2 / 3, 0.7 * 3 / 2):
            assert kstest(row, "norm", args=(0, wrong)).pvalue < 1e-9


def test_gaussian_noise_is_distributed_as_byzfls():
    np.random.seed(3)
    theirs = ByzflGaussian(mu=0.0, sigma=0.7)(np.zeros((2, 5000)))
    ours, again = sent(Gaussian(0.7, False), random_rows(4, 5000), 0, 2).double().numpy()
    assert ks_2samp(ours, theirs).pvalue > 0.001
    assert ks_2samp(1.5 * ours, theirs).pvalue < 1e-9
    assert abs(np.corrcoef(ours, again)[0, 1]) < 0.05  # each client draws noise of its own


def test_gaussian_noise_comes_from_the_stream():
    first, again, other = (sent(Gaussian(1.0, False), WITH_LIAR, 3, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ALIE.


def test_alie_by_hand():
    # Honest: mean (2, 10), deviation (1, 0).
    assert sent(Alie(1.5, "up"), WITH_LIAR, 3).tolist() == [[3.5, 10.0]]
    assert sent(Alie(1.5, "down"), WITH_LIAR, 3).tolist() == [[0.5, 10.0]]
    assert sent(Alie(-1.0, "up"), WITH_LIAR, 3).tolist() == [[1.0, 10.0]]


def authors_alie(gradients, z):
    """As malicious.py of the authors has it: `grads_mean - num_std * grads_stdev`."""
    return gradients.mean(dim=0) - z * gradients.var(dim=0, correction=1).sqrt()


def test_alie_moves_the_model_as_the_authors_attack_on_gradients_does():
    # From the same gradients: their server steps by -lr times what it was sent.
    gradients, lr = random_rows(), 0.1
    theirs = -lr * authors_alie(gradients[2:], z=1.5)
    for row in sent(Alie(1.5, "up"), -lr * gradients, 0, 1):
        torch.testing.assert_close(row, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "f", "share"),
    [
        (50, 24, 24 / 26),  # the paper's example: s = 2
        (51, 12, 25 / 39),  # s = 26 - 12
        (10, 3, 4 / 7),
        (10, 2, 4 / 8),
        (10, 1, 4 / 9),  # a negative z: too few attackers to reach a majority
        (10, 7, 2 / 3),  # a majority by themselves: s = 1
    ],
)
def test_alie_formula(n, f, share):
    assert NormalDist().cdf(formula_z(n, f)) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(("n", "f"), [(2, 1), (3, 2), (1, 1), (4, 4)])
def test_alie_formula_where_it_has_no_answer(n, f):
    assert formula_z(n, f) == 0


def test_alie_against_the_loop():
    matrix = random_rows(9, 60)
    attackers = (0, 4, 5, 8)
    honest = [row.double() for k, row in enumerate(matrix) if k not in attackers]
    s = math.floor(9 / 2 + 1) - 4
    z = NormalDist().inv_cdf((9 - 4 - s) / (9 - 4))
    expected = []
    for j in range(60):
        values = [float(row[j]) for row in honest]
        mean = sum(values) / 5
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 4)
        expected.append(mean + z * deviation)
    for row in sent(Alie(None, "up"), matrix, *attackers):
        torch.testing.assert_close(row, torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [0.25, 1.5, 30.0])
def test_alie_on_rows_against_byzfl(tau):
    matrix = random_rows()
    theirs = ALittleIsEnough(tau=tau)(matrix[[1, 2, 3, 5, 6, 7, 8, 9, 10]])
    for row in sent(Alie(tau, "up"), matrix, 0, 4):
        torch.testing.assert_close(row, theirs, rtol=1e-5, atol=1e-5)


# Inner products.


def test_ipm_by_hand():
    assert sent(Ipm(0.5), WITH_LIAR, 3).tolist() == [[-1.0, -5.0]]


def test_ipm_turns_a_mean_around_beyond_the_ratio_of_honest_to_malicious():
    matrix = torch.tensor([[1.0], [3.0], [2.0], [0.0]])
    for epsilon, sign in [(2.9, 1), (3.1, -1)]:
        rewritten = Ipm(epsilon).rewrite(updates(matrix), marked(4, 3), rule, rng())
        assert rewritten.matrix.mean().sign() == sign


@pytest.mark.parametrize("tau", [0.1, 2.0, 100.0])
def test_ipm_against_byzfl(tau):
    matrix = random_rows()
    theirs = InnerProductManipulation(tau=tau)(matrix[2:])
    for row in sent(Ipm(tau), matrix, 0, 1):
        torch.testing.assert_close(row, theirs, rtol=1e-5, atol=1e-5)


def test_byzfls_sign_flipping_is_ipm_with_epsilon_1():
    matrix = random_rows()
    torch.testing.assert_close(
        sent(Ipm(1.0), matrix, 0)[0], SignFlipping()(matrix[1:]), rtol=1e-5, atol=1e-5
    )


# Mimic.


def test_mimic_by_hand():
    # They differ most along the first axis, and client 2 lies furthest out on it.
    matrix = torch.tensor([[0.0, 1.0], [1.0, -1.0], [-9.0, 0.0], [4.0, 0.0], [50.0, 50.0]])
    assert sent(Mimic(None), matrix, 0, 4).tolist() == [[-9.0, 0.0]] * 2


@pytest.mark.parametrize("seed", range(5))
def test_mimic_against_the_singular_vectors(seed):
    rows = random_rows(12, 300, seed) * torch.linspace(1, 3, 12)[:, None]
    centred = rows.double() - rows.double().mean(dim=0)
    direction = torch.linalg.svd(centred).Vh[0]
    assert most_different(rows) == int((centred @ direction).abs().argmax())


def test_mimic_against_byzfl():
    matrix = random_rows()
    honest = [k for k in range(11) if k not in (0, 4)]
    for epsilon, client in enumerate(honest):
        theirs = ByzflMimic(epsilon=epsilon)(matrix[honest])
        for row in sent(Mimic(client), matrix, 0, 4):
            assert torch.equal(row, theirs)


def ojas_target(rounds, warmup, seed):
    """The authors' warm-up, vector by vector: who is copied in each round, of honest rows alone."""
    mu = z = target = None
    copied = []
    for t, good in enumerate(rounds):
        average = sum(good) / len(good)
        if t < warmup:
            mu = average if t == 0 else t / (1 + t) * mu + average / (1 + t)
            start = rng(seed).standard_normal(len(average), dtype=np.float32)
            z_before = torch.from_numpy(start) if t == 0 else z
            total = sum((g - mu).dot(z_before) * (g - mu) for g in good)
            total = total / total.norm()
            z = total if t == 0 else t / (1 + t) * z + total / (1 + t)
            z = z / z.norm()
            target = int(torch.stack([g.dot(z) for g in good]).argmax())
        copied.append(target)
    return copied


def test_mimic_with_a_warm_up_against_the_authors_loop():
    g = torch.Generator().manual_seed(3)
    rounds = [torch.randn(7, 40, generator=g) for _ in range(8)]
    expected = ojas_target([r[:5] for r in rounds], 5, seed=0)
    assert len(set(expected[:5])) > 1  # the warm-up changes its mind
    attack, memory, mask = Mimic(None, warmup=5), {}, torch.arange(7) >= 5
    for rows, target in zip(rounds, expected, strict=True):
        sent, memory = attack.rewrite_remembering(updates(rows), mask, rule, rng(), memory)
        assert torch.equal(sent.matrix[5:], rows[target].expand(2, -1))
        assert torch.equal(sent.matrix[:5], rows[:5])
    assert int(memory["rounds"]) == 5
    # Who was found is known by its number wherever its row lies, and replaced where it is missing.
    found = expected[-1]
    later = replace(updates(rounds[0]), client_ids=tuple(range(found, found + 7)))
    sent, _ = attack.rewrite_remembering(later, mask, rule, rng(), memory)
    assert torch.equal(sent.matrix[5], rounds[0][0])
    absent = replace(later, client_ids=tuple(range(100, 107)))
    sent, _ = attack.rewrite_remembering(absent, mask, rule, rng(), memory)
    assert torch.equal(
        sent.matrix[5], rounds[0][int((rounds[0][:5] @ memory["direction"]).argmax())]
    )


def test_mimic_with_a_warm_up_of_clients_that_agree_and_what_it_refuses():
    same = torch.ones(4, 3)
    sent, memory = Mimic(None, 2).rewrite_remembering(
        updates(same), torch.arange(4) > 2, rule, rng(), {}
    )
    assert torch.equal(sent.matrix, same)
    assert memory["direction"].isfinite().all()
    with pytest.raises(InputError, match="warmup=3: finds the client to copy"):
        Mimic(1, 3)
    with pytest.raises(InputError, match="warmup=0"):
        Mimic(None, 0)


def test_mimic_knows_clients_by_their_numbers_and_makes_do_where_one_is_missing():
    matrix = random_rows(5)
    cohort = Updates(matrix, (3, 8, 9, 20, 21), torch.ones(5, dtype=torch.float64))
    mask = marked(5, 1)
    copied = Mimic(9).rewrite(cohort, mask, rule, rng()).matrix[1]
    assert torch.equal(copied, matrix[2])
    by_difference = Mimic(None).rewrite(cohort, mask, rule, rng()).matrix
    for absent_or_malicious in (4, 8):
        instead = Mimic(absent_or_malicious).rewrite(cohort, mask, rule, rng()).matrix
        assert torch.equal(instead, by_difference)


# Fang et al. against the trimmed mean (against Krum: test_optimised_attacks.py).


def test_fang_trimmed_mean_by_hand():
    # By columns: rising above 0, rising with a lowest below 0, falling below 0, falling with a
    # highest above 0. With b = 1 everybody sends the extreme honest value of the wrong side.
    honest = torch.tensor([[2.0, -1.0, -2.0, 1.0], [4.0, 5.0, -4.0, -5.0]])
    matrix = torch.cat([honest, torch.zeros(2, 4)])
    assert sent(FangTrimmedMean(1.0), matrix, 2, 3).tolist() == [[2.0, -1.0, -2.0, 1.0]] * 2


def test_fang_trimmed_mean_draws_evenly_from_the_papers_interval():
    matrix = random_rows(7, 4000)
    honest = matrix[2:].double()
    crafted = sent(FangTrimmedMean(2.0), matrix, 0, 1).double()
    places = []
    for row in crafted:
        for j in range(4000):
            largest, smallest = float(honest[:, j].max()), float(honest[:, j].min())
            if honest[:, j].mean() > 0:  # s = 1: go below the smallest
                low, high = (smallest / 2, smallest) if smallest > 0 else (2 * smallest, smallest)
            else:  # s = -1: go above the largest
                low, high = (largest, 2 * largest) if largest > 0 else (largest, largest / 2)
            places.append((float(row[j]) - low) / (high - low))
    assert min(places) > -1e-5
    assert max(places) < 1 + 1e-5
    assert kstest(places, "uniform").pvalue > 0.001
    assert not torch.equal(crafted[0], crafted[1])  # each client draws for itself
