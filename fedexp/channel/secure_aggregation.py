"""Secure aggregation: the server sees one sum for every group of clients, and nothing else.

    row of group g = sum_{k in S_g} w_k delta_k / sum_{k in S_g} w_k,   S_g: who stayed to mask

The weights w_k travel masked, as one more coordinate of the row that they multiply. With one group
only the mean makes sense behind this channel; with several, a robust rule or a detector works on
the groups' means, and the sums of groups are what is revealed.

A group of n needs T = max(3, floor(threshold n) + 1) clients at every stage, and a secret with m
holders (itself and its neighbours) t = floor(threshold m) + 1 of them; a group that falls below is
lost and the others go on. Keys come from the operating system and cancel exactly, so a run stays
the same bit for bit; groups, neighbours, dropouts and rounding are drawn from the run's seed.

Promise: an honest-but-curious server, together with fewer than t clients, learns nothing but the
sums. With `neighbours` it is a matter of chance whether it holds: if the server works with a share
of `colluders`, and as many drop out as the channel lets go, a round breaks it with a probability of
`max_exposure` at most, or the run is refused (see `fedexp.channel.graph`). Not defended: a server
that lies about who dropped out to different clients (there are no signatures), sybils, rows that
lie within the range, and a client that breaks the protocol (a false commitment, a tampered share):
it is named, and its group has no sum that round, so it can keep the group from ever having one.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017; with `neighbours`, Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020 (SecAgg+). Flower's SecAgg+ draws masks from MT19937 and gives out both kinds of
share of one client; here masks are AES-256's and clients refuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch

from fedexp.channel.client import TURNS
from fedexp.channel.encoder import (
    Encoder,
    decoded,
    encoded,
    largest_sum,
    refuse_another_part,
)
from fedexp.channel.graph import (
    Graph,
    complete_graph,
    exposure,
    neighbour_graph,
    neighbours_needed,
)
from fedexp.channel.group import Meter, run_group
from fedexp.channel.ring import Numbers, Ring
from fedexp.channel.server import Server
from fedexp.channel.violations import ProtocolError, TooFewClients
from fedexp.core.checks import InputError, at_least, in_range, one_of
from fedexp.core.types import Delivery, Updates

SMALLEST_GROUP = 3
NOT_FINITE = "mask: its row has NaN or Inf"


@dataclass(frozen=True)
class SecureAggregation:
    """One row, the mean of the survivors, for every group that did not fall apart.

    Args:
        encoder: between rows and whole numbers (`Quantiser`, `Skellam`).
        groups: how many sums there are; clients are dealt to groups at random every round.
        threshold: share of a group, and of a secret's holders, that must be exceeded at every
            stage; 0.5 to below 1.
        neighbours: with how many others a client masks, an even number; None: with all.
        ring_bits: of a masked number, whole bytes; None takes the fewest that hold every sum.
        weighting: "examples" or "uniform".
        max_examples: the most that a client can weigh under "examples".
        drop_before_advertising: probability that a client leaves before the first turn.
        drop_before_sharing: the same for the second turn, among those still there.
        drop_before_masking: the same for the third: its row is not in the sum.
        drop_before_unmasking: the same for the fourth: its row is in the sum.
        record_views: keep what the server saw, masked rows included, in `Delivery.views`.
        colluders: with `neighbours`, the share of a group that may work with the server.
        max_exposure: with `neighbours`, how probable it may be that a round tells more than the
            sums; 1 allows any graph.
    """

    sums: ClassVar[bool] = True
    hides_rows: ClassVar[bool] = True

    encoder: Encoder
    groups: int
    threshold: float
    neighbours: int | None
    ring_bits: int | None
    weighting: str
    max_examples: int
    drop_before_advertising: float
    drop_before_sharing: float
    drop_before_masking: float
    drop_before_unmasking: float
    record_views: bool
    colluders: float = field(default=0.2, kw_only=True)
    max_exposure: float = field(default=1e-12, kw_only=True)

    def __post_init__(self) -> None:
        refuse_another_part(self.encoder)
        at_least(1, groups=self.groups, max_examples=self.max_examples)
        in_range(0.5, 1, threshold=self.threshold)
        if self.threshold == 1:
            raise InputError("must be below 1: more than all clients cannot stay", "threshold", 1)
        if self.neighbours is not None:
            at_least(2, neighbours=self.neighbours)
            if self.neighbours % 2:
                raise InputError("must be even", "neighbours", self.neighbours)
        if self.ring_bits is not None:
            Ring(self.ring_bits)
        one_of(("examples", "uniform"), weighting=self.weighting)
        leaves = {
            "drop_before_advertising": self.drop_before_advertising,
            "drop_before_sharing": self.drop_before_sharing,
            "drop_before_masking": self.drop_before_masking,
            "drop_before_unmasking": self.drop_before_unmasking,
        }
        in_range(0, 1, **leaves, max_exposure=self.max_exposure)
        if key := next((key for key, chance in leaves.items() if chance == 1), None):
            raise InputError("must be below 1: nobody would ever be left for a sum", key, 1)
        in_range(0, 0.5, colluders=self.colluders)  # more could open any secret by themselves

    def rows(self, n: int) -> int:
        """A row a group."""
        return self.groups

    def check(self, n: int, d: int) -> Ring:
        """The ring for a cohort of `n` with rows of `d` coordinates.

        Raises:
            InputError: fewer than 3 clients in a group, neighbours too few for its size, or sums
                that no ring or not this one holds.
        """
        if n < SMALLEST_GROUP * self.groups:
            raise InputError(self._too_few(n), "groups", self.groups)
        for size in {n // self.groups, math.ceil(n / self.groups)}:
            if complaint := self._too_exposed(size):
                raise InputError(complaint, "neighbours", self.neighbours)
        return self._ring_for(n, d)

    def remarks(self, n: int) -> tuple[str, ...]:
        """How probable it is that a round tells more than its sums, where neighbours are few."""
        size = math.ceil(n / self.groups)
        if self.neighbours is None or self.neighbours >= size - 1:
            return ()
        return (
            f"secure aggregation with {self.neighbours} neighbours: where the server works with "
            f"{self._colluding(size)} of {size} clients, a round tells it more than the sums with "
            f"probability {self._exposure(size, self.neighbours):.1g} at most",
        )

    def _ring_for(self, n: int, d: int) -> Ring:
        largest_group, smallest_group = math.ceil(n / self.groups), n // self.groups
        survivors = self._survivors(smallest_group)
        largest = largest_sum(self.encoder, largest_group, survivors, d)
        if self.weighting == "examples":
            largest *= self.max_examples
        return Ring.that_holds(largest) if self.ring_bits is None else self._ring(largest)

    def transmit(self, updates: Updates, rng: np.random.Generator) -> Delivery:
        """The groups' means; a group that was lost has no row, and a round may have none.

        A cohort too small for its groups (a sampler may draw one) does not begin, and is lost.

        Raises:
            InputError: the sums do not fit the ring.
        """
        n, d = updates.matrix.shape
        meter = Meter()
        if n < SMALLEST_GROUP * self.groups:
            nobody = replace(updates.select(torch.zeros(n, dtype=torch.bool)), metrics=())
            reason = f"the cohort is lost: secure aggregation {self._too_few(n)}"
            lost_groups = (reason,) * self.groups if n else ()
            return Delivery(nobody, (), (), lost_groups, 0, 0, meter.seconds, 0)
        ring = self._ring_for(n, d)
        groups = np.array_split(rng.permutation(n), self.groups)
        leaving = self._leaving(updates, rng)
        arrivals = []
        lost = []
        for number, indices in enumerate(groups, start=1):
            group = _Group(number, {updates.client_ids[i]: int(i) for i in np.sort(indices)})
            try:
                arrivals.append(self._aggregate(group, updates, leaving, ring, meter, rng))
            except ProtocolError as reason:  # too few, or one that does not play by the rules
                lost.append(f"group {number} of {self.groups} is lost: {reason}")
        rows = [a.row for a in arrivals]
        matrix = np.stack(rows) if rows else np.zeros((0, d), np.float32)
        return Delivery(
            updates=replace(
                updates,
                matrix=torch.from_numpy(matrix).to(updates.matrix.device),
                client_ids=tuple(-a.number for a in arrivals),
                num_examples=torch.tensor([a.weight for a in arrivals], dtype=torch.float64),
                metrics=(),
            ),
            members=tuple(a.survivors for a in arrivals),
            dropped=tuple(sorted(leaving.items())),
            lost=tuple(lost),
            bytes_up=meter.bytes_up,
            bytes_down=meter.bytes_down,
            seconds=meter.seconds,
            clipped=sum(a.clipped for a in arrivals),
            views=tuple(a.view for a in arrivals) if self.record_views else (),
        )

    def as_received(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """The groups' means if nobody leaves, without rounding or noise.

        From the state of the stream from which `transmit` starts, with the same groups; no rows of
        a cohort that is too small for them.
        """
        n = len(updates)
        if n < SMALLEST_GROUP * self.groups:
            return updates.select(torch.zeros(n, dtype=torch.bool))
        dealt = np.array_split(rng.permutation(n), self.groups)
        weights = torch.ones(n, dtype=torch.float64)
        if self.weighting == "examples":
            weights = updates.num_examples.round().clamp(max=self.max_examples).cpu()
        share = torch.zeros(self.groups, n, dtype=torch.float64)
        for group, members in enumerate(dealt):
            share[group, members] = weights[members]
        total = share.sum(dim=1)
        share /= torch.where(total > 0, total, 1)[:, None]
        bounded = self.encoder.bounded(updates.matrix)
        return replace(
            updates,
            matrix=share.to(bounded) @ bounded,
            client_ids=tuple(-group for group in range(1, self.groups + 1)),
            num_examples=total,
            metrics=(),
            clients_in=tuple(map(len, dealt)),
        )

    def _aggregate(
        self,
        group: _Group,
        updates: Updates,
        leaving: Mapping[int, str],
        ring: Ring,
        meter: Meter,
        rng: np.random.Generator,
    ) -> _Arrival:
        """Raises TooFewClients."""
        if complaint := self._too_exposed(len(group.rows)):
            raise TooFewClients(f"neighbours={self.neighbours}: {complaint}")
        graph = self._graph(list(group.rows), rng)
        holders = min(len(among) for among in graph.values())
        weighs, d = self.weighting == "examples", updates.matrix.shape[1]
        least, clipped = self._survivors(len(graph)), 0
        server = Server(
            graph, least, self._least(holders), ring, d + weighs, record_rows=self.record_views
        )

        def row_of(client: int) -> Numbers:
            nonlocal clipped
            index = group.rows[client]
            sent = encoded(self.encoder, updates.matrix[index].cpu().numpy(), least, rng)
            clipped += sent.clipped
            values = sent.values
            if weighs:
                weight = min(round(float(updates.num_examples[index])), self.max_examples)
                values = np.append(values * weight, weight)
            return ring.from_signed(values)

        turns = {client: reason.partition(":")[0] for client, reason in leaving.items()}
        total = run_group(server, ring, self._least(holders), row_of, turns, meter)
        signed, weight = ring.to_signed(total), len(server.survivors)
        if weighs:
            signed, weight = signed[:-1], int(signed[-1])
        if not weight:
            raise TooFewClients("its clients have no examples")
        row = decoded(self.encoder, signed, weight)
        return _Arrival(group.number, row, weight, server.survivors, clipped, server.view)

    def _too_few(self, n: int) -> str:
        return (
            f"needs at least {SMALLEST_GROUP} x {self.groups} clients, but {n} are in the "
            "round: a sum of fewer hides too little"
        )

    def _least(self, n: int) -> int:
        return math.floor(self.threshold * n) + 1

    def _survivors(self, n: int) -> int:
        """T: a sum of two would tell each of them the other's row, whatever the threshold."""
        return max(SMALLEST_GROUP, self._least(n))

    def _colluding(self, n: int) -> int:
        return math.ceil(self.colluders * n)

    def _exposure(self, n: int, neighbours: int) -> float:
        stays = 1.0  # until its row has arrived
        for leaves in (
            self.drop_before_advertising,
            self.drop_before_sharing,
            self.drop_before_masking,
        ):
            stays *= 1 - leaves
        holders = min(neighbours + 1, n)
        return exposure(n, neighbours, self._least(holders), self._colluding(n), 1 - stays)

    def _too_exposed(self, n: int) -> str:
        """What is wrong with the neighbours in a group of n; "" for nothing."""
        if self.neighbours is None:
            return ""
        found = self._exposure(n, self.neighbours)
        if found <= self.max_exposure:
            return ""
        needed = neighbours_needed(n, self.max_exposure, lambda k: self._exposure(n, k))
        instead = "null (all)" if needed is None else f"{needed} or more"
        return (
            f"a server that works with {self._colluding(n)} of the {n} clients of a group would "
            f"learn more than the sum with probability {found:.1g} a round, and max_exposure is "
            f"{self.max_exposure:.1g}; use {instead}"
        )

    def _ring(self, largest: int) -> Ring:
        assert self.ring_bits is not None
        return Ring(self.ring_bits).checked(largest)

    def _graph(self, clients: Sequence[int], rng: np.random.Generator) -> Graph:
        if self.neighbours is None:
            return complete_graph(clients)
        return neighbour_graph(clients, self.neighbours, rng)

    def _leaving(self, updates: Updates, rng: np.random.Generator) -> dict[int, str]:
        """Client -> the turn before which it leaves; whose row cannot be encoded does not mask."""
        chances = (
            self.drop_before_advertising,
            self.drop_before_sharing,
            self.drop_before_masking,
            self.drop_before_unmasking,
        )
        left = rng.random((len(updates), len(TURNS))) < np.array(chances)
        leaving = {}
        for client, row, leaves in zip(updates.client_ids, updates.matrix, left, strict=True):
            if not bool(row.isfinite().all()) and not leaves[:2].any():
                leaving[client] = NOT_FINITE
            elif leaves.any():
                leaving[client] = TURNS[int(leaves.argmax())]
        return leaving


@dataclass(frozen=True)
class _Group:
    number: int  # 1 to groups
    rows: Mapping[int, int]  # client -> its row


@dataclass(frozen=True)
class _Arrival:
    """What came of one group."""

    number: int
    row: Numbers  # [d] float32
    weight: int
    survivors: tuple[int, ...]
    clipped: int
    view: object
