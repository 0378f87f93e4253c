"""A training part of one's own gets every client's start anew, and cannot move what is not its."""

from dataclasses import replace

import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.core.types import ClientReport, ClientTask
from tests.support.composing import config_for
from tests.support.refusing import refusal


class Trainer:
    """Steps as most people write them: backward, without a word on what was there before."""

    def spread(self, n_clients, cohort_size):
        return self

    def __call__(self, model, shard, task):
        model.task.loss(model.module(model.arrange(shard)), shard.y).backward()
        with torch.no_grad():
            for parameter in model.module.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        return ClientReport(len(shard), len(shard), {})


class LeavesItsTraces(Trainer):
    """Gradients, evaluation mode and a frozen layer."""

    def __call__(self, model, shard, task):
        self.training = [layer.training for layer in model.module.modules()]
        report = super().__call__(model, shard, task)
        model.module.eval()
        model.parameters[0].requires_grad_(False)
        return report


class ChangesData(Trainer):
    def __call__(self, model, shard, task):
        shard.x.zero_()
        return super().__call__(model, shard, task)


class TouchesData(Trainer):
    def __call__(self, model, shard, task):
        shard.x.mul_(1)
        return super().__call__(model, shard, task)


class ChangesParams(Trainer):
    def __call__(self, model, shard, task):
        task.params.add_(1)
        return super().__call__(model, shard, task)


class ChangesParamsByNumpy(Trainer):
    def __call__(self, model, shard, task):
        task.params.numpy()[:] += 1
        return super().__call__(model, shard, task)


class Rebinds(Trainer):
    def __call__(self, model, shard, task):
        for parameter in model.parameters:
            parameter.data = parameter.data * 0.9
        return super().__call__(model, shard, task)


class Loads(Trainer):
    def __call__(self, model, shard, task):
        state = {name: 0.9 * value for name, value in model.module.state_dict().items()}
        model.module.load_state_dict(state, assign=True)
        return super().__call__(model, shard, task)


class Doubles(Trainer):
    def __call__(self, model, shard, task):
        model.module.double()
        return ClientReport(len(shard), len(shard), {})


class Fails(Trainer):
    def __call__(self, model, shard, task):
        raise ValueError("odd")


def config(trainer, *overrides):
    made = config_for("backend=in_process", "trust=[tests.]", "model.hidden=[8]", *overrides)
    made["training"] = {"_target_": f"{__name__}.{trainer.__name__}"}
    return made


@pytest.fixture(scope="module")
def built():
    return build(config(Trainer))


def row_of(built, trainer, *clients, **changes):
    """What the last of the clients sends, if they are trained one after the other."""
    params = vector_of(built.model)
    row = torch.empty_like(params)
    for client in clients:
        task = replace(ClientTask(client, params.clone(), 0, 1), **changes)
        built.experiment.backend.workspace.train(trainer, task, row)
    return row


def test_nothing_of_a_client_before_is_left(built):
    trainer = LeavesItsTraces()
    alone = row_of(built, trainer, 3).clone()
    assert torch.equal(row_of(built, trainer, 1, 2, 3), alone)
    assert all(trainer.training)
    assert torch.equal(row_of(built, Trainer(), 3), alone)


@pytest.mark.parametrize("trainer", [Rebinds, Loads, Doubles])
def test_parameters_that_are_elsewhere_are_refused_before_the_run(trainer):
    said = refusal(config(trainer))
    assert said.startswith(f"training={__name__}.{trainer.__name__}: puts other tensors in the pl")


@pytest.mark.parametrize("trainer", [ChangesParams, ChangesParamsByNumpy])
def test_a_start_that_is_written_to_is_refused_before_the_run(trainer):
    said = refusal(config(trainer))
    assert said.startswith(f"training={__name__}.{trainer.__name__}: changes what it is given bes")


@pytest.mark.parametrize("name", ["state", "broadcast"])
def test_what_a_client_finds_is_not_written_to_either(built, name):
    class Counts(Trainer):
        def __call__(self, model, shard, task):
            getattr(task, name)["seen"].add_(1)
            return super().__call__(model, shard, task)

    with pytest.raises(InputError, match="changes what it is given beside the model"):
        row_of(built, Counts(), 0, **{name: {"seen": torch.zeros(1)}})


@pytest.mark.parametrize("trainer", [ChangesData, TouchesData])
def test_examples_are_not_written_to(trainer):
    assert "changes what it is given beside the model" in refusal(config(trainer))


def test_an_error_in_the_rehearsal_is_at_its_line_and_not_the_models():
    said = refusal(config(Fails))
    assert said.startswith(f"{__file__}, line ")
    assert said.endswith(": ValueError: odd")
