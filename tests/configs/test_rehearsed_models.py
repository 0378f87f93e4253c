"""What fails in training only is told before it: in one line, with nothing written."""

import pytest
import torch
from torch import nn

from fedexp.config import rehearsal
from fedexp.config.build import build
from fedexp.config.rehearsal import _batch_sizes
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.types import ClientTask
from fedexp.federation.rounds import initial_state, run_round
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.steps import Work
from tests.support import awkward_models
from tests.support.composing import config_for
from tests.support.refusing import refusal


def _config(model, *overrides):
    return config_for(
        *("model=custom", f"model._target_={awkward_models.__name__}.{model}"),
        *("trust=[tests.support.]", "buffers=average", "partition=iid", "training.epochs=1"),
        *overrides,
    )


# 1257 examples for ten clients: 125 or 126 each.
@pytest.mark.parametrize(
    ("model", "overrides", "said"),
    [
        ("NeverFilled", [], "model=NeverFilled: its initial layer.weight holds NaN or infinite"),
        (
            "Normalises",
            ["training.batch_size=25"],
            "model=Normalises: fails in training on a batch of 1, and client 1 has 126 examples, "
            "in batches of 25: Expected more than 1 value per channel",
        ),
        (
            "AuxiliaryHead",
            [],
            "model=AuxiliaryHead: gives a tuple in training for a batch of 5, not (5, 10)",
        ),
        (
            "Squeezes",
            ["training.batch_size=25"],
            "model=Squeezes: gives (10,) in training for a batch of 1, not (1, 10); client 1 has "
            "126 examples, in batches of 25",
        ),
        (
            "FixedBatch",
            ["training.batch_size=25", "n_clients=11"],
            "model=FixedBatch: fails in training on a batch of 14, and client 0 has 114 examples",
        ),
        (
            "Detached",
            [],
            "model=Detached: cannot be trained on a batch of 5, and client 0 has 125 examples",
        ),
        (
            "UnusedHead",
            ["privacy=dp_sgd", "privacy.noise_multiplier=1"],
            "model=UnusedHead: layer leftover (Linear) did not run",
        ),
        (
            "AuxiliaryHead",
            ["privacy=dp_sgd", "privacy.noise_multiplier=1"],
            "model=AuxiliaryHead: cannot be trained on a batch of 2: ",
        ),
    ],
)
def test_refused(model, overrides, said):
    assert refusal(_config(model, *overrides)).startswith(said)


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("Normalises", ["training.batch_size=10"]),  # 5 or 6 are left
        ("Squeezes", ["training.batch_size=10"]),
    ],
)
def test_what_can_be_trained_is_not_refused(model, overrides):
    assert build(_config(model, *overrides)).remarks == ()


def test_a_parameter_that_plays_no_part_stays_as_it_is_and_is_named():
    built = build(_config("UnusedHead"))
    (remark,) = built.remarks
    assert "does not depend on leftover.bias, leftover.weight" in remark
    before = vector_of(built.model)
    state, _ = run_round(built.experiment, initial_state(built.experiment, before))
    unused = 3 * 64 + 3
    assert torch.equal(state.params[-unused:], before[-unused:])
    assert not torch.equal(state.params[:-unused], before[:-unused])


def test_a_model_that_answers_with_probabilities_is_told_so():
    (remark,) = build(_config("Probabilities")).remarks
    assert "without its last softmax" in remark


def _hooked(model, shard, task):
    model.module[0].register_forward_hook(lambda layer, x, answer: answer * 2)


def _undropped(model, shard, task):
    model.module[1].p = 0.0


def _exchanged(model, shard, task):
    model.module[1] = nn.Identity()


@pytest.mark.parametrize("train", [_hooked, _undropped, _exchanged])
def test_a_trainer_that_leaves_another_model_to_others_is_refused(train):
    module = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    stage = rehearsal._Stage(
        TaskModel(module, torch.device("cpu"), Multiclass()), "Sequential", num_classes=3
    )
    shard, task = Split(torch.zeros(4, 2), torch.arange(4) % 3), ClientTask(0, torch.ones(1), 0, 0)
    with pytest.raises(InputError, match=r"^training=\S*: changes more of the model than its"):
        stage.train(train, shard, task)


def test_the_rehearsal_leaves_no_trace(monkeypatch):
    built = [build(_config("Drops"))]
    monkeypatch.setattr("fedexp.config.build.rehearse", lambda *arguments: [])
    built.append(build(_config("Drops")))
    assert built[0].model.calls == built[1].model.calls  # of the looks at its answer
    after = []
    for each in built:
        start = initial_state(each.experiment, vector_of(each.model))
        after.append(run_round(each.experiment, start)[0].params)
    assert torch.equal(*after)


def test_the_last_batch_of_an_evaluation_may_be_one_image(monkeypatch):
    monkeypatch.setattr(rehearsal, "EVALUATION_BATCH", 359)  # the test part has 360
    said = refusal(_config("Squeezes", "training.batch_size=10"))
    assert said.startswith("model=Squeezes: gives (10,) in evaluation for a batch of 1, not (1, 10")
    assert said.endswith("the test part ends in it")


def test_which_sizes_are_tried():
    def sizes(batch_size, *shards):
        work = Work(batch_size, 1, None)
        return list(_batch_sizes(work, [torch.arange(n).numpy() for n in shards]))

    assert sizes(10, 25, 30, 7) == [5, 7, 10]
    assert sizes(10, 21) == [1, 10]
    assert sizes(None, 40, 3) == [3, 40]
    assert sizes(64, 6, 6) == [6]
    assert sizes(None, 5000, 6000) == [128]
    assert sizes(None, 60, 61, 62, 63) == [60, 61, 63]  # not more than 128 examples but the largest


def test_less_than_a_batch_is_one_step_and_said():
    for private in ((), ("privacy=dp_sgd", "privacy.noise_multiplier=1")):
        remark = build(config_for("training.epochs=1e-300", *private)).remarks[-1]
        assert remark.startswith("training.epochs=1e-300 is less than half a batch of any client")
    assert build(config_for("training.epochs=0.5")).remarks == ()


class _OwnTask:
    def __init__(self, loss):
        self.loss = loss


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda logits, y: logits.sum(dim=1), "and gave [4] (loss)"),
        (lambda logits, y: 0.5, "and gave a float (loss)"),
        (lambda logits, y: logits.detach().sum(), "gives a loss that has no gradient"),
        (lambda logits, y: logits.sum() / 0 + int("x"), "ValueError: invalid literal"),
    ],
)
def test_a_loss_that_cannot_be_trained_on_is_the_tasks(loss, said):
    model = TaskModel(nn.Linear(2, 3), torch.device("cpu"), _OwnTask(loss))
    stage = rehearsal._Stage(model, "Linear", num_classes=3)
    with pytest.raises(InputError) as refused:
        stage.step(Split(torch.zeros(4, 2), torch.arange(4) % 3), "client 0 has 4 examples")
    assert not str(refused.value).startswith("model=")
    assert said in str(refused.value)
