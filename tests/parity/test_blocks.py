"""Blocks of clients: the figures of one client after the other, whatever trains what in them."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fedexp.backends.auto import Auto
from fedexp.backends.block_size import Room, numbers_kept
from fedexp.backends.blocks import Blocks
from fedexp.backends.in_process import InProcess
from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.types import ClientReport
from fedexp.federation.algorithms.scaffold import Scaffold
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.private_steps import PrivateSteps
from fedexp.run_folder.format import config_hash
from fedexp.tasks.multiclass import Multiclass
from fedexp.tasks.multilabel import Multilabel
from fedexp.training.optimizer import LocalOptimizer
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD
from tests.support.composing import choices, config_for, part
from tests.support.workloads import SIZES, Says, start, tasks, workload

RELATIVE = 1e-5


def sgd(**changed):
    ten_steps = {"lr": 0.01, "batch_size": 4, "epochs": None, "steps": 10}
    nothing = {"momentum": 0.0, "weight_decay": 0.0, "proximal": 0.0, "schedule": Constant()}
    return LocalSGD(**{**ten_steps, **nothing, **changed})


def dp(trainer, z=1.0):
    return PrivateTraining(trainer, PrivateSteps(1.0, z, "auto", "task"))


# Epsilon: Adam divides what is as small as the rounding by itself.
adam = partial(torch.optim.Adam, eps=1e-3, weight_decay=0.01)
EPOCHS = {"epochs": 2, "steps": None}  # clients of 3, 12, 7 and 5 examples: 2, 6, 4 and 4 steps
TRAINERS = {
    "sgd": sgd(),
    "everything": sgd(momentum=0.9, weight_decay=0.1, proximal=0.5, **EPOCHS),
    "whole shards": sgd(batch_size=None),
    "balanced": sgd(sampling="balanced", **EPOCHS),
    "whole batches": sgd(drop_last=True, **EPOCHS),
    "adam": LocalOptimizer(adam, 0.01, 4, 2, None, Constant()),
    "dp": dp(sgd(**EPOCHS)),
    "dp, momentum": dp(sgd(momentum=0.9)),
    "dp, adam": dp(LocalOptimizer(adam, 0.01, 4, 2, None, Constant())),
}


def of_model(choice):
    """A workload with a model of conf/model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = part("model", choice, "dataset.input_shape=[1,8,8]", "dataset.num_classes=3")
    return replace(workload(), model=model)


def assert_alike(blocks, one, relative=RELATIVE):
    assert blocks.client_ids == one.client_ids
    assert blocks.processed == one.processed
    assert blocks.num_examples.tolist() == one.num_examples.tolist()
    for row, expected in zip(blocks.matrix, one.matrix, strict=True):
        assert (row - expected).norm() <= relative * expected.norm()
    for mine, its in zip(blocks.metrics, one.metrics, strict=True):
        assert mine == pytest.approx(its, rel=1e-4, abs=1e-5, nan_ok=True)
        assert all(type(value) is float for value in mine.values())
    for mine, its in zip(blocks.kept, one.kept, strict=True):
        assert mine.keys() == its.keys()
        for name in its:
            assert torch.allclose(mine[name], its[name], rtol=1e-3, atol=1e-5)


QUICK = [
    *(("mlp", trainer) for trainer in TRAINERS),
    *((c, "everything") for c in choices("model") if c != "resnet18"),
    ("small_cnn", "dp"),
]
CASES = [
    pytest.param(c, t, marks=() if (c, t) in QUICK else pytest.mark.slow)
    for c in choices("model")
    for t in TRAINERS
]


@pytest.mark.parametrize(("choice", "trainer"), CASES)
def test_ten_steps_are_those_of_one_client_after_the_other(choice, trainer, caplog):
    work, trained = of_model(choice), TRAINERS[trainer]
    # GroupNorm over few numbers: a rounding grows, until the sign of an activation changes. With
    # whole shards that is after five steps, which differ by 3e-5 here, and ten by 1 in 100.
    relative = 1e-3 if choice == "resnet18" else RELATIVE
    if (choice, trainer) == ("resnet18", "whole shards"):
        trained = replace(trained, steps=5)
    given = tasks(start(work))
    one = InProcess(work).train(trained, given)
    assert_alike(Blocks(work, None).train(trained, given), one, relative)
    assert not caplog.records


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 100])
def test_figures_do_not_depend_on_the_size_of_a_block(block_size):
    work, trainer = workload(), TRAINERS["everything"]
    given = tasks(start(work), clients=(3, 0, 1, 2))
    one = InProcess(work).train(trainer, given)
    assert_alike(Blocks(work, block_size).train(trainer, given), one)


def test_two_rounds_on_one_backend_and_another_number_of_clients():
    work = workload()
    blocks, one = Blocks(work, 2), InProcess(work)
    for round, clients in enumerate([(0, 1, 2), (1, 3), (2,), ()]):
        given = tasks(start(work), round, clients)
        assert_alike(blocks.train(sgd(), given), one.train(sgd(), given))


def test_the_same_call_twice_gives_the_same_bits():
    work = workload()
    first, again = (Blocks(work, 3).train(TRAINERS["dp"], tasks(start(work))) for _ in range(2))
    assert torch.equal(first.matrix, again.matrix)


def test_clients_with_a_start_of_their_own():
    work, trainer = workload(), sgd(proximal=0.5)
    params = start(work)
    own = [replace(t, params=params * (1 + k)) for k, t in enumerate(tasks(params))]
    assert_alike(Blocks(work, 3).train(trainer, own), InProcess(work).train(trainer, own))


@pytest.mark.parametrize("inner", [sgd(**EPOCHS), dp(sgd(**EPOCHS))], ids=["sgd", "dp"])
def test_scaffold_corrects_every_client_by_its_own(inner):
    work, trainer = workload(), Scaffold().local(inner)
    d = len(start(work))
    draws = torch.Generator().manual_seed(1)
    given = [
        replace(
            task,
            state={"control": torch.randn(d, generator=draws)},
            broadcast={"control": torch.full((d,), 0.1)},
        )
        for task in tasks(start(work))
    ]
    one = InProcess(work).train(trainer, given)
    assert one.matrix.shape == (4, 2 * d)
    assert_alike(Blocks(work, 2).train(trainer, given), one)


def test_who_has_made_its_steps_stays_where_it_is_though_momentum_would_carry_it():
    """By hand: one step of client 0 (3 examples), six of client 1 (12), in one block."""
    work, trainer = workload(), sgd(epochs=1, steps=None, batch_size=3, momentum=0.9)
    given = tasks(start(work), clients=(0, 1))
    row = Blocks(work, 2).train(trainer, given).matrix[0]
    model = TaskModel(work.model, torch.device("cpu"), work.task)
    batch = work.train.between(0, SIZES[0])
    loss = work.task.loss(model.module(model.arrange(batch)), batch.y)
    gradients = torch.autograd.grad(loss, model.parameters)
    assert torch.allclose(row, torch.cat([-0.01 * g.flatten() for g in gradients]), atol=1e-7)


def test_several_labels_and_examples_without_a_loss():
    work = workload()
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (sum(SIZES), 3), generator=draws).to(torch.uint8)
    several = replace(work, train=work.train.with_y(labels), task=Multilabel())
    y = work.train.y.clone()
    y[::3] = Multiclass.ignored
    ignoring = replace(work, train=work.train.with_y(y))
    weighted = replace(work, task=Multiclass("focal", 2.0, (1.0, 2.0, 5.0)))
    for changed in (several, ignoring, weighted):
        given = tasks(start(changed))
        one = InProcess(changed).train(sgd(**EPOCHS), given)
        assert_alike(Blocks(changed, None).train(sgd(**EPOCHS), given), one)


def test_evaluation_is_that_of_one_process():
    work = workload()
    models = [start(work), 2 * start(work)]
    pairs = zip(
        Blocks(work, None).evaluate(models, "test"),
        InProcess(work).evaluate(models, "test"),
        strict=True,
    )
    assert all(torch.equal(mine, its) for mine, its in pairs)


class Mixes(nn.Module):
    """Subtracts the mean of its batch, and keeps nothing."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x):
        return self.layer(x.flatten(1) - x.flatten(1).mean(dim=0))


def with_layer(layer):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer, nn.Linear(8, 3))


ONE_AT_A_TIME = {
    "running statistics": (with_layer(nn.BatchNorm1d(8)), Multiclass(), sgd(), "has buffers"),
    "dropout": (with_layer(nn.Dropout(0.5)), Multiclass(), sgd(), "vmap"),
    "mixes": (Mixes(), Multiclass(), sgd(), "depends on what else is in its batch"),
    "balanced weights": (
        workload().model,
        Multiclass(class_weights="balanced"),
        sgd(),
        "its own counts",
    ),
    "another trainer": (workload().model, Multiclass(), Says(), "one client at a time"),
    "another trainer, private": (
        workload().model,
        Multiclass(),
        LocalOptimizer(
            partial(torch.optim.Adafactor, weight_decay=0.0), 0.01, 4, 1, None, Constant()
        ),
        "every number of a model by itself",
    ),
}


@pytest.mark.parametrize("case", ONE_AT_A_TIME)
def test_what_cannot_go_in_blocks_goes_as_in_process_and_says_why_once(case, caplog):
    model, task, trainer, why = ONE_AT_A_TIME[case]
    work = replace(workload(), model=model, task=task, shards=(np.arange(12), np.arange(12, 27)))
    given = tasks(start(work), clients=(0, 1))
    blocks, one = Blocks(work, None), InProcess(work)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(
                blocks.train(trainer, given).matrix, one.train(trainer, given).matrix
            )
    (said,) = caplog.messages
    assert "one client at a time, because" in said
    assert why in said


def test_a_block_is_as_large_as_the_memory_is_enough_for():
    work = workload()
    model = TaskModel(work.model, torch.device("cpu"), work.task)
    d = len(model.vector)
    kept = numbers_kept(model, work.train)
    # Flatten keeps nothing; the inputs of both layers and what ReLU and the loss keep are there.
    assert 64 + 16 + 3 <= kept <= 200
    room = Room(bytes=1000 * 4 * d, taken=400 * 4 * d, d=d, kept=kept)
    plain, private = room.clients(sgd(), 12), room.clients(dp(sgd()), 12)
    assert 1 <= private < plain <= 100
    assert Room(bytes=0, taken=10**9, d=d, kept=kept).clients(sgd(), 12) == 1


def test_the_cpu_never_takes_blocks_by_itself():
    auto = Auto(workload(), workers=1, rounds=1)
    assert not auto.own_bits
    assert Blocks.own_bits


def test_its_bits_are_a_part_of_what_a_run_is():
    one, pool, blocks, other = (
        config_hash(config_for(f"backend={name}", *more))
        for name, *more in (
            ["in_process"],
            ["process_pool"],
            ["blocks"],
            ["blocks", "backend.block_size=3"],
        )
    )
    assert one == pool
    assert len({one, blocks, other}) == 3


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["backend=blocks", "backend.block_size=0"], "backend.block_size=0: must be a whole"),
        (["backend=blocks", "backend.block_size=x"], "backend.block_size=x: must be a whole"),
        (["backend=blocks", "backend.own_bits=false"], "this backend needs true"),
        (["backend=in_process", "+backend.own_bits=true"], "this backend needs false"),
    ],
)
def test_bad_input_is_refused_by_its_key(overrides, complaint):
    with pytest.raises(InputError, match=complaint):
        build(config_for(*overrides))


def test_labels_are_read_where_batches_are_drawn():
    """A block's labels are those of its clients, in the block's order."""
    work = workload()
    y = torch.arange(sum(SIZES)) % 3
    work = replace(work, train=Split(work.train.x, y))
    balanced = sgd(sampling="balanced", **EPOCHS)
    given = tasks(start(work), clients=(2, 0, 3, 1))
    assert_alike(Blocks(work, 4).train(balanced, given), InProcess(work).train(balanced, given))


class Looks(LocalSGD):
    """A trainer of one's own that looks at what its block holds beside the steps."""

    def train_block(self, block, adjust, steps):
        looked = [*block.labels, *block.shards, block.data][self.steps - 1]
        return looked.y


class Listens(LocalSGD):
    """One that keeps what it is shown of its batches, and watches the module."""

    def train_block(self, block, adjust, steps):
        seen = []
        block.model._model.module.register_forward_pre_hook(lambda layer, inputs: seen.append(1))
        for step in steps(block, self.work()):
            assert bool(step.losses.isnan().all())
            assert step.examples == (4, 4, 2, 3)  # the expected ones: 12, 7, 5 and 3 by batches
        assert not seen
        return [ClientReport(n, 0, {"loss": 0.0}) for n in block.sizes]


def test_a_trainer_of_blocks_sees_of_private_clients_what_has_noise():
    work = workload()
    backend, asked = Blocks(work, 4), tasks(start(work))
    for looked in (1, 5, 9):
        own = Looks(**vars(sgd(batch_size=4, epochs=None, steps=looked)))
        with pytest.raises(InputError, match="looks at a client's examples") as refusal:
            backend.train(dp(own), asked)
        assert refusal.value.key == "training"
    plain, own = sgd(batch_size=4), Listens(**vars(sgd(batch_size=4)))
    ours, theirs = ([*backend.train(dp(t), asked).metrics] for t in (plain, own))
    assert [m["steps"] for m in ours] == [m["steps"] for m in theirs]
    assert all(m["loss"] > 0 for m in theirs)


def test_a_trainer_of_private_blocks_that_returns_no_report_is_refused():
    class Silent(LocalSGD):
        def train_block(self, block, adjust, steps):
            super().train_block(block, adjust, steps)
            return [None] * len(block)

    work = workload()
    with pytest.raises(InputError, match="must return a ClientReport"):
        Blocks(work, 4).train(dp(Silent(**vars(sgd()))), tasks(start(work)))
