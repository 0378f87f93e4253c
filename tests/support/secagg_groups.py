"""A group of clients that aggregate securely."""

import numpy as np

from fedexp.channel.group import Meter, run_group
from fedexp.channel.ring import Ring
from fedexp.channel.server import Server

RING = Ring(32)
D = 5


def rng(seed=0):
    return np.random.default_rng(seed)


def rows_of(clients, d=D, ring=RING):
    numbers = rng(9).integers(-1000, 1000, (len(clients), d))
    return {c: ring.from_signed(row) for c, row in zip(clients, numbers, strict=True)}


def aggregate(graph, rows, leaving, group_threshold, share_threshold, ring=RING, meter=None):
    d = len(next(iter(rows.values())))
    server = Server(graph, group_threshold, share_threshold, ring, d, record_rows=True)
    row_of = rows.__getitem__
    total = run_group(server, ring, share_threshold, row_of, leaving, meter or Meter())
    return total, server
