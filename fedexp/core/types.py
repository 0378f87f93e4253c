"""What travels in a round. Everything is frozen: a change makes a new object.

Symbols used all over the package: `n` clients that answered, `d` numbers in a model, `[n, d]` one
row a client. **delta = local model - global model, everywhere.** Where an algorithm sends more than
the delta, a row is the delta followed by that: `D` numbers, all of which are counted, clipped,
noised, attacked and aggregated. For most algorithms `D = d`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fedexp.core.round_model import RoundModel

State = Mapping[str, Tensor]
"""What a component carries from one round to the next; an empty mapping for most."""

Adjust = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""From one step's gradients, one a parameter, to those that the step is made with. It sees nothing
else of the data, so that what DP-SGD made private stays so."""


@dataclass(frozen=True)
class Sent:
    """A tensor that leaves a client beside its delta, as part of the same row.

    >>> row_size((Sent("control"), Sent("steps", numbers=1)), d=10)
    21
    """

    name: str
    numbers: int | None = None  # how many; None: d, as many as the delta has
    clipped_with_the_delta: bool = False  # a mechanism may clip and noise the row as one vector
    derived_from_the_delta: bool = False  # a function of the delta and of what the server sent

    def size(self, d: int) -> int:
        """How many numbers it is beside a delta of `d`."""
        return d if self.numbers is None else self.numbers


def row_size(sends: Sequence[Sent], d: int) -> int:
    """D: how many numbers a client sends, its delta `[d]` included."""
    return d + sum(sent.size(d) for sent in sends)


@dataclass(frozen=True)
class Outcome:
    """What a round would do to the model."""

    step: Tensor  # [d] of the rule, 0 where nothing would move
    loss: float  # on the validation part, of the model after it; not finite where that is broken


class Rule(Protocol):
    """The server as an adversary that knows it may try it out on rows `[n, D]` of its round."""

    def __call__(self, rows: Tensor) -> Tensor:
        """The step `[D]` that the server would make of them; InputError where it would refuse."""

    def outcome(self, rows: Tensor) -> Outcome:
        """What would come of such a round; see `fedexp.federation.trial`."""


@dataclass(frozen=True)
class ClientTask:
    """One client's work in one round; plain data, so that any backend can ship it."""

    client_id: int
    params: Tensor  # [d] the model that the client starts from
    round: int
    seed: int
    state: State = field(default_factory=dict)  # what this client kept, not to be written to
    broadcast: State = field(default_factory=dict)  # from the server, for all clients alike
    shard: int | None = None  # whose examples; None: the client's own

    @property
    def examples_of(self) -> int:
        """The number of the shard that it trains on."""
        return self.client_id if self.shard is None else self.shard

    @property
    def bytes_down(self) -> int:
        """What the server sent to this client."""
        return self.params.nbytes + sum(tensor.nbytes for tensor in self.broadcast.values())


@dataclass(frozen=True)
class ClientReport:
    """What a client says beside its delta, and what it does not say."""

    num_examples: int  # distinct examples that it holds
    processed: int  # examples that passed through the gradient, repeats counted
    metrics: Mapping[str, float | Tensor]  # numbers; on a GPU tensors `[]`, not to wait for them
    sent: State = field(default_factory=dict)  # exactly what its trainer declares (`sends`)
    state: State = field(default_factory=dict)  # stays: named and shaped as in the task


@dataclass(frozen=True)
class Updates:
    """What the clients of one round sent, one row each, in cohort order.

    The rows may lie in a buffer that the next round overwrites: whoever keeps them must copy them.
    """

    matrix: Tensor  # [n, D] float32, delta = local - global and what else is sent
    client_ids: tuple[int, ...]  # negative: a mixture of clients, which no rule can tell apart
    num_examples: Tensor  # [n] float64, the weights of rules that weigh
    processed: int = 0  # examples that passed through the gradient, all clients together
    metrics: tuple[Mapping[str, float], ...] = ()  # for the record, not for the server
    reference: Tensor | None = None  # [D] the server's own update, for rules that ask for one
    model: RoundModel | None = None  # that the rows change; the server adds it for its detector
    kept: tuple[State, ...] = ()  # [n] never sent: the round loop takes it off (`without_kept`)
    clients_in: tuple[int, ...] = ()  # [n] how many clients are in each row; (): one
    in_a_row: int = 1  # above 1: `matrix` [ceil(n / that), D] has so many neighbours' mean a row

    def __len__(self) -> int:
        return len(self.client_ids)

    @classmethod
    def of(
        cls, matrix: Tensor, tasks: Sequence[ClientTask], reports: Sequence[ClientReport]
    ) -> Updates:
        """The rows `[n, D]` together with what the clients reported, in the same order."""
        return cls(
            matrix=matrix,
            client_ids=tuple(task.client_id for task in tasks),
            num_examples=torch.tensor([r.num_examples for r in reports], dtype=torch.float64),
            processed=sum(r.processed for r in reports),
            metrics=_read([r.metrics for r in reports]),
            kept=tuple(r.state for r in reports),
        )

    @property
    def clients(self) -> int:
        """How many clients are in the rows."""
        return sum(self.clients_in) if self.clients_in else len(self)

    def followed_by(self, later: Updates, matrix: Tensor) -> Updates:
        """What two parts of a cohort sent, as `of` makes them, with the rows `[n, D]` of both."""
        return replace(
            self,
            matrix=matrix,
            client_ids=self.client_ids + later.client_ids,
            num_examples=torch.cat([self.num_examples, later.num_examples]),
            processed=self.processed + later.processed,
            metrics=self.metrics + later.metrics,
            kept=self.kept + later.kept,
        )

    def without_kept(self) -> Updates:
        """What may leave the clients."""
        return replace(self, kept=())

    def with_matrix(self, matrix: Tensor) -> Updates:
        """The same clients with other rows."""
        return replace(self, matrix=matrix)

    def only(self, k: int) -> Updates:
        """What one client sent, as a view of its row `[1, D]`."""
        return replace(
            self,
            matrix=self.matrix[k : k + 1],
            client_ids=self.client_ids[k : k + 1],
            num_examples=self.num_examples[k : k + 1],
            metrics=self.metrics[k : k + 1],
            clients_in=self.clients_in[k : k + 1],
        )

    def select(self, kept: Tensor) -> Updates:
        """Only the clients marked in `kept` `[n]` bool, as copies of their rows."""
        if bool(kept.all()):
            return self
        marks = kept.tolist()
        return replace(
            self,
            matrix=self.matrix[kept],
            client_ids=tuple(c for c, k in zip(self.client_ids, marks, strict=True) if k),
            num_examples=self.num_examples[kept.to(self.num_examples.device)],
            metrics=tuple(m for m, k in zip(self.metrics, marks, strict=False) if k),
            clients_in=tuple(n for n, k in zip(self.clients_in, marks, strict=False) if k),
        )


def _read(reported: Sequence[Mapping[str, float | Tensor]]) -> tuple[Mapping[str, float], ...]:
    """What clients reported as numbers: those on a device are all read at once."""
    there = [v for metrics in reported for v in metrics.values() if isinstance(v, Tensor)]
    values = iter(torch.stack(there).tolist() if there else ())
    return tuple(
        {name: next(values) if isinstance(v, Tensor) else float(v) for name, v in metrics.items()}
        for metrics in reported
    )


@dataclass(frozen=True)
class Delivery:
    """What a channel brought to the server in a round, and what it cost."""

    updates: Updates  # the rows that the server sees; negative client_ids are sums of many
    members: tuple[tuple[int, ...], ...]  # for each row, the clients that are in it
    dropped: tuple[tuple[int, str], ...]  # (client, stage at which it left), in order of client
    lost: tuple[str, ...]  # a sentence for every group of which nothing arrived
    bytes_up: int  # messages of all clients together, as encoded
    bytes_down: int  # messages to all clients together; the model itself is not among them
    seconds: Mapping[str, float]  # the transport's own work, by stage; empty: it has none
    clipped: int  # coordinates cut to the range that can be sent, all clients together
    views: tuple[object, ...] = ()  # for each row, all that the server saw; empty: not recorded

    @property
    def received(self) -> Updates:
        """The rows that the server computes with, and how many clients are in each.

        Without what clients say of their training, which is for the record: no mechanism protects
        it, and a rule that went by it would put it into the model.
        """
        return replace(self.updates, clients_in=tuple(map(len, self.members)), metrics=())


@dataclass(frozen=True)
class Verdict:
    """What a detector says about the rows of a round."""

    scores: Tensor  # [n] float64, larger is more suspicious; NaN: no opinion (yet)
    threshold: float  # rows above it are flagged; NaN while there is none
    trust: Tensor  # [n] float64 in [0, 1]: factor on a row's weight; 0 drops the row

    @property
    def flagged(self) -> Tensor:
        """`[n]` bool: scores above the threshold."""
        return self.scores > self.threshold

    @classmethod
    def no_opinion(cls, n: int) -> Verdict:
        """Everybody is trusted."""
        unknown = torch.full((n,), torch.nan, dtype=torch.float64)
        return cls(unknown, float("nan"), torch.ones(n, dtype=torch.float64))
