"""The sum is exact whoever leaves at whatever turn, or the round is lost."""

import itertools

import numpy as np
import pytest

from fedexp.channel.client import TURNS
from fedexp.channel.graph import complete_graph, neighbour_graph
from fedexp.channel.ring import Ring
from fedexp.channel.violations import TooFewClients
from tests.support.secagg_groups import RING, aggregate, rng, rows_of


def present_at(clients, leaving):
    """U1 to U4: who took each of the four turns."""
    last = {c: TURNS.index(leaving[c]) if c in leaving else 4 for c in clients}
    return [{c for c in clients if last[c] > turn} for turn in range(4)]


def is_lost(graph, leaving, group_threshold, share_threshold):
    """Too few in all, or among the holders of what must be found, at any stage."""
    u1, u2, u3, u4 = present_at(graph, leaving)
    return any(
        len(present) < group_threshold
        or any(len(present & {*graph[owner]}) < share_threshold for owner in owners)
        for present, owners in ((u1, u1), (u2, u2), (u3, u2), (u4, u2))
    )


def check(graph, leaving, group_threshold, share_threshold, ring=RING):
    rows = rows_of(list(graph), ring=ring)
    if is_lost(graph, leaving, group_threshold, share_threshold):
        with pytest.raises(TooFewClients):
            aggregate(graph, rows, leaving, group_threshold, share_threshold, ring)
        return False
    total, server = aggregate(graph, rows, leaving, group_threshold, share_threshold, ring)
    arrived = sorted(present_at(graph, leaving)[2])
    assert server.survivors == tuple(arrived)
    plain = sum(ring.to_signed(rows[c]) for c in arrived)
    assert np.array_equal(ring.to_signed(total), plain)  # exactly
    assert np.array_equal(total, ring.from_signed(plain))
    return True


def patterns(n):
    for turns in itertools.product((None, *TURNS), repeat=n):
        yield {10 * c: turn for c, turn in enumerate(turns) if turn}


@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (4, 3)])
def test_the_sum_is_exact_for_every_pattern_of_dropouts(n, threshold):
    graph = complete_graph([10 * c for c in range(n)])
    arrived = [check(graph, leaving, threshold, threshold) for leaving in patterns(n)]
    assert 0 < sum(arrived) < len(arrived) == 5**n


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [3, 4])
def test_the_sum_is_exact_for_every_pattern_of_five(threshold):
    graph = complete_graph([10 * c for c in range(5)])
    arrived = [check(graph, leaving, threshold, threshold) for leaving in patterns(5)]
    assert 0 < sum(arrived) < len(arrived) == 5**5


def test_the_sum_is_exact_for_every_kind_of_pattern_of_five():
    # Up to who is who: the slow test has all of them.
    graph = complete_graph(range(5))
    outcomes = []
    for turns in itertools.combinations_with_replacement((None, *TURNS), 5):
        order = rng(len(outcomes)).permutation(5).tolist()
        leaving = {c: turn for c, turn in zip(order, turns, strict=True) if turn}
        outcomes.append(check(graph, leaving, 3, 3))
    assert 0 < sum(outcomes) < len(outcomes) == 126


def test_the_sum_is_exact_among_neighbours_for_every_pattern_with_one_or_two_gone():
    graph = neighbour_graph(range(6), 2, rng())  # 3 holders each, of whom 2 are needed
    outcomes = []
    for pair in itertools.combinations(range(6), 2):
        for turns in itertools.product((None, *TURNS), repeat=2):
            leaving = {c: turn for c, turn in zip(pair, turns, strict=True) if turn}
            outcomes.append(check(graph, leaving, 4, 2))
    assert 0 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("ring", [Ring(24), Ring(32), Ring(48), Ring(64)])
@pytest.mark.parametrize("neighbours", [None, 12])
@pytest.mark.parametrize("n", [10, 30])
def test_the_sum_is_exact_for_random_dropouts(n, neighbours, ring):
    clients = rng(n).permutation(1000)[:n].tolist()
    k = neighbours
    graph = complete_graph(clients) if k is None else neighbour_graph(clients, k, rng(1))
    holders = len(graph[clients[0]])
    for seed in range(2):
        left = rng(seed).random((n, 4)) < 0.04
        leaving = {
            c: TURNS[int(turns.argmax())]
            for c, turns in zip(clients, left, strict=True)
            if turns.any()
        }
        assert check(graph, leaving, n // 2 + 1, holders // 2 + 1, ring)


def test_the_sum_is_exact_for_fifty():
    clients = list(range(50))
    leaving = {3: "advertise", 4: "share", 5: "mask", 6: "mask", 7: "unmask", 49: "unmask"}
    assert check(complete_graph(clients), leaving, 34, 34)
    assert check(neighbour_graph(clients, 16, rng()), leaving, 34, 9)
