"""An experiment that can be done on paper: two clients, one parameter.

Client k holds one number, its target. Training moves the model all the way to it, so the delta is
target - params, and everything after it can be computed by hand.
"""

import numpy as np
import torch

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.server_optimizers import SGD
from fedexp.attacks.none import NoAttack
from fedexp.channel.plain import Plain
from fedexp.core.attack_schedule import AttackSchedule
from fedexp.core.metric import Metric
from fedexp.core.types import ClientReport, Updates
from fedexp.detection.none import NoDetector
from fedexp.federation.algorithms.fedavg import FedAvg
from fedexp.federation.rounds import Experiment, initial_state, run_rounds
from fedexp.federation.server import Server
from fedexp.federation.settings import Federated
from fedexp.federation.update_validation import NoValidation
from fedexp.federation.worker_momentum import NoMomentum
from fedexp.privacy.account import NoAccount
from fedexp.privacy.none import NoPrivacy

TARGETS = (2.0, 6.0)
EXAMPLES = (3, 1)  # so the weights are 3/4 and 1/4


class ToTarget:
    """A trainer whose answer is known."""

    def __call__(self, client, start):
        return TARGETS[client] - start

    def spread(self, n_clients, cohort_size):
        return self


class Toy:
    """A backend that calls the trainer with numbers and keeps a book of what it was asked."""

    def __init__(self):
        self.tasks, self.evaluated = [], []
        self.matrix = torch.empty(8, 1)  # one buffer for all rounds, as the real ones have

    def train(self, trainer, tasks):
        self.tasks.append(list(tasks))
        for row, task in enumerate(tasks):
            self.matrix[row] = trainer(task.client_id, task.params)
        reports = [
            ClientReport(EXAMPLES[t.client_id], 10 * EXAMPLES[t.client_id], {"loss": 1.0 + t.round})
            for t in tasks
        ]
        return Updates.of(self.matrix[: len(tasks)], tasks, reports)

    def evaluate(self, models, split):
        return list(models)

    def close(self):
        pass


class Reports:
    """An evaluator that says what it was shown."""

    def __call__(self, backend, models, round):
        rows = [
            Metric(round, "test", str(k), "param", float(model)) for k, model in enumerate(models)
        ]
        return rows, torch.stack(list(models)).argmax(dim=0)


class Cohorts:
    """A sampler that follows a plan, round by round, and notes the streams that it was given."""

    def __init__(self, *plan):
        self.plan, self.draws = list(plan), []

    def __call__(self, n_clients, rng):
        self.draws.append(rng.random())
        return np.array(self.plan[(len(self.draws) - 1) % len(self.plan)], dtype=np.int64)


def experiment(**changes):
    parts = {
        "seed": 0,
        "rounds": 3,
        "eval_every": 1,
        "max_failed_rounds": 20,
        "n_clients": 2,
        "malicious": np.zeros(2, dtype=bool),
        "schedule": AttackSchedule(),
        "setting": Federated(),
        "sampler": Cohorts([0, 1]),
        "trainer": ToTarget(),
        "worker_momentum": NoMomentum(),
        "backend": Toy(),
        "attack": NoAttack(),
        "channel": Plain(),
        "account": NoAccount(),
        "evaluator": Reports(),
    }
    servers = {
        "algorithm": FedAvg(),
        "update_validation": NoValidation(),
        "privacy": NoPrivacy(),
        "detector": NoDetector(),
        "pre_aggregation": (),
        "aggregator": Mean("examples"),
        "server_optimizer": SGD(1.0),
        "min_clients": 1,
    }
    servers |= {name: changes.pop(name) for name in list(changes) if name in servers}
    servers["optimizer"] = servers.pop("server_optimizer")
    parts |= changes
    return Experiment(**parts, server=Server(n_clients=parts["n_clients"], **servers))


def start_of(exp, value=0.0):
    return initial_state(exp, torch.tensor([value]))


def value_of(record, scope, client, metric):
    (row,) = [r for r in record.metrics if (r.scope, r.client, r.metric) == (scope, client, metric)]
    return row.value


def params(exp, start=0.0):
    return [float(state.params) for state, _ in run_rounds(exp, start_of(exp, start))]


class Spy:
    """An attack that notes what it was told, and sends what it is told to send."""

    def __init__(self, row=None):
        self.row, self.seen = row, []

    def rewrite(self, updates, malicious, rule, rng):
        self.seen.append((malicious.tolist(), float(rule(updates.matrix)[0])))
        matrix = updates.matrix.clone()
        if self.row is not None:
            matrix[malicious] = self.row
        return updates.with_matrix(matrix)
