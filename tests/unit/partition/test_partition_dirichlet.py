import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.partition.assign import log_dirichlet, proportions
from fedexp.partition.dirichlet import Dirichlet
from fedexp.partition.dirichlet_balanced import DirichletBalanced
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()

BAD_ALPHAS = [0, -1, float("nan"), float("inf"), float("1e999")]


def split(*sizes):
    """A training part with `sizes[c]` rows of class c."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return Split(torch.zeros(len(y), 1, 2, 2), y)


@pytest.mark.parametrize("alpha", BAD_ALPHAS)
def test_alpha_must_be_finite_and_above_0(alpha):
    with pytest.raises(InputError, match=r"^alpha=.*finite number above 0"):
        Dirichlet(alpha=alpha, min_size=1, max_tries=1)
    with pytest.raises(InputError, match=r"^alpha=.*finite number above 0"):
        DirichletBalanced(alpha=alpha)


@pytest.mark.parametrize("arguments", [{"min_size": 0}, {"max_tries": 0}])
def test_counts_must_be_at_least_one(arguments):
    with pytest.raises(InputError, match=f"^{next(iter(arguments))}=0"):
        Dirichlet(**{"alpha": 1.0, "min_size": 1, "max_tries": 1, **arguments})


def test_dirichlet_deals_every_row_and_respects_min_size():
    partition = Dirichlet(0.3, min_size=20, max_tries=1000)(
        split(100, 200, 300), 6, np.random.default_rng(0)
    )
    counts = partition.label_counts(3, TASK)
    assert counts.sum(axis=0).tolist() == [100, 200, 300]
    assert counts.sum(axis=1).min() >= 20


def test_dirichlet_spreads_each_class_by_its_own_draw():
    # For symmetric Dir_2(a) the share of one client has variance 1 / (4 (2a + 1)): 1/12 at a = 1.
    rng = np.random.default_rng(0)
    deal = Dirichlet(1.0, min_size=1, max_tries=1000)
    shares = np.array(
        [deal(split(1000, 1000), 2, rng).label_counts(2, TASK)[0] / 1000 for _ in range(2000)]
    )
    assert shares.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert shares.var(axis=0) == pytest.approx([1 / 12, 1 / 12], rel=0.1)
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.1


def self_balanced(sizes, n_clients, alpha, rng):
    """Shares of the classes one after the other, those of who holds too much set to nothing."""
    held, counts = np.zeros(n_clients), []
    shares = proportions(log_dirichlet(np.full(n_clients, alpha), len(sizes), rng))
    for share, size in zip(shares, sizes, strict=True):
        share = [
            0.0 if has > sum(sizes) / n_clients else p for has, p in zip(held, share, strict=True)
        ]
        cuts = [round(x) for x in np.cumsum(share) / sum(share) * size]
        counts.append(np.diff([0, *cuts]))
        held += counts[-1]
    return np.array(counts).T


def test_balanced_dirichlet_stops_feeding_who_holds_more_than_an_even_share():
    sizes, deal = (100, 200, 300, 50), Dirichlet(0.5, 1, 1, balanced=True)
    spread, usual = [], []
    for seed in range(50):
        counts = deal._draw(np.array(sizes), 6, np.random.default_rng(seed))
        expected = self_balanced(sizes, 6, 0.5, np.random.default_rng(seed))
        assert counts.tolist() == expected.tolist()
        free = Dirichlet(0.5, 1, 1)._draw(np.array(sizes), 6, np.random.default_rng(seed))
        assert counts[:, 0].tolist() == free[:, 0].tolist()  # nobody is full before the first
        spread.append(counts.sum(axis=1).std())
        usual.append(free.sum(axis=1).std())
    assert np.mean(spread) < 0.9 * np.mean(usual)


def test_balanced_dirichlet_by_hand():
    # All of a class to one client, by lot: whoever got the first 30 of 40 gets none of the rest.
    counts = Dirichlet(1e-9, 1, 1, balanced=True)._draw(
        np.array([30, 5, 5]), 2, np.random.default_rng(0)
    )
    assert sorted(counts.sum(axis=1).tolist()) == [10, 30]


def test_dirichlet_with_huge_alpha_gives_equal_counts():
    partition = Dirichlet(1e9, 1, 1)(split(50, 100), 5, np.random.default_rng(0))
    assert partition.label_counts(2, TASK).tolist() == [[10, 20]] * 5


def test_dirichlet_with_tiny_alpha_gives_every_class_to_one_client():
    partition = Dirichlet(1e-9, 1, 1000)(split(*[30] * 6), 2, np.random.default_rng(0))
    counts = partition.label_counts(6, TASK)
    assert set(counts.flat) == {0, 30}


def test_dirichlet_gives_up_with_the_numbers_and_the_ways_out():
    # Two classes that nobody shares cannot feed three clients.
    with pytest.raises(InputError) as caught:
        Dirichlet(1e-9, 2, 7)(split(10, 10), 3, np.random.default_rng(0))
    message = str(caught.value)
    assert caught.value.key == "alpha"
    assert "\n" not in message
    for part in (
        "alpha=1e-09",
        "in 7 draws the smallest of 3 clients held at most 0 of 20 examples",
        "min_size is 2",
        "larger alpha",
        "fewer clients",
        "dirichlet_balanced",
    ):
        assert part in message


def test_dirichlet_refuses_a_min_size_that_no_draw_can_reach():
    with pytest.raises(InputError, match="min_size=7: 3 clients would need 21 examples"):
        Dirichlet(1.0, 7, 1)(split(10, 10), 3, np.random.default_rng(0))


@pytest.mark.parametrize("alpha", [1e-9, 0.05, 1.0, 1e9])
@pytest.mark.parametrize("sizes", [(100,), (33, 71), (5, 50, 500)])
def test_balanced_sizes_differ_by_at_most_one_and_every_row_is_dealt(alpha, sizes):
    partition = DirichletBalanced(alpha)(split(*sizes), 7, np.random.default_rng(0))
    counts = partition.label_counts(len(sizes), TASK)
    assert counts.sum(axis=0).tolist() == list(sizes)
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_balanced_mixes_follow_alpha_times_the_prior():
    # Prior (1/4, 3/4), alpha 3: the share of class 0 is Beta(0.75, 2.25), mean 1/4, variance
    # (1/4)(3/4)/4 = 3/64; drawing 40 examples by it adds (3/16 - 3/64)/40.
    rng = np.random.default_rng(1)
    shares = (
        DirichletBalanced(3.0)(split(20_000, 60_000), 2000, rng).label_counts(2, TASK)[:, 0] / 40
    )
    assert shares.mean() == pytest.approx(0.25)
    # Pools are used up to the last row, which flattens what the last passes deal; hence 10%.
    assert shares.var() == pytest.approx(3 / 64 + (3 / 16 - 3 / 64) / 40, rel=0.1)


def test_balanced_favours_no_client_when_a_class_runs_out():
    # Every client wants one class, and a class of 35 serves two and a third clients of 15. Were
    # wishes served in the order of the clients, the first would always be pure and get 1.
    rng = np.random.default_rng(0)
    deal = DirichletBalanced(0.001)
    purity = np.mean(
        [
            deal(split(35, 35, 35), 7, rng).label_counts(3, TASK).max(axis=1) / 15
            for _ in range(400)
        ],
        axis=0,
    )
    assert np.ptp(purity) < 0.06
