"""Cosine matching with total variation: real images out of one gradient, and out of local steps."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.leakage.updates import geiping
from fedexp.leakage.updates.analytic import Analytic
from fedexp.leakage.updates.expected_update import expected_gradient
from fedexp.leakage.updates.geiping import Geiping
from fedexp.leakage.updates.inversion import _blocks
from fedexp.models import lenet, mlp
from fedexp.tasks.multiclass import Multiclass
from tests.support.observing import CLASSES, batches, digits, initialised, mnist, observed, psnr_db

DATA = digits()
SHAPE = (1, 8, 8)
MLP = initialised(mlp, SHAPE, CLASSES, [64])
ATTACK = Geiping(total_variation=0.003, lr=0.1, iterations=100, restarts=1, unrolled=False)
QUICK = dataclasses.replace(ATTACK, iterations=8)
IMAGES = batches(DATA, 1, 4)


def rng(seed=0):
    return np.random.default_rng(seed)


def mean_psnr_db(attack, module, data, images, **settings):
    scores = []
    for seed, image in enumerate(images):
        found = attack(observed(module, data, image, **settings), rng(seed))
        assert found.images.min() >= 0
        assert found.images.max() <= 1
        scores.append(psnr_db(found.images, image.x).mean())
    return float(torch.stack(scores).mean())


def test_images_of_digits_come_back():
    assert mean_psnr_db(ATTACK, MLP, DATA, IMAGES) > 22


def test_a_batch_comes_back_with_its_labels():
    batch = DATA.rows(torch.tensor([0, 1, 2]))
    found = ATTACK(observed(MLP, DATA, batch), rng())
    assert psnr_db(found.images, batch.x).mean() > 18
    assert sorted(found.labels.tolist()) == sorted(batch.y.tolist())


def test_unrolling_explains_local_steps_that_the_naive_reading_does_not():
    settings = {"lr": 0.05, "local_steps": 5}
    naive = mean_psnr_db(ATTACK, MLP, DATA, IMAGES[:2], **settings)
    for way in ("held", "derived"):
        unrolled = dataclasses.replace(ATTACK, unrolled=True, way=way)
        assert mean_psnr_db(unrolled, MLP, DATA, IMAGES[:2], **settings) > naive + 3


def test_on_one_step_unrolled_is_naive():
    seen = observed(MLP, DATA, IMAGES[0])
    for way in ("held", "derived"):
        unrolled = dataclasses.replace(QUICK, unrolled=True, way=way)
        assert torch.equal(QUICK(seen, rng()).images, unrolled(seen, rng()).images)


def test_the_loss_is_the_formula_at_the_images_given_back():
    seen = observed(MLP, DATA, IMAGES[0])
    attack = dataclasses.replace(QUICK, total_variation=0.5)
    found = attack(seen, rng())
    knowledge, x = seen.knowledge, found.images.double()
    expected = expected_gradient(
        knowledge, knowledge.parameters(torch.float64), x, IMAGES[0].y
    ).values()
    flat = torch.cat([g.detach().reshape(-1) for g in expected])
    cosine = F.cosine_similarity(flat, -seen.update.double(), dim=0)
    down = [abs(x[0, 0, i + 1, j] - x[0, 0, i, j]) for i in range(7) for j in range(8)]
    across = [abs(x[0, 0, i, j + 1] - x[0, 0, i, j]) for i in range(8) for j in range(7)]
    by_hand = 1 - float(cosine) + 0.5 * float(sum(down) / 56 + sum(across) / 56)
    assert found.loss == pytest.approx(by_hand, rel=1e-4)


def test_the_first_step_moves_every_pixel_by_the_learning_rate_or_to_the_border():
    seen = observed(MLP, DATA, IMAGES[0])
    start = torch.from_numpy(rng().random((1, *SHAPE), dtype=np.float32))
    moved = dataclasses.replace(QUICK, lr=0.02, iterations=1)(seen, rng()).images - start
    inside = (start > 0.02) & (start < 0.98)
    torch.testing.assert_close(moved.abs()[inside], torch.full_like(moved[inside], 0.02))


def test_the_learning_rate_falls_to_a_tenth_three_times():
    # The rate falls after the same number of iterations in both, so they differ in the last step.
    # Its size is 0.1 / 1000, and a prior that outweighs all keeps it from shrinking by itself.
    seen = observed(MLP, DATA, IMAGES[0])
    long, longer = (
        dataclasses.replace(QUICK, total_variation=1e3, iterations=n)(seen, rng()).images
        for n in (79, 80)
    )
    assert (long - longer).abs().max() < 1e-3


def test_the_best_of_the_starts_counts():
    seen = observed(MLP, DATA, IMAGES[0])
    shared = rng(3)
    alone = [QUICK(seen, shared).loss for _ in range(4)]
    assert len(set(alone)) == 4
    assert dataclasses.replace(QUICK, restarts=4)(seen, rng(3)).loss == min(alone)


def test_shared_labels_are_taken():
    shared = torch.tensor([(int(IMAGES[0].y) + 1) % CLASSES])
    found = QUICK(observed(MLP, DATA, IMAGES[0], labels=shared), rng())
    assert torch.equal(found.labels, shared)


def test_an_update_of_zeros_is_survived():
    seen = observed(MLP, DATA, IMAGES[0])
    found = QUICK(dataclasses.replace(seen, update=torch.zeros_like(seen.update)), rng())
    assert found.images.isfinite().all()
    assert math.isfinite(found.loss)


FROM_LAYER = dataclasses.replace(ATTACK, iterations=40, unrolled=True, start="first_layer")


@pytest.mark.parametrize("local_steps", [1, 5])
def test_from_the_first_layer_steps_that_overshoot_cost_nothing(local_steps):
    settings = {"lr": 0.5, "local_steps": local_steps}
    assert mean_psnr_db(FROM_LAYER, MLP, DATA, IMAGES[:2], **settings) > 50


def test_from_the_first_layer_images_go_to_their_labels():
    batch = DATA.rows(torch.tensor([0, 1, 2]))
    found = FROM_LAYER(observed(MLP, DATA, batch), rng())
    order = [found.labels.tolist().index(y) for y in batch.y.tolist()]
    assert psnr_db(found.images[order], batch.x).mean() > 40


def test_what_the_first_layer_does_not_say_is_noise():
    seen = observed(MLP, DATA, IMAGES[0])
    nothing = dataclasses.replace(seen, update=torch.zeros_like(seen.update))
    quick = dataclasses.replace(QUICK, start="first_layer")
    assert quick(nothing, rng()).images.isfinite().all()


def test_a_first_layer_that_says_nothing_is_refused_before_a_run():
    x, y = torch.zeros(3, *SHAPE), torch.zeros(3, dtype=torch.int64)
    FROM_LAYER.check_model(MLP, Multiclass(), x, y)
    ATTACK.check_model(conv_net(), Multiclass(), x, y)
    with pytest.raises(InputError, match="first layer is 0"):
        FROM_LAYER.check_model(conv_net(), Multiclass(), x, y)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"total_variation": -0.1}, "total_variation=-0.1: must be a finite number, 0 or above"),
        ({"lr": 0}, "lr=0: must be a finite number above 0"),
        ({"iterations": 0}, "iterations=0"),
        ({"way": "free"}, "way=free: Allowed: held, derived"),
        ({"start": "zeros"}, "start=zeros: Allowed: noise, first_layer"),
        ({"restarts": 1.5}, "restarts=1.5: must be a whole number"),
    ],
    ids=str,
)
def test_refusals(changed, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ATTACK, **changed)


FULL = Geiping(total_variation=0.01, lr=0.1, iterations=1200, restarts=1, unrolled=False)
LARGE_MODELS = {
    "lenet": lambda: initialised(lenet, (1, 28, 28), CLASSES, "relu", "default"),
    "mlp": lambda: initialised(mlp, (1, 28, 28), CLASSES, [200, 200]),
}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("model", "least_db"), [("lenet", 22), ("mlp", 30)])
def test_mnist_mean_psnr(model, least_db):
    data = mnist()
    assert mean_psnr_db(FULL, LARGE_MODELS[model](), data, batches(data, 1, 50)) >= least_db


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("model", LARGE_MODELS)
def test_mnist_five_local_steps_unrolled_within_3_db_of_one(model):
    data, module = mnist(), LARGE_MODELS[model]()
    images = batches(data, 1, 10)
    one = mean_psnr_db(FULL, module, data, images, lr=0.01)
    unrolled = dataclasses.replace(FULL, unrolled=True)
    assert mean_psnr_db(unrolled, module, data, images, lr=0.01, local_steps=5) > one - 3


@pytest.mark.slow
@pytest.mark.real_data
def test_mnist_from_the_first_layer_five_steps_that_overshoot_are_within_3_db_of_one():
    data, module = mnist(), LARGE_MODELS["mlp"]()
    images = batches(data, 1, 6)
    attack = dataclasses.replace(FULL, unrolled=True, iterations=120, start="first_layer")
    one = mean_psnr_db(attack, module, data, images, lr=0.1)
    assert one > 50
    assert mean_psnr_db(attack, module, data, images, lr=0.1, local_steps=5) > one - 3


@pytest.mark.slow
@pytest.mark.real_data
def test_where_steps_overshoot_held_ways_show_more_than_derived_ones():
    data, module = mnist(), LARGE_MODELS["mlp"]()
    images = batches(data, 1, 3)
    derived = dataclasses.replace(FULL, unrolled=True, iterations=120)
    held = dataclasses.replace(derived, way="held")
    settings = {"lr": 0.1, "local_steps": 5}
    least = mean_psnr_db(derived, module, data, images, **settings)
    assert mean_psnr_db(held, module, data, images, **settings) > least + 3


def conv_net():
    return initialised(lenet, SHAPE, CLASSES, activation="relu", init="default")


@pytest.mark.parametrize("way", ["held", "derived"])
def test_several_at_once_are_what_each_is_alone(way):
    # Over few steps: the sign of a gradient near 0 is decided by rounding, and that grows.
    attack = dataclasses.replace(ATTACK, iterations=3, restarts=2, unrolled=True, way=way)
    settings = {"lr": 0.05, "local_steps": 2}
    model = conv_net()
    seen = [observed(model, DATA, image, **settings) for image in IMAGES[:3]]
    together = attack.together(seen, [rng(i) for i in range(len(seen))])
    for number, found in enumerate(together):
        alone = attack(seen[number], rng(number))
        assert (found.images - alone.images).abs().mean() < 1e-3
        assert found.loss == pytest.approx(alone.loss, abs=1e-4)
        assert torch.equal(found.labels, alone.labels)


class Deciding(torch.nn.Module):
    """Looks at the values of its input, which no vectorised model may."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.linear(x.flatten(1)) * (2 if float(x.detach().sum()) > 1e9 else 1)


def test_a_model_that_cannot_be_vectorised_is_attacked_one_by_one():
    model = Deciding()
    seen = [observed(model, DATA, image) for image in IMAGES[:2]]
    together = QUICK.together(seen, [rng(0), rng(1)])
    for found, alone in zip(
        together, [QUICK(seen[0], rng(0)), QUICK(seen[1], rng(1))], strict=True
    ):
        assert torch.equal(found.images, alone.images)


def test_how_many_at_once_follows_the_size_of_the_model():
    small, large = (
        observed(MLP, DATA, IMAGES[0]).knowledge,
        observed(MLP, DATA, IMAGES[0]).knowledge,
    )
    large = dataclasses.replace(large, params=torch.zeros(5_000_000))
    assert (ATTACK.at_once(small), ATTACK.at_once(large)) == (32, 1)


def test_fewer_at_once_where_the_gradient_has_to_be_written():
    wide = initialised(mlp, SHAPE, CLASSES, [2_000])  # 128,000 numbers in the first weight
    unrolled = dataclasses.replace(ATTACK, unrolled=True)
    one_step, two_steps = (
        observed(wide, DATA, IMAGES[0], local_steps=steps).knowledge for steps in (1, 2)
    )
    at_once = [unrolled.at_once(knowledge) for knowledge in (one_step, two_steps)]
    assert at_once == [2**22 // 150_010, 2**20 // 150_010]


def test_updates_of_which_numbers_are_unsent_are_taken_fewer_at_once(monkeypatch):
    monkeypatch.setattr(geiping, "WRITTEN_AT_ONCE", 1)
    attack = dataclasses.replace(ATTACK, iterations=3)
    seen = []
    for image in IMAGES[:3]:
        one = observed(MLP, DATA, image)
        sent = one.update.abs() > one.update.abs().median()
        seen.append(dataclasses.replace(one, update=one.update * sent, seen=sent))
    together = attack.together(seen, [rng(i) for i in range(len(seen))])
    for number, found in enumerate(together):
        assert torch.equal(found.images, attack(seen[number], rng(number)).images)


def test_alike_updates_in_a_row_are_attacked_together():
    seen = [observed(MLP, DATA, image) for image in IMAGES]
    other = observed(MLP, DATA, IMAGES[0], local_steps=2)
    named = [dataclasses.replace(o, knowledge=seen[0].knowledge) for o in seen]
    assert _blocks(ATTACK, [*named, other, *named * 9]) == [
        range(0, 4),
        range(4, 5),
        range(5, 37),
        range(37, 41),
    ]
    assert _blocks(Analytic(), named) == [range(i, i + 1) for i in range(4)]
