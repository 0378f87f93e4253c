"""A client's private training: what it reports, what it leaves behind, and where it runs."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from fedexp.backends.in_process import InProcess
from fedexp.backends.process_pool import ProcessPool
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.types import ClientTask
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.private_steps import PrivateSteps
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.optimizer import LocalOptimizer
from fedexp.training.schedules import Constant
from tests.support import workloads
from tests.support.private_models import (
    SHIPPED,
    built,
    every_way,
    module,
    private,
    sgd,
    shard,
    traces,
    train,
)


class Sizes:
    """A step source that hands on another's steps and writes down how they were."""

    def __init__(self, steps):
        self.steps, self.examples = steps, []

    def __call__(self, *arguments):
        for step in self.steps(*arguments):
            self.examples.append(step.examples)
            yield step


def test_the_report_holds_what_an_accountant_needs():
    data = shard(30)
    sizes = Sizes(PrivateSteps(1.0, 1.0, "auto", "task"))
    vector, report = train(private(sgd(batch_size=1, epochs=None, steps=50)), module(), data)
    model = TaskModel(module(), torch.device("cpu"), Multiclass())
    task = ClientTask(0, model.vector.clone(), 0, 7)
    sgd(batch_size=1, epochs=None, steps=50)(model, data, task, sizes)
    assert torch.equal(model.vector, vector)
    assert report.metrics["steps"] == len(sizes.examples) == 50
    assert report.metrics["sampling_rate"] == pytest.approx(1 / 30)
    assert 0 in sizes.examples
    assert report.processed == sum(sizes.examples)
    assert report.num_examples == 30
    assert report.metrics["loss"] > 0


def test_a_round_without_any_example_has_no_loss():
    seeds = range(40)
    trainer = private(sgd(batch_size=1, epochs=None, steps=1))
    reports = [train(trainer, module(), shard(30), seed)[1] for seed in seeds]
    nothing = [report for report in reports if report.processed == 0]
    assert 0 < len(nothing) < len(reports)
    assert all(math.isnan(report.metrics["loss"]) for report in nothing)
    assert all(report.metrics["steps"] == 1 for report in nothing)


def test_a_client_as_small_as_a_batch_joins_whole():
    _, report = train(private(sgd(epochs=3)), module(), shard(4))
    assert report.metrics["sampling_rate"] == 1
    assert report.processed == 12


def test_any_optimiser_takes_the_private_gradients():
    adam = LocalOptimizer(torch.optim.Adam, 0.01, 4, 1, None, Constant())
    plain = LocalOptimizer(torch.optim.SGD, 0.1, 4, 2, None, Constant())
    data = shard(12)
    moved, _ = train(private(adam), module(), data)
    assert not torch.equal(moved, vector_of(module()))
    by_optimizer, _ = train(private(plain), module(), data)
    torch.testing.assert_close(by_optimizer, train(private(), module(), data)[0])


def test_dropout_follows_the_seed_and_global_generators_play_no_part():
    net, data = nn.Sequential(nn.Dropout(0.5), module()), shard(12)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, _ = train(private(), net, data)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert torch.equal(train(private(), net, data)[0], first)
    assert not torch.equal(train(private(), net, data, seed=8)[0], first)


def test_spread_does_a_cohorts_work_in_one_client():
    together = private(sgd(batch_size=4, epochs=2)).spread(20, 5)
    assert isinstance(together, PrivateTraining)
    assert together.trainer.work().epochs == 0.5
    assert pickle.loads(pickle.dumps(together)) == together


@pytest.mark.parametrize(("name", "clipping"), every_way(["mlp", "small_cnn", "resnet18"]))
def test_nothing_is_left_on_the_module(name, clipping):
    module, data, plain = built(SHIPPED[name]), shard(3), sgd(batch_size=2, epochs=1)
    start = vector_of(module)
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    before, names = traces(model.module), list(model.module.state_dict())
    used = copy.deepcopy(model)
    private(plain, clipping=clipping)(model, data, ClientTask(0, start, 0, 1))
    assert traces(model.module) == before
    assert list(model.module.state_dict()) == names
    # The next client, private or not, and an evaluation find the module as it came.
    for trainer in (plain, private(plain, clipping=clipping)):
        answers = []
        for each in (model, TaskModel(module, torch.device("cpu"), Multiclass())):
            each.load(start)
            trainer(each, data, ClientTask(0, start, 0, 2))
            with torch.inference_mode():
                answers.append(each.module.eval()(each.arrange(data)))
        assert torch.equal(*answers)
    assert len(traces(used.module)) == len(before)


def test_a_client_that_fails_leaves_nothing_either():
    model, data = TaskModel(module(), torch.device("cpu"), Multiclass()), shard(6)
    before, wrong = traces(model.module), Split(data.x, data.y + 99)
    with pytest.raises(IndexError):
        private(sgd(batch_size=None))(model, wrong, ClientTask(0, model.vector.clone(), 0, 1))
    assert traces(model.module) == before


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("mlp", [2]),  # to start a worker takes seconds
        pytest.param("cnn", [1, 2], marks=pytest.mark.slow),
        pytest.param("resnet18", [1, 2], marks=pytest.mark.slow),
    ],
)
def test_same_bits_in_process_and_in_pools(name, pools, quick_workers):
    work = workloads.workload(name)
    tasks = workloads.tasks(workloads.start(work))
    expected = InProcess(work).train(private(), tasks)
    again = InProcess(workloads.workload(name)).train(private(), tasks)
    assert torch.equal(again.matrix, expected.matrix)
    assert expected.metrics[0]["sampling_rate"] == 1
    assert expected.metrics[1]["sampling_rate"] == pytest.approx(1 / 3)
    for workers in pools:
        pool = ProcessPool(workloads.workload(name), workers)
        try:
            updates = pool.train(private(), tasks)
            assert torch.equal(updates.matrix, expected.matrix)
            assert updates.metrics == expected.metrics
        finally:
            pool.close()
