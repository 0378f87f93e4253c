"""Small workloads and trainers for the backends' tests, importable by their workers."""

import hashlib
import os
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.rng import seed_for, torch_generator
from fedexp.core.types import ClientReport, ClientTask, Sent
from fedexp.core.workload import Workload
from fedexp.models import cnn, mlp, resnet18
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD

SIZES = (3, 12, 7, 5)  # examples of each client: unequal, so that the pool reorders them

MODELS = {
    "mlp": lambda: mlp((1, 8, 8), 3, hidden=(16,)),
    "cnn": lambda: cnn((1, 8, 8), 3),
    "resnet18": lambda: resnet18((1, 8, 8), 3, groups=32),
}


def workload(model="mlp", cohort_size=4):
    g = torch_generator(0)
    n = sum(SIZES)
    edges = np.cumsum((0, *SIZES))
    torch.manual_seed(0)
    return Workload(
        model=MODELS[model](),
        train=Split(torch.randn(n, 1, 8, 8, generator=g), torch.randint(0, 3, (n,), generator=g)),
        shards=tuple(np.arange(a, b) for a, b in pairwise(edges)),
        evaluation={"test": Split(torch.randn(450, 1, 8, 8, generator=g), torch.zeros(450).long())},
        cohort_size=cohort_size,
        device=torch.device("cpu"),
        task=Multiclass(),
    )


def trainer(momentum=0.0):
    return LocalSGD(
        lr=0.05,
        batch_size=4,
        epochs=1,
        steps=None,
        momentum=momentum,
        weight_decay=0.0,
        proximal=0.0,
        schedule=Constant(),
    )


def tasks(params, round=0, clients=(0, 1, 2, 3)):
    return [ClientTask(c, params, round, seed_for(0, "client", round, c)) for c in clients]


def start(work):
    return vector_of(work.model)


def final_models(backend, work):
    """Hashes of the model after two rounds of FedAvg, without and with momentum."""
    hashes = {}
    for momentum in (0.0, 0.9):
        params = start(work)
        for round in range(2):
            updates = backend.train(trainer(momentum), tasks(params, round))
            weights = (updates.num_examples / updates.num_examples.sum()).float()
            params = params + weights @ updates.matrix
        hashes[momentum] = hashlib.sha256(params.contiguous().numpy().tobytes()).hexdigest()
        assert not torch.equal(params, start(work))
    return hashes


@dataclass(frozen=True)
class Raises:
    """Fails at client 2."""

    def __call__(self, model, shard, task):
        if task.client_id == 2:
            raise ArithmeticError("two is too many")
        return ClientReport(len(shard), 0, {"loss": 0.0})


@dataclass(frozen=True)
class Says:
    """Sends and keeps whatever it is told to, whatever it declares."""

    sends: tuple[Sent, ...] = ()
    sent: tuple[tuple[str, tuple[float, ...]], ...] = ()
    kept: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def __call__(self, model, shard, task):
        sent, kept = ({k: torch.tensor(v) for k, v in pairs} for pairs in (self.sent, self.kept))
        return ClientReport(len(shard), 0, {"loss": 0.0}, sent, kept)


@dataclass(frozen=True)
class Dies:
    """Takes its process with it at client 1."""

    def __call__(self, model, shard, task):
        if task.client_id == 1:
            os._exit(7)
        return ClientReport(len(shard), 0, {"loss": 0.0})


@dataclass(frozen=True)
class Hangs:
    """Never comes back."""

    def __call__(self, model, shard, task):
        while True:
            torch.ones(1).sum()


def ends_at_once(number, connection, board, work):
    """In the place of a worker's life."""
    os._exit(3)


def begins_late(number, connection, board, work):
    """As a worker on a machine that has other things to do."""
    time.sleep(30)
