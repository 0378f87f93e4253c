"""The data that flows through a run. Everything is frozen: a change makes a new object.

Symbols used all over the package: `n` clients that answered, `d` numbers in a model, `[n, d]` one
row a client. **delta = local model - global model, everywhere.** Where an algorithm sends more than
the delta, a row is the delta followed by that: `D` numbers, all of which are counted, clipped,
noised, attacked and aggregated. For most algorithms `D = d`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Tensor]
"""What a component carries from one round to the next; an empty mapping for most."""

Rule = Callable[[Tensor], Tensor]
"""What the server makes of rows `[n, D]`: a step `[D]`. For an adversary that knows it."""

Adjust = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""From one step's gradients, one a parameter, to those that the step is made with. It sees nothing
else of the data, so that what DP-SGD made private stays so."""


@dataclass(frozen=True)
class Split:
    """Labelled images: x `[n, channels, height, width]` float32, y `[n]` int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, indices: Tensor) -> Split:
        """The rows at `indices` `[k]`, in that order, as a copy."""
        return Split(self.x[indices], self.y[indices])


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts of one collection, pixels in [0, 1].

    `train` is dealt to the clients, `validation` is what choices may be made on, `test` is for
    reporting only.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are, also when a part lacks some of them."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image."""
        return tuple(self.train.x.shape[1:])

    def scaled(self, scale: Callable[[Split], Split]) -> Dataset:
        """Every part shifted and scaled alike, see `Normalisation`."""
        return replace(
            self,
            train=scale(self.train),
            validation=scale(self.validation),
            test=scale(self.test),
        )


@dataclass(frozen=True)
class Normalisation:
    """From pixels in [0, 1] to what a model takes: mean 0 and deviation 1 per channel."""

    mean: Tensor  # [1, channels, 1, 1] float32
    deviation: Tensor  # the same shape

    @classmethod
    def of(cls, reference: Split) -> Normalisation:
        """With the reference's own means and deviations."""
        mean = reference.x.mean(dim=(0, 2, 3), keepdim=True)
        # A channel that never changes has deviation 0: leave it at 0 rather than divide by it.
        return cls(mean, reference.x.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6))

    def x(self, pixels: Tensor) -> Tensor:
        """Images `[n, C, H, W]` of any floating type, shifted and scaled."""
        return (pixels - self.mean.to(pixels.dtype)) / self.deviation.to(pixels.dtype)

    def __call__(self, part: Split) -> Split:
        """A part with its images shifted and scaled."""
        return Split(self.x(part.x), part.y)


@dataclass(frozen=True)
class Partition:
    """Who holds what: `shards[k]` are client k's rows of `train`, sorted int64 indices.

    The shards are disjoint and none is empty. `train` is the training part as the clients see it;
    most partitions hand it on unchanged, `feature` returns one in which every client's rows went
    through that client's scanner.
    """

    train: Split
    shards: tuple[np.ndarray, ...]

    def label_counts(self, num_classes: int) -> np.ndarray:
        """How many examples of each class each client holds: `[n_clients, num_classes]` int64."""
        y = self.train.y.numpy()
        return np.stack([np.bincount(y[shard], minlength=num_classes) for shard in self.shards])


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
class ClientTask:
    """One client's work in one round; plain data, so that any backend can ship it."""

    client_id: int
    params: Tensor  # [d] the model that the client starts from
    round: int
    seed: int
    state: State = field(default_factory=dict)  # what this client kept, not to be written to
    broadcast: State = field(default_factory=dict)  # from the server, for all clients alike

    @property
    def bytes_down(self) -> int:
        """What the server sent to this client."""
        return self.params.nbytes + sum(tensor.nbytes for tensor in self.broadcast.values())


@dataclass(frozen=True)
class ClientReport:
    """What a client says beside its delta, and what it does not say."""

    num_examples: int  # distinct examples that it holds
    processed: int  # examples that passed through the gradient, repeats counted
    metrics: Mapping[str, float]
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
    metrics: tuple[Mapping[str, float], ...] = ()
    reference: Tensor | None = None  # [D] the server's own update, for rules that ask for one
    kept: tuple[State, ...] = ()  # [n] never sent: the round loop takes it off (`without_kept`)
    clients_in: tuple[int, ...] = ()  # [n] how many clients are in each row; (): one

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
            metrics=tuple(r.metrics for r in reports),
            kept=tuple(r.state for r in reports),
        )

    @property
    def clients(self) -> int:
        """How many clients are in the rows."""
        return sum(self.clients_in) if self.clients_in else len(self)

    def without_kept(self) -> Updates:
        """What may leave the clients."""
        return replace(self, kept=())

    def with_matrix(self, matrix: Tensor) -> Updates:
        """The same clients with other rows."""
        return replace(self, matrix=matrix)

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

    def with_last_as_reference(self) -> Updates:
        """The last row becomes the `reference`: it is the server's own, not a client's."""
        return replace(
            self,
            matrix=self.matrix[:-1],
            client_ids=self.client_ids[:-1],
            num_examples=self.num_examples[:-1],
            metrics=self.metrics[:-1],
            kept=self.kept[:-1],
            reference=self.matrix[-1],
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
        """The rows, and how many clients are in each."""
        return replace(self.updates, clients_in=tuple(map(len, self.members)))


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


class Kept(Protocol):
    """What one client keeps between rounds, wherever it lies."""

    def read(self) -> State:
        """The named tensors, on the CPU; not to be written to."""


@dataclass(frozen=True)
class ServerState:
    """All that a checkpoint needs beside the resolved config."""

    round: int  # rounds completed
    params: Tensor  # [d], or [n_clients, d] where every client keeps a model of its own
    optimizer: State = field(default_factory=dict)
    aggregator: State = field(default_factory=dict)
    detector: State = field(default_factory=dict)
    algorithm: State = field(default_factory=dict)  # the server's part of the algorithm
    privacy: State = field(default_factory=dict)  # of the mechanism, such as a clip norm that moves
    ledger: State = field(default_factory=dict)  # what the promise has cost so far
    clients: Mapping[int, Kept] = field(default_factory=dict)  # of those who ever took part
    failed_rounds: int = 0  # the latest rounds in a row that moved nothing


@dataclass(frozen=True)
class Metric:
    """One measured number. `metrics.csv` is a list of these.

    `scope` says on what it was measured (train, validation, test, round); `client` is a client's
    number, "all" for the shared model, or mean / std / min / max over the clients' own models.
    """

    round: int
    scope: str
    client: str
    metric: str
    value: float


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round. Only `seconds` may differ between two runs of one config."""

    round: int
    metrics: tuple[Metric, ...]
    predictions: Tensor | None  # [n_test] the shared model's answers, in rounds that evaluate
    seconds: Mapping[str, float]  # by phase: train, transmit, aggregate, evaluate
    notes: tuple[str, ...] = ()  # what a person should know, in sentences
    received: Updates | None = None  # what the server got; its rows last until the next round
    malicious: tuple[bool, ...] = ()  # [n] which of them the adversary sent


@dataclass(frozen=True)
class Workload:
    """What a worker needs to train any client and to evaluate any model; it never changes."""

    model: torch.nn.Module
    train: Split
    shards: tuple[np.ndarray, ...]
    evaluation: Mapping[str, Split]
    cohort_size: int  # expected clients a round
    device: torch.device
