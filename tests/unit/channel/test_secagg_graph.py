"""With few neighbours secure aggregation keeps its promise by chance: how probable, and refused."""

import math

import numpy as np
import pytest
import torch

from fedexp.channel.graph import exposure, neighbour_graph, neighbours_needed, two_wide_gaps
from fedexp.config.build import build
from fedexp.core.checks import InputError
from tests.support.composing import config_for
from tests.support.refusing import refusal
from tests.unit.channel.test_secagg_channel import channel, updates

TRIALS = 3000
SECURE = ("channel=secure_aggregation", "backend=in_process", "model.hidden=[8]")


def parts_of(graph, stay):
    """How many pieces the graph has among those that stay, by walking along its edges."""
    left, pieces = set(stay), 0
    while left:
        pieces += 1
        ahead = [left.pop()]
        while ahead:
            reached = left & set(graph[ahead.pop()])
            left -= reached
            ahead += reached
    return pieces


def broken(n, k, t, colluders, dropout, rng):
    """Whether one random round tells more than the sum, by the definition."""
    graph = neighbour_graph(range(n), k, rng)
    honest = range(colluders, n)
    arrived = [c for c in honest if rng.random() >= dropout]
    opened = any(sum(o < colluders for o in graph[c] if o != c) >= t for c in honest)
    return opened or parts_of(graph, arrived) > 1


@pytest.mark.parametrize(
    ("n", "k", "threshold", "colluders", "dropout"),
    [(20, 4, 2 / 3, 4, 0.1), (20, 4, 2 / 3, 3, 0.0), (12, 2, 2 / 3, 2, 0.0), (30, 6, 0.5, 6, 0.2)],
)
def test_the_probability_is_that_of_random_rounds(n, k, threshold, colluders, dropout):
    t = math.floor(threshold * (k + 1)) + 1
    rng = np.random.default_rng(0)
    share = np.mean([broken(n, k, t, colluders, dropout, rng) for _ in range(TRIALS)])
    said = exposure(n, k, t, colluders, dropout)
    deviation = math.sqrt(share * (1 - share) / TRIALS)
    assert share <= said + 4 * deviation  # a bound ...
    assert said <= 1.7 * share + 4 * deviation  # ... that is near, where little is counted twice


def test_two_gaps_by_counting_all_ways():
    # Four of seven places on a circle, one of them fixed: gaps that add up to 3.
    ways = [
        (a, b, c, 3 - a - b - c) for a in range(4) for b in range(4 - a) for c in range(4 - a - b)
    ]
    two = sum(sum(gap >= 1 for gap in way) >= 2 for way in ways)
    pairs = sum(math.comb(sum(gap >= 1 for gap in way), 2) for way in ways)
    assert two_wide_gaps(7, 4, 1) == pytest.approx(min(1, pairs / len(ways)))
    assert two / len(ways) <= two_wide_gaps(7, 4, 1)
    assert two_wide_gaps(7, 5, 2) == 0  # two places cannot make two gaps of two
    assert two_wide_gaps(7, 1, 1) == 0


def test_a_complete_graph_is_safe_below_the_threshold():
    assert exposure(20, 19, 14, 13, 0.3) == 0
    assert exposure(20, 19, 14, 14, 0.0) == 1


def test_two_neighbours_that_collude_with_the_server_unmask_a_row():
    # The kind that was found: the victim's masks are all with the two.
    assert exposure(10, neighbours=2, threshold=3, colluders=2, dropout=0.0) > 0.1
    with pytest.raises(InputError, match=r"neighbours=2.*more than the sum with probability 0\.\d"):
        channel(neighbours=2).check(10, 50)


def test_the_number_that_is_named_is_enough_and_the_one_below_is_not():
    sent = channel(neighbours=4, drop_before_masking=0.1)
    with pytest.raises(InputError) as refused:
        sent.check(100, 50)
    needed = int(str(refused.value).split("use ")[1].split()[0])
    channel(neighbours=needed, drop_before_masking=0.1).check(100, 50)
    with pytest.raises(InputError):
        channel(neighbours=needed - 2, drop_before_masking=0.1).check(100, 50)
    assert neighbours_needed(5, 0.0, lambda k: 1.0) is None


def test_a_cohort_for_which_neighbours_are_too_few_is_lost_and_says_so():
    delivery = channel(neighbours=2).transmit(updates(n=12), np.random.default_rng(0))
    assert len(delivery.updates) == 0
    assert (
        "group 1 of 1 is lost: neighbours=2: a server that works with 3 of the 12"
        in (delivery.lost[0])
    )


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_a_group_of_three_never_reveals_a_sum_of_two(threshold):
    given = updates(n=3)
    broken_row = given.with_matrix(given.matrix.clone())
    broken_row.matrix[1] = torch.nan  # its client does not mask
    delivery = channel(threshold=threshold).transmit(broken_row, np.random.default_rng(0))
    assert len(delivery.updates) == 0
    assert "3 are needed" in delivery.lost[0]
    assert len(channel(threshold=threshold).transmit(given, np.random.default_rng(0)).updates) == 1


def test_a_run_is_refused_with_the_way_out_and_a_run_that_is_not_prints_the_probability():
    line = refusal(config_for(*SECURE, "channel.neighbours=2"))
    assert line.startswith("channel.neighbours=2: a server that works with 2 of the 10 clients")
    assert "use 4 or more" in line
    remarks = build(config_for(*SECURE, "channel.neighbours=4")).remarks
    assert any("4 neighbours" in remark and "probability 0 at most" in remark for remark in remarks)
    assert not any("neighbours" in remark for remark in build(config_for(*SECURE)).remarks)
