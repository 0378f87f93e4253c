"""Compressed messages: by hand, their bytes packed for real, right on average where they say so."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.channel.quantised import Quantised
from fedexp.channel.random_k import RandomK
from fedexp.channel.sign import Sign
from fedexp.channel.top_k import TopK
from fedexp.config.build import build
from fedexp.federation.rounds import run_rounds
from tests.support.composing import config_for, part
from tests.support.mechanisms import protected
from tests.support.refusing import refusal
from tests.support.toy_rounds import experiment, start_of
from tests.support.updates import updates

ROW = torch.tensor([0.5, -3.0, 1.0, 2.0, -0.25])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_top_k_by_hand():
    channel = TopK(share=0.4, error_feedback=True)
    delivery, kept = channel.carried(updates(ROW[None]), [{}], rng())
    assert delivery.updates.matrix.tolist() == [[0.0, -3.0, 0.0, 2.0, 0.0]]
    assert kept[0]["error"].tolist() == [0.5, 0.0, 1.0, 0.0, -0.25]
    again, kept = channel.carried(updates(ROW[None]), kept, rng())
    assert again.updates.matrix.tolist() == [[0.0, -3.0, 2.0, 0.0, 0.0]]  # 1 and the 1 left out
    assert kept[0]["error"].tolist() == [1.0, 0.0, 0.0, 2.0, -0.5]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 1.0])
def test_a_top_k_message_packed_for_real_has_the_bytes_that_are_counted(share):
    d, channel = 1000, TopK(share=share, error_feedback=True)
    row = channel.decoded(torch.from_numpy(rng().standard_normal(d)).float(), rng())
    places = np.flatnonzero(row.numpy())
    bitmap = (row != 0).numpy().astype(np.uint8)
    listed = ((places[:, None] >> np.arange(10)) & 1).astype(np.uint8).reshape(-1)  # 1000 < 2^10
    values = np.unpackbits(row.numpy()[places].view(np.uint8))
    packed = np.packbits(np.concatenate([min(bitmap, listed, key=len), values]))
    assert channel.message_bytes(d) == len(packed)


def test_random_k_sends_k_numbers_at_places_that_say_nothing_of_the_row():
    channel = RandomK(share=0.4, scaling="contracting", error_feedback=False)
    rows = torch.stack([channel.decoded(ROW, rng(seed)) for seed in range(300)])
    sent = rows != 0
    assert (sent.sum(dim=1) == 2).all()
    assert torch.equal(rows, torch.where(sent, ROW, 0.0))
    assert ((sent.double().mean(dim=0) - 0.4).abs() < 4 * math.sqrt(0.24 / 300)).all()
    assert channel.message_bytes(5) == 2 * 4 + 8


UNBIASED = {
    "random_k": RandomK(share=0.4, scaling="unbiased", error_feedback=False),
    "quantised": Quantised(bits=2, block=None, scaling="unbiased", error_feedback=False),
    "quantised in blocks": Quantised(bits=3, block=2, scaling="unbiased", error_feedback=False),
}


@pytest.mark.parametrize("channel", UNBIASED.values(), ids=UNBIASED)
def test_right_on_average(channel):
    stream = rng()
    rows = torch.stack([channel.decoded(ROW, stream) for _ in range(400)]).double()
    deviation = rows.std(dim=0).max() / math.sqrt(len(rows))
    assert ((rows.mean(dim=0) - ROW).abs() < 4 * deviation + 1e-6).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_quantised_levels_and_their_variance(bits):
    channel = Quantised(bits=bits, block=None, scaling="unbiased", error_feedback=False)
    s, norm, b = 2 ** (bits - 1) - 1, float(ROW.norm()), len(ROW)
    rows = torch.stack([channel.decoded(ROW, rng(seed)) for seed in range(500)]).double()
    levels = rows * s / norm
    assert (levels - levels.round()).abs().max() < 1e-5
    assert int(levels.abs().round().max()) <= s
    bound = min(b / s**2, math.sqrt(b) / s) * norm**2
    assert (rows - ROW).square().sum(dim=1).mean() <= bound
    contracting = replace(channel, scaling="contracting").decoded(ROW, rng())
    expected = channel.decoded(ROW, rng()) / (1 + min(b / s**2, math.sqrt(b) / s))
    torch.testing.assert_close(contracting, expected)


def test_signs_by_hand():
    channel = Sign(block=None, error_feedback=True)
    assert channel.decoded(torch.tensor([3.0, -1.0, 0.0, 4.0]), rng()).tolist() == [2, -2, 2, 2]
    blocks = replace(channel, block=2).decoded(torch.tensor([3.0, -1.0, 0.0, 4.0, -7.0]), rng())
    assert blocks.tolist() == [2, -2, 2, 2, -7]
    assert channel.message_bytes(1000) == 125 + 4
    assert replace(channel, block=100).message_bytes(1000) == 125 + 40


def test_a_large_number_and_its_memory_do_not_spoil_what_comes_after():
    channel = Quantised(bits=2, block=None, scaling="contracting", error_feedback=True)
    huge = torch.full((1, 4), 3e38)
    _, kept = channel.carried(updates(huge), [{}], rng())
    delivery, kept = channel.carried(updates(huge), kept, rng())
    assert all(state["error"].isfinite().all() for state in kept if state)
    assert delivery.updates.matrix.shape == (1, 4)


def test_in_rounds_a_client_sends_later_what_it_left_out():
    # On paper: the model goes all the way to the mean of the targets; signs carry one number whole.
    exp = experiment(channel=Sign(block=None, error_feedback=True))
    states = [state for state, _ in run_rounds(exp, start_of(exp))]
    assert states[0].params.tolist() == [0.75 * 2 + 0.25 * 6]
    assert states[0].clients[0].read()["channel.error"].tolist() == [0.0]
    assert [sorted(state.clients) for state in states] == [[0, 1]] * 3


REFUSED = {
    "a share of nothing": (["channel=top_k", "channel.share=0"], "channel.share=0: must"),
    "more than all": (["channel=random_k", "channel.share=1.5"], "channel.share=1.5: must lie"),
    "errors that would grow": (
        ["channel=random_k", "channel.scaling=unbiased"],
        "channel.error_feedback=True: needs messages that lose a part",
    ),
    "errors of rounding that would grow": (
        ["channel=quantised", "channel.error_feedback=true"],
        "channel.error_feedback=True: needs messages that lose a part",
    ),
    "one bit without a level": (["channel=quantised", "channel.bits=1"], "channel.bits=1: must"),
    "an algorithm that keeps what it sent": (
        ["channel=top_k", "algorithm=scaffold"],
        "algorithm=fedexp.federation.algorithms.scaffold.Scaffold: clients keep 'control'",
    ),
    "nothing is sent": (
        ["channel=sign", "setting=centralised"],
        "channel=fedexp.channel.sign.Sign: needs setting=federated",
    ),
}


@pytest.mark.parametrize(("overrides", "beginning"), REFUSED.values(), ids=REFUSED)
def test_refused(overrides, beginning):
    assert refusal(config_for(*overrides)).startswith(beginning)


@pytest.mark.slow
@pytest.mark.parametrize("privacy", ["client_dp", "local_gaussian", "dp_sgd"])
def test_with_noise_the_promise_is_that_of_the_plain_channel(privacy):
    asked = [f"privacy={privacy}", "partition=iid", "rounds=2", "cohort_size=5"]
    built = [build(config_for(*asked, f"channel={c}")) for c in ("plain", "top_k")]
    plain, compressed = (b.experiment.account for b in built)
    cohort = list(range(5))
    spent = [a.epsilon(a.at_most(a.init(), cohort)) for a in (plain, compressed)]
    assert spent[0] == spent[1] > 0


def test_the_server_bounds_what_it_decoded():
    privacy = protected(part("privacy", "client_dp", "cohort_size=3"), 3, 50).privacy
    channel = RandomK(share=0.5, scaling="unbiased", error_feedback=False)
    rows = updates(torch.randn(3, 50, generator=torch.Generator().manual_seed(0)))
    state = privacy.init(50)
    arrived = channel.transmit(privacy.on_client(rows, state, rng()), rng()).updates
    assert (arrived.matrix.norm(dim=1) > 1.01).all()  # twice its numbers: longer than the bound
    assert (privacy.on_receipt(arrived, state).matrix.norm(dim=1) <= 1.0001).all()
