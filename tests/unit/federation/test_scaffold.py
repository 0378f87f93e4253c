"""SCAFFOLD by hand on quadratics, and against a loop typed from the paper."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.server_optimizers import SGD
from fedexp.backends.in_process import InProcess
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.types import ClientReport, ClientTask, Updates
from fedexp.federation.algorithms.fedavg import FedAvg
from fedexp.federation.algorithms.scaffold import Scaffold
from fedexp.federation.root import RootData
from fedexp.federation.rounds import run_round, run_rounds
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.optimizer import LocalOptimizer
from fedexp.training.schedules import Constant, Cosine
from fedexp.training.sgd import LocalSGD
from tests.support import private_models, toy_rounds, workloads
from tests.support.toy_rounds import Cohorts, value_of

LR = 0.25


class Quadratic:
    """Client k has the loss slope / 2 (y - target)^2; its trainer makes two steps on it."""

    slopes, targets = (1.0, 2.0), (4.0, -1.0)

    def learning_rate(self, round):
        return LR

    def steps_for(self, n):
        return 2

    def __call__(self, model, shard, task):
        return self.adjusted(lambda gradients: gradients)(model, shard, task)

    def adjusted(self, adjust):
        def train(model, shard, task):
            slope, target = self.slopes[task.client_id], self.targets[task.client_id]
            for _ in range(2):
                (gradient,) = adjust([slope * (model.vector - target)])
                model.vector -= LR * gradient
            return ClientReport(1, 2, {"loss": 0.0})

        return train


class OneNumber:
    """As much of a model as the quadratics need."""

    def __init__(self, value):
        self.vector = torch.tensor([value])
        self.parameters = [self.vector]


class Toy(toy_rounds.Toy):
    """A backend for one number, which is sent with whatever its trainer sends beside it."""

    def train(self, trainer, tasks):
        self.tasks.append(list(tasks))
        rows, reports = [], []
        for task in tasks:
            model = OneNumber(float(task.params))
            report = trainer(model, Split(torch.zeros(1), torch.zeros(1)), task)
            rows.append(torch.cat([model.vector - task.params, *report.sent.values()]))
            reports.append(report)
        return Updates.of(torch.stack(rows), tasks, reports)


def quadratics(**changes):
    parts = {"trainer": Quadratic(), "backend": Toy(), "algorithm": Scaffold()}
    return toy_rounds.experiment(**{**parts, "aggregator": Mean("uniform"), **changes})


def test_two_rounds_by_hand():
    exp = quadratics()
    first, record = run_round(exp, toy_rounds.start_of(exp, 0.0))
    # Client 0: 0 + 1/4 4 = 1, then 1 + 1/4 3 = 1.75. Client 1: 0 - 1/4 2 = -0.5, -0.5 - 1/4 1.
    # c_0 = -1.75 / (2/4) = -3.5, c_1 = 0.75 / (2/4) = 1.5; means 0.5 and -1.
    assert first.params.tolist() == [0.5]
    assert first.algorithm["control"].tolist() == [-1.0]
    kept = [first.clients[c].read()["algorithm.control"].tolist() for c in (0, 1)]
    assert kept == [[-3.5], [1.5]]
    assert value_of(record, "round", "all", "step_norm") == 0.5  # of the model alone
    assert value_of(record, "update", "0", "norm") == pytest.approx((1.75**2 + 3.5**2) ** 0.5)

    second, _ = run_round(exp, first)
    # Client 0 adds c - c_0 = 2.5 to its gradients y - 4: 0.5 -> 0.75 -> 0.9375; client 1 adds
    # c - c_1 = -2.5 to 2 (y + 1): 0.5 -> 0.375 -> 0.3125. Almost no drift is left.
    assert second.params.tolist() == [0.625]
    # c_0+ = c_0 - c - 0.4375 / (2/4) = -3.375, c_1+ = c_1 - c + 0.1875 / (2/4) = 2.875.
    kept = [second.clients[c].read()["algorithm.control"].tolist() for c in (0, 1)]
    assert kept == [[-3.375], [2.875]]
    assert second.algorithm["control"].tolist() == [-0.25]


def test_it_ends_where_all_clients_agree_and_fedavg_does_not():
    def end(algorithm):
        exp = quadratics(rounds=60, algorithm=algorithm)
        *_, (state, _) = run_rounds(exp, toy_rounds.start_of(exp, 0.0))
        return state.params.item()

    # (y - 4) + 2 (y + 1) = 0 at y = 2/3.
    assert end(Scaffold()) == pytest.approx(2 / 3, abs=1e-4)
    # Two steps of FedAvg make 4 + 9/16 (y - 4) and -1 + 1/4 (y + 1): the mean of both is y where
    # (2 - 9/16 - 1/4) y = 4 x 7/16 - 3/4.
    assert end(FedAvg()) == pytest.approx((4 * 7 / 16 - 3 / 4) / (2 - 9 / 16 - 1 / 4), abs=1e-4)


def test_the_servers_control_variate_moves_by_the_share_of_the_clients_that_answered():
    exp = quadratics(sampler=Cohorts([0]))
    state, _ = run_round(exp, toy_rounds.start_of(exp, 0.0))
    assert state.params.tolist() == [1.75]
    assert state.algorithm["control"].tolist() == [0.5 * -3.5]
    assert set(state.clients) == {0}


def test_a_round_that_moves_nothing_moves_no_control_variate_of_the_server():
    exp = quadratics(min_clients=2, sampler=Cohorts([0, 1], [0]))
    first, _ = run_round(exp, toy_rounds.start_of(exp, 0.0))
    second, record = run_round(exp, first)
    assert second.params.tolist() == first.params.tolist()
    assert torch.equal(second.algorithm["control"], first.algorithm["control"])
    assert value_of(record, "round", "all", "skipped") == 1


def test_rows_that_were_dropped_are_no_part_of_the_share():
    class First:
        """A validation that only lets the first row pass."""

        def __call__(self, updates, d):
            assert d == 2
            return ["", *("not the first" for _ in updates.client_ids[1:])]

    exp = quadratics(update_validation=First())
    state, _ = run_round(exp, toy_rounds.start_of(exp, 0.0))
    assert state.algorithm["control"].tolist() == [0.5 * -3.5]


def test_the_servers_own_client_keeps_nothing():
    class Trusts:
        def init(self, d):
            assert d == 2
            return {}

        def __call__(self, updates, state, rng):
            assert updates.reference.shape == (2,)
            assert not updates.kept
            return updates.matrix[0].clone(), state

    exp = quadratics(
        n_clients=1,
        malicious=np.zeros(1, dtype=bool),
        sampler=Cohorts([0]),
        root=RootData(1, Quadratic()),
        aggregator=Trusts(),
    )
    state, _ = run_round(exp, toy_rounds.start_of(exp, 0.0))
    state, _ = run_round(exp, state)
    assert set(state.clients) == {0}
    _, _, (of_the_server,), (of_the_client,) = exp.backend.tasks
    assert of_the_server.state["control"].tolist() == [0.0]
    assert of_the_client.state["control"].tolist() == [-3.5]


# ------------------------------------------------------------------------- the paper's algorithm 1


def paper(module, shards, cohorts, steps, lr, global_lr):
    """Algorithm 1 of Karimireddy et al. with option II, typed from the paper, in float64."""
    x = vector_of(module).double()
    c = torch.zeros_like(x)
    c_i = [torch.zeros_like(x) for _ in shards]
    for S in cohorts:
        delta_y, delta_c = [], []
        for i in S:
            y = x.clone()
            for _ in range(steps):
                y = y - lr * (gradient(module, y, shards[i]) - c_i[i] + c)
            c_plus = c_i[i] - c + (x - y) / (steps * lr)
            delta_y.append(y - x)
            delta_c.append(c_plus - c_i[i])
            c_i[i] = c_plus
        x = x + global_lr / len(S) * sum(delta_y)
        c = c + len(S) / len(shards) * sum(delta_c) / len(S)
    return x, c, c_i


def gradient(module, y, shard):
    local = copy.deepcopy(module).double()
    nn.utils.vector_to_parameters(y.clone(), local.parameters())
    loss = F.cross_entropy(local(shard.x.double()), shard.y)
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, local.parameters())])


def test_rounds_are_the_papers_algorithm():
    work, steps, lr = workloads.workload("mlp"), 3, 0.05
    cohorts = [[0, 1, 2, 3], [1, 3], [0, 2], [1, 2], [0, 1, 3]]
    shards = [work.train.rows(torch.from_numpy(shard)) for shard in work.shards]
    exp = toy_rounds.experiment(
        n_clients=4,
        malicious=np.zeros(4, dtype=bool),
        rounds=len(cohorts),
        sampler=Cohorts(*cohorts),
        trainer=replace(workloads.trainer(), batch_size=None, epochs=None, steps=steps, lr=lr),
        backend=InProcess(work),
        evaluator=NoEvaluation(),
        algorithm=Scaffold(),
        aggregator=Mean("uniform"),
        server_optimizer=SGD(0.7),
    )
    start = vector_of(work.model)
    *_, (state, _) = run_rounds(exp, toy_rounds.initial_state(exp, start))
    x, c, c_i = paper(work.model, shards, cohorts, steps, lr, global_lr=0.7)
    moved = (x - start).norm()
    assert moved > 0.1
    assert (state.params - x).norm() < 1e-5 * moved
    assert (state.algorithm["control"] - c).norm() < 1e-5 * c.norm()
    for client, expected in enumerate(c_i):
        kept = state.clients[client].read()["algorithm.control"]
        assert (kept - expected).norm() < 1e-5 * expected.norm()


class NoEvaluation:
    def __call__(self, backend, models, round):
        return [], None


# ------------------------------------------------------------------------- around other parts


def one_step(trainer, model, data, difference):
    """Delta and report of one step of SCAFFOLD where c - c_k is `difference` `[d]`."""
    start = model.vector.clone()
    task = ClientTask(
        0, start, 0, 7, {"control": -difference}, {"control": torch.zeros_like(start)}
    )
    report = Scaffold().local(trainer)(model, data, task)
    return model.vector - start, report


@pytest.mark.parametrize("private", [False, True])
def test_a_step_is_corrected_after_whatever_noise_it_has(private):
    sgd = private_models.sgd(batch_size=None, epochs=None, steps=1)
    trainer = private_models.private(sgd) if private else sgd
    module, data = private_models.built(private_models.SHIPPED["small_cnn"]), private_models.shard()
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    difference = torch.randn(len(model.vector), generator=torch.Generator().manual_seed(3))
    other = TaskModel(module, torch.device("cpu"), Multiclass())
    plain, _ = one_step(trainer, other, data, 0 * difference)
    delta, report = one_step(trainer, model, data, difference)
    assert plain.abs().max() > 0
    torch.testing.assert_close(delta, plain - 0.1 * difference, rtol=1e-4, atol=1e-6)
    # delta c = -c - delta / (K lr): no more than the delta and the server's c can tell.
    torch.testing.assert_close(report.sent["control"], -delta / 0.1, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(report.state["control"], -difference - delta / 0.1)
    assert ("sampling_rate" in report.metrics) == private


def test_running_statistics_are_not_corrected():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    data = private_models.shard(6, (1, 4, 4))
    delta, report = one_step(private_models.sgd(), model, data, torch.ones_like(model.vector))
    p = sum(parameter.numel() for parameter in module.parameters())
    assert delta[p:].abs().max() > 0
    assert report.sent["control"][p:].tolist() == [0.0] * 32
    assert report.sent["control"][:p].abs().max() > 0


def test_a_schedule_that_has_ended_leaves_the_control_variate():
    ended = replace(private_models.sgd(), schedule=Cosine(1, 0.0))
    module = private_models.built(lambda: nn.Linear(4, 3))
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    data = Split(torch.randn(5, 4), torch.zeros(5).long())
    start = model.vector.clone()
    kept = {"control": torch.ones(15)}
    task = ClientTask(0, start, 1, 7, kept, {"control": torch.zeros(15)})
    report = Scaffold().local(ended)(model, data, task)
    assert torch.equal(model.vector, start)
    assert report.sent["control"].tolist() == [0.0] * 15
    assert report.state["control"].tolist() == [1.0] * 15


ADAM = LocalOptimizer(torch.optim.Adam, 0.01, 4, 1, None, Constant())


@pytest.mark.parametrize(
    "trainer", [workloads.trainer(momentum=0.9), ADAM, workloads.Raises()], ids=lambda t: str(t)[:9]
)
def test_training_of_which_no_gradients_can_be_read_is_refused(trainer):
    name = type(trainer).__name__
    with pytest.raises(InputError, match=rf"training={name}: .*training.momentum=0"):
        Scaffold().local(trainer)


def test_weight_decay_and_the_proximal_term_are_a_part_of_the_gradients():
    assert isinstance(workloads.trainer(), LocalSGD)
    prox = replace(workloads.trainer(), proximal=0.1, weight_decay=0.01)
    assert prox.learning_rate(0) == 0.05
    Scaffold().local(prox)
