"""Whether every row that a channel delivers is of one client alone, tried on the channel itself.

Noise on a sum of clipped rows is for one row a client. A channel may say that it delivers such rows
(`a_client_a_row`); what one client sends must then change no other's, in a round and in the next.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from fedexp.core.capabilities import a_client_a_row
from fedexp.core.checks import InputError
from fedexp.core.protocols import Channel
from fedexp.core.rng import generator, torch_generator
from fedexp.core.text import called
from fedexp.core.types import State, Updates
from fedexp.federation.sending import transmitted

CLIENTS = 4
ROUNDS = 2  # the second from what was kept of the first
TRIED_NUMBERS = 4096  # in a row at most: whose row it is does not come with the size of a model


def refuse_mixed_rows(channel: Channel, d: int) -> None:
    """Raise InputError if a channel says that rows are of one client each, and they are not.

    Args:
        channel: left as it is.
        d: numbers in a row.
    """
    if not a_client_a_row(channel):
        return
    rows = torch.randn(CLIENTS, min(d, TRIED_NUMBERS), generator=torch_generator(0))
    for client in range(CLIENTS):
        changed = rows.clone()
        changed[client] *= -100
        if _of_others(channel, rows, client) != _of_others(channel, changed, client):
            raise InputError(
                "says that every row is of one client alone (a_client_a_row), and what one client "
                "sends changes what arrives of another; noise is for one row a client: use "
                "channel=plain, or noise in the clients: privacy=local_gaussian or dp_sgd",
                "channel",
                called(channel),
            )


def _of_others(channel: Channel, rows: Tensor, client: int) -> list[dict[int, bytes]]:
    """What arrives of everybody but one client, round by round."""
    channel = copy.deepcopy(channel)
    kept: list[State] = [{} for _ in rows]
    everybody, weights = tuple(range(len(rows))), torch.ones(len(rows), dtype=torch.float64)
    arrived = []
    for round in range(ROUNDS):
        sent = Updates(rows.clone(), everybody, weights.clone())
        delivery, kept = transmitted(channel, sent, kept, generator(round, "channel tried"))
        brought = zip(delivery.updates.client_ids, delivery.updates.matrix, strict=True)
        arrived.append({k: row.numpy().tobytes() for k, row in brought if k != client})
    return arrived
