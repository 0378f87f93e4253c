"""What every channel of conf/channel must keep, whatever it hides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.types import Updates
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


@pytest.fixture(params=choices("channel"))
def channel(request):
    return part("channel", request.param, *QUIET.get(request.param, ()))


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
    assert {"plain", "secure_aggregation", "secure_skellam"} <= set(choices("channel"))


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


def test_the_weighted_mean_survives(channel):
    # To the rounding of secure aggregation: a step of 2^-19 or so in each row.
    given = updates()
    if getattr(channel, "weighting", "examples") == "uniform":
        given = replace(given, num_examples=torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(
        mean(channel.transmit(given, rng()).updates), mean(given), rtol=0, atol=4e-6
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


def test_bytes_are_those_of_the_rows_at_least(channel):
    delivery = channel.transmit(updates(), rng())
    assert delivery.bytes_up >= N * D * 4
    assert delivery.bytes_down >= 0
    assert all(seconds >= 0 for seconds in delivery.seconds.values())


def test_a_round_without_clients_passes(channel):
    nobody = Updates(torch.zeros(0, D), (), torch.zeros(0, dtype=torch.float64))
    delivery = channel.transmit(nobody, rng())
    assert delivery.updates.matrix.shape == (0, D)
    assert delivery.members == ()
    assert delivery.bytes_up == 0
