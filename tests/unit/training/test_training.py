"""Local SGD against a few lines of plain PyTorch, and its parts against numbers by hand."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.rng import torch_generator
from fedexp.core.types import ClientTask
from fedexp.models import cnn, mlp
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.private_steps import PrivateSteps
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.schedules import Constant, Cosine, Exponential
from fedexp.training.sgd import LocalSGD

DEFAULTS = {
    "lr": 0.1,
    "batch_size": 4,
    "epochs": 1,
    "steps": None,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "proximal": 0.0,
    "schedule": Constant(),
}


def trainer(**changes):
    return LocalSGD(**{**DEFAULTS, **changes})


def shard(n=10, seed=0):
    g = torch_generator(seed)
    return Split(torch.randn(n, 1, 8, 8, generator=g), torch.randint(0, 3, (n,), generator=g))


def module():
    torch.manual_seed(1)
    return mlp((1, 8, 8), 3, hidden=(5,))


def train(rule, net, data, seed=7, round=0):
    start = vector_of(net)
    model = TaskModel(net, torch.device("cpu"), Multiclass())
    model.load(start)
    report = rule(model, data, ClientTask(0, start, round, seed))
    return model.vector.clone(), report


def plain_pytorch(net, data, epochs, batch_size, seed, proximal=0.0, drop_last=False, **sgd):
    """The loop that a textbook would print, with torch.optim.SGD."""
    net = copy.deepcopy(net)
    start = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), **sgd)
    shuffle = torch_generator(seed)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=shuffle)
        order = order[: len(order) // batch_size * batch_size] if drop_last else order
        for rows in order.split(batch_size):
            loss = F.cross_entropy(net(data.x[rows]), data.y[rows])
            losses.append(loss.item())
            pull = sum(((p - s) ** 2).sum() for p, s in zip(net.parameters(), start, strict=True))
            optimizer.zero_grad()
            (loss + proximal / 2 * pull).backward()
            optimizer.step()
    return vector_of(net), sum(losses) / len(losses)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drop_last": True},
        {"momentum": 0.9},
        {"weight_decay": 0.01},
        {"proximal": 0.5},
        {"momentum": 0.9, "weight_decay": 0.01, "proximal": 0.1},
    ],
)
def test_equals_plain_pytorch(options):
    net, data = module(), shard()
    expected, expected_loss = plain_pytorch(net, data, 3, 4, seed=7, lr=0.1, **options)
    vector, report = train(trainer(epochs=3, **options), net, data)
    torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-6)
    assert report.metrics["loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert report.num_examples == 10
    assert report.processed == (24 if options.get("drop_last") else 30)


def test_equals_plain_pytorch_for_a_cnn_in_channels_last():
    torch.manual_seed(2)
    net, data = cnn((1, 8, 8), 3), shard()
    expected, _ = plain_pytorch(net, data, 1, 4, seed=7, lr=0.1)
    vector, _ = train(trainer(), net, data)
    torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "steps", "processed"),
    [
        ({"epochs": 2}, 6, 20),  # 4 + 4 + 2, twice
        ({"epochs": 0.5}, 2, 8),  # half of three batches, rounded to the even two
        ({"epochs": 0.01}, 1, 4),  # never nothing
        ({"epochs": None, "steps": 4}, 4, 14),
        ({"batch_size": None}, 1, 10),  # B = inf
        ({"batch_size": 64}, 1, 10),
        ({"epochs": 2, "drop_last": True}, 4, 16),  # 4 + 4, twice
        ({"epochs": None, "steps": 3, "drop_last": True}, 3, 12),
        ({"batch_size": 5, "drop_last": True}, 2, 10),
        ({"batch_size": 64, "drop_last": True}, 1, 10),  # less than a batch: all of them
    ],
)
def test_work_of_a_round(options, steps, processed):
    _, report = train(trainer(**options), module(), shard())
    assert report.processed == processed


def test_spread_keeps_the_work_of_a_round():
    # 10 of 100 clients, one epoch each: a tenth of an epoch over everybody's data.
    assert trainer(epochs=1).spread(100, 10).epochs == pytest.approx(0.1)
    assert trainer(epochs=None, steps=5).spread(100, 10).steps == 50


def test_the_callers_module_and_vector_stay_as_they_were():
    net, data = module(), shard()
    before = vector_of(net)
    start = before.clone()
    model = TaskModel(net, torch.device("cpu"), Multiclass())
    model.load(start)
    trainer()(model, data, ClientTask(0, start, 0, 7))
    assert torch.equal(vector_of(net), before)
    assert torch.equal(start, before)
    assert not torch.equal(model.vector, before)


def test_the_seed_decides_the_batches():
    net, data = module(), shard()
    first, again, other = (train(trainer(), net, data, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dropout_follows_the_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    net = torch.nn.Sequential(module(), torch.nn.Dropout(0.5))
    data = shard()
    state = torch.get_rng_state()
    first = train(trainer(), net, data, seed=1)[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(train(trainer(), net, data, seed=1)[0], first)


def test_the_schedule_scales_the_step():
    net, data = module(), shard(4)
    start = vector_of(net)
    full, _ = train(trainer(), net, data)
    later, _ = train(trainer(schedule=Exponential(0.5)), net, data, round=1)
    torch.testing.assert_close(later - start, (full - start) / 2, rtol=1e-4, atol=1e-7)


def test_cosine_schedule_by_hand():
    cosine = Cosine(rounds=4, final=0.0)
    assert [cosine(r) for r in (0, 2, 4, 9)] == pytest.approx([1, 0.5, 0, 0])
    assert cosine(1) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"lr": 0}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": None}, "epochs"),
        ({"steps": 3}, "epochs"),
        ({"epochs": -1}, "epochs"),
        ({"epochs": None, "steps": 0}, "steps"),
        ({"momentum": 1.5}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"proximal": math.nan}, "proximal"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_refusals(options, key):
    with pytest.raises(InputError) as refusal:
        trainer(**options)
    assert refusal.value.key == key


class Gathered(Split):
    """Examples that note which of them were asked for."""

    def rows(self, chosen):
        self.__dict__.setdefault("asked", []).append(len(chosen))
        return Split(self.x, self.y).rows(chosen)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"epochs": None, "steps": 1}, [4]),
        ({"epochs": None, "steps": 4}, [10, 4]),  # three batches, and one of the next epoch
        ({"epochs": 2}, [10, 10]),
        ({"epochs": 0.5}, [8]),
    ],
)
def test_no_example_is_fetched_that_no_step_takes(options, asked):
    data = shard()
    noting = Gathered(data.x, data.y)
    vector, _ = train(trainer(**options), module(), noting)
    assert noting.asked == asked
    assert torch.equal(vector, train(trainer(**options), module(), data)[0])


def test_one_step_is_the_first_of_an_epoch():
    """Whichever examples are left, a batch is the one that it was."""
    net, data = module(), shard()
    rows = torch.randperm(10, generator=torch_generator(7))[:4]
    expected, _ = plain_pytorch(net, data.rows(rows), 1, 4, seed=0, lr=0.1)
    vector, _ = train(trainer(epochs=None, steps=1), net, data)
    torch.testing.assert_close(vector, expected, rtol=1e-5, atol=1e-6)


def in_bfloat16(net, data, seed, lr):
    """One epoch of SGD on batches of 4, as torch's own recipe for autocast has it."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for rows in torch.randperm(len(data), generator=torch_generator(seed)).split(4):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(data.x[rows])
        assert logits.dtype == torch.bfloat16
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), data.y[rows]).backward()
        optimizer.step()
    return vector_of(net)


@pytest.mark.parametrize("make", [lambda: mlp((1, 8, 8), 3, (5,)), lambda: cnn((1, 8, 8), 3)])
def test_bfloat16_is_torchs_autocast(make):
    torch.manual_seed(2)
    net, data = make(), shard()
    expected = in_bfloat16(net, data, seed=7, lr=0.1)
    vector, report = train(trainer(precision="bfloat16"), net, data)
    assert vector.dtype == torch.float32
    in_full, in_full_report = train(trainer(), net, data)
    way = (in_full - vector_of(net)).norm()
    assert (vector - expected).norm() / way < 0.05  # kernels for images round differently
    assert 1e-5 < (vector - in_full).norm() / way < 0.3
    assert report.metrics["loss"] == pytest.approx(in_full_report.metrics["loss"], rel=0.05)


def test_adjusted_steps_are_made_in_the_same_precision():
    net, data, rule = module(), shard(), trainer(precision="bfloat16")
    vector, _ = train(rule.adjusted(lambda gradients: gradients), net, data)
    assert torch.equal(vector, train(rule, net, data)[0])


def test_dp_sgd_refuses_rounded_factors():
    steps = PrivateSteps(clip_norm=1.0, noise_multiplier=1.0, clipping="auto", noise_seed="task")
    with pytest.raises(InputError, match=r"training.precision=bfloat16: rounds the factors"):
        PrivateTraining(trainer(precision="bfloat16"), steps)
