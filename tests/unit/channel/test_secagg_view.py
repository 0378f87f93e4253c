"""What the server sees of a group, and how many bytes pass."""

import dataclasses
import pickle

import numpy as np
import pytest
from scipy.stats import chisquare

from fedexp.channel.client import MASKS, Client
from fedexp.channel.graph import complete_graph
from fedexp.channel.group import Meter, run_group
from fedexp.channel.masks import add_masks, pair_sign
from fedexp.channel.server import Server, ServerView
from tests.support.secagg_groups import RING, D, aggregate, rows_of


def remembered_clients(monkeypatch):
    """Every client that will be made, for a look at its secrets."""
    clients, original = {}, Client.__init__

    def remember(self, number, *rest):
        original(self, number, *rest)
        clients[number] = self

    monkeypatch.setattr(Client, "__init__", remember)
    return clients


def test_the_view_is_the_messages_and_the_sum_and_nothing_else(monkeypatch):
    clients = remembered_clients(monkeypatch)
    graph = complete_graph(range(5))
    rows = rows_of(graph, d=64)
    total, server = aggregate(graph, rows, {3: "mask", 4: "unmask"}, 3, 3)
    view = server.view
    assert {f.name for f in dataclasses.fields(ServerView)} == {
        "graph",
        "advertisements",
        "shares",
        "rows",
        "revealed",
        "total",
    }
    assert view.total is total
    assert sorted(view.rows) == [0, 1, 2, 4]
    assert sorted(view.revealed) == [0, 1, 2]
    seen = pickle.dumps(view)
    assert clients[0]._masking.public in seen  # the search finds what is there
    for number, client in clients.items():
        secrets = (client._masking.private, client._encryption.private, client._seed)
        assert not any(secret in seen for secret in (*secrets, rows[number].tobytes()))


def test_of_every_client_one_kind_of_share_is_revealed():
    graph = complete_graph(range(7))
    _, server = aggregate(graph, rows_of(graph), {1: "mask", 2: "unmask", 6: "mask"}, 4, 4)
    seeds = {owner for r in server.view.revealed.values() for owner in r.of_seeds}
    keys = {owner for r in server.view.revealed.values() for owner in r.of_keys}
    assert seeds == {0, 2, 3, 4, 5}
    assert keys == {1, 6}


def uniformity(numbers):
    return chisquare(np.bincount(numbers.view(np.uint8), minlength=256)).pvalue


@pytest.mark.parametrize(
    ("own_mask_known", "pairs_known"),
    [
        (False, ()),  # what arrives
        (True, ()),  # the seed was found: the client took part
        (False, (1, 2, 3, 4)),  # the key was found: the client was taken for dropped, but came late
        (True, (1, 2)),  # the server works together with t - 1 clients
    ],
)
def test_a_row_is_uniform_whatever_kind_of_secret_is_known(
    monkeypatch, own_mask_known, pairs_known
):
    clients = remembered_clients(monkeypatch)
    graph, d = complete_graph(range(5)), 50_000
    rows = rows_of(graph, d=d)
    total, server = aggregate(graph, rows, {}, 3, 3)
    seen = RING.decode(server.view.rows[0].numbers, d).copy()

    def take_off(pairs, own):
        for other in pairs:
            public = server.view.advertisements[0].masking_key
            common = clients[other]._masking.agree(public, MASKS)
            add_masks(seen, [(common, pair_sign(other, 0))])
        if own:
            add_masks(seen, [(clients[0]._seed, -1)])

    take_off(pairs_known, own_mask_known)
    assert uniformity(seen) > 1e-6
    take_off({1, 2, 3, 4} - {*pairs_known}, not own_mask_known)
    assert np.array_equal(seen, rows[0])  # nothing else was in the way
    assert uniformity(seen) < 1e-12
    assert uniformity(total) < 1e-12


def test_rows_are_kept_only_where_they_are_recorded():
    graph = complete_graph(range(3))
    rows = rows_of(graph)
    server = Server(graph, 3, 2, RING, D, record_rows=False)
    total = run_group(server, RING, 2, rows.__getitem__, {}, Meter())
    assert np.array_equal(total, sum(rows.values()))
    assert all(row.numbers == b"" for row in server.view.rows.values())


def test_bytes_are_those_of_the_messages():
    graph, meter = complete_graph(range(4)), Meter()
    aggregate(graph, rows_of(graph), {3: "unmask"}, 3, 3, meter=meter)
    advertised, shared = 4 * 68, 4 * (68 + 3 * 164)
    masked, revealed = 4 * (4 + 4 * D), 3 * (8 + 4 * 70)
    assert meter.bytes_up == advertised + shared + masked + revealed
    rosters, boxes, requests = 4 * 4 * 68, 4 * (4 + 3 * 164), 4 * (4 + 4 * 4)
    assert meter.bytes_down == rosters + boxes + requests
    assert all(seconds >= 0 for seconds in meter.seconds.values())
    assert meter.seconds["mask"] > 0
