"""What the server sees of chosen examples: the run's own client, privacy and channel, on them.

A run's updates are made of hundreds of examples each. To ask what an update tells of its examples
they are put into clients that hold a batch each, which start from the run's model of some round,
train as the run trains, protect their rows as it does and send them through its channel. So the
same examples can be shown to the same attack by a centralised run (a leaked step), a federated one,
one with DP-SGD and one behind secure aggregation, and nothing but the run differs.

Behind secure aggregation the server gets the mean over `clients` of them, which for one step is the
gradient of all their examples as one batch; the adversary knows that and looks for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.backends.in_process import InProcess
from fedexp.core.capabilities import as_read, does_nothing, goes_by_labels, weighs_by_counts
from fedexp.core.checks import InputError, at_least, non_negative, positive
from fedexp.core.examples import Split
from fedexp.core.flat import layers_with_running_statistics
from fedexp.core.perturbation import examples_trained_on
from fedexp.core.protocols import Trainer
from fedexp.core.rng import generator, seed_for
from fedexp.core.text import called
from fedexp.core.types import ClientTask
from fedexp.core.workload import Workload
from fedexp.leakage.observation import Knowledge, Observation
from fedexp.leakage.victim import Victim
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.private_steps import PrivateSteps
from fedexp.training.steps import NoisySteps, PlainSteps


@dataclass(frozen=True)
class Exposed:
    """An observation, and the examples behind it, which are not the adversary's to see."""

    observation: Observation
    truth: Split  # pixels in [0, 1]
    round: int


class Exposing(Protocol):
    """Where the updates that are attacked come from."""

    about: ClassVar[str]  # a sentence for the reader on what these updates are

    def __call__(self, victim: Victim) -> list[Exposed]:
        """The observations, in the order of their rounds; InputError where there can be none."""


@final
@dataclass(frozen=True)
class Exposure:
    """Which examples are exposed, and how.

    Args:
        rounds: models that the clients start from: "initial", "last", or numbers of rounds whose
            checkpoint is there.
        examples: training examples exposed at each of them, at least.
        batch_size: examples of one client.
        local_steps: steps that it takes.
        clients: in one sum, behind secure aggregation; None: as many as take part in a round.
        labels_shared: whether the adversary is told the labels.
        clip_norm: DP-SGD's, for a run without; None: as in the run.
        noise_multiplier: DP-SGD's, in place of the run's own; None: as in the run.
        minibatch: examples of a step, drawn anew in every epoch; None: all that the client has.
    """

    about: ClassVar[str] = (
        "The clients hold nothing but these examples: a worst case, not the run's own updates."
    )

    rounds: Sequence[str | int]
    examples: int
    batch_size: int
    local_steps: int
    clients: int | None
    labels_shared: bool
    clip_norm: float | None
    noise_multiplier: float | None
    minibatch: int | None = None  # as in studies of the time before there was such a key

    def __post_init__(self) -> None:
        at_least(
            1, examples=self.examples, batch_size=self.batch_size, local_steps=self.local_steps
        )
        if self.minibatch is not None:
            self._check_epochs(self.minibatch)
        if not self.rounds:
            raise InputError("names no round", "rounds", list(self.rounds))
        if self.clients is not None:
            at_least(1, clients=self.clients)
        if self.clip_norm is not None:
            positive(clip_norm=self.clip_norm)
        if self.noise_multiplier is not None:
            non_negative(noise_multiplier=self.noise_multiplier)

    def _check_epochs(self, minibatch: int) -> None:
        """Raise InputError unless the steps see every example equally often."""
        if not 1 <= minibatch < self.batch_size:
            raise InputError(
                f"must be from 1 to below the client's {self.batch_size} examples (batch_size); "
                "null takes all of them",
                "minibatch",
                minibatch,
            )
        of_an_epoch = -(-self.batch_size // minibatch)
        if self.local_steps % of_an_epoch:
            raise InputError(
                f"an epoch of {self.batch_size} examples in minibatches of {minibatch} has "
                f"{of_an_epoch} steps, and only whole ones can be told apart",
                "local_steps",
                self.local_steps,
            )

    def __call__(self, victim: Victim) -> list[Exposed]:
        """Every observation; the same examples for every round, and for every run on these data.

        Raises:
            InputError: this run's updates cannot be read as steps of SGD, or a round is not there.
        """
        exp, sums = victim.experiment, victim.experiment.channel.sums
        refuse_running_statistics(victim.model)
        refuse_corrected_steps(victim)
        clients = 1
        if self.minibatch is not None:
            self._refuse_other_draws(exp.trainer, sums)
        if sums:
            clients = self.clients or min(exp.n_clients, int(victim.config["cohort_size"]))
        elif self.clients not in (None, 1):
            raise InputError(
                "the channel shows every update by itself; clients in one sum need "
                "channel=secure_aggregation",
                "clients",
                self.clients,
            )
        chosen = self._chosen(victim, clients)
        trainer = self._trainer(exp.trainer)
        exposed = [
            exposed
            for round in map(victim.round, self.rounds)
            for exposed in self._at(round, victim, chosen, trainer, clients)
        ]
        if not exposed:
            raise InputError(
                "lost every sum to clients that left, and there is nothing to attack; expose more "
                "examples",
                "examples",
                self.examples,
            )
        return exposed

    def _refuse_other_draws(self, trainer: Trainer, sums: bool) -> None:
        """Raise InputError where minibatches are not what the adversary takes them for."""
        noisy = (self.clip_norm, self.noise_multiplier) != (None, None)
        reason = ""
        if isinstance(trainer, NoisySteps) or noisy:
            reason = "DP-SGD draws its batches at random, of any size"
        elif sums:
            reason = "a sum over clients mixes the steps of all of them"
        if reason:
            raise InputError(
                f"{reason}: not to be read as epochs; null takes all examples in every step",
                "minibatch",
                self.minibatch,
            )

    def _chosen(self, victim: Victim, clients: int) -> Split:
        """Examples drawn from all that the run trained on, whoever held them."""
        size = self.batch_size * clients
        wanted = size * -(-self.examples // size)
        if wanted > len(victim.pixels.train):
            raise InputError(
                f"the run trained on {len(victim.pixels.train)}", "examples", self.examples
            )
        order = generator(victim.seed, "exposed").permutation(len(victim.pixels.train))
        return victim.pixels.train.rows(torch.from_numpy(order[:wanted].copy()))

    def _trainer(self, trainer: Trainer) -> Trainer:
        private = trainer if isinstance(trainer, NoisySteps) else None
        plain = readable(trainer).in_batches(self.minibatch, self.local_steps)
        if private is None and self.clip_norm is None and self.noise_multiplier is None:
            return plain
        return PrivateTraining(plain, self._private_steps(private))

    def _private_steps(self, private: NoisySteps | None) -> PrivateSteps:
        clip_norm = self.clip_norm or (private and private.example_bound)
        noise = self.noise_multiplier
        if noise is None:
            noise = private.noise_multiplier if private else 0.0
        if not clip_norm:
            raise InputError(
                "noise is in units of clip_norm, and the run has none: set it",
                "clip_norm",
                self.clip_norm,
            )
        return PrivateSteps(clip_norm, noise, "auto", "task")

    def _at(
        self, round: int, victim: Victim, chosen: Split, trainer: Trainer, clients: int
    ) -> list[Exposed]:
        exp, params = victim.experiment, victim.models[round]
        shards = np.arange(len(chosen)).reshape(-1, self.batch_size)
        workload = Workload(
            model=victim.model,
            train=examples_trained_on(
                victim.mechanism,
                chosen,
                tuple(shards),
                np.zeros(len(shards), dtype=bool),
                seed_for(victim.seed, "exposed_inputs"),
            ),
            shards=tuple(shards),
            evaluation={},
            cohort_size=clients,
            device=torch.device("cpu"),
            task=victim.task,
            normalisation=victim.normalisation,
        )
        backend = InProcess(workload)
        exposed = []
        for number, cohort in enumerate(np.arange(len(shards)).reshape(-1, clients)):
            tasks = [
                ClientTask(k, params, round, seed_for(victim.seed, "exposed", round, k))
                for k in cohort.tolist()
            ]
            rng = generator(victim.seed, "exposed", round, number)
            privacy = exp.server.privacy
            sent = privacy.on_client(backend.train(trainer, tasks), privacy.init(len(params)), rng)
            delivery = exp.channel.transmit(sent, rng)
            # None where the sum was lost to dropouts, several where the channel makes groups.
            for row, members in zip(delivery.updates.matrix, delivery.members, strict=True):
                truth = chosen.rows(torch.from_numpy(np.concatenate([shards[k] for k in members])))
                knowledge = knowledge_of(
                    victim, round, trainer, truth, self.labels_shared, self.minibatch
                )
                observation = observed(victim, row, len(members), knowledge)
                exposed.append(Exposed(observation, truth, round))
        return exposed


def knowledge_of(
    victim: Victim,
    round: int,
    trainer: Trainer,
    truth: Split,
    labels_shared: bool,
    minibatch: int | None = None,
) -> Knowledge:
    """What is told of an update that `trainer` made of `truth`, from the model of `round`.

    `minibatch` is the number of examples of a step; None if each was on all of them.

    Raises:
        InputError: the trainer's updates cannot be read as steps of SGD.
    """
    plain = readable(trainer)
    rule = plain.step_rule(round)
    assert rule is not None  # in no round, where it is in one
    return Knowledge(
        module=victim.model,
        params=victim.models[round],
        normalisation=victim.normalisation,
        task=victim.task,
        input_shape=victim.pixels.input_shape,
        num_classes=victim.pixels.num_classes,
        batch_size=len(truth),
        rule=rule,
        local_steps=plain.steps_for(len(truth)),
        # Sorted: their order would tell which client holds which.
        labels=truth.y.sort().values if labels_shared else None,
        clip_norm=trainer.example_bound if isinstance(trainer, NoisySteps) else None,
        minibatch=minibatch,
    )


def observed(victim: Victim, row: Tensor, clients: int, knowledge: Knowledge) -> Observation:
    """A row `[d]` as somebody reads it who knows the run's channel; a copy."""
    update, seen = as_read(victim.experiment.channel, row)
    everything = None if bool(seen.all()) else seen
    return Observation(update.clone(), clients, knowledge, everything)


def refuse_running_statistics(model: nn.Module) -> None:
    """Raise InputError for a layer whose output depends on what else is in the batch."""
    for layer in layers_with_running_statistics(model):
        raise InputError(
            f"layer {layer} mixes the images of a batch, and the adversary would have to guess its "
            "statistics; attack a model with GroupNorm",
            "model",
            type(model).__name__,
        )


def refuse_corrected_steps(victim: Victim) -> None:
    """Raise InputError for what makes more of a step than its gradients say."""
    if goes_by_labels(victim.task, victim.pixels.train.y):
        why = "every client's loss by its own labels, which the adversary would have to guess"
        if weighs_by_counts(victim.task):
            raise InputError(
                f"weighs {why}; study a run with task.class_weights=none, or a list",
                "task.class_weights",
                "balanced",
            )
        raise InputError(f"makes {why} (of_client)", "task", called(victim.task))
    algorithm = victim.experiment.server.algorithm
    if not does_nothing(algorithm):
        raise InputError(
            "updates can be read as gradients only where nothing corrects the steps; study a run "
            "with algorithm=fedavg",
            "algorithm",
            called(algorithm),
        )


def readable(trainer: Trainer) -> PlainSteps:
    """The training that an update is read as; raises InputError if its steps are not SGD's."""
    plain = trainer.trainer if isinstance(trainer, NoisySteps) else trainer
    if not isinstance(plain, PlainSteps) or plain.step_rule(0) is None:
        raise InputError(
            "updates can be read as gradients only where clients train by training=sgd, "
            "training.sampling=shuffled",
            "training",
            type(plain).__name__,
        )
    return plain
