"""Random places behind secure aggregation: the same for all clients, the mean at these, refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.types import Updates
from tests.support.composing import config_for, part
from tests.support.refusing import refusal

N, D, K = 6, 8, 2
FINE = 4e-6  # what is lost to whole numbers


def channel(**changes):
    return replace(part("channel", "secure_random_k", f"channel.share={K / D}"), **changes)


def updates():
    matrix = torch.linspace(-0.3, 0.3, N * D).view(N, D)
    return Updates(matrix, tuple(range(N)), torch.arange(1, N + 1, dtype=torch.float64))


def mean():
    given = updates()
    return (given.num_examples @ given.matrix.double() / given.num_examples.sum()).float()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_sum_has_the_mean_times_d_by_k_at_k_places_and_zeros_elsewhere():
    (row,) = channel().transmit(updates(), rng()).updates.matrix
    places = row.nonzero().flatten()
    assert len(places) == K
    torch.testing.assert_close(row[places], D / K * mean()[places], rtol=0, atol=D / K * FINE)
    read, seen = channel().as_read(row)
    torch.testing.assert_close(read[seen], mean()[places], rtol=0, atol=FINE)
    assert seen.nonzero().flatten().tolist() == places.tolist()


def test_all_groups_of_a_round_have_the_same_places_and_rounds_have_others():
    in_two = channel(groups=2)
    seen = [in_two.transmit(updates(), rng(s)).updates.matrix != 0 for s in range(3)]
    assert all(torch.equal(*rows) for rows in seen)
    assert len({tuple(rows[0].tolist()) for rows in seen}) > 1


def test_what_attackers_and_detectors_are_told_is_what_arrives():
    arrived = channel().transmit(updates(), rng()).updates
    expected = channel().as_received(updates(), rng())
    torch.testing.assert_close(arrived.matrix, expected.matrix, rtol=0, atol=D / K * FINE)


def test_fewer_bytes_go_up_than_behind_plain_secure_aggregation_and_a_seed_goes_down():
    whole = part("channel", "secure_aggregation").transmit(updates(), rng())
    thin = channel().transmit(updates(), rng())
    of_a_number = channel().check(N, D).bits // 8
    assert whole.bytes_up - thin.bytes_up == N * (D - K) * of_a_number
    assert thin.bytes_down - whole.bytes_down == N * 8


def test_all_numbers_are_plain_secure_aggregation():
    everything = channel(share=1.0).transmit(updates(), rng()).updates.matrix[0]
    torch.testing.assert_close(everything, mean(), rtol=0, atol=FINE)


REFUSED = {
    "no number": (["channel.share=0"], "channel.share=0"),
    "more than all": (["channel.share=1.5"], "channel.share=1.5"),
    "an algorithm that keeps what it sent": (
        ["algorithm=scaffold"],
        "clients keep 'control'",
    ),
    "central noise": (["privacy=client_dp"], "the server has to clip every update"),
}


@pytest.mark.parametrize(("overrides", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(overrides, words):
    assert words in refusal(config_for("channel=secure_random_k", *overrides))
