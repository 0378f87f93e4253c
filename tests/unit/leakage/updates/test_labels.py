"""Labels out of the last layer: by hand, and from updates of real images."""

from collections import Counter

import pytest
import torch
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.normalise import Normalisation
from fedexp.leakage.updates.label_recovery import assumed_labels, recovered_labels
from fedexp.models import lenet, logistic, mlp, small_cnn
from tests.support.observing import (
    CLASSES,
    batches,
    digits,
    initialised,
    known,
    message,
    mnist,
    observed,
)

DATA = digits()
SHAPE = (1, 8, 8)
IMAGES = batches(DATA, 1, 40)


def undecided(bias=True):
    """A model to which every class is as likely, whatever the image."""
    module = logistic(SHAPE, CLASSES) if bias else nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def no_bias():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES, bias=False)
    )


@pytest.mark.parametrize(
    "module",
    [
        initialised(mlp, SHAPE, CLASSES, [32]),
        initialised(small_cnn, SHAPE, CLASSES),
        initialised(lenet, SHAPE, CLASSES, "relu", "default"),
        initialised(lenet, SHAPE, CLASSES, "sigmoid", "uniform"),
        initialised(no_bias),
    ],
    ids=["mlp", "small_cnn", "relu lenet", "uniform lenet", "no bias"],
)
@pytest.mark.parametrize("local_steps", [1, 5])
def test_the_label_of_one_image_is_always_recovered(module, local_steps):
    assert len({int(image.y) for image in IMAGES}) == CLASSES
    for image in IMAGES:
        seen = observed(module, DATA, image, lr=0.01, local_steps=local_steps)
        assert recovered_labels(seen).tolist() == image.y.tolist()


@pytest.mark.parametrize("labels", [[1, 1, 1, 4, 4], [7] * 8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]])
def test_repeated_labels_are_counted_where_the_model_is_undecided(labels):
    rows = torch.cat(
        [torch.nonzero(DATA.y == c)[[labels[:i].count(c)], 0] for i, c in enumerate(labels)]
    )
    seen = observed(undecided(), DATA, DATA.rows(rows))
    assert recovered_labels(seen).tolist() == labels


def test_a_model_that_leans_to_a_class_is_corrected_for():
    # p = (.91, .01 ...) on every image, so two images of class 0 give .91 - 2/3 > 0 there.
    module = undecided()
    with torch.no_grad():
        module[-1].bias[0] = torch.tensor(91.0).log()
    rows = torch.cat([torch.nonzero(DATA.y == 0)[:2, 0], torch.nonzero(DATA.y == 3)[:1, 0]])
    seen = observed(module, DATA, DATA.rows(rows))
    bias = seen.gradient()["1.bias"]
    torch.testing.assert_close(bias[0], torch.tensor(0.91 - 2 / 3).double(), rtol=1e-4, atol=0)
    assert recovered_labels(seen).tolist() == [0, 0, 3]


def test_clipping_hides_the_scale_and_not_the_labels():
    batch = DATA.rows(torch.arange(3))
    knowledge = known(undecided(), DATA, batch, clip_norm=0.01)
    bias = torch.full((CLASSES,), 0.1)
    bias[2] -= 2 / 3
    bias[5] -= 1 / 3
    made_up = {"1.weight": torch.zeros(CLASSES, 64), "1.bias": bias / 1000}
    assert recovered_labels(message(knowledge, made_up)).tolist() == [2, 2, 5]


def test_no_more_labels_than_images_however_many_entries_are_negative():
    knowledge = known(undecided(), DATA, DATA.rows(torch.arange(2)))
    noisy = -torch.arange(1.0, 11.0)
    made_up = {"1.weight": torch.zeros(CLASSES, 64), "1.bias": noisy}
    assert recovered_labels(message(knowledge, made_up)).tolist() == [8, 9]


def test_shared_labels_are_taken():
    shared = torch.tensor([3, 3])
    seen = observed(undecided(), DATA, DATA.rows(torch.arange(2)), labels=shared)
    assert assumed_labels(seen) is shared
    assert recovered_labels(seen).tolist() == sorted(DATA.y[:2].tolist())


def test_a_model_that_ends_otherwise_is_refused():
    module = nn.Sequential(nn.Conv2d(1, CLASSES, 8), nn.Flatten())
    with pytest.raises(InputError, match=r"model=Sequential: .*each of the 10 classes"):
        recovered_labels(observed(module, DATA, IMAGES[0]))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("init", ["default", "uniform"])
def test_mnist_one_image_always_and_batches_mostly(init):
    data = mnist()
    module = initialised(lenet, (1, 28, 28), CLASSES, "sigmoid", init)
    singles = batches(data, 1, 100)
    assert all(
        recovered_labels(observed(module, data, image)).tolist() == image.y.tolist()
        for image in singles
    )
    found = 0
    for batch in batches(data, 8, 20):
        guess = Counter(recovered_labels(observed(module, data, batch)).tolist())
        found += sum((guess & Counter(batch.y.tolist())).values())
    assert found / 160 > 0.9


def test_after_several_steps_outputs_are_taken_on_the_way():
    """Four blank images of class 0, three steps of 2 on the biases alone.

    Class 0 is at 0.100, 0.451 and 0.736 when the steps are made, and at 0.834 in the end: the mean
    gradient of its bias is 0.429 - 1 = -0.571. At the output of the start there would be
    4 (0.100 + 0.571) = 2.7 images of it, at those of both ends 4 (0.467 + 0.571) = 4.2.
    """
    blank = Normalisation.of(DATA).mean.expand(4, *SHAPE)
    seen = observed(undecided(), DATA, Split(blank, torch.zeros(4).long()), lr=2, local_steps=3)
    assert float(seen.gradient()["1.bias"][0]) == pytest.approx(-0.571, abs=1e-3)
    assert recovered_labels(seen).tolist() == [0, 0, 0, 0]


def test_a_noised_update_ends_anywhere():
    """So that the outputs are those of the start, as for one step."""
    labels = []
    for steps in (1, 2):
        knowledge = known(undecided(), DATA, batches(DATA, 4, 1)[0], local_steps=steps, clip_norm=1)
        bias = torch.tensor([-0.4, -0.1, *[0.5] * 8])
        update = message(knowledge, {"1.weight": torch.zeros(10, 64), "1.bias": 100 * bias})
        labels.append(recovered_labels(update).tolist())
    assert labels[0] == labels[1]
