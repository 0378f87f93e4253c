"""Means of neighbours: by hand, wherever they are made, and what they may be combined with."""

import numpy as np
import pytest
import torch

from fedexp.aggregation.mean import Mean
from fedexp.backends.in_process import InProcess
from fedexp.channel.block_means import BlockMeans
from fedexp.channel.plain import Plain
from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.types import Updates
from fedexp.federation import gather
from fedexp.federation.gather import Merged, Rows, gather_of
from fedexp.privacy.none import NoPrivacy
from tests.support.composing import config_for
from tests.support.toy_rounds import Toy
from tests.support.workloads import start, tasks, trainer, workload

RNG = np.random.default_rng(0)  # nothing is drawn


def five_rows():
    rows = torch.tensor([[0.0, 1.0], [4.0, 1.0], [6.0, 1.0], [8.0, 1.0], [10.0, 1.0]])
    return Updates(rows, (2, 3, 5, 7, 8), torch.tensor([1.0, 3.0, 2.0, 2.0, 9.0]).double())


def test_blocks_by_hand():
    delivery = BlockMeans(size=2, weighting="examples").transmit(five_rows(), RNG)
    assert delivery.updates.matrix.tolist() == [[3.0, 1.0], [7.0, 1.0], [10.0, 1.0]]
    assert delivery.members == ((2, 3), (5, 7), (8,))
    assert delivery.received.clients_in == (2, 2, 1)
    assert delivery.updates.num_examples.tolist() == [4.0, 4.0, 9.0]
    assert delivery.bytes_up == 5 * 2 * 4  # what the clients sent


def test_uniform_weights_by_hand():
    received = BlockMeans(size=2, weighting="uniform").transmit(five_rows(), RNG).received
    assert received.matrix[:, 0].tolist() == [2.0, 7.0, 10.0]
    assert received.num_examples.tolist() == [2.0, 2.0, 1.0]


def test_a_mean_of_the_means_is_the_mean():
    received = BlockMeans(size=2, weighting="examples").transmit(five_rows(), RNG).received
    expected = Mean("examples")(five_rows(), {}, RNG)[0]
    torch.testing.assert_close(Mean("examples")(received, {}, RNG)[0], expected)


def test_one_process_holds_a_block_at_a_time_and_makes_the_same_rows():
    merger, given = BlockMeans(size=3, weighting="examples"), tasks(start(workload()))
    whole, parts = InProcess(workload()), InProcess(workload())
    sent = whole.train(trainer(), given)
    merged = parts.train_merged(trainer(), given, merger)
    assert torch.equal(merged.matrix, merger.merged(sent).matrix)
    assert (merged.in_a_row, merged.client_ids) == (3, sent.client_ids)
    assert (merged.metrics, merged.processed) == (sent.metrics, sent.processed)
    assert torch.equal(merged.num_examples, sent.num_examples)
    assert len(parts._matrix) == 3
    assert len(parts.train_merged(trainer(), [], merger)) == 0


class Reads:
    """A part that says nothing about itself."""


def test_rows_are_merged_early_only_where_nobody_reads_them():
    blocks, here = BlockMeans(size=2, weighting="examples"), InProcess(workload())
    assert gather_of(here, blocks, [NoPrivacy()]) == Merged(blocks)
    assert gather_of(here, Plain(), [NoPrivacy()]) == Rows()
    assert gather_of(here, blocks, [NoPrivacy(), Reads()]) == Rows()
    assert gather_of(Toy(), blocks, [NoPrivacy()]) == Rows()


def test_rows_that_do_not_fit_are_refused_with_what_they_need(monkeypatch):
    monkeypatch.setattr(gather, "available_memory", lambda: 90_000)
    small = ("n_clients=10", "train_examples=100", "backend=in_process", "model.hidden=[32]")
    with pytest.raises(InputError, match=r"cohort_size=10: 10 rows of 2,410 numbers need 0\.0 GB"):
        build(config_for(*small, "aggregator=median"))
    built = build(config_for(*small, "channel=block_means"))
    assert built.experiment.gather == Merged(BlockMeans(size=64, weighting="examples"))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("aggregator=median",), r"aggregator=.*Median: the channel brings the server one sum"),
        (("min_clients=2",), r"min_clients=2: counts rows, and 1 reach the server"),
        (("setting=centralised",), r"channel=.*BlockMeans"),
    ],
)
def test_what_needs_a_row_a_client_is_refused(overrides, reason):
    with pytest.raises(InputError, match=reason):
        build(config_for("channel=block_means", "train_examples=100", *overrides))
