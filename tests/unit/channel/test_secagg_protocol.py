"""What no honest party does is refused, at every turn of the protocol."""

import dataclasses

import numpy as np
import pytest

from fedexp.channel.client import Client
from fedexp.channel.graph import complete_graph, neighbour_graph
from fedexp.channel.messages import MaskedRow, UnmaskRequest
from fedexp.channel.server import Server
from fedexp.channel.violations import ProtocolError, TooFewClients
from fedexp.core.checks import InputError
from tests.support.secagg_groups import RING, D, aggregate, rng, rows_of


class Session:
    """Four clients and a server, stopped wherever a test wants to interfere."""

    def __init__(self, n=4, threshold=3):
        self.graph = complete_graph(range(n))
        self.rows = rows_of(self.graph)
        self.server = Server(self.graph, threshold, threshold, RING, D, record_rows=True)
        self.clients = {c: Client(c, threshold, RING) for c in self.graph}

    def advertise(self):
        for client in self.clients.values():
            self.server.receive_keys(client.advertise())
        return self.server.rosters()

    def share(self):
        rosters = self.advertise()
        for c, client in self.clients.items():
            self.server.receive_shares(client.share(rosters[c]))
        return self.server.forwarded()

    def mask(self, without=()):
        forwarded = self.share()
        for c, client in self.clients.items():
            if c not in without:
                self.server.receive_row(client.mask(forwarded[c], self.rows[c]))
        return self.server.requests()


def test_a_session_without_interference_gives_the_sum():
    session = Session()
    requests = session.mask(without=[2])
    for c, request in requests.items():
        session.server.receive_revealed(session.clients[c].unmask(request))
    expected = sum(session.rows[c] for c in (0, 1, 3))
    assert np.array_equal(session.server.unmask(), expected)


def test_a_client_gives_no_two_kinds_of_share_of_one_client():
    session = Session()
    session.mask()
    both = UnmaskRequest(survivors=(0, 1, 2, 3), dropped=(2,))
    with pytest.raises(ProtocolError, match="client 0 was asked for more than one share"):
        session.clients[0].unmask(both)


def test_a_client_answers_one_request():
    session = Session()
    requests = session.mask()
    session.clients[0].unmask(requests[0])
    with pytest.raises(ProtocolError, match="out of turn"):  # the other kind, in two requests
        session.clients[0].unmask(UnmaskRequest((0, 1, 3), (2,)))


def test_a_client_that_refused_does_not_answer_a_better_request():
    session = Session()
    requests = session.mask()
    with pytest.raises(ProtocolError, match="more than one share"):
        session.clients[0].unmask(UnmaskRequest((0, 1, 2, 3), (3,)))
    with pytest.raises(ProtocolError, match="out of turn"):
        session.clients[0].unmask(requests[0])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (UnmaskRequest((0, 1, 1, 2), ()), "more than one share"),
        (UnmaskRequest((0, 1, 2, 9), ()), "that it cannot have"),
        (UnmaskRequest((1, 2, 3), (0,)), "that it cannot have"),  # its own row arrived
    ],
)
def test_a_client_refuses_requests_that_no_honest_server_makes(request_, message):
    session = Session()
    session.mask()
    with pytest.raises(ProtocolError, match=message):
        session.clients[0].unmask(request_)


def test_a_client_refuses_too_few_survivors():
    session = Session()
    session.mask()
    with pytest.raises(TooFewClients, match=r"2 of client 0 and its neighbours .*, 3 are needed"):
        session.clients[0].unmask(UnmaskRequest((0, 1), (2, 3)))


def test_a_client_refuses_false_rosters():
    def swapped(roster, position, **changes):
        listed = list(roster.advertisements)
        listed[position] = dataclasses.replace(listed[position], **changes)
        return dataclasses.replace(roster, advertisements=tuple(listed))

    own = Session()
    stranger = Client(9, 3, RING).advertise()
    rosters = own.advertise()
    for client, roster in [
        (0, swapped(rosters[0], 0, masking_key=stranger.masking_key)),  # not its own key
        (1, swapped(rosters[1], 2, client=3)),  # the same client twice
        (2, swapped(rosters[2], 0, masking_key=rosters[2].advertisements[1].masking_key)),
    ]:
        with pytest.raises(ProtocolError, match="roster with wrong keys"):
            own.clients[client].share(roster)
    short = dataclasses.replace(rosters[3], advertisements=rosters[3].advertisements[2:])
    with pytest.raises(TooFewClients, match="2 of client 3"):
        own.clients[3].share(short)


def forwarded_with(forwarded, boxes):
    return dataclasses.replace(forwarded, boxes={**forwarded.boxes, **boxes})


def tampered(box):
    return box[:50] + bytes([box[50] ^ 1]) + box[51:]


@pytest.mark.parametrize(
    "false_box",
    [
        lambda now, before: tampered(now[0].boxes[1]),
        lambda now, before: before[0].boxes[1],  # replayed from another round
        lambda now, before: now[0].boxes[2],  # another sender's
        lambda now, before: now[2].boxes[1],  # another receiver's
    ],
)
def test_tampered_replayed_and_misaddressed_boxes_are_refused(false_box):
    session = Session()
    forwarded, earlier = session.share(), Session().share()
    client = session.clients[0]
    sent = {1: false_box(forwarded, earlier)}
    client.mask(forwarded_with(forwarded[0], sent), session.rows[0])
    with pytest.raises(ProtocolError, match="tampered"):
        client.unmask(UnmaskRequest((0, 1, 2, 3), ()))


def test_boxes_for_somebody_else_or_from_a_stranger_are_refused():
    session = Session()
    forwarded = session.share()
    with pytest.raises(ProtocolError, match="not for it"):
        session.clients[0].mask(forwarded[1], session.rows[0])
    stranger = forwarded_with(forwarded[1], {9: bytes(160)})
    with pytest.raises(ProtocolError, match="not for it"):
        session.clients[1].mask(stranger, session.rows[1])


def test_a_client_does_not_mask_for_too_few():
    session = Session()
    forwarded = session.share()
    few = dataclasses.replace(forwarded[0], boxes={1: forwarded[0].boxes[1]})
    with pytest.raises(TooFewClients, match="2 of client 0 and its neighbours shared"):
        session.clients[0].mask(few, session.rows[0])


def test_turns_are_taken_once_and_in_order():
    client = Client(0, 3, RING)
    client.advertise()
    with pytest.raises(ProtocolError, match="client 0 was asked to advertise out of turn"):
        client.advertise()
    with pytest.raises(ProtocolError, match="asked to unmask out of turn"):
        Client(0, 3, RING).unmask(UnmaskRequest((0, 1, 2), ()))


def test_the_server_takes_every_message_once_and_from_nobody_else():
    session = Session()
    keys = session.clients[0].advertise()
    session.server.receive_keys(keys)
    with pytest.raises(ProtocolError, match="client 0 sent the same message twice"):
        session.server.receive_keys(keys)
    with pytest.raises(ProtocolError, match="client 9 is not expected"):
        session.server.receive_keys(dataclasses.replace(keys, client=9))

    session = Session()
    forwarded = session.share()
    for shares in list(session.server.view.shares.values()):
        with pytest.raises(ProtocolError, match="twice"):
            session.server.receive_shares(shares)
    row = session.clients[0].mask(forwarded[0], session.rows[0])
    session.server.receive_row(row)
    with pytest.raises(ProtocolError, match="twice"):
        session.server.receive_row(row)
    with pytest.raises(ProtocolError, match="client 9 is not expected"):
        session.server.receive_row(MaskedRow(9, row.numbers))
    with pytest.raises(ProtocolError, match="16 bytes for 5 numbers"):
        session.server.receive_row(MaskedRow(1, row.numbers[:-4]))


def test_the_server_refuses_shares_for_the_wrong_clients():
    session = Session()
    roster = session.advertise()[0]
    shares = session.clients[0].share(roster)
    fewer = {c: box for c, box in shares.boxes.items() if c != 3}
    for boxes in (fewer, {**shares.boxes, 9: shares.boxes[3]}):
        with pytest.raises(ProtocolError, match="client 0 sent shares to the wrong clients"):
            session.server.receive_shares(dataclasses.replace(shares, boxes=boxes))


def test_the_server_refuses_shares_that_it_did_not_ask_for():
    session = Session()
    requests = session.mask(without=[2])
    revealed = session.clients[0].unmask(requests[0])
    for false in (
        dataclasses.replace(revealed, of_keys={}),
        dataclasses.replace(revealed, of_seeds={**revealed.of_seeds, 2: 1}),  # both kinds of 2
    ):
        with pytest.raises(ProtocolError, match="client 0 revealed shares that it was not asked"):
            session.server.receive_revealed(false)
    session.server.receive_revealed(revealed)
    with pytest.raises(ProtocolError, match="twice"):
        session.server.receive_revealed(revealed)
    with pytest.raises(ProtocolError, match="client 2 is not expected"):
        session.server.receive_revealed(dataclasses.replace(revealed, client=2))


@pytest.mark.parametrize("kind", ["of_seeds", "of_keys"])
def test_a_tampered_revealed_share_stops_the_unmasking(kind):
    session = Session()
    for c, request in session.mask(without=[2]).items():
        revealed = session.clients[c].unmask(request)
        if c == 0:
            shares = getattr(revealed, kind)
            owner = next(iter(shares))
            changed = {kind: {**shares, owner: shares[owner] ^ 1}}
            revealed = dataclasses.replace(revealed, **changed)
        session.server.receive_revealed(revealed)
    with pytest.raises(ProtocolError, match="tampered"):
        session.server.unmask()


def test_a_key_other_than_the_advertised_one_stops_the_unmasking():
    session = Session()
    requests = session.mask(without=[2])
    seen = session.server.view.advertisements
    seen[2] = dataclasses.replace(seen[2], masking_key=Session().clients[2].advertise().masking_key)
    for c, request in requests.items():
        session.server.receive_revealed(session.clients[c].unmask(request))
    with pytest.raises(ProtocolError, match="client 2 shared a key that is not the one"):
        session.server.unmask()


@pytest.mark.parametrize(
    ("n", "group_threshold", "share_threshold", "message"),
    [
        (2, 2, 2, "clients=2: a sum of fewer than 3"),
        (3, 1, 2, "group_threshold=1: .* from 2"),
        (4, 2, 3, "group_threshold=2: must be above half of the 4"),
        (3, 2, 2, "group_threshold=2: must be 3 or more"),
        (4, 5, 3, "group_threshold=5: .* at most 4"),
        (4, 3, 2, "share_threshold=2"),
        (4, 3, 5, "share_threshold=5"),
    ],
)
def test_thresholds_that_protect_nobody_are_refused(n, group_threshold, share_threshold, message):
    with pytest.raises(InputError, match=message):
        Server(complete_graph(range(n)), group_threshold, share_threshold, RING, D, False)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("advertise", "2 of 4 clients advertised keys, 3 are needed"),
        ("share", "2 of 4 clients shared their secrets"),
        ("mask", "2 of 4 clients sent their masked rows"),
        ("unmask", "2 of 4 clients helped to unmask"),
    ],
)
def test_too_few_at_any_stage_end_the_round(turn, message):
    graph = complete_graph(range(4))
    with pytest.raises(TooFewClients, match=message):
        aggregate(graph, rows_of(graph), {1: turn, 2: turn}, 3, 3)


def test_too_few_holders_end_the_round_among_neighbours():
    graph = neighbour_graph(range(9), 2, rng())
    others = [c for c in graph[4] if c != 4]
    with pytest.raises(TooFewClients, match=r"of the 3 clients that hold shares of client \d+"):
        aggregate(graph, rows_of(graph), dict.fromkeys(others, "unmask"), 5, 2)
