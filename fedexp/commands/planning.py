"""What a run would take, from one round that is made of one client's training.

The run is built as for a start, so that what would be refused is refused here. Then its first round
is gone through in memory with the row of one client in the place of all: the client of the cohort
whose number of examples is nearest to the mean. Bytes are what the channel counts, memory is this
process's peak, and seconds are measured, with the training of that client taken as often as the
round has clients: what one process would need. Epsilon is the account's, at most: every cohort
is drawn as it will be, and charged in full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from fedexp.config.build import Built
from fedexp.config.pace import BY_COST, SHARE_OF_TIME
from fedexp.core.capabilities import does_nothing, sampling_of
from fedexp.core.flat import vector_of
from fedexp.core.protocols import Backend, Merges, Trainer
from fedexp.core.rng import generator
from fedexp.core.round_record import ServerState
from fedexp.core.shards import sizes_of
from fedexp.core.text import duration, rounded_up
from fedexp.core.types import ClientTask, Updates
from fedexp.federation.evaluation import Unhurried
from fedexp.federation.rounds import Experiment, initial_state, run_round
from fedexp.run_folder.memory import memory

AT_MOST = 3  # trainings of the one client, of which the quickest counts: the first one warms up
LONG = 0.5  # seconds after which it is not trained again
DRAWS = 100  # rounds that are looked at for a cohort that is not empty


@final
@dataclass(frozen=True)
class Foreseen:
    """What a run would take. Everything is of the whole run, but for what says a round."""

    rounds: int
    rounds_within_max_epsilon: int  # the same where there is no limit
    evaluations: int  # with eval_every=auto about as many
    n_clients: int
    malicious: int
    clients_a_round: int  # expected
    parameters: int
    bytes_up: int
    bytes_down: int
    peak_memory_mb: float  # of the process that made this plan, its round included
    seconds: float  # in one process, without studies
    seconds_a_round: Mapping[str, float]  # by phase; evaluate: of one evaluation
    privacy: Mapping[str, Any] | None  # the statement, at the end
    remarks: tuple[str, ...]


@final
@dataclass
class OneForAll:
    """A backend that trains one client and gives its row to the whole cohort.

    Args:
        backend: of the run.
        sizes: `[n_clients + 1]` examples of each client, and of the server's own shard.
    """

    backend: Backend
    sizes: np.ndarray
    unmeasured: float = field(default=0.0)  # seconds that the others would have taken

    def train(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """The rows `[n, D]`, all alike."""
        one = self._trained(trainer, tasks)
        return replace(one, matrix=one.matrix.repeat(len(tasks), 1))

    def train_merged(
        self, trainer: Trainer, tasks: Sequence[ClientTask], merger: Merges
    ) -> Updates:
        """The same as means of neighbours, without ever holding all rows."""
        one = self._trained(trainer, tasks)
        return merger.merged(replace(one, matrix=one.matrix.expand(len(tasks), -1)))

    def evaluate(self, models: Sequence[Tensor], split: str) -> list[Tensor]:
        """As the backend does."""
        return self.backend.evaluate(models, split)

    def close(self) -> None:
        """Give back what the backend holds."""
        self.backend.close()

    def _trained(self, trainer: Trainer, tasks: Sequence[ClientTask]) -> Updates:
        """One row `[1, D]`, and the rest of an answer for everybody."""
        sizes = self.sizes[[task.client_id for task in tasks]]
        chosen = tasks[int(np.abs(sizes - sizes.mean()).argmin())]
        seconds: list[float] = []
        while len(seconds) < AT_MOST and sum(seconds) < LONG:
            started = time.perf_counter()
            one = self.backend.train(trainer, [chosen])
            seconds.append(time.perf_counter() - started)
        n = len(tasks)
        self.unmeasured += n * min(seconds) - sum(seconds)
        return replace(
            one,
            client_ids=tuple(task.client_id for task in tasks),
            num_examples=torch.as_tensor(sizes, dtype=torch.float64),
            metrics=one.metrics * n,
            kept=one.kept * n,
        )


def foresee(config: Mapping[str, Any], built: Built) -> Foreseen:
    """Go through one round, and say what all of them would take; closes what was built.

    Args:
        config: the resolved config.
        built: of it.

    Raises:
        InputError: the round cannot be gone through.
    """
    with closing(built.experiment.backend):
        exp, parameters = built.experiment, len(vector_of(built.model))
        start = initial_state(exp, vector_of(built.model))
        first, cohort = _first_cohort(exp)
        sizes = np.asarray(sizes_of(exp.setting.shards(built.partition)), dtype=np.float64)
        # Of malicious clients on top, and of the server's own shard, nothing is said here.
        unknown = np.full(1 + exp.n_clients - len(sizes), sizes.mean())
        backend = OneForAll(exp.backend, np.append(sizes, unknown))
        rehearsed = replace(exp, backend=backend, eval_every=1, pace=Unhurried())
        _, record = run_round(rehearsed, replace(start, round=first))
    seconds = {**record.seconds, "train": record.seconds["train"] + backend.unmeasured}
    share = _expected(exp) / cohort
    traffic = {m.metric: m.value * share for m in record.metrics if m.scope == "round"}
    rounds, ledger = _within_epsilon(exp, start)
    evaluations = math.ceil(rounds / exp.eval_every)
    others = rounds * sum(value for phase, value in seconds.items() if phase != "evaluate")
    if config["eval_every"] == BY_COST:  # the first and the last; others as there is time for them
        in_time = others * SHARE_OF_TIME / (1 - SHARE_OF_TIME) / seconds["evaluate"]
        evaluations = min(rounds, max(2, int(in_time)))
    evaluating = evaluations * seconds["evaluate"]
    return Foreseen(
        rounds=exp.rounds,
        rounds_within_max_epsilon=rounds,
        evaluations=evaluations,
        n_clients=exp.n_clients,
        malicious=0 if does_nothing(exp.attack) else int(exp.malicious.sum()),
        clients_a_round=_expected(exp),
        parameters=parameters,
        bytes_up=round(rounds * traffic["bytes_up"]),
        bytes_down=round(rounds * traffic["bytes_down"]),
        peak_memory_mb=memory()["peak_memory_mb"] or math.nan,
        seconds=others + evaluating,
        seconds_a_round=seconds,
        privacy=exp.account.statement(ledger),
        remarks=built.remarks,
    )


def _cohort(exp: Experiment, round: int) -> list[int]:
    drawn = exp.sampler(exp.n_clients, generator(exp.seed, "cohort", round))
    return [int(client) for client in drawn]


def _first_cohort(exp: Experiment) -> tuple[int, int]:
    """The first round in which anybody takes part, and how many do."""
    sizes = ((round, len(_cohort(exp, round))) for round in range(DRAWS))
    return next(((round, n) for round, n in sizes if n), (0, 1))


def _expected(exp: Experiment) -> int:
    said = sampling_of(exp.sampler, exp.n_clients)
    return len(_cohort(exp, 0)) if said is None else max(1, round(said.rate * exp.n_clients))


def _within_epsilon(exp: Experiment, state: ServerState) -> tuple[int, Any]:
    """How many rounds keep `max_epsilon`, and the ledger after them."""
    ledger = state.ledger
    if exp.account.statement(ledger) is None:
        return exp.rounds, ledger
    for number in range(exp.rounds):
        cohort = _cohort(exp, number)
        if exp.account.max_epsilon is not None and exp.account.would_exceed(ledger, cohort):
            return number, ledger
        ledger = exp.account.at_most(ledger, cohort)
    return exp.rounds, ledger


def as_document(of: Foreseen) -> dict[str, Any]:
    """For a program."""
    from fedexp.commands.documents import promise

    return {"schema": "plan/1", **asdict(of), "privacy": promise(of.privacy)}


def as_text(of: Foreseen) -> str:
    """For a person, a line each."""
    a_round = ", ".join(f"{phase} {value:.2g}" for phase, value in of.seconds_a_round.items())
    who = f"{of.clients_a_round:,} of {of.n_clients:,} clients a round"
    lines = {
        "rounds": f"{of.rounds:,}, with {of.evaluations:,} evaluations",
        "clients": f"{who}{f', {of.malicious:,} malicious' if of.malicious else ''}",
        "model": f"{of.parameters:,} parameters",
        "traffic": f"{_size(of.bytes_up)} up, {_size(of.bytes_down)} down, in all",
        "memory": f"{of.peak_memory_mb:,.0f} MB, the peak of this process with one round",
        "time": f"about {duration(of.seconds)} in one process, without studies and plots",
        "": f"(seconds of a round, from one client's training: {a_round})",
        "privacy": _promised(of),
    }
    notes = [f"Note: {remark}" for remark in of.remarks]
    return "\n".join([*(f"{name:<10}{said}" for name, said in lines.items()), *notes])


def _promised(of: Foreseen) -> str:
    if of.privacy is None:
        return "nothing is promised"
    promised = epsilon_of(of.privacy)
    said = f"{promised} at delta {of.privacy['delta']:g} for {of.privacy['unit']}"
    if of.rounds_within_max_epsilon == of.rounds:
        return said
    return f"{said}; max_epsilon ends the run after {of.rounds_within_max_epsilon:,} rounds"


def epsilon_of(promise: Mapping[str, Any]) -> str:
    """In words."""
    epsilon = promise["epsilon"]
    return "epsilon infinite" if epsilon is None else f"epsilon at most {rounded_up(epsilon)}"


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.1f} GB"
