"""Inverting epochs of minibatches: against a loop typed from the paper, and what the prior buys."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.leakage.observation import Observation
from fedexp.leakage.updates.epochs import EpochInversion, averaged, disagreement
from fedexp.leakage.updates.geiping import Geiping
from fedexp.models import mlp
from tests.support.observing import (
    CLASSES,
    as_torch_has_it,
    batches,
    digits,
    initialised,
    known,
    psnr_db,
)

DATA = digits()
MLP = initialised(mlp, (1, 8, 8), CLASSES, [32])
BATCH = batches(DATA, 4, 1)[0]
ATTACK = EpochInversion(
    total_variation=0.003, invariant=1.0, lr=0.1, iterations=60, restarts=1, way="derived"
)
ORDERS = [[0, 1, 2, 3], [2, 0, 3, 1]]  # of two epochs
SIZE = 2


def rng(seed=0):
    return np.random.default_rng(seed)


def observed_in_minibatches(lr=0.1, labels=None, **terms):
    """What the server receives of a client that goes through `BATCH` as `ORDERS` say."""
    told = known(MLP, DATA, BATCH, lr=lr, local_steps=4, labels=labels, **terms)
    told = replace(told, minibatch=SIZE)
    local = copy.deepcopy(MLP)
    optimizer = torch.optim.SGD(local.parameters(), **as_torch_has_it(told.rule))
    for order in ORDERS:
        for rows in torch.tensor(order).split(SIZE):
            optimizer.zero_grad()
            x, y = BATCH.x[rows], BATCH.y[rows]
            F.cross_entropy(local(told.normalisation.x(x)), y).backward()
            optimizer.step()
    return Observation(vector_of(local) - told.params, 1, told)


def test_images_come_back_where_a_reading_of_the_steps_as_full_batches_fails():
    """At a learning rate where it matters which examples a step was on."""
    seen = observed_in_minibatches(lr=0.3)
    ours = psnr_db(ATTACK(seen, rng()).images, BATCH.x).mean()
    full = Geiping(0.003, 0.1, 60, 1, unrolled=True)(seen, rng())
    assert ours > psnr_db(full.images, BATCH.x).mean() + 2


def test_images_of_two_epochs_come_back():
    seen = observed_in_minibatches()
    assert psnr_db(ATTACK(seen, rng()).images, BATCH.x).mean() > 20


def test_the_loss_is_the_papers_objective_at_where_the_descent_ended(monkeypatch):
    """The update of dummies by torch's own steps, the prior by loops over pixels."""
    ends = []
    monkeypatch.setattr(
        "fedexp.leakage.updates.epochs.averaged", lambda x: ends.append(x.clone()) or x[0]
    )
    attack = replace(ATTACK, iterations=5, total_variation=0.5, invariant=3.0)
    seen = observed_in_minibatches(labels=BATCH.y)
    found = attack(seen, rng())
    told, x = seen.knowledge, ends[0]
    local = copy.deepcopy(MLP)
    optimizer = torch.optim.SGD(local.parameters(), lr=told.rule.lr)
    for images in x:
        for first in (0, 2):
            optimizer.zero_grad()
            logits = local(told.normalisation.x(images[first : first + 2]))
            F.cross_entropy(logits, found.labels[first : first + 2]).backward()
            optimizer.step()
    update = vector_of(local) - told.params
    cosine = float(F.cosine_similarity(update.double(), seen.update.double(), dim=0))
    down = [
        float(abs(x[e, j, 0, r + 1, c] - x[e, j, 0, r, c]))
        for e, j, r, c in itertools.product(range(2), range(4), range(7), range(8))
    ]
    across = [
        float(abs(x[e, j, 0, r, c + 1] - x[e, j, 0, r, c]))
        for e, j, r, c in itertools.product(range(2), range(4), range(8), range(7))
    ]
    apart = [
        float(x[0, :, 0, r, c].mean() - x[1, :, 0, r, c].mean()) ** 2
        for r, c in itertools.product(range(8), range(8))
    ]
    by_hand = 1 - cosine + 0.5 * (np.mean(down) + np.mean(across)) + 3.0 * np.mean(apart)
    assert found.loss == pytest.approx(by_hand, rel=1e-3)


def test_epochs_are_averaged_image_by_image_whatever_their_order():
    images = BATCH.x
    pixels = torch.stack([images, images[[2, 0, 3, 1]].clamp(0.1, 1)])
    expected = (images + images.clamp(0.1, 1)) / 2
    torch.testing.assert_close(averaged(pixels), expected)


def test_the_prior_does_not_mind_the_order_of_an_epoch_and_minds_another_image():
    same = torch.stack([BATCH.x, BATCH.x[[3, 1, 0, 2]]])
    assert float(disagreement(same)) == pytest.approx(0, abs=1e-12)
    other = same.clone()
    other[1, 0] = 1 - other[1, 0]
    assert float(disagreement(other)) > 1e-3
    assert float(disagreement(same[:1])) == 0


def test_with_all_examples_in_every_step_each_step_is_an_epoch():
    seen = observed_in_minibatches()
    whole = replace(seen, knowledge=replace(seen.knowledge, minibatch=None))
    assert whole.knowledge.sizes_of_an_epoch() == [4]
    assert ATTACK(whole, rng()).images.shape == BATCH.x.shape


@pytest.mark.parametrize(
    ("examples", "minibatch", "sizes"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, None, [3])]
)
def test_sizes_of_an_epoch(examples, minibatch, sizes):
    told = known(MLP, DATA, DATA.rows(torch.arange(examples)))
    assert replace(told, minibatch=minibatch).sizes_of_an_epoch() == sizes


@pytest.mark.parametrize(
    "wrong", [{"invariant": -1.0}, {"way": "guessed"}, {"iterations": 0}, {"lr": 0.0}], ids=str
)
def test_refusals(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(ATTACK, **wrong)
