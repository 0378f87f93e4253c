"""Clients that take their turns in copies of the process: the same sums, and the same refusals."""

import multiprocessing
from contextlib import closing

import numpy as np
import pytest

from fedexp.channel import turns
from fedexp.channel.graph import complete_graph, neighbour_graph
from fedexp.channel.group import Meter
from fedexp.channel.turns import ClientsHere, ClientsInCopies, Told
from fedexp.channel.violations import ProtocolError, TooFewClients
from fedexp.core.cores import can_fork
from tests.support.secagg_groups import RING, aggregate, rng, rows_of

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system cannot fork safely")

LEAVING = {1: "advertise", 3: "share", 4: "mask", 7: "unmask"}


@pytest.fixture
def copies(monkeypatch):
    """Two copies for any group, and how many were made."""
    made = []
    copy = turns.Copy
    monkeypatch.setattr(turns, "Copy", lambda function: made.append(copy(function)) or made[-1])
    monkeypatch.setattr(turns, "cores_to_spare", lambda: 2)
    monkeypatch.setattr(turns, "WORTH_COPIES", 0)
    return made


@pytest.mark.parametrize("leaving", [{}, LEAVING], ids=["all stay", "some leave"])
@pytest.mark.parametrize("neighbours", [None, 8])
def test_the_sum_is_that_of_one_process(neighbours, leaving, copies):
    n = 11
    graph = neighbour_graph(range(n), neighbours, rng()) if neighbours else complete_graph(range(n))
    rows, meters = rows_of(list(graph)), (Meter(), Meter())
    there, _ = aggregate(graph, rows, leaving, 6, 5 if neighbours else 6, meter=meters[0])
    assert len(copies) == 2
    turns.WORTH_COPIES = 2**60
    here, server = aggregate(graph, rows, leaving, 6, 5 if neighbours else 6, meter=meters[1])
    assert len(copies) == 2
    assert np.array_equal(there, here)
    assert len(server.survivors) == n - sum(turn != "unmask" for turn in leaving.values())
    counted = [(meter.bytes_up, meter.bytes_down) for meter in meters]
    assert counted[0] == counted[1]
    assert all(set(meter.seconds) == set(meters[0].seconds) for meter in meters)
    assert not multiprocessing.active_children()


def test_who_is_too_few_is_told_from_a_copy(copies):
    """Its holders are fewer than the client wants, of which the server does not know."""
    with closing(ClientsInCopies(range(3), 5, RING, 2)) as clients:
        roster = b"".join(clients.take("advertise", map(Told, range(3))))
        with pytest.raises(TooFewClients, match="client 0 and its neighbours advertised"):
            list(clients.take("share", [Told(0, roster)]))
    assert not multiprocessing.active_children()


def test_a_client_has_its_secrets_where_it_lives():
    """Nobody else can take its turn: the process that deals does not know it."""
    with closing(ClientsInCopies(range(4), 3, RING, 2)) as clients:
        keys = [*clients.take("advertise", map(Told, range(4)))]
        assert len({key[4:] for key in keys}) == 4
        with pytest.raises(KeyError):
            list(ClientsHere(3, RING).take("share", [Told(0, b"".join(keys))]))
        with pytest.raises(ProtocolError, match="wrong keys"):
            list(clients.take("share", [Told(2, b"".join(keys[:2] + keys[3:]))]))


def test_where_no_copy_can_be_had_they_stay_here(copies, monkeypatch):
    def refused(function):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(turns, "Copy", refused)
    rows = rows_of(range(5))
    total, _ = aggregate(complete_graph(range(5)), rows, {}, 3, 3)
    assert np.array_equal(RING.to_signed(total), sum(RING.to_signed(row) for row in rows.values()))
