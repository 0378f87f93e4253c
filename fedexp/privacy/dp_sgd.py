"""DP-SGD in every client: a trainer on its steps, and the promise that they make.

The steps, with formula and source: `fedexp.privacy.private_steps`. The guarantee is for one example
of one client added or removed; epsilon is the largest client's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from fedexp.core.blocks import Block, unadjusted
from fedexp.core.capabilities import (
    does_nothing,
    goes_by_labels,
    trains_once,
    weighs_by_counts,
)
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.inherited import refuse_inherited
from fedexp.core.protection import Combination, Plan, Protection
from fedexp.core.protocols import LocalTraining, Model, Task, Trainer
from fedexp.core.reports import check_report
from fedexp.core.text import called
from fedexp.core.trained import refuse_other_tensors
from fedexp.core.types import Adjust, ClientReport, ClientTask
from fedexp.privacy.account import (
    NOT_COVERED,
    Description,
    PrivacyAccount,
    StepsOfEachClient,
)
from fedexp.privacy.counted_steps import CountedSteps, Unseen, UnseenBlockSteps, UnseenSteps
from fedexp.privacy.ledger import Ledger
from fedexp.privacy.lone_examples import (
    refuse_examples_that_mix,
    refuse_large_batches_that_mix,
)
from fedexp.privacy.private_blocks import PrivateBlockSteps
from fedexp.privacy.private_steps import PrivateSteps
from fedexp.privacy.terms import (
    NOISE_SOURCES,
    ONE_EXAMPLE,
    Target,
    Terms,
    check_limits,
    check_noise_is_given_once,
    refuse_what_is_sent,
)
from fedexp.training.blocks import StepBlockTrainer
from fedexp.training.private_layers import trained_layers
from fedexp.training.steps import FLOAT32, SHUFFLED, Adjusted, StepSource, StepTrainer


@final
@dataclass(frozen=True)
class PrivateTraining:
    """A trainer on DP-SGD's steps instead of ordinary ones.

    The report holds what an accountant needs beside the noise multiplier: `sampling_rate`, the q of
    the batches, and `steps`, those without examples included.

    Args:
        trainer: what is done with the gradients, and how much work a round is.
        steps: makes the gradients.
    """

    trainer: Trainer
    steps: PrivateSteps

    def __post_init__(self) -> None:
        self._trainer()

    def _trainer(self) -> StepTrainer:
        if not isinstance(self.trainer, StepTrainer):
            raise InputError(
                "makes its own gradients, which DP-SGD cannot replace",
                "training",
                type(self.trainer).__name__,
            )
        if (sampling := self.trainer.work().sampling) != SHUFFLED:
            raise InputError(
                "draws examples of rare classes more often than at the rate that epsilon counts "
                "with; DP-SGD draws all alike: use training.sampling=shuffled, and a list of "
                "task.class_weights",
                "training.sampling",
                sampling,
            )
        if self.trainer.work().drop_last:
            raise InputError(
                "has no effect with DP-SGD, whose batches are drawn at random, of any size",
                "training.drop_last",
                True,
            )
        if (precision := self.trainer.work().precision) != FLOAT32:
            raise InputError(
                "rounds the factors that the length of an example's gradient is found from, so "
                "that more than the bound could pass; DP-SGD needs training.precision=float32",
                "training.precision",
                precision,
            )
        return self.trainer

    def spread(self, n_clients: int, cohort_size: float) -> PrivateTraining:
        """One client with everybody's data, and as many example passes as a cohort's."""
        return replace(self, trainer=self.trainer.spread(n_clients, cohort_size))

    def __call__(self, model: Model, shard: Split, task: ClientTask) -> ClientReport:
        """Train `model` in place on `shard`.

        Raises:
            InputError: the model has a layer that DP-SGD cannot train, or moved its buffers.
        """
        return self._train(self.steps, model, shard, task)

    def check_batches(self, model: Model, train: Split, sizes: Sequence[int]) -> None:
        """Nothing may mix from a size on: the largest client's mean batch is tried, and twice it.

        Raises:
            InputError: one example moves what the others of such a batch come to.
        """
        n = max(sizes)
        mean = -(-n // self._trainer().work().batches(n))
        for size in sorted({mean, min(2 * mean, n)}):
            batch = train.between(0, size).to(model.vector.device)
            refuse_large_batches_that_mix(model, model.arrange(batch), batch.y)

    def learning_rate(self, round: int) -> float | None:
        """The trainer's."""
        return self._trainer().learning_rate(round)

    def steps_for(self, n: int) -> int:
        """Steps in a round of a client with n examples, those without examples included."""
        return self._trainer().work().steps_for(n)

    def adjusted(self, adjust: Adjust) -> LocalTraining:
        """The same training; `adjust` is given gradients with their noise: post-processing."""
        return partial(self._train, Adjusted(self.steps, adjust))

    def _train(
        self, steps: StepSource, model: Model, shard: Split, task: ClientTask
    ) -> ClientReport:
        trainer, unseen = self._trainer(), UnseenSteps(steps, model, shard)
        counted = CountedSteps(unseen, trainer)
        shown: Any = Unseen(len(shard), called(trainer))
        report = trainer(apart := model.apart(), shown, task, counted)
        check_report(report, trainer)
        report = unseen.told(report)
        refuse_other_tensors(trainer, apart)
        self._check_made(counted.made, self.steps_for(len(shard)))
        d = sum(p.numel() for p in model.parameters)
        if not torch.equal(model.vector[d:], task.params[d:]):  # buffers follow the parameters
            raise InputError(
                "changes its buffers in training: they would leave the client without noise",
                "model",
                type(model.module).__name__,
            )
        return self._with_what_it_spent(report, len(shard))

    def why_no_blocks(self) -> str:
        """That of the trainer."""
        if not isinstance(self.trainer, StepBlockTrainer):
            return "the training goes one client at a time"
        return self.trainer.why_no_blocks()

    def numbers_in_a_block(self, n: int, d: int, kept: int) -> int:
        """Every example has gradients of its own, three times: as made, and on the way to a sum."""
        assert isinstance(self.trainer, StepBlockTrainer)
        examples = 2 * self.trainer.work().largest_batch(n)  # a Poisson batch may be that large
        return self.trainer.numbers_in_a_block(n, d, kept) + examples * (3 * d + 2 * kept)

    def train_block(self, block: Block, adjust: Adjust = unadjusted) -> list[ClientReport]:
        """Train every client of `block` in place; `adjust` is given gradients with their noise."""
        assert isinstance(self.trainer, StepBlockTrainer)
        of = self.steps
        steps = PrivateBlockSteps(of.clip_norm, of.noise_multiplier, of.noise_seed)
        unseen = UnseenBlockSteps(steps, block, called(self.trainer))
        counted = CountedSteps(unseen, self._trainer())
        reports = self.trainer.train_block(unseen.shown, adjust, counted)
        for report in reports:
            check_report(report, self.trainer)
        reports = unseen.told(reports)
        self._check_made(counted.made, max(map(self.steps_for, block.sizes)))
        return [
            self._with_what_it_spent(report, n)
            for report, n in zip(reports, block.sizes, strict=True)
        ]

    def _check_made(self, made: int, planned: int) -> None:
        """The steps that epsilon counts are those that were made, or it would not be true."""
        if made != planned:
            raise InputError(
                f"made {made} of the {planned} steps that its work() says, and DP-SGD's noise and "
                "epsilon are for those: it must train on the steps that it is given",
                "training",
                called(self.trainer),
            )

    def _with_what_it_spent(self, report: ClientReport, n: int) -> ClientReport:
        sampling_rate, made = self.spends(n)
        spent = {"sampling_rate": sampling_rate, "steps": float(made)}
        return replace(report, metrics={**report.metrics, **spent})

    def spends(self, n: int) -> tuple[float, int]:
        """(q of the batches, steps a round) of a client with n examples."""
        work = self._trainer().work()
        return 1 / work.batches(n), work.steps_for(n)

    @property
    def example_bound(self) -> float:
        """The largest norm of one example's gradient: for audits."""
        return self.steps.clip_norm

    @property
    def noise_multiplier(self) -> float:
        """z: for attacks that train as the run did."""
        return self.steps.noise_multiplier

    def with_noise(self, scale: float) -> PrivateTraining:
        """The noise multiplied, which no account is told: for audits."""
        z = scale * self.steps.noise_multiplier
        return replace(self, steps=replace(self.steps, noise_multiplier=z))


@final
@dataclass(frozen=True)
class DPSGD:
    """DP-SGD as configured: what `PrivateSteps` does, and what is promised by it.

    The promise is for one example of one client; epsilon is the largest client's over all its
    steps. It holds for whatever is done with the models afterwards.

    Args:
        clip_norm: see `PrivateSteps`, as for the next three.
        noise_multiplier: z; None takes the least for `target_epsilon`.
        clipping: "ghost", "hooks" or "auto".
        noise_seed: "task" or "os".
        delta: of the guarantee, below one over the examples of all clients.
        accountant: "prv" or "rdp".
        target_epsilon: of the whole run; infinity: no noise.
        max_epsilon: the run ends before the round that would exceed it.
        allow_no_noise: whether noise of 0 is meant.
    """

    noised_before_seen: ClassVar[bool] = True

    clip_norm: float
    noise_multiplier: float | None
    clipping: str
    noise_seed: str
    delta: float
    accountant: str
    target_epsilon: Target
    max_epsilon: float | None
    allow_no_noise: bool

    def __post_init__(self) -> None:
        check_limits(self.target_epsilon, self.max_epsilon)
        check_noise_is_given_once(self.target_epsilon, noise_multiplier=self.noise_multiplier)
        self._steps(0.0 if self.noise_multiplier is None else self.noise_multiplier)

    def refuse(self, parts: Combination) -> None:
        """Needs a trainer whose gradients it can make, and nothing sent but what they lead to."""
        PrivateTraining(parts.trainer, self._steps(0.0))
        refuse_what_is_sent(
            parts,
            lambda sent: sent.derived_from_the_delta,
            "is not declared to be a function of the trained model alone, which DP-SGD protects",
        )
        if not does_nothing(parts.algorithm) and not trains_once(parts.algorithm):
            raise InputError(
                "does not say that clients look at their examples by one call of the given trainer "
                "alone (trains_once), and DP-SGD's noise is in that training; use "
                "algorithm=fedavg, or privacy=none",
                "algorithm",
                called(parts.algorithm),
            )
        if not does_nothing(parts.algorithm):
            refuse_inherited("algorithm", parts.algorithm, "trains_once")

    def check_model(self, model: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
        """Every example's gradient must depend on that example alone, by layers and as it runs."""
        trained_layers(model)
        if goes_by_labels(task, y):
            raise _of_own_labels(task)
        refuse_examples_that_mix(model, task, x, y)

    def protect(self, plan: Plan, bare: Protection) -> Protection:
        """Noise in every step of every client, a row of the ledger a client."""
        terms = Terms.of(
            sum(plan.sizes),
            "examples of all clients together",
            delta=self.delta,
            accountant=self.accountant,
            target_epsilon=self.target_epsilon,
            max_epsilon=self.max_epsilon,
            allow_no_noise=self.allow_no_noise,
        )
        work = PrivateTraining(bare.trainer, self._steps(0.0))  # how much noise costs no work
        rates, steps = zip(*(work.spends(n) for n in plan.sizes), strict=True)
        z = self.noise_multiplier
        if z is None:
            counts = plan.participations().tolist()
            z = terms.least_noise((q, s * c) for q, s, c in zip(rates, steps, counts, strict=True))
        terms.check_noise(z)
        description = Description(
            mechanism="DP-SGD in every client",
            unit=ONE_EXAMPLE,
            noise={"clip_norm": self.clip_norm, "noise_multiplier": z},
            noise_added_by="each client, to each of its steps",
            noise_source=NOISE_SOURCES[self.noise_seed],
            sampling=f"Poisson batches at rates {min(rates):.4g} to {max(rates):.4g} by client",
            not_covered=NOT_COVERED,
        )
        ledger = Ledger((z,) * len(rates), rates, terms.delta, terms.accountant, "add_remove")
        account = PrivacyAccount(ledger, StepsOfEachClient(steps), description, terms.max_epsilon)
        protected = replace(
            bare,
            trainer=PrivateTraining(bare.trainer, self._steps(z)),
            account=account,
            mechanism=replace(self, noise_multiplier=z, target_epsilon=None),
        )
        return terms.kept(protected, plan, self.noise_seed)

    def _steps(self, z: float) -> PrivateSteps:
        return PrivateSteps(self.clip_norm, z, self.clipping, self.noise_seed)


def _of_own_labels(task: Task) -> InputError:
    """The refusal of a task that is another one for a client with other labels."""
    if weighs_by_counts(task):
        return InputError(
            "weighs an example by how many others of its class the client has, so that one "
            "example moves the gradients of all; give a list: "
            "'task.class_weights=[1,5]', which is the same for everybody",
            "task.class_weights",
            "balanced",
        )
    return InputError(
        "is another one for a client with other labels (of_client), so that one example moves the "
        "gradients of all; use a task that is the same for everybody",
        "task",
        called(task),
    )
