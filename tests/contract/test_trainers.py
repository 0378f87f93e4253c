"""What every local training of conf/training must keep, with every schedule."""

import copy
import pickle

import numpy as np
import pytest
import torch

from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.types import ClientTask
from fedexp.models import mlp
from fedexp.tasks.multiclass import Multiclass
from tests.support.composing import choices, config_for, part

TRAINERS = choices("training", "schedule")
SCHEDULES = choices("training/schedule")


@pytest.fixture(params=TRAINERS)
def choice(request):
    return request.param


@pytest.fixture
def trainer(choice):
    return part("training", choice)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    # Dropout draws from torch's global generator, which the trainer has to tame.
    return torch.nn.Sequential(torch.nn.Dropout(0.2), mlp((1, 4, 4), 3, hidden=(6,)))


def shard(n=13, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Split(torch.randn(n, 1, 4, 4, generator=g), torch.randint(0, 3, (n,), generator=g))


def train(trainer, module, data, seed=5, round=0):
    start = vector_of(module)
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    model.load(start)
    report = trainer(model, data, ClientTask(0, start, round, seed))
    return model.vector - start, report


def test_the_configs_were_found():
    assert "sgd" in TRAINERS
    assert {"constant", "cosine", "exponential"} <= set(SCHEDULES)


@pytest.mark.parametrize("n", [1, 2, 13])
def test_a_client_of_any_size_moves_its_model_and_reports(trainer, module, n):
    delta, report = train(trainer, module, shard(n))
    assert delta.isfinite().all()
    assert delta.abs().max() > 0
    assert report.num_examples == n
    assert report.processed >= n
    assert report.metrics["loss"] > 0
    assert all(isinstance(value, float) for value in report.metrics.values())


def test_training_helps(trainer, module):
    data = shard()
    losses = []
    current = copy.deepcopy(module)
    for round in range(5):
        delta, report = train(trainer, current, data, seed=round, round=round)
        losses.append(report.metrics["loss"])
        torch.nn.utils.vector_to_parameters(vector_of(current) + delta, current.parameters())
    assert losses[-1] < losses[0]


def test_what_was_given_stays_as_it_was(trainer, module):
    data, start = shard(), vector_of(module)
    x, y, before = data.x.clone(), data.y.clone(), start.clone()
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    model.load(start)
    trainer(model, data, ClientTask(0, start, 0, 5))
    assert torch.equal(data.x, x)
    assert torch.equal(data.y, y)
    assert torch.equal(start, before)
    assert torch.equal(vector_of(module), before)


def test_the_tasks_seed_decides_and_nothing_is_kept_between_calls(trainer, module):
    first, _ = train(trainer, module, shard(), seed=1)
    other, _ = train(trainer, module, shard(), seed=2)
    again, _ = train(trainer, module, shard(), seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generators_play_no_part(trainer, module):
    torch.manual_seed(0)
    np.random.seed(0)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, _ = train(trainer, module, shard())
    assert np.array_equal(np.random.get_state()[1], np_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.manual_seed(9)
    assert torch.equal(train(trainer, module, shard())[0], first)


def test_a_worker_process_gets_the_same_trainer(trainer, module):
    sent = pickle.loads(pickle.dumps(trainer))
    assert torch.equal(train(sent, module, shard())[0], train(trainer, module, shard())[0])


@pytest.mark.parametrize(("n_clients", "cohort_size"), [(4, 4), (20, 5), (1, 1)])
def test_spread_does_a_cohorts_work_in_one_client(trainer, module, n_clients, cohort_size):
    per_client = 20
    _, alone = train(trainer, module, shard(per_client))
    together = trainer.spread(n_clients, cohort_size)
    _, report = train(pickle.loads(pickle.dumps(together)), module, shard(per_client * n_clients))
    assert report.processed == cohort_size * alone.processed


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_begins_at_the_full_rate_and_stays_in_bounds(choice, schedule):
    overrides = (f"training={choice}", "rounds=50")
    factor = part("training/schedule", schedule, *overrides)
    assert factor(0) == 1.0
    factors = [factor(round) for round in range(51)]
    assert all(0 <= value <= 1 for value in factors)
    assert pickle.loads(pickle.dumps(factor)) == factor


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_fits_every_trainer(choice, schedule, module):
    node = config_for(f"training={choice}", f"training/schedule={schedule}")["training"]
    assert node["schedule"]["_target_"].startswith("fedexp.")
    delta, _ = train(
        part("training", choice, f"training/schedule={schedule}"), module, shard(), round=3
    )
    assert delta.abs().max() > 0
