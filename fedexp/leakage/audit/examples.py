"""Canaries where the unit is one example: images with a single bright pixel, under DP-SGD.

Canary i is an example of one client with `strength` at a pixel of its own, in deviations of the
pixels, the mean everywhere else, and a random label. Such an image lies far outside [0, 1], which
is as it should be: DP-SGD promises the same for any example, its gradient is clipped like all
others, and a bright pixel makes it long enough for that and nearly orthogonal to the others.

A canary that is out is there with a label that the loss ignores: its gradient is exactly zero,
as if it were absent, and the public numbers (how many examples the client has, hence the rate of
its batches and their divisor) are the same whatever the coins.

The server sees a client's row, delta = - sum over steps of lr (gradients of the batch + noise), and
knows the model that it started from. To first order the row is a combination of the gradients at
that model, so the score is a canary's coefficient in the ridge regression of -row on the clipped
gradients of the client's canaries and of some of its other examples,

    argmin_c |row + sum_j c_j g_j|^2 + lambda C^2 |c|^2,

summed over the rounds. Without the others' gradients their sum would drown the canaries. What the
local steps move the model away from its start blurs the score: it is sharpest for runs of few local
steps in which canaries are likely to be in a batch, and shows next to nothing after an epoch of a
hundred small batches. `gradients` sees far more of the noise; images also see a clip that is
missing and batches that are drawn at a higher rate.

Sources: Nasr, Songi, Thakurta, Papernot and Carlini, "Adversary Instantiation: Lower Bounds for
Differentially Private Machine Learning", IEEE S&P 2021 (malicious examples, white-box scores);
Steinke, Nasr and Jagielski, NeurIPS 2023 (many of them in one run). The regression is ours.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedexp.core.examples import Split
from fedexp.core.protection import Plan
from fedexp.core.protocols import Model, Task, Trainer
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.core.types import ClientReport, ClientTask
from fedexp.leakage.audit.canaries import CanaryRun, NoEvaluation, settled
from fedexp.leakage.audit.gradients import NoisyGradients
from fedexp.leakage.audit.sight import OfRows, Schedule
from fedexp.leakage.study import refuse_several_labels
from fedexp.leakage.victim import Victim

RIDGE = 0.1  # lambda; on digits every value from 0.03 to 1 separated canaries about as well
CHUNK = 64  # examples whose gradients are computed together


@final
@dataclass(frozen=True)
class CanaryExamples:
    """Examples that clients hold beside their own, as the model takes them."""

    examples: Split  # m of them, with the labels that they have when they are in
    owners: np.ndarray  # [m] whose they are
    inside: np.ndarray  # [m] bool
    ignored: int  # the label of an example that has no loss

    def of(self, client: int) -> Split:
        """A client's canaries as it trains on them: those that are out with an ignored label."""
        mine = torch.from_numpy(np.flatnonzero(self.owners == client))
        own, there = self.examples.rows(mine), torch.from_numpy(self.inside)[mine]
        return own.with_y(torch.where(there, own.y, self.ignored))


@final
@dataclass(frozen=True)
class WithCanaryExamples:
    """A trainer whose clients hold canaries too."""

    trainer: Trainer
    canaries: CanaryExamples

    def spread(self, n_clients: int, cohort_size: float) -> Trainer:
        """The same canaries, and the trainer inside spread."""
        return replace(self, trainer=self.trainer.spread(n_clients, cohort_size))

    def __call__(self, model: Model, shard: Split, task: ClientTask) -> ClientReport:
        """Train on the shard and the client's canaries behind it."""
        more = self.canaries.of(task.client_id).to(shard.x.device)
        inputs = shard.with_x(model.arrange(shard))
        return self.trainer(model.for_inputs(), inputs.joined(more), task)


def example_canaries(
    victim: Victim,
    private: NoisyGradients,
    inside: np.ndarray,
    strength: float,
    others: int,
    noise_scale: float,
    rng: np.random.Generator,
) -> CanaryRun:
    """A run of DP-SGD with canary examples, dealt evenly to the clients that are honest.

    Args:
        victim: the run.
        private: its training.
        inside: `[m]` bool, which canaries are in.
        strength: the bright pixel, in deviations of the pixels from their mean.
        others: how many of a client's own examples the score takes into account.
        noise_scale: factor on the noise that is really added; the claim knows nothing of it.
        rng: draws pixels, labels and the other examples.

    Raises:
        InputError: with so many more examples the run promises nothing, or an example has several
            labels.
    """
    refuse_several_labels(victim.pixels)
    exp, m = victim.experiment, len(inside)
    shards = exp.setting.shards(victim.partition)
    canaries = _canaries(victim, inside, np.flatnonzero(~exp.malicious), strength, rng)
    held = np.bincount(canaries.owners, minlength=len(shards))
    plan = Plan(
        seed=exp.seed,
        rounds=exp.rounds,
        sampler=exp.sampler,
        sizes=tuple(len(shard) + int(k) for shard, k in zip(shards, held, strict=True)),
        d=len(victim.models[0]),
        aggregator=exp.server.aggregator,
    )
    protection = settled(victim, victim.mechanism, private.trainer, plan, m)
    spends = [private.spends(n) for n in plan.sizes]
    bound = private.example_bound
    gradients = ClippedGradients(victim.model, victim.task, bound)
    own = {
        k: victim.pixels.train.rows(
            torch.from_numpy(rng.permutation(shards[k])[:others])  # all of a small client's
        )
        for k in np.flatnonzero(held).tolist()
    }
    of_client = {k: np.flatnonzero(canaries.owners == k) for k in own}

    def score(before: ServerState, after: ServerState, record: RoundRecord) -> Tensor:
        found, received = torch.zeros(m, dtype=torch.float64), record.received
        assert received is not None
        for client, row in zip(received.client_ids, received.matrix.cpu(), strict=True):
            if client in own:
                mine = torch.from_numpy(of_client[client])
                g = gradients(before.params, canaries.examples.rows(mine))
                rest = gradients(before.params, victim.normalisation(own[client]))
                found[mine] = coefficients(-row, g, rest, bound)
        return found

    with_canaries = replace(
        exp,
        trainer=WithCanaryExamples(private.with_noise(noise_scale), canaries),
        account=protection.account,
        evaluator=NoEvaluation(),
    )
    return CanaryRun(
        experiment=with_canaries,
        score=score,
        sight=OfRows(Schedule.of(exp, canaries.owners, spends, private.noise_multiplier)),
        canaries=f"{m} images with one pixel {strength:g} deviations above the mean (outside "
        "[0, 1]) and a random label, added to the clients' examples",
        adversary="The server, which sees every client's update and the model that it started "
        f"from; it knows the canaries, and up to {others} of a client's other examples.",
    )


def _canaries(
    victim: Victim,
    inside: np.ndarray,
    clients: np.ndarray,
    strength: float,
    rng: np.random.Generator,
) -> CanaryExamples:
    """A pixel of its own for each of a client's canaries, as far as there are enough."""
    shape, m = victim.pixels.input_shape, len(inside)
    size, place = int(np.prod(shape)), np.arange(m)
    pixel = rng.permutation(size)[(place // len(clients)) % size]
    x = torch.zeros(m, size)  # 0 is the mean, as the model takes images
    x[torch.from_numpy(place), torch.from_numpy(pixel)] = strength
    y = torch.from_numpy(rng.integers(0, victim.pixels.num_classes, m))
    owners, ignored = clients[place % len(clients)], victim.task.ignored
    assert ignored is not None  # every example has one class: see `refuse_several_labels`
    return CanaryExamples(Split(x.view(m, *shape), y), owners, inside, ignored)


@final
class ClippedGradients:
    """Every example's gradient of the loss, no longer than the clip norm."""

    def __init__(self, module: nn.Module, task: Task, clip_norm: float) -> None:
        self._module = copy.deepcopy(module).cpu().eval()
        self._task, self._clip_norm = task, clip_norm

    def __call__(self, params: Tensor, examples: Split) -> Tensor:
        """`[n, d]` float32 at the model `params` `[d]`; examples as the model takes them."""
        trainable = [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]
        sizes = [p.numel() for _, p in trainable]
        pieces = params.cpu()[: sum(sizes)].split(sizes)
        at = {n: v.view(p.shape) for (n, p), v in zip(trainable, pieces, strict=True)}

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = functional_call(self._module, parameters, (x[None],))
            return self._task.loss(logits, y[None])

        found = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=CHUNK)(at, examples.x, examples.y)
        rows = torch.zeros(len(examples), len(params))  # buffers have no gradient
        torch.cat([found[n].flatten(1) for n, _ in trainable], 1, out=rows[:, : sum(sizes)])
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return rows.mul_(self._clip_norm / norms.clamp_min(self._clip_norm))


def coefficients(row: Tensor, canaries: Tensor, others: Tensor, clip_norm: float) -> Tensor:
    """How much of each canary is in a row: `[m]` float64, by ridge regression.

    Args:
        row: `[d]`.
        canaries: `[m, d]` their gradients.
        others: `[k, d]` gradients of which there is some in the row too.
        clip_norm: the unit of length.

    >>> g = torch.eye(3)
    >>> coefficients(torch.tensor([1.0, 0.5, 5.0]), g[:2], g[2:], 1.0).round(decimals=3)
    tensor([0.9090, 0.4550], dtype=torch.float64)
    """
    everybody = torch.cat([canaries, others]) / clip_norm
    gram = (everybody @ everybody.T).double()
    gram.diagonal().add_(RIDGE)
    found: Tensor = torch.linalg.solve(gram, (everybody @ row.to(everybody)).double())
    return found[: len(canaries)]
