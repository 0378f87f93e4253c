"""What an adversary has without an attack."""

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.rng import generator
from fedexp.leakage.updates.baselines import baselines
from fedexp.leakage.updates.image_scores import total_variation

NAMES = ["class mean", "mean image", "noise", "prior only", "held-out image"]


def rng(i=0):
    return generator(i, "test_baselines")


def held_out(shape=(1, 8, 8)):
    """Class 0: .1, .3; class 1: .4, .6, .8; class 2: none."""
    values = torch.tensor([0.1, 0.4, 0.3, 0.6, 0.8]).view(-1, 1, 1, 1)
    return Split(values.expand(5, *shape).clone(), torch.tensor([0, 1, 0, 1, 1]))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_every_kind_gives_one_image_a_label(shape):
    found = baselines(held_out(shape), torch.tensor([0, 1, 1, 2]), rng())
    assert list(found) == NAMES
    for images in found.values():
        assert images.shape == (4, *shape)
        assert images.dtype == torch.float32
        assert float(images.min()) >= 0
        assert float(images.max()) <= 1


def test_means_by_hand():
    found = baselines(held_out(), torch.tensor([1, 0, 2]), rng())
    assert found["class mean"][:, 0, 0, 0].tolist() == pytest.approx([0.6, 0.2, 0.44])
    assert found["mean image"][:, 0, 7, 7].tolist() == pytest.approx([0.44] * 3)


def test_held_out_images_are_real_ones_of_the_class_and_repeat_late():
    labels = torch.tensor([1, 0, 1, 1, 0, 1, 1, 1])
    images = baselines(held_out(), labels, rng())["held-out image"]
    drawn = [round(v, 1) for v in images[labels == 1][:, 0, 0, 0].tolist()]
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == [0.4, 0.6, 0.8]
    assert sorted(round(v, 1) for v in images[labels == 0][:, 0, 0, 0].tolist()) == [0.1, 0.3]


def test_a_class_that_is_not_held_out_gets_any_real_image():
    image = baselines(held_out(), torch.tensor([2]), rng())["held-out image"]
    assert any(torch.equal(image[0], other) for other in held_out().x)


def test_noise_is_uniform_and_the_prior_makes_noise_smooth():
    found = baselines(held_out((1, 28, 28)), torch.zeros(40, dtype=torch.int64), rng())
    noise, smooth = found["noise"], found["prior only"]
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(noise.var()) == pytest.approx(1 / 12, abs=0.003)
    assert float(total_variation(noise).mean()) == pytest.approx(28 * 2 / 3, rel=0.02)
    assert float(total_variation(smooth).max()) < 0.1 * float(total_variation(noise).min())
    assert float(smooth.mean()) == pytest.approx(0.5, abs=0.05)
    assert len(smooth.unique(dim=0)) == len(noise.unique(dim=0)) == 40


def test_the_stream_decides():
    labels = torch.tensor([0, 1])
    one, again, other = (baselines(held_out(), labels, rng(i)) for i in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in NAMES)
    assert not torch.equal(one["noise"], other["noise"])


def test_there_must_be_something_to_make_them_of():
    nothing = held_out().rows(torch.tensor([], dtype=torch.int64))
    with pytest.raises(InputError, match="not trained on"):
        baselines(nothing, torch.tensor([0]), rng())
