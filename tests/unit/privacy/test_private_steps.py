"""DP-SGD's steps: their batches, their bound, and the noise against its law."""

import copy
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.types import ClientTask
from fedexp.privacy.private_steps import CLIPPING, PrivateSteps
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.steps import Work
from tests.support.private_models import SHIPPED, built, private, sgd, shard, train


def steps_of(rule, module, data, work, seed=7):
    """The steps themselves, on a model that stands still."""
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    model.module.train()
    torch.manual_seed(seed)
    for step in rule(model, data, ClientTask(0, model.vector, 0, seed), work):
        yield SimpleNamespace(
            flat=torch.cat([g.reshape(-1) for g in step.gradients]),
            gradients=step.gradients,
            examples=step.examples,
            loss=float(step.loss),
        )


@pytest.mark.parametrize("clipping", CLIPPING)
@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_a_huge_bound_without_noise_is_plain_sgd_on_the_same_batches(name, clipping):
    module, data = built(SHIPPED[name]), shard(30)
    trainer = private(sgd(momentum=0.9), 1e6, 0.0, clipping)
    vector, report = train(trainer, module, data)

    net, batches = copy.deepcopy(module), private_batches(30, 8, 16)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for batch in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(data.x[batch]), data.y[batch], reduction="sum")
        (loss / (30 / 8)).backward()
        optimizer.step()
    torch.testing.assert_close(vector, vector_of(net), rtol=1e-4, atol=1e-6)
    assert report.processed == sum(len(batch) for batch in batches)


def private_batches(n, batches, steps, seed=7):
    """The batches that the task's seed decides, from their sizes alone and the examples' marks."""
    # One-hot images through a linear model: the gradient says which examples were in the batch.
    data = Split(torch.eye(n).view(n, 1, 1, n), torch.zeros(n).long())
    rule, work = PrivateSteps(1e6, 0.0, "auto", "task"), Work(math.ceil(n / batches), None, steps)
    module = nn.Sequential(nn.Flatten(), nn.Linear(n, 2, bias=False))
    return [
        step.gradients[0].abs().sum(dim=0).nonzero().flatten()
        for step in steps_of(rule, module, data, work, seed)
    ]


def test_every_example_joins_every_batch_with_the_same_chance():
    n, batches, steps = 40, 5, 2000
    drawn = torch.zeros(steps, n, dtype=torch.float64)
    for step, batch in enumerate(private_batches(n, batches, steps)):
        drawn[step, batch] = 1
    joined = drawn.sum(dim=0).tolist()
    # Each example's count is binomial, and so is the size of a batch: Poisson sampling.
    assert min(stats.binomtest(int(k), steps, 1 / batches).pvalue for k in joined) > 1e-4
    sizes = drawn.sum(dim=1)
    assert sizes.var() == pytest.approx(n / 5 * 4 / 5, rel=0.1)
    # Neighbours in the list, and one example in two steps, know nothing of each other.
    for shifted in (drawn.roll(1, dims=1), drawn.roll(1, dims=0)):
        together = int((drawn * shifted).sum())
        assert stats.binomtest(together, steps * n, 1 / batches**2).pvalue > 1e-4


def noise_of(noise_multiplier, clip_norm, n=10, batch_size=2, steps=40):
    """Gradients of a batch whose own part is known: that of empty batches is nothing."""
    work, module = Work(batch_size, None, steps), built(SHIPPED["logistic"])
    rule, silent = (PrivateSteps(clip_norm, z, "auto", "task") for z in (noise_multiplier, 0.0))
    loud = list(steps_of(rule, module, shard(n), work))
    quiet = list(steps_of(silent, module, shard(n), work))
    assert [a.examples for a in loud] == [b.examples for b in quiet]
    return torch.stack([a.flat - b.flat for a, b in zip(loud, quiet, strict=True)])


def test_the_noise_is_normal_and_as_large_as_said():
    noise = noise_of(noise_multiplier=1.5, clip_norm=0.4, n=10, batch_size=2)
    scale = 1.5 * 0.4 / 2  # two examples are expected in a batch
    values = noise.flatten().double().numpy()
    assert stats.kstest(values / scale, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(values / (scale * wrong), "norm").pvalue < 1e-6
    # Anew in every step and for every number.
    correlation = torch.corrcoef(noise)
    off_diagonal = correlation[~torch.eye(len(noise), dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / math.sqrt(noise.shape[1])


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 1, 10)])
def test_the_expected_size_is_the_fixed_divisor(shape):
    # 9 or 10 examples in batches of 4 are 3 batches: 3 or 3 1/3 are expected, whoever joined.
    n = shape[2]
    module = nn.Sequential(nn.Flatten(), nn.Linear(n, 2, bias=False))
    nn.init.zeros_(module[1].weight)
    data = Split(torch.eye(n).view(n, 1, 1, n), torch.zeros(n).long())
    for step in steps_of(PrivateSteps(0.1, 0.0, "auto", "task"), module, data, Work(4, None, 12)):
        by_example = step.gradients[0].norm(dim=0)
        joined = by_example[by_example > 0]
        assert len(joined) == step.examples
        torch.testing.assert_close(joined, torch.full_like(joined, 0.1 / (n / 3)))


def test_no_example_moves_a_step_by_more_than_the_bound():
    module, data = built(SHIPPED["small_cnn"]), shard(1)
    loud = Split(data.x * 1e4, data.y)
    for clipping in CLIPPING:
        rule = PrivateSteps(0.3, 0.0, clipping, "task")
        (step,) = steps_of(rule, module, loud, Work(None, None, 1))
        assert float(step.flat.norm()) == pytest.approx(0.3, rel=1e-5)


def test_an_empty_batch_is_a_step_of_noise():
    module, data = built(SHIPPED["mlp"]), shard(30)
    rule, work = PrivateSteps(1.0, 2.0, "auto", "task"), Work(1, None, 120)
    steps = list(steps_of(rule, module, data, work))
    empty = [step for step in steps if step.examples == 0]
    assert len(steps) == 120
    assert stats.binomtest(len(empty), 120, (1 - 1 / 30) ** 30).pvalue > 1e-3
    noise = torch.cat([step.flat for step in empty]).double().numpy()
    assert stats.kstest(noise / 2.0, "norm").pvalue > 1e-3
    assert all(step.loss == 0 for step in empty)
    assert all(step.loss > 0 for step in steps if step.examples)


def test_noise_of_the_operating_system_has_the_same_size_and_never_comes_twice():
    module, data = built(SHIPPED["mlp"]), shard(1)
    rule, work = PrivateSteps(1.0, 2.0, "auto", "os"), Work(None, None, 2)
    first, again = ([s.flat for s in steps_of(rule, module, data, work)] for _ in range(2))
    quiet = [s.flat for s in steps_of(replace(rule, noise_multiplier=0.0), module, data, work)]
    noises = [noisy - still for noisy, still in zip(first + again, 2 * quiet, strict=True)]
    for noise in noises:
        assert stats.kstest(noise.double().numpy() / 2.0, "norm").pvalue > 1e-6
    for one, other in itertools.combinations(noises, 2):
        assert not torch.equal(one, other)


def test_noise_and_batches_depend_on_all_bits_of_the_seed():
    """torch's generator on the CPU keeps the lower 32, so that all noises could be tried."""
    data = Split(torch.eye(10).view(10, 1, 1, 10), torch.zeros(10).long())
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 2, bias=False))

    def first_step(seed, noise_multiplier):
        rule = PrivateSteps(1.0, noise_multiplier, "auto", "task")
        steps = list(steps_of(rule, module, data, Work(2, None, 8), seed))
        return torch.stack([step.flat for step in steps]), [step.examples for step in steps]

    noise, batches = first_step(7, 1.0)
    other_noise, other_batches = first_step(7 + 2**40, 1.0)
    assert torch.equal(noise, first_step(7, 1.0)[0])
    assert not torch.equal(noise, other_noise)
    assert batches != other_batches
