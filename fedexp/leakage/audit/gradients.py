"""Canaries where the unit is one example: gradients of the clip norm, put into DP-SGD's steps.

Canary i belongs to one client and is a vector of the clip norm C in a direction u_i of its own,
which joins each of that client's batches with the run's own rate q:

    g = released gradient + sum over those that joined of C u_i / (q n)

which is exactly what an example with that clipped gradient would add. One that is out adds nothing,
and the clients' own examples have a label that the loss ignores, so that the sum holds noise and
canaries alone: DP-SGD promises the same for any data. Sizes, rate, steps, noise and divisor are the
run's. The adversary is the one that DP-SGD's account is about: it sees every step. With
x = <g, u_i> q n / C, which is N(0, z^2) or N(1, z^2), the score is the log-likelihood ratio of the
claimed noise,

    sum over steps of ln(1 - q + q e^((x - 1/2) / z^2)),

the best one that there is against the claim, however many and small the steps. What is done with
the steps afterwards (local epochs, momentum, the server) loses nothing of it. The x of canaries
that are out say how much noise there was (`measured_noise`).

It sees noise that is too small, or not drawn in some step, and more steps than were counted. It
does not see a clip that is missing or a wrong rate of the batches: canaries need no clipping, and
draw their batches themselves. `examples` sees those, where it sees anything.

Sources: Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini and Terzis, "Tight Auditing of
Differentially Private Machine Learning", USENIX Security 2023 (gradient canaries, scores of every
step); Steinke, Nasr and Jagielski, NeurIPS 2023 (many of them in one run). The likelihood ratio in
the place of their inner product is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.protocols import LocalTraining, Model, Trainer
from fedexp.core.rng import generator
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.core.types import Adjust, ClientReport, ClientTask
from fedexp.leakage.audit.canaries import CanaryRun, NoEvaluation
from fedexp.leakage.audit.clients import Directions
from fedexp.leakage.audit.sight import OfSteps, Schedule, log_ratio
from fedexp.leakage.study import refuse_several_labels
from fedexp.leakage.victim import Victim
from fedexp.training.steps import NoisySteps

SQUARES, LOOKS = "canary_noise_squares", "canary_noise_looks"  # as clients report them


@runtime_checkable
class NoisyGradients(NoisySteps, Trainer, Protocol):
    """Noisy steps that can be looked at, one by one."""

    def with_noise(self, scale: float) -> NoisyGradients:
        """The same with its noise multiplied."""

    def adjusted(self, adjust: Adjust) -> LocalTraining:
        """The same training, on released gradients that went through `adjust`."""

    def spends(self, n: int) -> tuple[float, int]:
        """(rate of the batches, steps a round) of a client with n examples."""


@final
@dataclass(frozen=True)
class Held:
    """Which canaries are whose, and what they are."""

    owners: np.ndarray  # [m]
    places: np.ndarray  # [m] among their owner's; directions are by place
    inside: np.ndarray  # [m] bool
    directions: Directions
    names: tuple[str, ...]  # by place, of what clients report
    clip_norm: float  # C
    noise_multiplier: float  # z that is claimed
    ignored: int  # the label of an example that has no loss


@final
@dataclass(frozen=True)
class WithCanaryGradients:
    """A trainer whose clients train on canaries alone, and report each one's score."""

    trainer: NoisyGradients
    held: Held

    def spread(self, n_clients: int, cohort_size: float) -> Trainer:
        """The same canaries, and the trainer inside spread."""
        spread = self.trainer.spread(n_clients, cohort_size)
        assert isinstance(spread, NoisyGradients)
        return replace(self, trainer=spread)

    def __call__(self, model: Model, shard: Split, task: ClientTask) -> ClientReport:
        """Train on the shard as if it were empty, with the client's canaries in the steps."""
        silent = shard.with_y(torch.full_like(shard.y, self.held.ignored))
        rate, _ = self.trainer.spends(len(shard))
        steps = Steps(self.held, task, len(shard), rate)
        report = self.trainer.adjusted(steps.with_canaries)(model, silent, task)
        return replace(report, metrics={**report.metrics, **steps.reported()})


@final
class Steps:
    """One client's round: adds canaries to its steps, and scores them by what it then sees."""

    def __init__(self, held: Held, task: ClientTask, n: int, q: float) -> None:
        self._mine = np.flatnonzero(held.owners == task.client_id)
        places = torch.from_numpy(held.places[self._mine])
        self._held, self._q = held, q
        self._coordinates = held.directions.coordinates[places]  # [k, s]
        self._unit = held.directions.signs[places] / math.sqrt(held.directions.signs.shape[1])
        self._step = held.clip_norm / (q * n)  # how far one canary moves a released gradient
        self._joins = generator(task.seed, "canary_batches")
        self._scores = torch.zeros(len(self._mine), dtype=torch.float64)
        self._out = torch.from_numpy(~held.inside[self._mine])
        self._squares, self._looks = 0.0, 0

    def with_canaries(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The released gradients with those canaries that join; the others' coins are no matter."""
        flat = torch.cat([g.reshape(-1) for g in gradients])
        where = self._coordinates.to(flat.device)
        unit = self._unit.to(flat)
        drawn = self._joins.random(len(self._mine)) < self._q
        joins = torch.from_numpy(drawn & self._held.inside[self._mine]).to(flat.device)
        flat.index_add_(0, where[joins].flatten(), self._step * unit[joins].flatten())
        x = torch.sum(flat[where] * unit, dim=1).cpu().double() / self._step
        z = self._held.noise_multiplier
        self._scores += torch.from_numpy(log_ratio(x.numpy(), self._q, z))
        self._squares += float((x[self._out] / z).square().sum())
        self._looks += int(self._out.sum())
        sizes = [g.numel() for g in gradients]
        return [p.view(g.shape) for p, g in zip(flat.split(sizes), gradients, strict=True)]

    def reported(self) -> dict[str, float]:
        """The scores by place, 0 for places at which this client holds none; and the noise."""
        scores = dict(zip(self._held.names, self._scores.tolist(), strict=False))
        noise = {SQUARES: self._squares, LOOKS: float(self._looks)}
        return {**dict.fromkeys(self._held.names, 0.0), **scores, **noise}


def gradient_canaries(
    victim: Victim,
    private: NoisyGradients,
    inside: np.ndarray,
    noise_scale: float,
    rng: np.random.Generator,
) -> CanaryRun:
    """A run of DP-SGD with canary gradients, dealt evenly to the clients that are honest.

    Args:
        victim: the run.
        private: its training.
        inside: `[m]` bool, which canaries are in.
        noise_scale: factor on the noise that is really added; the claim knows nothing of it.
        rng: draws the directions.

    Raises:
        InputError: examples have several labels, or there are more canaries than directions.
    """
    refuse_several_labels(victim.pixels)
    exp, m, ignored = victim.experiment, len(inside), victim.task.ignored
    assert ignored is not None  # every example has one class
    clients, place = np.flatnonzero(~exp.malicious), np.arange(m)
    owners, places = clients[place % len(clients)], place // len(clients)
    d = sum(p.numel() for p in victim.model.parameters() if p.requires_grad)
    if m > d * len(clients):
        reason = f"no more than the {d} numbers of the model for each of {len(clients)} clients"
        raise InputError(reason, "canaries", m)
    held = Held(
        owners=owners,
        places=places,
        inside=inside,
        directions=Directions.drawn(int(places.max()) + 1, d, True, rng),
        names=tuple(f"canary {k}" for k in range(int(places.max()) + 1)),
        clip_norm=private.example_bound,
        noise_multiplier=private.noise_multiplier,
        ignored=ignored,
    )

    def score(before: ServerState, after: ServerState, record: RoundRecord) -> Tensor:
        found, received = torch.zeros(m, dtype=torch.float64), record.received
        assert received is not None
        for client, said in zip(received.client_ids, received.metrics, strict=True):
            mine = np.flatnonzero(owners == client)
            scores = [said[held.names[places[i]]] for i in mine]
            found[torch.from_numpy(mine)] = torch.tensor(scores, dtype=torch.float64)
        return found

    def looks(record: RoundRecord) -> tuple[float, int]:
        assert record.received is not None
        said = record.received.metrics
        return sum(own[SQUARES] for own in said), int(sum(own[LOOKS] for own in said))

    sizes = [len(shard) for shard in exp.setting.shards(victim.partition)]
    spends = [private.spends(size) for size in sizes]
    schedule = Schedule.of(exp, owners, spends, private.noise_multiplier)
    return CanaryRun(
        experiment=replace(
            exp,
            trainer=WithCanaryGradients(private.with_noise(noise_scale), held),
            evaluator=NoEvaluation(),
        ),
        score=score,
        sight=OfSteps(schedule),
        canaries=f"{m} gradients of the clip norm in directions of their own, which join the "
        "batches of clients whose own examples are left out",
        adversary="Whoever sees every local step of every client, as DP-SGD's account supposes; it "
        "knows the canaries' directions.",
        looks=looks,
        n_looks=int(schedule.steps[~inside].sum()),
    )
