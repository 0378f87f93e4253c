"""The interfaces of the parts. Structural: a class fits by its shape, nothing is inherited.

"Nothing" is a class (`NoAttack`), never a branch in the round loop, and a part knows the other
parts only through this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor, nn

from fedexp.core.examples import Dataset, Split
from fedexp.core.metric import Metric
from fedexp.core.partition import Partition
from fedexp.core.round_record import Kept
from fedexp.core.types import (
    Adjust,
    ClientReport,
    ClientTask,
    Delivery,
    Rule,
    Sent,
    State,
    Updates,
    Verdict,
)


class Partitioner(Protocol):
    """Assigns the training part to the clients: disjoint shards, none empty.

    What it returns is checked (`fedexp.partition.check`): repeated or missing rows are refused,
    and rows in another order are sorted.
    """

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients`; raises InputError if it cannot be done as asked."""


@runtime_checkable
class OfDataset(Protocol):
    """A partitioner that goes by more of a dataset than its training part, as by sites' names."""

    def of(self, dataset: Dataset) -> Partitioner:
        """The partitioner for this dataset's training part; raises InputError if there is none."""


@runtime_checkable
class CountsClients(Protocol):
    """A partitioner whose number of clients follows from its own arguments, or from the data.

    Its YAML has the key `n_clients: null`, which is not the part's own; what is found stands there
    in the resolved config, and is the root's `n_clients` unless somebody says another.
    """

    def clients(self, n_sites: Callable[[], int]) -> int:
        """How many clients it makes; `n_sites` looks at the data, and gives 0 for no sites."""


class Sampler(Protocol):
    """Chooses who takes part in a round."""

    def __call__(self, n_clients: int, rng: np.random.Generator) -> np.ndarray:
        """Client numbers, sorted, without repeats; may be empty (a Poisson round)."""


class Task(Protocol):
    """What labels mean: the only place that knows loss, prediction and metrics.

    Module-level and picklable: it is sent to the workers. Labels `y` are as in `Split`.
    """

    one_class: ClassVar[bool]  # whether every example has exactly one class
    metrics: ClassVar[tuple[str, ...]]  # what `measure` measures; the objective is one of them
    ignored: ClassVar[int | None]  # the label of an example that has no loss; None: there is none

    def check(self, y: Tensor, num_classes: int) -> None:
        """Raise InputError for labels that are not this task's; it names the way out."""

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of every example `[n]`, from logits `[n, num_classes]`."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Their mean `[]`."""

    def predict(self, logits: Tensor) -> Tensor:
        """The answers, of the shape that labels have."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of every class or label, `[n, num_classes]`."""

    def measure(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """All `metrics` of one model on one part."""

    def majority_baseline(self, y: Tensor, train_y: Tensor) -> float:
        """Accuracy of always giving the answer that is most frequent in training."""

    def label_counts(self, y: Tensor, num_classes: int) -> np.ndarray:
        """How many examples there are of every class (or with every label): `[num_classes]`."""

    def confusion(self, predicted: Tensor, y: Tensor, num_classes: int) -> np.ndarray | None:
        """Truth by answer `[num_classes, num_classes]`; None where there is no such table."""

    def own_mix_accuracy(self, predicted: Tensor, y: Tensor, mixes: np.ndarray) -> Sequence[float]:
        """The accuracy that is to be expected on examples that come in other mixes of classes.

        One value a row of `mixes` `[k, num_classes]`, shares of the classes: the mean of what is
        to be expected of each class by itself, weighed by them, over the classes that `y` has; NaN
        for a mix without any. An estimate from what was answered on `y`; empty where examples do
        not come in classes.
        """


class Model(Protocol):
    """A module whose parameters are views of one private flat vector (`fedexp.core.flat`)."""

    module: nn.Module
    vector: Tensor  # [d]
    parameters: list[nn.Parameter]
    task: Task

    def arrange(self, part: Split) -> Tensor:
        """Stored examples as the module takes them: float32, shifted, scaled, laid out."""

    def for_inputs(self) -> Self:
        """The same model for examples that are shifted and scaled already."""

    def apart(self) -> Self:
        """The same tensors in a module of its own: whoever watches it sees no pass of this one."""

    def is_in_place(self) -> bool:
        """Whether its numbers still lie where they did, so that `vector` is the model."""


class Trainer(Protocol):
    """One client's local training. Module-level and picklable: it is sent to the workers."""

    def __call__(self, model: Model, shard: Split, task: ClientTask) -> ClientReport:
        """Train `model`, which holds the client's start, on `shard`; the delta is read from it."""

    def spread(self, n_clients: int, cohort_size: float) -> Trainer:
        """The trainer that does, in one client with all the data, what a cohort does in a round."""


class Backend(Protocol):
    """Where clients are trained and models evaluated.

    Same seed, same bits, whatever the backend and its number of workers; on one kind of processor
    and with the same versions, for kernels that another processor has round differently.

    Both methods answer in the order of their arguments, whatever order the workers finish in.
    """

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """Run every task; rows and `kept` of the answer lie in buffers that the next call reuses.

        A row is as long as `trainer` declares (`Sends`).
        """

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """Logits `[len(split), num_classes]` of each model `[d]` on a part of the workload."""

    def close(self) -> None:
        """Give back processes and shared memory. Calling it twice is harmless."""


@runtime_checkable
class Sends(Protocol):
    """A trainer or algorithm that sends more than the delta; without `sends`, only that leaves."""

    @property
    def sends(self) -> tuple[Sent, ...]:
        """All that leaves a client beside the delta, in the order of a row."""


LocalTraining = Callable[[Model, Split, ClientTask], ClientReport]
"""What a trainer does, for one call."""


@runtime_checkable
class Adjustable(Protocol):
    """A trainer that goes by gradient steps, which an algorithm may adjust."""

    def learning_rate(self, round: int) -> float | None:
        """Of a round (from 0), if every step is -learning rate times its gradients; else None."""

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples."""

    def adjusted(self, adjust: Adjust) -> LocalTraining:
        """The same training, on gradients that went through `adjust`."""


class Algorithm(Protocol):
    """What clients and server do around local training, aggregation and server optimiser."""

    @property
    def sends(self) -> tuple[Sent, ...]:
        """All that leaves a client beside the delta, in the order of a row `[D]`."""

    def init(self, d: int) -> State:
        """The server's state before the first round."""

    def client_init(self, d: int) -> State:
        """What a client keeps before it takes part for the first time."""

    def broadcast(self, state: State) -> State:
        """What every client is sent beside the model."""

    def local(self, trainer: Trainer) -> Trainer:
        """The clients' side, around `trainer`.

        Picklable, with the algorithm's `sends`. It finds what this client kept in its task, and
        reports what it sends and keeps.

        Raises:
            InputError: the algorithm does not go with this training.
        """

    def server_step(self, step: Tensor, state: State, share: float) -> tuple[Tensor, State]:
        """The server's side: the step `[d]` for the server optimiser, and the next state.

        Args:
            step: `[D]`, what the rule made of the rows, as released.
            state: of this round.
            share: of all clients, how many are in those rows; how many are expected there, where
                a mechanism hides how many they were.
        """


class WorkerMomentum(Protocol):
    """What clients send in place of the update that they have just trained."""

    def __call__(
        self, updates: Updates, kept: Sequence[State], d: int
    ) -> tuple[Updates, list[State]]:
        """Rows `[n, D]` with other deltas, and what each client keeps for the next time.

        Args:
            updates: what was trained; the delta is the first `d` numbers of a row.
            kept: by each of the clients; empty where it takes part for the first time.
            d: numbers in a model.
        """


class ClientStore(Protocol):
    """Where lies what clients keep: at a cost in memory that grows with the cohort alone."""

    def keep(
        self, round: int, before: Mapping[int, Kept], states: Mapping[int, State]
    ) -> Mapping[int, Kept]:
        """`before`, with the `states` of the clients that took part; tensors are copied.

        Args:
            round: rounds completed with this one.
            before: what clients had kept; of use as long as the server state that it is of.
            states: named tensors by client; clients without any are left out.
        """


class Attack(Protocol):
    """What malicious clients do: to their data before training, and to their rows after it."""

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """A malicious client's own data as it will train on it, pixels in [0, 1]."""

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates in which only the rows marked in `malicious` `[n]` bool differ.

        `rule` is what the server will do with the rows, for an adversary that knows it.
        """

    def targeted_examples(self, data: Split) -> Split:
        """Images (pixels in [0, 1]) with the answers that the adversary wants to them.

        Empty where it wants no answer in particular.
        """


class Privacy(Protocol):
    """What clients and server do to the rows and the step so that they tell little of anybody."""

    releases_every_round: ClassVar[bool]  # a step of noise alone where no row arrived

    def init(self, d: int) -> State:
        """The state before the first round."""

    def on_client(self, updates: Updates, state: State, rng: np.random.Generator) -> Updates:
        """The rows as honest clients send them."""

    def on_receipt(self, updates: Updates, state: State) -> Updates:
        """The rows as the server takes them, whoever sent them."""

    def on_step(
        self, step: Tensor, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]` as released, and the next state; `updates` are what it is made of."""


class Channel(Protocol):
    """What reaches the server of what the clients send."""

    sums: ClassVar[bool]  # whether the server sees sums over clients instead of their rows

    def rows(self, n: int) -> int:
        """How many rows arrive of `n` clients if nobody leaves."""

    def check(self, n: int, d: int) -> object:
        """Raise InputError unless `n` clients can send rows of `d` numbers."""

    def transmit(self, updates: Updates, rng: np.random.Generator) -> Delivery:
        """One round's transport."""


@runtime_checkable
class Merges(Protocol):
    """A channel that brings means of neighbouring clients: who trains them may make these."""

    size: int  # neighbours in a row

    def merged(self, updates: Updates) -> Updates:
        """The updates `[n, D]` with rows `[ceil(n / size), D]` (`Updates.in_a_row`)."""


@runtime_checkable
class TrainsMerged(Protocol):
    """A backend that never holds all rows of a cohort, where the channel merges them."""

    def train_merged(
        self, trainer: Trainer, tasks: Sequence[ClientTask], merger: Merges
    ) -> Updates:
        """As `merger.merged(train(trainer, tasks))`, bit for bit, in less memory."""


@runtime_checkable
class Remarks(Protocol):
    """A part whose promise has numbers that a person should know before the run."""

    def remarks(self, n: int) -> Sequence[str]:
        """Sentences about a run with cohorts of `n` clients."""


class Account(Protocol):
    """What the run has spent of the privacy of its examples or clients."""

    @property
    def max_epsilon(self) -> float | None:
        """No round may take epsilon above it; None for no limit."""

    def init(self) -> State:
        """The ledger before the first round."""

    def charge(self, state: State, sent: Updates, delivery: Delivery) -> State:
        """The ledger after a round."""

    def at_most(self, state: State, cohort: Sequence[int]) -> State:
        """The ledger after a round in which the whole cohort takes part."""

    def would_exceed(self, state: State, cohort: Sequence[int]) -> bool:
        """Whether a round with this cohort could take epsilon above `max_epsilon`."""

    def epsilon(self, state: State) -> float | None:
        """What is promised after the rounds charged, at most this; None: nothing is."""

    def statement(self, state: State) -> Mapping[str, object] | None:
        """The promise in full, with what it does not cover; None: there is none."""


class UpdateValidation(Protocol):
    """Finds rows that cannot be used, whatever the rule."""

    def __call__(self, updates: Updates, d: int) -> Sequence[str]:
        """For every row what is wrong with it, in words; "" for nothing."""


class Detector(Protocol):
    """Finds rows that no honest client would have sent."""

    def init(self, d: int) -> State:
        """The state before the first round."""

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """What it thinks of each row, and the next state."""


class PreAggregator(Protocol):
    """Mixes or bounds the rows before the rule sees them."""

    def __call__(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """New rows; raises InputError if a precondition fails."""


class Aggregator(Protocol):
    """A rule that makes one step of the clients' rows. Rules without state hand it back."""

    def init(self, d: int) -> State:
        """The state before the first round."""

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        """The step `[d]` and the next state; raises InputError if a precondition fails."""


@runtime_checkable
class ChecksData(Protocol):
    """A part that cannot be used on every kind of data, and says so before any training."""

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError for data that it cannot be used on; it names the way out."""


class ServerOptimizer(Protocol):
    """Applies the aggregated step as if it were a negative gradient."""

    def init(self, params: Tensor) -> State:
        """The state before the first round."""

    def __call__(self, params: Tensor, step: Tensor, state: State) -> tuple[Tensor, State]:
        """New parameters and the next state."""


class Evaluator(Protocol):
    """Measures the models of a round."""

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        """Rows for the round, and the shared model's predictions on test if there is one."""


class Setting(Protocol):
    """Who shares what: a federation, one place that holds all data, or everybody alone.

    A setting rearranges the other parts and then the same round loop runs, with the same total
    work.
    """

    communicates: ClassVar[bool]  # whether models and updates travel
    shares_one_model: ClassVar[bool]  # whether all clients end with the same one

    def shards(self, partition: Partition) -> Sequence[np.ndarray]:
        """The index lists that the clients of this setting train on."""

    def sampler(self, sampler: Sampler) -> Sampler:
        """Who takes part in a round."""

    def trainer(self, trainer: Trainer, n_clients: int, cohort_size: int) -> Trainer:
        """The local training that keeps the work of a round what it is in a federation."""

    def aggregator(self, aggregator: Aggregator, n_clients: int) -> Aggregator:
        """What becomes of the clients' rows."""

    def init(self, params: Tensor, n_clients: int) -> Tensor:
        """The parameters before the first round, from one model `[d]`."""

    def start(self, params: Tensor, client_id: int) -> Tensor:
        """The model `[d]` that a client starts a round from."""

    def models(self, params: Tensor) -> Sequence[Tensor]:
        """Every model `[d]` that there is to evaluate."""
