"""The round loop. One screen; everything that varies is a part of the experiment.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, algorithm 1, with an adversary and a defending server in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedexp.core.attack_schedule import AttackSchedule
from fedexp.core.capabilities import communicates
from fedexp.core.checks import InputError
from fedexp.core.cohort import drawn
from fedexp.core.default_type import default_type_kept
from fedexp.core.metric import Metric
from fedexp.core.protocols import (
    Account,
    Attack,
    Backend,
    Channel,
    ClientStore,
    Evaluator,
    Sampler,
    Setting,
    Trainer,
    WorkerMomentum,
)
from fedexp.core.rng import generator, lent, seed_for, start_globals
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.core.text import called
from fedexp.core.types import ClientTask, row_size
from fedexp.federation.client_state import InMemory, keep, of_part, read
from fedexp.federation.describe import describe, malicious_in, remarks, traffic
from fedexp.federation.evaluation import Pace, Unhurried
from fedexp.federation.failed_round import cause_of
from fedexp.federation.form import no_state, refuse_form
from fedexp.federation.gather import Merged, Rows
from fedexp.federation.root import NoRootData, RootData
from fedexp.federation.sending import rewritten, transmitted
from fedexp.federation.server import Server
from fedexp.federation.trial import Judge, NoJudge, Trial, known_server
from fedexp.federation.worker_momentum import in_place_of


@dataclass(frozen=True)
class Experiment:
    """The parts of one run. Built once by `fedexp.config.build`; holds no state of the rounds."""

    seed: int
    rounds: int
    eval_every: int
    max_failed_rounds: int  # so many rounds in a row that move nothing end the run
    n_clients: int
    malicious: np.ndarray  # [n_clients] bool: who the adversary controls
    schedule: AttackSchedule  # in which rounds they attack
    setting: Setting
    sampler: Sampler
    trainer: Trainer
    worker_momentum: WorkerMomentum
    backend: Backend
    attack: Attack
    channel: Channel
    server: Server
    account: Account
    evaluator: Evaluator
    store: ClientStore = field(default_factory=InMemory)  # of what stays with clients
    root: NoRootData | RootData = field(default_factory=NoRootData)  # the server's own examples
    device: torch.device = field(default=torch.device("cpu"))  # where models and rows lie
    gather: Rows | Merged = field(default_factory=Rows)  # of what the clients trained
    judge: Judge = field(default_factory=NoJudge)  # of models that an attack tries
    pace: Pace = field(default_factory=Unhurried)  # of evaluations; the only part with a clock
    # Malicious client -> the shard of its own data, for rounds without an attack on data.
    unpoisoned: Mapping[int, int] = field(default_factory=dict)


def run_rounds(exp: Experiment, state: ServerState) -> Iterator[tuple[ServerState, RoundRecord]]:
    """Yield the state and the record after every round; hand in a saved state to resume.

    Raises:
        InputError: too many rounds in a row moved nothing.
    """
    most, last = min(exp.max_failed_rounds, exp.rounds), None
    state = state.to(exp.device)
    while not finished(exp, state) and state.failed_rounds < most:
        with default_type_kept(), lent(seed_for(exp.seed, "round", state.round), exp.device):
            state, last = run_round(exp, state)
        yield state, last
    if state.failed_rounds >= most:
        raise _nothing_moves(exp, state.failed_rounds, last)


def _nothing_moves(exp: Experiment, rounds: int, last: RoundRecord | None) -> InputError:
    """What to tell a person after so many rounds in a row that moved nothing."""
    cause = None if last is None else last.cause
    if cause is not None and cause.group == "training":
        reason = (
            f"diverges: the last {rounds} rounds moved nothing, and no update of an honest client "
            "was finite; use a smaller training.lr"
        )
        if exp.malicious.any():  # what they sent may have thrown the model there
            reason += ", or an aggregator that survives the attack"
        return InputError(reason, "training", type(exp.trainer).__name__)
    why = last.notes[-1] if last is not None and last.notes else "see fedexp.log"
    reason = f"the last {rounds} rounds moved nothing; {why}"
    if cause is not None:
        part = getattr(exp, cause.group, None) or getattr(exp.server, cause.group)
        reason += f"; {cause.group}={called(part)} {cause.words}"
    return InputError(reason, "max_failed_rounds", exp.max_failed_rounds)


def finished(exp: Experiment, state: ServerState) -> bool:
    """Whether all rounds are done, or the next one could exceed `max_epsilon`."""
    if state.round >= exp.rounds or exp.account.max_epsilon is None:
        return state.round >= exp.rounds
    return exp.account.would_exceed(state.ledger, _cohort(exp, state.round).tolist())


def run_round(exp: Experiment, state: ServerState) -> tuple[ServerState, RoundRecord]:
    """One round: from the state after round r to the state after round r + 1."""
    r = state.round
    watch = _Stopwatch()
    stream = partial(_stream, exp.seed, r)

    # 1. Who takes part, and what each one receives.
    algorithm, d = exp.server.algorithm, state.params.shape[-1]
    cohort = _cohort(exp, r)
    kept = {c: read(state.clients, c) for c in cohort.tolist()}
    broadcast, at_first = algorithm.broadcast(state.algorithm), algorithm.client_init(d)
    wrong = no_state(broadcast, "what it sends out") or no_state(at_first, "clients' states")
    refuse_form(wrong, "algorithm", algorithm)
    under_attack = exp.schedule.attacks(r)
    shards = {} if under_attack else exp.unpoisoned

    def task_of(c: int) -> ClientTask:
        return ClientTask(
            client_id=c,
            params=exp.setting.start(state.params, c),
            round=r,
            seed=seed_for(exp.seed, "client", r, c),
            state=of_part(kept.get(c, {}), "algorithm") or at_first,
            broadcast=broadcast,
            shard=shards.get(c),
        )

    # 2. Local training, the only parallel step. What clients keep is seen by nobody else.
    reference = exp.root(exp.backend, algorithm, task_of)  # first: the clients' rows are a buffer
    tasks = [task_of(c) for c in kept]
    trained = exp.gather(exp.backend)(algorithm.local(exp.trainer), tasks)
    trained = replace(trained, reference=reference)
    start_globals(seed_for(exp.seed, "server", r))  # wherever the clients were trained
    momenta_before = [of_part(own, "worker_momentum") for own in kept.values()]
    malicious = exp.malicious[cohort] & under_attack
    averaged, momenta = in_place_of(
        exp.worker_momentum, trained.without_kept(), momenta_before, d, malicious
    )
    watch.lap("train")

    # 3. Clients protect their rows; the adversary, who knows the rule, rewrites those it controls.
    protected = exp.server.privacy.on_client(averaged, state.privacy, stream("client_noise"))
    unsent = [of_part(own, "channel") for own in kept.values()]

    known = known_server(exp.server, exp.attack)
    rule = Trial(known, state, exp.channel, protected, unsent, stream, partial(_loss, exp))
    mask = torch.from_numpy(malicious).to(protected.matrix.device)
    sent, memory = rewritten(exp.attack, protected, mask, rule, stream("attack"), state.attack)

    # 4. The channel carries the rows, or sums of them; the account is charged for who took part.
    delivery, left = transmitted(exp.channel, sent, unsent, stream("channel"))
    ledger = exp.account.charge(state.ledger, sent, delivery)
    states = {"algorithm": trained.kept, "worker_momentum": momenta, "channel": left}
    clients = keep(exp.store, r + 1, state.clients, cohort.tolist(), **states)
    watch.lap("transmit")

    # 5. The server makes one step of the rows that it trusts, and takes it.
    state, receipt = exp.server(delivery.received, state, stream)
    state = replace(state, round=r + 1, clients=clients, ledger=ledger, attack=memory)
    state = state.apart_from(trained.matrix)
    watch.lap("aggregate")

    # 6. What happened, how good the models are now, and what it has cost.
    # Until they attack for the first time, the record is that of a run without an adversary.
    has_begun = exp.malicious.any() and exp.schedule.has_begun(r)
    metrics = describe(r + 1, sent, delivery, malicious if has_begun else None, receipt)
    down = sum(task.bytes_down for task in tasks)
    metrics += traffic(r + 1, down if communicates(exp.setting) else None, delivery)
    predictions = None
    due = state.round % exp.eval_every == 0 and exp.pace.allows()
    if evaluated := due or finished(exp, state):
        models = exp.setting.models(state.params)
        measured, predictions = exp.evaluator(exp.backend, models, state.round)
        epsilon = exp.account.epsilon(ledger)
        spent = [] if epsilon is None else [Metric(r + 1, "privacy", "all", "epsilon", epsilon)]
        metrics += [*measured, *spent]
    cause = None
    if receipt.skipped:
        stages = {"training": trained, "worker_momentum": averaged, "privacy": protected}
        cause = cause_of(stages, malicious, delivery, receipt)
    watch.lap("evaluate")
    exp.pace.note(watch.seconds, evaluated)
    return state, RoundRecord(
        round=state.round,
        metrics=tuple(metrics),
        predictions=predictions,
        seconds=watch.seconds,
        notes=remarks(delivery, receipt),
        received=delivery.updates,
        malicious=malicious_in(delivery, sent, malicious),
        members=delivery.members,
        cause=cause,
    )


def _cohort(exp: Experiment, round: int) -> np.ndarray:
    return drawn(exp.sampler, exp.n_clients, _stream(exp.seed, round, "cohort"))


def _stream(seed: int, round: int, purpose: str) -> np.random.Generator:
    return generator(seed, purpose, round)


def _loss(exp: Experiment, params: Tensor) -> float:
    return exp.judge(exp.backend, exp.setting.models(params))


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase], self._last = now - self._last, now


def initial_state(exp: Experiment, params: Tensor) -> ServerState:
    """The state before the first round, from one model's vector `[d]`."""
    start, d = exp.setting.init(params, exp.n_clients), len(params)
    row = row_size(exp.server.algorithm.sends, d)
    server = exp.server
    state = ServerState(
        round=0,
        params=start,
        optimizer=server.optimizer.init(start),
        algorithm=server.algorithm.init(d),
        aggregator=server.aggregator.init(row),
        detector=server.detector.init(row),
        privacy=server.privacy.init(row),
        ledger=exp.account.init(),
    )
    for group, part, first in (
        ("server_optimizer", server.optimizer, state.optimizer),
        ("algorithm", server.algorithm, state.algorithm),
        ("aggregator", server.aggregator, state.aggregator),
        ("detector", server.detector, state.detector),
        ("privacy", server.privacy, state.privacy),
    ):
        refuse_form(no_state(first), group, part)
    return state
