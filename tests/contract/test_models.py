"""What every model of conf/model must keep, on the shapes of our datasets."""

import pytest
import torch
from torch.nn import functional as F

from fedexp.core.flat import TaskModel, vector_of
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.rehearsal import refuse_what_moves
from tests.support.composing import choices, part

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 28, 28)]
CASES = [
    pytest.param(choice, shape, classes, id=f"{choice}-{'x'.join(map(str, shape))}-{classes}")
    for choice in choices("model")
    for shape, classes in zip(SHAPES, (2, 10, 7), strict=True)
]
each_case = pytest.mark.parametrize(("choice", "shape", "classes"), CASES)
each_choice = pytest.mark.parametrize("choice", choices("model"))


def build(choice, shape=(1, 8, 8), classes=10, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return part(
            "model",
            choice,
            f"dataset.input_shape=[{','.join(map(str, shape))}]",
            f"dataset.num_classes={classes}",
        )


def images(shape, n=2):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def test_the_configs_were_found():
    assert {"logistic", "mlp", "cnn", "small_cnn", "resnet18", "custom"} <= set(choices("model"))


@each_case
def test_images_become_one_logit_a_class(choice, shape, classes):
    logits = build(choice, shape, classes)(images(shape))
    assert logits.shape == (2, classes)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@each_case
def test_a_client_with_one_image_can_train_and_reaches_every_weight(choice, shape, classes):
    model = build(choice, shape, classes).train()
    loss = F.cross_entropy(model(images(shape, 1)), torch.zeros(1, dtype=torch.int64))
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients)


@each_choice
def test_an_image_is_judged_by_itself(choice):
    model = build(choice).eval()
    x = images((1, 8, 8), 5)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[3:4], model(x[3:4]), rtol=1e-4, atol=1e-5)


@each_choice
def test_nothing_but_parameters_changes_in_training(choice):
    model = build(choice)
    y = torch.arange(3)
    refuse_what_moves(model, Multiclass(), images((1, 8, 8), 3), y, averaged=False)


@each_choice
def test_the_seed_decides_the_weights(choice):
    first, again, other = (vector_of(build(choice, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_choice
def test_survives_the_way_into_a_flat_model(choice):
    model = build(choice).eval()
    flat = TaskModel(model, torch.device("cpu"), Multiclass())
    flat.load(vector_of(model))
    x = images((1, 8, 8), 3)
    with torch.no_grad():
        torch.testing.assert_close(flat.module.eval()(flat.laid_out(x)), model(x))
