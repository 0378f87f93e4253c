"""The data that flows through a run. Everything is frozen: a change makes a new object.

Symbols used all over the package: `n` clients that answered, `d` numbers in a model, `[n, d]` one
row a client. **delta = local model - global model, everywhere.** Where an algorithm sends more than
the delta, a row is the delta followed by that: `D` numbers, all of which are counted, clipped,
noised, attacked and aggregated. For most algorithms `D = d`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedexp.core.mapping import Reference, file_of, gathered, let_go
from fedexp.core.moments import moments
from fedexp.core.shards import are_listed, partition_hash

if TYPE_CHECKING:
    from fedexp.core.round_model import RoundModel

State = Mapping[str, Tensor]
"""What a component carries from one round to the next; an empty mapping for most."""

Adjust = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""From one step's gradients, one a parameter, to those that the step is made with. It sees nothing
else of the data, so that what DP-SGD made private stays so."""

_HASHED_AT_ONCE = 4096  # examples


@dataclass(frozen=True)
class Split:
    """Labelled examples in the size they have on disk: images `[C, H, W]` or rows `[f]`.

    Bytes stand for their value over `divisor` (255: pixels in [0, 1]), so a collection takes no
    more memory than its file; `x` may be mapped from one. A split is cut, joined and changed by
    its own methods only, or what belongs to a row (site, subject) would be lost on the way.
    """

    x: Tensor  # [n, *shape] uint8, or float32 with divisor 1
    y: Tensor  # [n] int64, the class; or [n, labels] uint8, 1 for every label that an example has
    site: Tensor | None = None  # [n] int64, where the example was taken; -1: not known
    subject: Tensor | None = None  # [n] int64, of whom; -1: not known
    divisor: float = 1.0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def has_sites(self) -> bool:
        """Whether it is known where the examples were taken."""
        return self.site is not None

    @property
    def has_subjects(self) -> bool:
        """Whether it is known of whom they are."""
        return self.subject is not None

    @property
    def are_images(self) -> bool:
        """Whether the examples are `[C, H, W]`."""
        return self.x.dim() == 4

    @property
    def one_class(self) -> bool:
        """Whether every example has exactly one class, rather than any number of labels."""
        return self.y.dim() == 1 and not self.y.is_floating_point()

    def rows(self, chosen: Tensor) -> Split:
        """The rows at `chosen`, indices `[k]` in that order or marks `[n]` bool, as a copy."""
        return self._each(lambda tensor: gathered(tensor, chosen))

    def between(self, start: int, stop: int) -> Split:
        """Rows start..stop-1, as a view."""
        return self._each(lambda tensor: tensor[start:stop])

    def joined(self, other: Split) -> Split:
        """The rows of both; float32 where they are stored differently.

        A part that does not know its sites or subjects has -1 there, if the other knows them.
        """
        mine, its = self, other
        if (self.x.dtype, self.divisor) != (other.x.dtype, other.divisor):
            mine, its = self.as_floats(), other.as_floats()
        return Split(
            torch.cat([mine.x, its.x]),
            torch.cat([mine.y, its.y]),
            _joined(self.site, other.site, len(self), len(other)),
            _joined(self.subject, other.subject, len(self), len(other)),
            mine.divisor,
        )

    def with_x(self, x: Tensor) -> Split:
        """The same examples with other values `[n, *shape]` float32."""
        return replace(self, x=x, divisor=1.0)

    def with_y(self, y: Tensor) -> Split:
        """The same examples with other labels."""
        return replace(self, y=y)

    def with_rows(self, rows: Tensor, changed: Split) -> Split:
        """A copy in which the rows at `rows` `[k]` have the values and labels of `changed`.

        Stored as before where that can hold the new values to the bit, else as float32.
        """
        fitting = changed.stored_like(self)
        base = self if fitting.x.dtype == self.x.dtype else self.as_floats()
        x, y = base.x.clone() if base.x is self.x else base.x, self.y.clone()
        x[rows], y[rows] = fitting.x, fitting.y
        return replace(base, x=x, y=y)

    def as_floats(self) -> Split:
        """The examples as float32 in their own unit: pixels in [0, 1]. Itself if they are."""
        if self.x.dtype == torch.float32:
            return self
        return self.with_x(_divided(self.x, self.divisor))

    def stored_like(self, other: Split) -> Split:
        """In the stored form of `other`, if that can hold every value to the bit; else itself."""
        if self.x.dtype == other.x.dtype:
            return self
        levels = (self.x * other.divisor).round()
        if self.x.dtype != torch.float32 or not bool(((levels >= 0) & (levels <= 255)).all()):
            return self
        stored = replace(self, x=levels.to(torch.uint8), divisor=other.divisor)
        return stored if torch.equal(stored.as_floats().x, self.x) else self

    def to(self, device: torch.device) -> Split:
        """On another device; itself if it is there."""
        return self._each(lambda tensor: tensor.to(device))

    def shared(self) -> Split:
        """In memory that other processes can see.

        Examples are moved, so that they are there once: whoever else holds the tensor sees the
        shared memory too. Moving frees the memory they lay in, under any NumPy view of it, so
        nobody may keep one; labels, which people do view, are copied instead. What fedexp mapped
        from a file stays there, and every process maps it; any other mapping is read, for torch
        cannot hand one to another process.
        """
        rest = replace(self, x=self.y)._each(lambda tensor: tensor.clone().share_memory_())
        if file_of(self.x) is not None:
            return replace(rest, x=self.x)
        x = self.x.clone() if is_mapped(self.x) else self.x
        return replace(rest, x=x.share_memory_())

    def tensors(self) -> tuple[Tensor, ...]:
        """All that it is made of."""
        return tuple(t for t in (self.x, self.y, self.site, self.subject) if t is not None)

    def __getstate__(self) -> dict[str, Any]:
        # What is mapped from a file travels as its name.
        return {**self.__dict__, "x": Reference.to(self.x) or self.x}

    def __setstate__(self, state: dict[str, Any]) -> None:
        x = state["x"]
        self.__dict__.update(state, x=x.mapped() if isinstance(x, Reference) else x)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Split:
        """Every tensor changed alike."""
        return replace(
            self,
            x=change(self.x),
            y=change(self.y),
            site=None if self.site is None else change(self.site),
            subject=None if self.subject is None else change(self.subject),
        )


def is_mapped(tensor: Tensor) -> bool:
    """Whether torch mapped it from a file: it calls itself shared then, and cannot be sent."""
    storage = tensor.untyped_storage()
    # Not by its file name: a private mapping (`shared=False`) has none.
    return bool(storage.is_shared()) and int(storage._share_fd_cpu_()[0]) < 0


def _joined(mine: Tensor | None, its: Tensor | None, n: int, m: int) -> Tensor | None:
    if mine is None and its is None:
        return None
    parts = ((mine, n), (its, m))
    return torch.cat([torch.full((k,), -1) if t is None else t for t, k in parts])


def _divided(x: Tensor, divisor: float, out: Tensor | None = None) -> Tensor:
    """Bytes over `divisor` as float32, correctly rounded."""
    # By a tensor: on a GPU, torch multiplies by the reciprocal of a number, and loses a bit.
    return torch.div(x, torch.full((), divisor, dtype=torch.float32, device=x.device), out=out)


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts of one collection.

    `train` is given to the clients, `validation` is what choices may be made on, `test` is for
    reporting only.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    site_names: tuple[str, ...] = ()  # of the numbers in `Split.site`; empty: they have none
    remarks: tuple[str, ...] = ()  # what a person should know: what was left out, and why

    @property
    def parts(self) -> Mapping[str, Split]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def num_classes(self) -> int:
        """How many classes (or labels) there are, also when a part lacks some of them."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of an image, or (features,) of a row."""
        return tuple(self.train.x.shape[1:])

    @property
    def has_sites(self) -> bool:
        """Whether it is known where the training examples were taken."""
        return self.train.has_sites

    @property
    def has_subjects(self) -> bool:
        """Whether it is known of whom they are."""
        return self.train.has_subjects

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that the parts hold, and of the names of classes and sites."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        if self.site_names:
            digest.update(json.dumps(self.site_names).encode())
        for part in self.parts.values():
            for tensor in part.tensors():
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)} {part.divisor:g}".encode())
                for block in tensor.split(_HASHED_AT_ONCE):  # of a mapped file, never all at once
                    digest.update(block.contiguous().numpy())
                    let_go(block)
        return digest.hexdigest()

    def as_floats(self) -> Dataset:
        """Every part as float32 in its own unit: pixels in [0, 1]."""
        return self._each(Split.as_floats)

    def scaled(self, scale: Callable[[Split], Split]) -> Dataset:
        """Every part shifted and scaled alike, see `Normalisation`."""
        return self._each(scale)

    def _each(self, change: Callable[[Split], Split]) -> Dataset:
        return replace(
            self,
            train=change(self.train),
            validation=change(self.validation),
            test=change(self.test),
        )


@dataclass(frozen=True)
class Normalisation:
    """From examples in their own unit to what a model takes: mean 0, deviation 1.

    Per channel of an image, per feature of a row.
    """

    mean: Tensor  # [1, channels, 1, 1] or [1, features] float32
    deviation: Tensor  # the same shape

    @classmethod
    def of(cls, reference: Split) -> Normalisation:
        """With the reference's own means and deviations, exact to a rounding to float32."""
        x = reference.x
        mean, deviation = moments(x, reference.divisor)
        # A channel that never changes has deviation 0: only shift it rather than divide by that.
        deviation = torch.where(deviation > 0, deviation, 1.0)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return cls(mean.float().view(shape), deviation.float().view(shape))

    @classmethod
    def none(cls) -> Normalisation:
        """That of examples that are shifted and scaled already."""
        return cls(torch.zeros(()), torch.ones(()))

    def x(self, values: Tensor) -> Tensor:
        """Examples `[n, *shape]` of any floating type, in their own unit, shifted and scaled.

        Raises:
            TypeError: they are bytes, whose divisor is not known here.
        """
        if not values.is_floating_point():
            raise TypeError("stored bytes have no unit of their own: take Split.as_floats() first")
        return (values - self.mean.to(values.dtype)) / self.deviation.to(values.dtype)

    def arranged(self, part: Split, layout: torch.memory_format) -> Tensor:
        """The part's examples shifted and scaled, as float32 in a memory layout of their own."""
        x = torch.empty(part.x.shape, device=part.x.device, memory_format=layout)
        if part.x.dtype == torch.float32:
            x.copy_(part.x)
        else:
            _divided(part.x, part.divisor, out=x)
        # The same operations on every number as in `x`, without a copy for each.
        return x.sub_(self.mean).div_(self.deviation)

    def to(self, device: torch.device) -> Normalisation:
        """On another device."""
        return Normalisation(self.mean.to(device), self.deviation.to(device))

    def __call__(self, part: Split) -> Split:
        """A part with its examples shifted and scaled."""
        return part.with_x(self.x(part.as_floats().x))


class CountsLabels(Protocol):
    """What of a task a partition needs to be described."""

    def label_counts(self, y: Tensor, num_classes: int) -> np.ndarray:
        """How many examples have each label: `[num_classes]` int64."""


@dataclass(frozen=True)
class OwnPart:
    """Each client's own patients of a part that is not trained on."""

    part: Split  # as the clients see it: their own scanner is in the pixels
    rows: tuple[np.ndarray, ...]  # [n_clients] int64 rows of `part`, sorted; a client may have none


Own = Callable[[Split, str], OwnPart]
"""From a part and its name (validation, test) to each client's own patients of it."""


@dataclass(frozen=True)
class Partition:
    """Who holds what: `shards[k]` are client k's rows of `train`, sorted int64 indices.

    They are a tuple, or of very many clients a sequence that computes them
    (`fedexp.core.shards.Computed`), which is not listed anywhere. The shards are disjoint and none
    is empty. `train` is the training part as the clients see it;
    most partitions hand it on unchanged, `feature` returns one in which every client's rows went
    through that client's scanner.
    """

    train: Split
    shards: Sequence[np.ndarray]
    changed: bool = False  # whether the clients see other examples than there were to assign
    names: tuple[str, ...] = ()  # of the clients; empty: they are numbered
    own: Own | None = None  # None: nobody's own, and drawn in a client's class mix for it

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of who holds which rows (see `fedexp.core.shards.partition_hash`)."""
        return partition_hash(self.shards)

    def label_counts(self, num_classes: int, task: CountsLabels) -> np.ndarray:
        """How many examples of each class each client holds: `[n_clients, num_classes]` int64.

        `[0, num_classes]` where clients are too many to be listed.
        """
        if not are_listed(self.shards):
            return np.empty((0, num_classes), dtype=np.int64)
        labels = (self.train.y[torch.from_numpy(shard)] for shard in self.shards)
        return np.stack([task.label_counts(y, num_classes) for y in labels])


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
    metrics: tuple[Mapping[str, float], ...] = ()
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


def _read(reported: Sequence[Mapping[str, float | Tensor]]) -> tuple[Mapping[str, float], ...]:
    """What clients reported as numbers: those on a device are all read at once."""
    there = [v for metrics in reported for v in metrics.values() if isinstance(v, Tensor)]
    values = iter(torch.stack(there).tolist() if there else ())
    return tuple(
        {name: next(values) if isinstance(v, Tensor) else v for name, v in metrics.items()}
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
    attack: State = field(default_factory=dict)  # what the adversary has learned so far
    clients: Mapping[int, Kept] = field(default_factory=dict)  # of those who ever took part
    failed_rounds: int = 0  # the latest rounds in a row that moved nothing

    def to(self, device: torch.device) -> ServerState:
        """With what goes into the next step on a device.

        Detectors look at short forms of the rows, which lie on the CPU, and what is counted does.
        """
        named = ("optimizer", "aggregator", "algorithm", "privacy", "attack")
        moved: dict[str, Any] = {
            part: {name: tensor.to(device) for name, tensor in getattr(self, part).items()}
            for part in named
        }
        return replace(self, params=self.params.to(device), **moved)


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
    members: tuple[tuple[int, ...], ...] = ()  # [n] the clients that are in each of them
