"""What every channel of conf/channel must keep, whatever it hides or leaves out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.capabilities import Remembers, SendsLess, a_client_a_row
from fedexp.core.types import Updates
from fedexp.federation.sending import transmitted
from tests.support.composing import choices, part

N, D = 12, 37


# Noise so small that it is rounded away, and rounding as fine as the others'.
QUIET = {
    "secure_skellam": (
        "channel.encoder.noise_multiplier=1e-9",
        "channel.encoder.scale=16777216",
        "channel.encoder.clip_norm=10",
    )
}


def made(choice):
    return part("channel", choice, *QUIET.get(choice, ()))


# Not so much left out that a test has to go on for ever.
FED_BACK = {
    "top_k": ("channel.share=0.2",),
    "random_k": ("channel.share=0.2",),
    "quantised": ("channel.scaling=contracting", "channel.error_feedback=true"),
    "sign": (),
}
LESS = [choice for choice in choices("channel") if isinstance(made(choice), SendsLess)]
LOSING = [choice for choice in LESS if not made(choice).sums]  # see test_secure_random_k for sums
WHOLE = [choice for choice in choices("channel") if choice not in LESS]


@pytest.fixture(params=choices("channel"))
def channel(request):
    return made(request.param)


@pytest.fixture(params=WHOLE)
def whole(request):
    return made(request.param)


@pytest.fixture(params=LOSING)
def losing(request):
    return part("channel", request.param, *FED_BACK[request.param])


def updates(n=N, seed=0):
    matrix = 0.1 * torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return Updates(
        matrix,
        tuple(range(n)),
        torch.arange(1, n + 1, dtype=torch.float64),
        100,
        tuple({"loss": 1.0} for _ in range(n)),
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def mean(given):
    return (given.num_examples @ given.matrix.double()) / given.num_examples.sum()


def test_the_configs_were_found():
    assert {"plain", "secure_aggregation", "secure_skellam"} <= set(WHOLE)
    assert {"top_k", "random_k", "quantised", "sign"} <= set(LOSING)


def test_as_many_rows_arrive_as_it_says(channel):
    delivery = channel.transmit(updates(), rng())
    assert len(delivery.updates) == channel.rows(N)
    assert channel.sums == any(client < 0 for client in delivery.updates.client_ids)
    channel.check(N, D)


def test_rows_arrive_in_their_type_with_one_label_and_weight_each(channel):
    delivery = channel.transmit(updates(), rng())
    received = delivery.updates
    rows = len(received)
    assert 1 <= rows <= N
    assert received.matrix.shape == (rows, D)
    assert received.matrix.dtype == torch.float32
    assert received.num_examples.shape == (rows,)
    assert received.num_examples.dtype == torch.float64
    assert len(received.client_ids) == len(set(received.client_ids)) == rows
    assert len(delivery.members) == rows
    assert len(received.metrics) in (0, rows)


def test_where_nobody_leaves_everybody_is_in_one_row(channel):
    delivery = channel.transmit(updates(), rng())
    assert delivery.dropped == ()
    assert delivery.lost == ()
    assert sorted(c for members in delivery.members for c in members) == list(range(N))


def test_the_weighted_mean_survives(whole):
    # To the rounding of secure aggregation: a step of 2^-19 or so in each row.
    given = updates()
    if getattr(whole, "weighting", "examples") == "uniform":
        given = replace(given, num_examples=torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(
        mean(whole.transmit(given, rng()).updates), mean(given), rtol=0, atol=4e-6
    )


def test_a_row_of_one_client_bears_its_number_and_a_sum_a_negative_one(channel):
    delivery = channel.transmit(updates(), rng())
    for label, members in zip(delivery.updates.client_ids, delivery.members, strict=True):
        assert members == (label,) if label >= 0 else len(members) >= 3


def test_the_input_stays_as_it_was(channel):
    given = updates()
    matrix, weights = given.matrix.clone(), given.num_examples.clone()
    channel.transmit(given, rng())
    assert torch.equal(given.matrix, matrix)
    assert torch.equal(given.num_examples, weights)


def test_the_same_stream_gives_the_same_bits(channel):
    one, two = (channel.transmit(updates(), rng()) for _ in range(2))
    assert torch.equal(one.updates.matrix, two.updates.matrix)
    assert (one.members, one.dropped, one.bytes_up) == (two.members, two.dropped, two.bytes_up)


@pytest.mark.parametrize("choice", choices("channel"))
def test_one_client_moves_its_own_row_alone_where_that_is_said(choice):
    said = part("channel", choice, *FED_BACK.get(choice, QUIET.get(choice, ())))
    if not a_client_a_row(said):
        assert said.sums
        return
    given, kept = updates(), [{} for _ in range(N)]
    other = given.with_matrix(given.matrix.clone())
    other.matrix[3] = 100 * given.matrix[4]
    others = torch.arange(N) != 3
    for round in range(2):  # the second from what was kept of the first
        one, kept_one = transmitted(said, given, kept, rng(round))
        two, kept_two = transmitted(said, other, kept, rng(round))
        assert torch.equal(one.updates.matrix[others], two.updates.matrix[others])
        assert not torch.equal(one.updates.matrix[3], two.updates.matrix[3])
        for k in torch.nonzero(others).flatten().tolist():
            assert all(torch.equal(kept_one[k][name], kept_two[k][name]) for name in kept_one[k])
        kept = kept_one


def test_bytes_are_those_of_the_rows_at_least(whole):
    delivery = whole.transmit(updates(), rng())
    assert delivery.bytes_up >= N * D * 4
    assert delivery.bytes_down >= 0
    assert all(seconds >= 0 for seconds in delivery.seconds.values())


def test_a_round_without_clients_passes(channel):
    nobody = Updates(torch.zeros(0, D), (), torch.zeros(0, dtype=torch.float64))
    delivery = channel.transmit(nobody, rng())
    assert delivery.updates.matrix.shape == (0, D)
    assert delivery.members == ()
    assert delivery.bytes_up == 0


def rounds_of(channel, given, n):
    """What arrived in so many rounds, `[n, N, D]`, and what the clients have kept at the end."""
    kept, arrived = [{} for _ in range(len(given))], []
    for round in range(n):
        delivery, kept = transmitted(channel, given, kept, rng(round))
        arrived.append(delivery.updates.matrix)
    return torch.stack(arrived), kept


def test_what_loses_sends_fewer_bytes_the_same_in_every_round(losing):
    delivery = losing.transmit(updates(), rng())
    assert 0 < delivery.bytes_up < N * D * 4
    assert delivery.bytes_up == losing.transmit(updates(seed=1), rng(1)).bytes_up
    assert delivery.bytes_up == N * losing.message_bytes(D)


def test_with_error_feedback_what_did_not_arrive_is_what_the_clients_keep(losing):
    given = updates()
    arrived, kept = rounds_of(losing, given, 5)
    left = torch.stack([state["error"] for state in kept])
    torch.testing.assert_close(arrived.sum(dim=0) + left, 5 * given.matrix, rtol=0, atol=1e-5)


def test_with_error_feedback_the_mean_of_many_rounds_is_the_row(losing):
    given = updates()
    few, many = (rounds_of(losing, given, n)[0].mean(dim=0) - given.matrix for n in (3, 60))
    assert many.norm() < few.norm() / 3
    assert many.norm() < given.matrix.norm() / 4


def test_without_error_feedback_clients_keep_nothing(losing):
    _, kept = rounds_of(replace(losing, error_feedback=False), updates(), 2)
    assert kept == [{}] * N


def test_a_message_loses_only_a_part_of_a_row_on_average(losing):
    given = updates()
    lost = torch.stack(
        [losing.transmit(given, rng(k)).updates.matrix - given.matrix for k in range(20)]
    )
    mean_loss = lost.square().sum(dim=2).mean(dim=0)
    assert (mean_loss < given.matrix.square().sum(dim=1)).all()


def test_a_row_that_is_not_finite_arrives_so_and_is_not_remembered(losing):
    given = updates()
    _, before = rounds_of(losing, given, 1)
    broken = given.with_matrix(given.matrix.clone())
    broken.matrix[1] = torch.nan
    delivery, after = losing.carried(broken, before, rng())
    assert delivery.updates.matrix.isfinite().all(dim=1).tolist() == [k != 1 for k in range(N)]
    assert torch.equal(after[1]["error"], before[1]["error"])
    assert isinstance(losing, Remembers)


def test_a_row_of_zeros_arrives_as_zeros(losing):
    given = updates()
    arrived = losing.transmit(given.with_matrix(torch.zeros(N, D)), rng()).updates.matrix
    assert not arrived.any()


def test_who_knows_the_channel_reads_what_was_sent(losing):
    given = updates()
    for row, sent in zip(losing.transmit(given, rng()).updates.matrix, given.matrix, strict=True):
        read, seen = losing.as_read(row)
        assert (read.shape, seen.shape, seen.dtype) == ((D,), (D,), torch.bool)
        assert seen.any()
        assert not read[~seen].any()
        assert (read[seen] * sent[seen] >= 0).all()
