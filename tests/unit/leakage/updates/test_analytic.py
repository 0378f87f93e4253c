"""Images out of a first linear layer: by hand, and from updates of real images."""

import pytest
import torch
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.core.step_rule import StepRule
from fedexp.leakage.observation import Knowledge
from fedexp.leakage.updates.analytic import Analytic
from fedexp.models import lenet, logistic, mlp
from fedexp.tasks.multiclass import Multiclass
from tests.support.observing import (
    CLASSES,
    batches,
    digits,
    initialised,
    message,
    mnist,
    observed,
    psnr_db,
)

DATA = digits()
SHAPE = (1, 8, 8)
RNG = None  # the attack draws nothing


def by_hand(weight, bias, batch_size):
    """What is found in made-up gradients of a layer that sees two pixels, x -> (x - 0.5) / 0.25."""
    units = len(bias)
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, units))
    quarter = torch.full((1, 1, 1, 1), 0.25)
    knowledge = Knowledge(
        module=module,
        params=vector_of(module),
        normalisation=Normalisation(2 * quarter, quarter),
        task=Multiclass(),
        input_shape=(1, 1, 2),
        num_classes=units,
        batch_size=batch_size,
        rule=StepRule(1.0),
        local_steps=1,
        labels=None,
        clip_norm=None,
    )
    gradient = {"1.weight": torch.tensor(weight), "1.bias": torch.tensor(bias)}
    return Analytic()(message(knowledge, gradient), RNG)


def test_the_unit_that_moved_most_is_read_and_its_scaling_undone():
    # (0.6, -0.6) / -0.6 = (-1, 1), which is 0.5 + 0.25 x (-1, 1) in pixels.
    found = by_hand([[9.0, 9.0], [0.6, -0.6], [0.0, 0.0]], [0.1, -0.6, 0.5], batch_size=1)
    torch.testing.assert_close(found.images, torch.tensor([[[[0.25, 0.75]]]]))
    assert found.labels.tolist() == [1]


def test_in_a_batch_what_units_agree_on_comes_first_and_nothing_outside_the_range():
    ratios = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [-1.0, 1.0], [8.0, 0.0], [0.0, 0.4]])
    bias = torch.tensor([0.4, -0.2, 0.1, -0.9, 0.3])
    found = by_hand((ratios * bias[:, None]).tolist(), bias.tolist(), batch_size=4)
    expected = torch.tensor([[0.25, 0.75], [1.0, 0.5], [0.5, 0.6]]).view(3, 1, 1, 2)
    torch.testing.assert_close(found.images, expected)
    assert len(found.labels) == 3
    two = by_hand((ratios * bias[:, None]).tolist(), bias.tolist(), batch_size=2)
    torch.testing.assert_close(two.images, expected[:2])


def test_nothing_moved_nothing_found():
    found = by_hand([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0], batch_size=1)
    assert found.images.shape == (0, 1, 1, 2)
    assert found.labels.shape == (0,)


@pytest.mark.parametrize("local_steps", [1, 20])
@pytest.mark.parametrize("hidden", [[], [32]], ids=["logistic", "mlp"])
def test_one_image_comes_back_exactly(hidden, local_steps):
    module = initialised(mlp, SHAPE, CLASSES, hidden)
    for image in batches(DATA, 1, 10):
        found = Analytic()(observed(module, DATA, image, local_steps=local_steps), RNG)
        assert psnr_db(found.images, image.x) > 100
        assert found.labels.tolist() == image.y.tolist()


def test_images_that_move_units_of_their_own_come_back_from_a_batch():
    module = initialised(mlp, SHAPE, CLASSES, [300])
    scores = torch.cat(
        [
            psnr_db(Analytic()(observed(module, DATA, batch), RNG).images, batch.x)
            for batch in batches(DATA, 3, 5)
        ]
    )
    assert (scores > 60).double().mean() > 0.7


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (lenet(SHAPE, CLASSES, "relu", "default"), "0 (Conv2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES, bias=False)), "1 (Linear"),
        (nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)), "2 (Linear"),
    ],
    ids=["convolution", "no bias", "pooled first"],
)
def test_other_first_layers_are_refused_by_name(module, layer):
    with pytest.raises(InputError) as refused:
        Analytic()(observed(module, DATA, batches(DATA, 1, 1)[0]), RNG)
    assert f"model=Sequential: its first layer is {layer}" in str(refused.value)


def test_a_frozen_first_layer_is_refused():
    module = logistic(SHAPE, CLASSES)
    module[1].weight.requires_grad_(False)
    with pytest.raises(InputError, match="its first layer is 1"):
        Analytic()(observed(module, DATA, batches(DATA, 1, 1)[0]), RNG)


@pytest.mark.slow
@pytest.mark.parametrize("local_steps", [1, 20])
def test_weight_decay_and_momentum_protect_nobody(local_steps):
    """At decay 0.1, reading the update as if there were none gives 41 dB."""
    module = initialised(mlp, SHAPE, CLASSES, [12])
    for image in batches(DATA, 1, 3):
        terms = {"weight_decay": 0.1, "momentum": 0.9, "local_steps": local_steps}
        found = Analytic()(observed(module, DATA, image, **terms), RNG)
        assert psnr_db(found.images, image.x).min() > 70


@pytest.mark.real_data
@pytest.mark.parametrize("local_steps", [1, 20])
def test_mnist_above_100_db(local_steps):
    data = mnist()
    module = initialised(mlp, (1, 28, 28), CLASSES, [200, 200])
    for image in batches(data, 1, 50):
        found = Analytic()(observed(module, data, image, local_steps=local_steps), RNG)
        assert psnr_db(found.images, image.x) > 100
