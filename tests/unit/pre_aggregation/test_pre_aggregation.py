"""What comes before a rule: by hand, against loops typed from the papers, and against byzfl."""

import math

import byzfl
import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.pre_aggregation.adaptive_clipping import AdaptiveClipping
from fedexp.pre_aggregation.bucketing import Bucketing
from fedexp.pre_aggregation.clipping import Clipping
from fedexp.pre_aggregation.nnm import NearestNeighbourMixing
from tests.support.updates import updates


def random_rows(n=11, d=20_000, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g) * torch.arange(1, n + 1)[:, None]  # of unequal lengths


def rng(seed=0):
    return np.random.default_rng(seed)


def naive_nnm(rows, f):
    rows = rows.double()
    mixed = []
    for row in rows:
        by_distance = sorted(rows, key=lambda other: float((row - other).norm()))
        mixed.append(torch.stack(by_distance[: len(rows) - f]).mean(dim=0))
    return torch.stack(mixed)


def test_nnm_by_hand():
    # f = 1: of 4 rows the 3 nearest. 0 and 1 and 3 stand together, 10 takes 3 and 1 with it.
    given = updates([[0.0], [1.0], [3.0], [10.0]], [1.0, 2.0, 3.0, 4.0], client_ids=(7, 3, 5, 4))
    mixed = NearestNeighbourMixing(1)(given, rng())
    assert mixed.matrix.flatten().tolist() == pytest.approx([4 / 3, 4 / 3, 4 / 3, 14 / 3])
    assert mixed.client_ids == given.client_ids
    assert mixed.num_examples.tolist() == [1, 2, 3, 4]


def test_nnm_without_liars_is_the_mean_of_all():
    rows = random_rows(d=50)
    mixed = NearestNeighbourMixing(0)(updates(rows), rng()).matrix
    torch.testing.assert_close(mixed, rows.mean(dim=0).expand_as(rows))


@pytest.mark.parametrize("f", [0, 1, 3, 5])
def test_nnm_against_the_loop_and_byzfl(f):
    rows = random_rows()
    mixed = NearestNeighbourMixing(f)(updates(rows), rng()).matrix
    torch.testing.assert_close(mixed.double(), naive_nnm(rows, f), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixed, byzfl.NNM(f)(rows), rtol=1e-5, atol=1e-5)


def test_nnm_where_rows_are_equal_takes_them_as_neighbours_of_each_other():
    rows = torch.tensor([[5.0], [5.0], [5.0], [-1.0], [7.0]])
    mixed = NearestNeighbourMixing(2)(updates(rows), rng()).matrix
    assert mixed[:3].flatten().tolist() == pytest.approx([5, 5, 5])
    assert mixed[4].item() == pytest.approx(17 / 3)


def test_bucketing_by_hand():
    given = updates(torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]]), [1.0, 2.0, 3.0, 4.0, 5.0])
    order = rng(3).permutation(5).tolist()
    values, weights = [1, 2, 4, 8, 16], [1, 2, 3, 4, 5]
    first, second, last = order[:2], order[2:4], order[4:]
    buckets = Bucketing(1, 2)(given, rng(3))
    assert buckets.matrix.flatten().tolist() == [
        sum(values[k] for k in first) / 2,
        sum(values[k] for k in second) / 2,
        values[last[0]],
    ]
    assert buckets.num_examples.tolist() == [
        sum(weights[k] for k in first),
        sum(weights[k] for k in second),
        weights[last[0]],
    ]
    assert buckets.client_ids == (-1, -2, -3)
    assert len(buckets) == 3
    assert buckets.metrics == ()
    assert buckets.processed == given.processed > 0


def test_bucketing_puts_every_client_into_one_bucket_and_draws_anew():
    rows = torch.eye(12)
    drawn = [Bucketing(0, 5)(updates(rows), rng(seed)).matrix for seed in range(20)]
    for buckets in drawn:
        sizes = torch.tensor([5.0, 5.0, 2.0])
        shares = buckets * sizes[:, None]  # which clients are in which bucket
        assert shares.sum(dim=1).tolist() == pytest.approx([5, 5, 2])
        assert shares.sum(dim=0).tolist() == pytest.approx([1] * 12)
    assert len({tuple(b.flatten().tolist()) for b in drawn}) == 20


@pytest.mark.parametrize("size", [1, 2, 3, 11])
def test_bucketing_against_byzfl(size, monkeypatch):
    rows = random_rows(d=500)
    order = torch.from_numpy(rng(5).permutation(len(rows)))
    monkeypatch.setattr(torch, "randperm", lambda n, **options: order)
    monkeypatch.setattr(np.random, "permutation", lambda given: order.numpy())
    expected = byzfl.Bucketing(size)(rows)
    buckets = Bucketing(0, size)(updates(rows), rng(5)).matrix
    torch.testing.assert_close(buckets, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "f", "n_buckets"),
    [(10, 0, 1), (10, 1, 3), (10, 2, 5), (10, 3, 10), (20, 5, 20), (21, 5, 11), (25, 5, 13)],
)
def test_bucketing_leaves_the_liars_in_fewer_than_half_of_the_buckets(n, f, n_buckets):
    buckets = Bucketing(f, None)(updates(random_rows(n, 3)), rng())
    assert len(buckets) == n_buckets
    assert f == 0 or n_buckets > 2 * f
    size = math.ceil(n / n_buckets)
    assert f == 0 or math.ceil(n / (size + 1)) <= 2 * f  # and larger ones would not


def test_bucketing_refuses_buckets_that_liars_could_be_half_of():
    with pytest.raises(InputError, match="bucket_size=2: makes 10 buckets of 20 clients, and 5"):
        Bucketing(5, 2)(updates(random_rows(20, 3)), rng())
    assert len(Bucketing(4, 2)(updates(random_rows(20, 3)), rng())) == 10
    with pytest.raises(InputError, match="assumed_malicious=5: needs more than 2 x 5 clients"):
        Bucketing(5, None)(updates(random_rows(10, 3)), rng())


def test_clipping_by_hand():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-6.0, 8.0]])
    clipped = Clipping(5.0)(updates(rows), rng()).matrix
    assert torch.equal(clipped[:3], rows[:3])  # short enough, one of them exactly: the same bits
    assert clipped[3].tolist() == pytest.approx([-3, 4])


def test_clipping_against_byzfl():
    rows = random_rows()
    clipped = Clipping(700.0)(updates(rows), rng()).matrix
    torch.testing.assert_close(clipped, byzfl.Clipping(700.0)(rows.clone()), rtol=1e-5, atol=1e-5)
    assert (clipped.norm(dim=1) <= 700 * (1 + 1e-6)).all()
    assert (clipped != rows).any(dim=1).tolist() == (rows.norm(dim=1) > 700).tolist()


def naive_arc(rows, f):
    n = len(rows)
    k = math.floor(2 * f / n * (n - f))
    norms = [float(row.double().norm()) for row in rows]
    limit = sorted(norms, reverse=True)[k]
    clipped = [row.double() * min(1, limit / norm) for row, norm in zip(rows, norms, strict=True)]
    return torch.stack(clipped)


def test_arc_by_hand():
    # n = 5, f = 1: k = floor(2/5 x 4) = 1, so that 100 is cut to 40, the next.
    rows = torch.tensor([[10.0], [-20.0], [100.0], [30.0], [-40.0]])
    clipped = AdaptiveClipping(1)(updates(rows), rng()).matrix
    assert clipped.flatten().tolist() == pytest.approx([10, -20, 40, 30, -40])
    # f = 2: k = floor(4/5 x 3) = 2, so that 100 and -40 are cut to 30.
    clipped = AdaptiveClipping(2)(updates(rows), rng()).matrix
    assert clipped.flatten().tolist() == pytest.approx([10, -20, 30, 30, -30])


@pytest.mark.parametrize("f", [0, 1, 3, 5])
def test_arc_against_the_loop_and_byzfl(f):
    rows = random_rows()
    clipped = AdaptiveClipping(f)(updates(rows), rng()).matrix
    torch.testing.assert_close(clipped.double(), naive_arc(rows, f), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(clipped, byzfl.ARC(f)(rows.clone()), rtol=1e-5, atol=1e-5)
    assert int((clipped != rows).any(dim=1).sum()) == 2 * f * (11 - f) // 11


@pytest.mark.parametrize("mix", [NearestNeighbourMixing(3), AdaptiveClipping(3)])
def test_what_counts_liars_refuses_a_majority_of_them(mix):
    with pytest.raises(InputError, match="assumed_malicious=3: needs more than 2 x 3 clients"):
        mix(updates(random_rows(6, 2)), rng())
    assert len(mix(updates(random_rows(7, 2)), rng())) == 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: NearestNeighbourMixing(-1),
        lambda: AdaptiveClipping(-1),
        lambda: Bucketing(-1, None),
        lambda: Bucketing(1, 0),
        lambda: Clipping(0.0),
        lambda: Clipping(math.inf),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make):
    with pytest.raises(InputError):
        make()
