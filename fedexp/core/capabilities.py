"""What a part may say about itself, and what is taken for true where it says nothing.

A promise is made by the part that keeps it. Each protocol here is one thing that a part may declare
by having an attribute or a method of that name; who does not declare it makes no promise, and what
needs the promise is refused. Nothing is decided by a class or by its name.

    part              declares                     absent means
    aggregator        sensitivity(clip_norm, n)    no bound on one client: no noise can be central
                      needs_only_the_sum           needs rows: not behind one secure sum
                      weighting                    weighs clients alike
                      root_examples                needs no data of the server's own
                      of_head(columns)             the model's last layer is as any other
    sampler           sampling, rate(n_clients)    nothing is amplified by sampling
                      widened(n, n_all)            no canary clients can be added
                      sampler, around(sampler)     it draws by itself, and may draw anybody
    setting           communicates                 nothing is shared, so nothing can be attacked
                      shares_one_model             there is no shared model
    server optimiser  is_linear                    it is not
    algorithm         trains_once                  clients may look at their examples in any way
    attack            sees_other_clients           it reads every honest row of the round
                      of_client(number)            all malicious clients do the same to their data
                      rewrite_remembering(...)     it starts every round anew
                      knows_validation, _detector  no harm is measured, no detector foreseen
                      targets_by_example           what it wants may depend on all of a part
    mechanism         noised_before_seen           whoever reads rows reads them without their noise
                      noise_seed                   a round made again has the same noise again
                      expected_cohort (at work)    how many clients there were may be told
                      perturbed(part, rng)         clients train on their examples as they are
    detector, ...     does_nothing                 it does something
    worker momentum   spares_malicious             malicious clients average before they attack
    detector          starts_alike(rounds)         all its settings count from the first round
                      follows_clients              it need not know who sent a row
                      check_cohort(n)              any number of rows will do
    mechanism, ...    check_model(model, ...)      any model will do
    channel           refuse, protect (Mechanism)  it adds no noise of its own
                      as_received(updates, rng)    the server sees the rows themselves
                      hides_rows                   whoever carries a row can read it
                      a_client_a_row               a row may depend on several clients
                      merged(updates) (Merges)     its rows are made of all rows, on arrival
                      carried(...) (Remembers)     clients keep nothing of what they sent
                      as_read(row)                 a row says all that its message did
    backend           train_merged (TrainsMerged)  it holds the rows of the whole cohort
    task              of_client(y)                 a client's labels change nothing but its examples
                      counted                      that goes by more than class_weights=balanced
                      slope(logits, y)             the slope of its loss is autograd's to find
    backend           own_bits                     its bits are those of every other backend
    account, ledger   profile(state, deltas, ...)  epsilon is known for its one delta alone
    observer          ends_no_run                  what it answers may end the run
    tracker           sends_to                     what it does beyond the run folder is its code's
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Literal, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.protocols import Aggregator, Attack, Model, Sampler, Task
from fedexp.core.text import called
from fedexp.core.types import Delivery, Rule, State, Updates

SamplingKind = Literal["poisson", "fixed_size"]


@runtime_checkable
class BoundsOneClient(Protocol):
    """A rule that knows how far one client can move what it makes of the rows."""

    def sensitivity(self, clip_norm: float, n: int) -> float | None:
        """How far n times the step can move, in L2 norm, when one client joins or leaves.

        Args:
            clip_norm: no row is longer.
            n: clients whose rows are aggregated, all of equal weight.

        Returns:
            The bound, for the mean `clip_norm`; None where there is none.
        """


@runtime_checkable
class StatesWhatItNeeds(Protocol):
    """A rule that says whether the sum of the rows is all that it looks at."""

    needs_only_the_sum: bool


@runtime_checkable
class Weighs(Protocol):
    """A rule that says how clients weigh: by their "examples", or "uniform"."""

    weighting: str


@runtime_checkable
class NeedsRootData(Protocol):
    """A rule that compares the clients with a row that the server trains itself."""

    root_examples: int  # clean examples that the server holds, taken from the clients'


@runtime_checkable
class LooksAtTheHead(Protocol):
    """A rule that may go by the model's last layer alone."""

    def of_head(self, columns: slice) -> Aggregator:
        """The rule for a model whose last layer lies in these columns of a row; or itself."""


@runtime_checkable
class StatesItsSampling(Protocol):
    """A sampler whose draws an accountant may count on."""

    sampling: SamplingKind

    def rate(self, n_clients: int) -> float:
        """The probability with which each client is in a cohort."""


@runtime_checkable
class DrawsByAnother(Protocol):
    """A sampler that changes what another one draws."""

    @property
    def sampler(self) -> Sampler:
        """The other one."""

    def around(self, sampler: Sampler) -> Sampler:
        """The same change of what this one draws."""


@runtime_checkable
class StatesWhatArrives(Protocol):
    """A channel after which the server has other rows than the clients sent."""

    def as_received(self, updates: Updates, rng: np.random.Generator) -> Updates:
        """What `transmit` with this stream brings if nobody leaves, without rounding or noise."""


@runtime_checkable
class Remembers(Protocol):
    """A channel whose clients keep something of what they sent, for the next time."""

    def carried(
        self, updates: Updates, kept: Sequence[State], rng: np.random.Generator
    ) -> tuple[Delivery, list[State]]:
        """As `Channel.transmit`, and what each client keeps.

        Args:
            updates: to be sent.
            kept: by each of the clients; empty where it sends for the first time.
            rng: of the round.
        """


@runtime_checkable
class SendsLess(Protocol):
    """A channel whose rows are decoded from messages that say less, or say it otherwise."""

    def as_read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """What somebody who knows the channel reads from a row `[D]` that it delivered.

        Returns:
            The numbers as they were sent `[D]`, and which of them were sent `[D]` bool.
        """


@runtime_checkable
class GoesByAClientsLabels(Protocol):
    """A task that may depend on which labels a client has, as balanced class weights do."""

    def of_client(self, y: Tensor) -> Task:
        """The task as a client with the labels `y` trains on it; itself where that is the same."""


@runtime_checkable
class StatesItsProfile(Protocol):
    """An account, or a ledger, that knows what it has spent for any delta, and by other noise."""

    def profile(
        self, state: State, deltas: Sequence[float], noise_scale: float
    ) -> tuple[float, ...] | None:
        """Epsilon for each of the deltas, had the noise been so many times what it was; or None."""


@runtime_checkable
class StartsAlike(Protocol):
    """A detector that knows which of its settings count before it has an opinion."""

    def starts_alike(self, rounds: int) -> Mapping[str, object] | None:
        """What decides its state after the first `rounds` rounds, in which it has said nothing.

        Two detectors that give the same here have the same state then. None: all its settings.
        """


@runtime_checkable
class KnowsItsSlope(Protocol):
    """A task that knows the derivative of its mean loss, so that nobody need differentiate it."""

    def slope(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`loss(logits, y)` and its derivative by the logits, of which no graph is kept."""


@runtime_checkable
class DividesTheWork(Protocol):
    """An attack in which every malicious client has a part of its own."""

    def of_client(self, number: int) -> Attack:
        """As the malicious client with that number among them, from 0, carries it out."""


@runtime_checkable
class RemembersRounds(Protocol):
    """An attack that learns from the rounds that it has seen."""

    def rewrite_remembering(
        self,
        updates: Updates,
        malicious: Tensor,
        rule: Rule,
        rng: np.random.Generator,
        memory: State,
    ) -> tuple[Updates, State]:
        """As `Attack.rewrite`, with what it remembers (nothing, at first) and then does."""


@runtime_checkable
class TriesTheServer(Protocol):
    """An attack that measures on the validation part what rows would do (`Rule.outcome`)."""

    knows_validation: bool  # whether it foresees which of its rows are not taken
    knows_detector: bool  # whether it foresees the detector's verdict


def targets_by_example(attack: Attack) -> bool:
    """Whether an example alone says if its answer is wanted: a part can be asked in pieces."""
    return getattr(attack, "targets_by_example", False) is True


@runtime_checkable
class PerturbsExamples(Protocol):
    """A mechanism whose clients change their examples, once and for all, before they train."""

    def perturbed(self, part: Split, rng: np.random.Generator) -> Split:
        """One client's own examples as it trains on them, in their order; labels stay.

        Args:
            part: in their own unit: pixels in [0, 1].
            rng: of this client, the same in every round.
        """


@runtime_checkable
class ChecksTheCohort(Protocol):
    """A detector that cannot judge a round of any number of rows."""

    def check_cohort(self, n: int) -> None:
        """Raise InputError where n rows are too few."""


@runtime_checkable
class ChecksBatches(Protocol):
    """Training that does not do for every model, which only batches as large as a run's show."""

    def check_batches(self, model: Model, train: Split, sizes: Sequence[int]) -> None:
        """Raise InputError for a model or a task that it would not do for.

        Args:
            model: its mode, what its layers draw and its buffers are put back by the caller.
            train: the training part, on the model's device or not.
            sizes: how many examples each client has.
        """


@runtime_checkable
class ChecksTheModel(Protocol):
    """A mechanism that cannot train every model, or a part that cannot look into every one."""

    def check_model(self, model: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
        """Raise InputError for a model that it would not do for; names what is in the way.

        Args:
            model: left as it is.
            task: what labels mean.
            x: three examples `[3, *shape]` as the model takes them, to try it on.
            y: their labels.
        """


@final
@dataclass(frozen=True)
class Sampling:
    """What a sampler says about its draws."""

    kind: SamplingKind
    rate: float  # of each client, in a round


def sensitivity_of(rule: object, clip_norm: float, n: int) -> float | None:
    """See `BoundsOneClient`; None where the rule declares no bound.

    Raises:
        InputError: what it declares is no length: noise for it would be none, or not a number.
    """
    bound = rule.sensitivity(clip_norm, n) if isinstance(rule, BoundsOneClient) else None
    if bound is None or (isinstance(bound, Real) and 0 < bound < math.inf):
        return None if bound is None else float(bound)
    raise InputError(
        f"must say how far one client moves it as a finite number above 0 (sensitivity), and says "
        f"{bound!r}",
        "aggregator",
        called(rule),
    )


def needs_only_the_sum(rule: object) -> bool:
    """Whether the rule declares that it looks at nothing but the sum of the rows."""
    return isinstance(rule, StatesWhatItNeeds) and rule.needs_only_the_sum is True


def weighs_by_examples(rule: object) -> bool:
    """Whether a client's weight has an effect on the rule."""
    return isinstance(rule, Weighs) and rule.weighting == "examples"


def root_examples(rule: object) -> int:
    """How many clean examples the server has to hold for the rule."""
    return rule.root_examples if isinstance(rule, NeedsRootData) else 0


def of_head(rule: Aggregator, columns: slice) -> Aggregator:
    """The rule for a model whose last layer lies in these columns of a row."""
    return rule.of_head(columns) if isinstance(rule, LooksAtTheHead) else rule


def profile_of(
    part: object, state: State, deltas: Sequence[float], noise_scale: float
) -> tuple[float, ...] | None:
    """The epsilons of an account or a ledger for several deltas; None: it does not know them."""
    return part.profile(state, deltas, noise_scale) if isinstance(part, StatesItsProfile) else None


def sampling_of(sampler: object, n_clients: int) -> Sampling | None:
    """What may be counted on; None for nothing.

    Raises:
        InputError: what it says of its rate is no probability.
    """
    if not isinstance(sampler, StatesItsSampling):
        return None
    rate = sampler.rate(n_clients) if callable(sampler.rate) else sampler.rate
    if not callable(sampler.rate) or not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise InputError(
            "must say by a method rate(n_clients) with which probability it draws a client, above "
            f"0, and says {rate!r}",
            "sampler",
            called(sampler),
        )
    return Sampling(sampler.sampling, float(rate))


def as_received(
    channel: object, updates: Updates, kept: Sequence[State], rng: np.random.Generator
) -> Updates:
    """The rows `[rows, D]` that the server would see; `kept` as in `Remembers`."""
    if isinstance(channel, Remembers):
        return channel.carried(updates, kept, rng)[0].updates
    return channel.as_received(updates, rng) if isinstance(channel, StatesWhatArrives) else updates


def rewritten_by(
    attack: Attack,
    updates: Updates,
    malicious: Tensor,
    rule: Rule,
    rng: np.random.Generator,
    memory: State,
) -> tuple[Updates, State]:
    """What an attack makes of a round's rows, and what it remembers then: mostly nothing."""
    if isinstance(attack, RemembersRounds):
        return attack.rewrite_remembering(updates, malicious, rule, rng, memory)
    return attack.rewrite(updates, malicious, rule, rng), memory


def attack_of_client(attack: Attack, number: int) -> Attack:
    """The attack as the malicious client with that number among them carries it out."""
    return attack.of_client(number) if isinstance(attack, DividesTheWork) else attack


def as_read(channel: object, row: Tensor) -> tuple[Tensor, Tensor]:
    """See `SendsLess`; all of the row, as it is, where the channel declares nothing."""
    if isinstance(channel, SendsLess):
        return channel.as_read(row)
    return row, torch.ones_like(row, dtype=torch.bool)


def task_of_client(task: Task, y: Tensor) -> Task:
    """The task as a client with the labels `y` trains on it; for most the same."""
    return task.of_client(y) if isinstance(task, GoesByAClientsLabels) else task


def goes_by_labels(task: Task, y: Tensor) -> bool:
    """Whether an example's loss depends on which labels the others of its client have."""
    return task_of_client(task, y) is not task


def weighs_by_counts(task: Task) -> bool:
    """Whether what goes by a client's labels are the weights that its classes have."""
    return getattr(task, "counted", False) is True


def slope_of(task: Task) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """From logits `[n, num_classes]` and labels to the mean loss `[]` and its slope at the logits.

    To be asked once for many batches. The loss comes without a graph.
    """
    return task.slope if isinstance(task, KnowsItsSlope) else partial(slope_by_autograd, task)


def slope_by_autograd(task: Task, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What `slope_of` answers for a task that does not know."""
    leaf = logits.detach().requires_grad_()
    loss = task.loss(leaf, y)
    (slope,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slope


def does_nothing(part: object) -> bool:
    """Whether a part declares that it is the "none" of its group."""
    return getattr(part, "does_nothing", False) is True


def ends_no_run(observer: object) -> bool:
    """Whether a run never ends by what an observer answers: it does nothing, or only looks on."""
    return does_nothing(observer) or getattr(observer, "ends_no_run", False) is True


def spares_malicious(momentum: object) -> bool:
    """Whether malicious clients attack with what they have just trained, without momentum."""
    return getattr(momentum, "spares_malicious", False) is True


def draws_anew(mechanism: object) -> bool:
    """Whether a round that is made a second time has other noise than it had the first time."""
    return getattr(mechanism, "noise_seed", "task") != "task"


def counted_clients(privacy: object, there: int) -> int:
    """Of how many clients a step is told to be: not of those there were, where noise hides that."""
    return int(getattr(privacy, "expected_cohort", there))


def trains_once(algorithm: object) -> bool:
    """Whether clients look at their examples by one call of the trainer they are given, alone."""
    return getattr(algorithm, "trains_once", False) is True


def starts_alike(detector: object, rounds: int) -> Mapping[str, object] | None:
    """See `StartsAlike`; None where the detector declares nothing."""
    return detector.starts_alike(rounds) if isinstance(detector, StartsAlike) else None


def sees_other_clients(attack: object) -> bool:
    """Whether what malicious clients send depends on more than these clients' own data and rows.

    On the rows of others, or on how many others there are. `fedexp.federation.own_rows` holds
    an attack to its word.
    """
    return getattr(attack, "sees_other_clients", True) is not False


def follows_clients(detector: object) -> bool:
    """Whether a detector judges a client by what it sent in other rounds."""
    return getattr(detector, "follows_clients", False) is True


def noised_before_seen(mechanism: object) -> bool:
    """Whether all the noise of an account is in a client's row before anybody else reads it."""
    return getattr(mechanism, "noised_before_seen", False) is True


def hides_rows(channel: object) -> bool:
    """Whether the server cannot read one client's row, however much it would like to."""
    return getattr(channel, "hides_rows", False) is True


def a_client_a_row(channel: object) -> bool:
    """Whether every row that arrives is made of what one client sent, now and before, alone.

    And of the round's stream. A server that clips every row counts on it: what one client moves is
    then one row.
    """
    return getattr(channel, "a_client_a_row", False) is True


def communicates(setting: object) -> bool:
    """Whether models and updates travel."""
    return getattr(setting, "communicates", False) is True


def shares_one_model(setting: object) -> bool:
    """Whether all clients end with the same model."""
    return getattr(setting, "shares_one_model", False) is True


def is_linear(optimizer: object) -> bool:
    """Whether a server optimiser adds a multiple of each step, and keeps nothing."""
    return getattr(optimizer, "is_linear", False) is True


def has_own_bits(backend: object) -> bool:
    """Whether a backend's figures differ from other backends' in the last digits."""
    return getattr(backend, "own_bits", False) is True
