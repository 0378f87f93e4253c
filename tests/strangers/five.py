"""One file of a stranger's with a part for each of five groups; its YAMLs are in `conf/`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fedexp.backends.in_process import InProcess
from fedexp.channel.plain import Plain
from fedexp.core.types import ClientReport
from fedexp.federation.settings import Federated
from fedexp.privacy.account import (
    CountingLedger,
    Description,
    OneReleaseAClient,
    PrivacyAccount,
)
from fedexp.privacy.none import NoPrivacy


@dataclass(frozen=True)
class Signs:
    """A mechanism: one randomised sign a coordinate, epsilon ln(p / (1 - p)) for each of d."""

    truth: float  # p
    max_epsilon: float | None

    def refuse(self, parts):
        pass

    def protect(self, plan, bare):
        one = float(plan.d * torch.logit(torch.tensor(self.truth, dtype=torch.float64)))
        ledger = CountingLedger(
            len(plan.sizes), lambda releases: releases * one, 1e-9, "sum", "replace_one"
        )
        description = Description(
            mechanism="randomised signs",
            unit="one client with all its data",
            noise={"truth": self.truth},
            noise_added_by="each client",
            noise_source="the run's seed",
            sampling="not counted on",
            not_covered=(),
        )
        account = PrivacyAccount(ledger, OneReleaseAClient(), description, self.max_epsilon)
        return replace(bare, privacy=_RandomSigns(self.truth), account=account, mechanism=self)


class _RandomSigns:
    releases_every_round = False

    def __init__(self, truth):
        self.truth, self._nothing = truth, NoPrivacy()

    def init(self, d):
        return {}

    def on_client(self, updates, state, rng):
        lies = torch.from_numpy(rng.random(tuple(updates.matrix.shape)) > self.truth)
        signs = torch.where(updates.matrix > 0, 1.0, -1.0)
        return updates.with_matrix(0.01 * torch.where(lies, -signs, signs))

    def on_receipt(self, updates, state):
        return updates

    def on_step(self, step, updates, state, rng):
        return step, state


class Halves:
    """A channel that loses half of every number on the way."""

    sums = False

    def __init__(self):
        self._plain = Plain()

    def rows(self, n):
        return n

    def check(self, n, d):
        pass

    def transmit(self, updates, rng):
        return self._plain.transmit(updates.with_matrix(updates.matrix / 2), rng)


class Loners:
    """A setting like the federated one in which nobody says that anything is shared."""

    def __init__(self):
        self._as = Federated()

    def __getattr__(self, name):
        if name in ("communicates", "shares_one_model"):
            raise AttributeError(name)
        return getattr(self._as, name)


@dataclass(frozen=True)
class OneStep:
    """A trainer of its own: one full-batch step, without anybody's help."""

    lr: float

    def spread(self, n_clients, cohort_size):
        return self

    def __call__(self, model, shard, task):
        model.module.train()
        loss = model.task.loss(model.module(model.arrange(shard)), shard.y)
        gradients = torch.autograd.grad(loss, model.parameters)
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters, gradients, strict=True):
                parameter -= self.lr * gradient
        return ClientReport(len(shard), len(shard), {"loss": float(loss.detach())})


class Counting:
    """A backend that does its work through one of ours, and counts."""

    def __init__(self, workload, make: Callable = InProcess):
        self._inside, self.trained = make(workload), 0

    def train(self, trainer, tasks):
        self.trained += len(tasks)
        return self._inside.train(trainer, tasks)

    def evaluate(self, models, split):
        return self._inside.evaluate(models, split)

    def close(self):
        self._inside.close()
