"""Secure aggregation as a channel: what arrives, what is lost, what is refused."""

import hashlib
import os
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from fedexp.channel.client import Client
from fedexp.channel.quantise import Quantiser
from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.channel.server import ServerView
from fedexp.channel.skellam import Skellam
from fedexp.core.checks import InputError
from fedexp.core.types import Updates

CHANNEL = SecureAggregation(
    encoder=Quantiser(bits=20, value_range=1.0),
    groups=1,
    threshold=0.6666666667,
    neighbours=None,
    ring_bits=None,
    weighting="examples",
    max_examples=1000,
    drop_before_advertising=0.0,
    drop_before_sharing=0.0,
    drop_before_masking=0.0,
    drop_before_unmasking=0.0,
    record_views=False,
)
STEP = CHANNEL.encoder.step


def channel(**changes):
    return replace(CHANNEL, **changes)


def rng(seed=0):
    return np.random.default_rng(seed)


def updates(n=9, d=50, seed=0):
    matrix = 0.1 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    weights = torch.arange(1, n + 1, dtype=torch.float64)
    losses = tuple({"loss": 1.0} for _ in range(n))
    ids = tuple(range(100, 100 + n))
    return Updates(matrix, ids, weights, 500, losses, reference=torch.ones(d))


def mean_of(given, clients, weighted):
    rows = [given.client_ids.index(c) for c in clients]
    weights = given.num_examples[rows] if weighted else torch.ones(len(rows), dtype=torch.float64)
    return (weights @ given.matrix[rows].double()) / weights.sum(), float(weights.sum())


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("groups", [1, 3])
def test_what_an_adversary_expects_to_arrive_is_what_arrives(groups, weighting):
    given, sent = updates(n=10), channel(groups=groups, weighting=weighting)
    given.matrix[4] = 50.0  # cut to the range
    expected, delivery = sent.as_received(given, rng(3)), sent.transmit(given, rng(3))
    assert expected.client_ids == delivery.received.client_ids
    assert expected.clients_in == delivery.received.clients_in
    assert torch.equal(expected.num_examples, delivery.received.num_examples)
    assert (expected.matrix - delivery.received.matrix).abs().max() < STEP
    assert len(sent.as_received(updates(n=3 * groups - 1), rng())) == 0


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("neighbours", [None, 2, 4])
@pytest.mark.parametrize("groups", [1, 3])
def test_rows_are_the_means_of_groups(groups, neighbours, weighting):
    given = updates()
    sent = channel(groups=groups, neighbours=neighbours, weighting=weighting, max_exposure=1.0)
    delivery = sent.transmit(given, rng())
    assert delivery.updates.client_ids == tuple(-g for g in range(1, groups + 1))
    assert sorted(c for members in delivery.members for c in members) == list(given.client_ids)
    rows = zip(
        delivery.updates.matrix,
        delivery.updates.num_examples.tolist(),
        delivery.members,
        strict=True,
    )
    for row, weight, members in rows:
        mean, total = mean_of(given, members, weighting == "examples")
        assert weight == total
        assert (row - mean).abs().max() < STEP
    assert delivery.updates.metrics == ()
    assert delivery.updates.processed == 500
    assert torch.equal(delivery.updates.reference, torch.ones(50))
    assert (delivery.dropped, delivery.lost, delivery.clipped) == ((), (), 0)


def test_groups_are_drawn_anew():
    sent, given = channel(groups=3), updates()
    members = {sent.transmit(given, rng(seed)).members for seed in range(5)}
    assert len(members) == 5
    assert all(sorted(map(len, m)) == [3, 3, 3] for m in members)


def test_who_leaves_before_masking_is_not_in_the_mean_and_who_leaves_later_is():
    given = updates(n=40)
    sent = channel(
        threshold=0.5,
        drop_before_advertising=0.05,
        drop_before_sharing=0.05,
        drop_before_masking=0.1,
        drop_before_unmasking=0.1,
    )
    delivery = sent.transmit(given, rng(0))
    left = dict(delivery.dropped)
    assert set(left.values()) == {"advertise", "share", "mask", "unmask"}
    arrived = [c for c in given.client_ids if left.get(c, "unmask") == "unmask"]
    assert delivery.members == (tuple(arrived),)
    mean, weight = mean_of(given, arrived, weighted=True)
    assert delivery.updates.num_examples.tolist() == [weight]
    assert (delivery.updates.matrix[0] - mean).abs().max() < STEP


@pytest.mark.parametrize("turn", ["advertising", "sharing", "masking", "unmasking"])
def test_dropouts_are_as_frequent_as_asked(turn):
    sent = channel(neighbours=2, max_exposure=1.0, **{f"drop_before_{turn}": 0.2})
    given = updates(n=40, d=1)
    gone = [len(sent.transmit(given, rng(seed)).dropped) for seed in range(8)]
    assert np.mean(gone) == pytest.approx(8, abs=3)


def test_a_group_that_falls_apart_is_lost_and_the_others_go_on():
    # Of 3 clients with a threshold of two thirds, everybody must stay.
    sent, given = channel(groups=5, drop_before_masking=0.1), updates(n=15)
    delivery = sent.transmit(given, rng(1))
    left = {c for c, _ in delivery.dropped}
    assert 0 < len(delivery.lost) < 5
    assert len(delivery.lost) + len(delivery.updates) == 5
    assert "is lost: 2 of 3 clients sent their masked rows, 3 are needed" in delivery.lost[0]
    assert not left & {c for members in delivery.members for c in members}


def test_a_round_in_which_all_is_lost_has_no_rows():
    delivery = channel(drop_before_sharing=1 - 1e-9).transmit(updates(), rng())
    assert delivery.updates.matrix.shape == (0, 50)
    assert len(delivery.updates) == 0
    assert delivery.members == ()
    assert delivery.lost == (
        "group 1 of 1 is lost: 0 of 9 clients shared their secrets, 7 are needed",
    )
    assert delivery.bytes_up == 9 * 68  # keys travelled


def test_a_round_without_clients_is_no_error():
    nobody = Updates(torch.zeros(0, 4), (), torch.zeros(0, dtype=torch.float64))
    delivery = channel(groups=2).transmit(nobody, rng())
    assert len(delivery.updates) == 0
    assert delivery.lost == ()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_client_whose_row_is_not_finite_stays_out(bad):
    given = updates()
    given.matrix[4, 7] = bad
    delivery = channel().transmit(given, rng())
    assert delivery.dropped == ((104, "mask: its row has NaN or Inf"),)
    mean, _ = mean_of(given, delivery.members[0], weighted=True)
    assert 104 not in delivery.members[0]
    assert (delivery.updates.matrix[0] - mean).abs().max() < STEP


def test_coordinates_beyond_the_range_are_cut_and_counted():
    given = updates()
    given.matrix[2, :3] = torch.tensor([5.0, -5.0, 1.0])
    delivery = channel(weighting="uniform").transmit(given, rng())
    assert delivery.clipped == 2
    cut = replace(given, matrix=given.matrix.clamp(-1, 1))
    mean, _ = mean_of(cut, given.client_ids, weighted=False)
    assert (delivery.updates.matrix[0] - mean).abs().max() < STEP


def test_no_client_weighs_more_than_the_most():
    given = replace(updates(n=3), num_examples=torch.tensor([1.0, 5.0, 1e12]).double())
    delivery = channel(max_examples=10).transmit(given, rng())
    assert delivery.updates.num_examples.tolist() == [16.0]
    bounded = replace(given, num_examples=torch.tensor([1.0, 5.0, 10.0]).double())
    mean, _ = mean_of(bounded, given.client_ids, weighted=True)
    assert (delivery.updates.matrix[0] - mean).abs().max() < STEP


def test_clients_without_examples_have_no_mean():
    given = replace(updates(n=3), num_examples=torch.zeros(3, dtype=torch.float64))
    assert "no examples" in channel().transmit(given, rng()).lost[0]


def test_zero_rows_give_exactly_zero():
    given = updates().with_matrix(torch.zeros(9, 50))
    assert not channel().transmit(given, rng()).updates.matrix.any()


# The same run is the same, whatever the keys.

SCRIPT = """
import hashlib, sys
sys.path.insert(0, {root!r})
from tests.unit.channel.test_secagg_channel import fingerprint
print(fingerprint())
"""


def fingerprint():
    sent = channel(groups=2, threshold=0.5, drop_before_masking=0.1, drop_before_unmasking=0.05)
    delivery = sent.transmit(updates(n=30), rng(5))
    assert len(delivery.updates) == 2
    content = delivery.updates.matrix.numpy().tobytes() + repr(delivery.dropped).encode()
    return hashlib.sha256(content).hexdigest()


def test_the_answer_is_the_same_in_every_process():
    root = os.fspath(sys.modules["tests"].__path__[0] + "/..")
    run = [sys.executable, "-c", SCRIPT.format(root=root)]
    # Another hash of every text: an order of a set or of names would show.
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run(run, capture_output=True, text=True, check=True, env=env)
    assert {fingerprint(), fingerprint(), other.stdout.strip()} == {fingerprint()}


def test_what_travels_is_never_the_same_but_the_sum_is():
    sent, given = channel(record_views=True), updates()
    one, two = sent.transmit(given, rng()), sent.transmit(given, rng())
    assert torch.equal(one.updates.matrix, two.updates.matrix)
    assert one.bytes_up == two.bytes_up
    views = [delivery.views[0] for delivery in (one, two)]
    assert np.array_equal(views[0].total, views[1].total)
    for client in given.client_ids:
        assert views[0].rows[client].numbers != views[1].rows[client].numbers
        assert views[0].advertisements[client] != views[1].advertisements[client]


def test_the_weights_are_not_in_the_view():
    delivery = channel(record_views=True).transmit(updates(), rng())
    (view,) = delivery.views
    assert isinstance(view, ServerView)
    d = 50
    for row in view.rows.values():
        assert len(row.numbers) == (d + 1) * channel().check(9, d).bytes_each
    assert channel().transmit(updates(), rng()).views == ()


def test_bytes_grow_with_the_ring_and_with_the_neighbours():
    given = updates(n=12, d=1000)
    small = channel(weighting="uniform").transmit(given, rng())
    large = channel(weighting="uniform", ring_bits=64).transmit(given, rng())
    few = channel(weighting="uniform", neighbours=4, max_exposure=1.0).transmit(given, rng())
    assert large.bytes_up - small.bytes_up == 12 * 1000 * (8 - 3)  # 24 bits hold 12 x 2^19
    assert small.bytes_up - few.bytes_up == 12 * (11 - 4) * (164 + 70)
    assert torch.equal(large.updates.matrix, small.updates.matrix)


# What is refused.


def test_too_small_cohorts_are_refused_with_the_numbers():
    with pytest.raises(InputError, match="groups=3: needs at least 3 x 3 clients, but 8 are in"):
        channel(groups=3).check(8, 50)
    with pytest.raises(InputError, match="groups=1: needs at least 3 x 1 clients, but 2 are in"):
        channel().check(2, 50)


@pytest.mark.parametrize("n", [0, 1, 8])
def test_a_cohort_that_was_drawn_too_small_sends_nothing(n):
    delivery = channel(groups=3).transmit(updates(n=n), rng())
    assert (len(delivery.updates), delivery.members, delivery.bytes_up) == (0, (), 0)
    assert delivery.updates.matrix.shape == (0, 50)
    assert len(delivery.lost) == (3 if n else 0)  # every group; without clients there is none
    assert all(f"3 x 3 clients, but {n} are in" in reason for reason in delivery.lost)


def test_too_small_rings_are_refused_with_the_numbers():
    largest = 9 * (2**19 - 1) * 1000
    with pytest.raises(InputError, match=f"ring_bits=32: too small: sums reach {largest}, .* 34"):
        channel(ring_bits=32).transmit(updates(), rng())
    assert channel().check(9, 50).bits == 40
    assert channel(weighting="uniform").check(9, 50).bits == 24
    with pytest.raises(InputError, match="ring_bits=64: too small"):
        channel(encoder=Quantiser(32, 1.0), max_examples=2**32).check(9, 50)


def test_a_full_ring_does_not_wrap_around():
    # The largest sum that fits 16 bits: 4 clients x 127 levels x 64 examples = 32512 < 32768.
    given = Updates(torch.ones(4, 3), (0, 1, 2, 3), torch.full((4,), 64.0).double())
    sent = channel(encoder=Quantiser(8, 1.0), max_examples=64, ring_bits=16)
    for sign in (1, -1):
        delivery = sent.transmit(given.with_matrix(sign * given.matrix), rng())
        assert delivery.updates.matrix.tolist() == [[sign] * 3]
    with pytest.raises(InputError, match="ring_bits=16"):
        replace(sent, max_examples=65).transmit(given, rng())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 0}, "groups=0"),
        ({"threshold": 0.49}, "threshold=0.49: must lie between 0.5 and 1"),
        ({"threshold": 1}, "threshold=1: must be below 1"),
        ({"neighbours": 1}, "neighbours=1"),
        ({"neighbours": 3}, "neighbours=3: must be even"),
        ({"colluders": 0.6}, "colluders=0.6: must lie between 0 and 0.5"),
        ({"max_exposure": -1.0}, "max_exposure=-1.0: must lie between 0 and 1"),
        ({"ring_bits": 33}, "ring_bits=33"),
        ({"weighting": "size"}, "weighting=size"),
        ({"max_examples": 0}, "max_examples=0"),
        ({"drop_before_masking": 1.5}, "drop_before_masking=1.5"),
        ({"drop_before_unmasking": -0.1}, "drop_before_unmasking=-0.1"),
        ({"drop_before_advertising": 1}, "drop_before_advertising=1: must be below 1"),
        ({"drop_before_unmasking": 1.0}, "drop_before_unmasking=1: must be below 1"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        channel(**changes)


def test_every_setting_is_in_the_yaml():
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from fedexp.config.folders import conf_folder

    node = OmegaConf.load(conf_folder() / "channel" / "secure_aggregation.yaml")
    assert set(node) - {"_target_"} == {f.name for f in fields(SecureAggregation)}
    assert instantiate(node, _convert_="all").transmit(updates(), rng()).lost == ()


def test_skellam_noise_in_the_sum_has_the_variance_asked_for():
    encoder = Skellam(clip_norm=1.0, noise_multiplier=0.5, scale=1000.0)
    sent = channel(encoder=encoder, weighting="uniform", threshold=0.5)
    d = 20_000
    given = updates(n=6, d=d).with_matrix(torch.zeros(6, d))
    noise = sent.transmit(given, rng()).updates.matrix[0].double() * 6
    # 4 of 6 must stay; all 6 stayed and each added a quarter of the variance 0.5^2.
    assert float(noise.var()) == pytest.approx(0.25 * 6 / 4, rel=0.05)


def _lies(change):
    """Client 103 shares its secrets as `change` has it; the others play by the rules."""
    honest = Client.share

    def share(self, roster):
        sent = honest(self, roster)
        return change(sent) if sent.sender == 103 else sent

    return share


@pytest.mark.parametrize(
    "change",
    [
        lambda sent: replace(sent, seed_commitment=bytes(32)),
        lambda sent: replace(sent, boxes={c: box[::-1] for c, box in sent.boxes.items()}),
    ],
)
def test_a_client_that_breaks_the_protocol_is_named_and_costs_its_group_the_round(
    change, monkeypatch
):
    monkeypatch.setattr(Client, "share", _lies(change))
    alone = channel(weighting="uniform").transmit(updates(), rng())
    assert len(alone.updates) == 0
    (reason,) = alone.lost
    assert reason.startswith("group 1 of 1 is lost: client 103: ")
    # Its key is needed only where it drops out, its seed where it stays: others have their sums.
    several = channel(weighting="uniform", groups=3).transmit(updates(), rng())
    assert len(several.updates) == 2
    assert len(several.lost) == 1
    assert "client 103: " in several.lost[0]
    assert not any(103 in members for members in several.members)


def test_a_false_key_commitment_is_named_where_the_key_is_needed(monkeypatch):
    false = _lies(lambda sent: replace(sent, key_commitment=bytes(32)))
    monkeypatch.setattr(Client, "share", false)
    leaves = replace(updates(), matrix=updates().matrix.clone())
    leaves.matrix[3] = torch.nan  # a row that cannot be encoded is not masked
    (reason,) = channel(weighting="uniform").transmit(leaves, rng()).lost
    assert "client 103: a share of its secret was tampered with, or its commitment" in reason
    assert channel(weighting="uniform").transmit(updates(), rng()).lost == ()
