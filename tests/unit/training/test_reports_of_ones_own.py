"""What a training part of one's own reports of a client is refused by name if it is no report."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.reports import check_report
from fedexp.core.trained import held_to_its_model
from fedexp.core.types import ClientReport, ClientTask, Updates
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.sgd import LocalSGD
from fedexp.training.steps import refuse_other_work
from tests.support.private_models import sgd

GOOD = ClientReport(3, 30, {"loss": 0.5, "on_device": torch.tensor(1.0)})


class Trainer:
    pass


def test_numbers_of_numpy_are_recorded_as_pythons():
    loss = {"loss": np.mean([0.25, 0.5]), "rate": np.float32(0.5), "on_device": torch.tensor(1.0)}
    task = ClientTask(0, torch.zeros(1), 0, 0)
    (metrics,) = Updates.of(torch.zeros(1, 1), [task], [replace(GOOD, metrics=loss)]).metrics
    assert metrics == {"loss": 0.375, "rate": 0.5, "on_device": 1.0}
    assert {type(value) for value in metrics.values()} == {float}


def test_a_report_of_numbers_is_one():
    check_report(GOOD, Trainer())


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (None, "must return a ClientReport, and returned a NoneType"),
        (replace(GOOD, num_examples=0), "must report num_examples of 1 or above, and reported 0"),
        (replace(GOOD, num_examples=float("nan")), "and reported nan"),
        (replace(GOOD, processed=None), "must report processed examples, 0 or above"),
        (replace(GOOD, metrics=None), "must report metrics as a dict, and reported a NoneType"),
        (replace(GOOD, metrics={"loss": None}), "metrics that are numbers, and loss is None"),
        (replace(GOOD, metrics={"loss": torch.ones(2)}), "and loss is tensor"),
        (replace(GOOD, metrics={3: 0.5}), "metrics with names on one line, and 3 is none"),
        (replace(GOOD, metrics={"": 0.5}), "and '' is none"),
        (replace(GOOD, metrics={"a\nb": 0.5}), "and 'a\\nb' is none"),
        (replace(GOOD, state={"seen": 3}), "what it sends and what it keeps as dicts of tensors"),
    ],
)
def test_what_is_no_report(report, words):
    with pytest.raises(InputError, match=r"^training=\S*Trainer: must ") as refused:
        check_report(report, Trainer())
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def moved(model, shard, task):
    for parameter in model.parameters:
        parameter.data = parameter.data - 0.1


def assigned(model, shard, task):
    model.module.load_state_dict(copy.deepcopy(model.module.state_dict()), assign=True)


def widened(model, shard, task):
    model.module.double()


def replaced(model, shard, task):
    model.vector = model.vector - 0.1


def started(model, shard, task):
    task.params.sub_(0.1)


def started_by_numpy(model, shard, task):
    task.params.numpy()[:] = 0


def relabelled(model, shard, task):
    shard.y[:] = 0


def told(model, shard, task):
    task.broadcast["rate"].zero_()


def moved_in_place(model, shard, task):
    with torch.no_grad():
        for parameter in model.parameters:
            parameter -= 0.1
    model.module.load_state_dict(copy.deepcopy(model.module.state_dict()))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (moved, "puts other tensors in the place of the model's"),
        (assigned, "puts other tensors in the place of the model's"),
        (widened, "puts other tensors in the place of the model's"),
        (replaced, "puts other tensors in the place of the model's"),
        (started, "changes what it is given beside the model"),
        (started_by_numpy, "changes what it is given beside the model"),
        (relabelled, "changes what it is given beside the model"),
        (told, "changes what it is given beside the model"),
        (moved_in_place, ""),
    ],
)
def test_a_trainer_moves_the_model_where_it_lies_and_nothing_else(train, words):
    model = TaskModel(torch.nn.Linear(2, 3), torch.device("cpu"), Multiclass())
    shard = Split(torch.zeros(4, 2), torch.arange(4) % 3)
    task = ClientTask(0, model.vector.clone(), 0, 0, broadcast={"rate": torch.ones(1)})
    if not words:
        with held_to_its_model(train, model, shard, task):
            train(model, shard, task)
        return
    with (
        pytest.raises(InputError, match=r"^training=\S*: ") as refused,
        held_to_its_model(train, model, shard, task),
    ):
        train(model, shard, task)
    assert words in str(refused.value)


class SaysANumber(LocalSGD):
    def work(self):
        return 3


def test_work_is_said_in_the_way_that_steps_are_counted_by():
    refuse_other_work(Trainer())  # says nothing of it
    with pytest.raises(InputError, match=r"^training=\S*SaysANumber: work\(\) must return .* 3$"):
        refuse_other_work(SaysANumber(**vars(sgd())))
