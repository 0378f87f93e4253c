"""The round loop. One screen; everything that varies is a part of the experiment.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, algorithm 1, with an adversary, a robust rule and a server optimiser in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fedexp.protocols import (
    Aggregator,
    Attack,
    Backend,
    Evaluator,
    Sampler,
    ServerOptimizer,
    Setting,
    Trainer,
)
from fedexp.rng import generator, seed_for
from fedexp.types import ClientTask, Metric, RoundRecord, ServerState, Updates


@dataclass(frozen=True)
class Experiment:
    """The parts of one run. Built once by `fedexp.build`; holds no state of the rounds."""

    seed: int
    rounds: int
    eval_every: int
    n_clients: int
    min_clients: int  # a round that fewer clients answer moves nothing
    malicious: np.ndarray  # [n_clients] bool: who the adversary controls
    setting: Setting
    sampler: Sampler
    trainer: Trainer
    backend: Backend
    attack: Attack
    aggregator: Aggregator
    server_optimizer: ServerOptimizer
    evaluator: Evaluator


def run_rounds(exp: Experiment, state: ServerState) -> Iterator[tuple[ServerState, RoundRecord]]:
    """Yield the state and the record after every round; hand in a saved state to resume."""
    while state.round < exp.rounds:
        state, record = run_round(exp, state)
        yield state, record


def run_round(exp: Experiment, state: ServerState) -> tuple[ServerState, RoundRecord]:
    """One round: from the state after round r to the state after round r + 1."""
    r = state.round
    watch = _Stopwatch()

    # 1. Who takes part, and what each one receives.
    cohort = exp.sampler(exp.n_clients, generator(exp.seed, "cohort", r))
    tasks = [
        ClientTask(c, exp.setting.start(state.params, c), r, seed_for(exp.seed, "client", r, c))
        for c in cohort.tolist()
    ]

    # 2. Local training: the only parallel step.
    updates = exp.backend.train(exp.trainer, tasks)
    watch.lap("train")

    # 3. The adversary rewrites the rows of the clients it controls.
    malicious = torch.from_numpy(exp.malicious[cohort]).to(updates.matrix.device)
    received = exp.attack.rewrite(updates, malicious, generator(exp.seed, "attack", r))

    # 4. The server makes one step of the rows and takes it, if enough clients have answered.
    params, optimizer, aggregator = state.params, state.optimizer, state.aggregator
    step = torch.zeros_like(params)
    if len(received) >= exp.min_clients:
        step, aggregator = exp.aggregator(received, aggregator)
        params, optimizer = exp.server_optimizer(params, step, optimizer)
    state = ServerState(r + 1, params, optimizer, aggregator)
    watch.lap("aggregate")

    # 5. What happened, and how good the models are now.
    metrics = _describe(exp, r + 1, updates, exp.malicious[cohort], float(step.norm()))
    predictions = None
    if state.round % exp.eval_every == 0 or state.round == exp.rounds:
        models = exp.setting.models(params)
        measured, predictions = exp.evaluator(exp.backend, models, state.round)
        metrics += measured
    watch.lap("evaluate")
    return state, RoundRecord(state.round, tuple(metrics), predictions, watch.seconds)


def _describe(
    exp: Experiment, round: int, updates: Updates, malicious: np.ndarray, step: float
) -> list[Metric]:
    """Rows about the round itself and about every client's training."""
    n, d = updates.matrix.shape
    sent = n * d * 4 if exp.setting.communicates else 0  # float32
    about = {
        "clients": n,
        "malicious": int(malicious.sum()),
        "examples": updates.processed,
        "skipped": int(n < exp.min_clients),
        "bytes_down": sent,  # the model to every client
        "bytes_up": sent,  # and an update back
        "step_norm": step,
    }
    rows = [Metric(round, "round", "all", name, float(value)) for name, value in about.items()]
    for client, metrics in zip(updates.client_ids, updates.metrics, strict=True):
        rows += [Metric(round, "train", str(client), name, v) for name, v in metrics.items()]
    if n:
        weights = (updates.num_examples / updates.num_examples.sum()).tolist()
        for name in updates.metrics[0]:
            mean = sum(w * m[name] for w, m in zip(weights, updates.metrics, strict=True))
            rows.append(Metric(round, "train", "all", name, mean))
    return rows


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now


def initial_state(exp: Experiment, params: torch.Tensor) -> ServerState:
    """The state before the first round, from one model's vector `[d]`."""
    start = exp.setting.init(params, exp.n_clients)
    return ServerState(
        round=0,
        params=start,
        optimizer=exp.server_optimizer.init(start),
        aggregator=exp.aggregator.init(len(params)),
    )
