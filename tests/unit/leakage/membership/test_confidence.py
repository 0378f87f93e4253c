"""How sure a model is: softmax, and its soft-margin Taylor form against a loop typed anew."""

import math

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.leakage.membership.confidence import Confidence

LOGITS = torch.from_numpy(generator(0, "test_confidence").normal(0, 6, (50, 7)))
Y = torch.arange(50) % 7


def by_loop(z, y, temperature, margin, order):
    def e(t):
        return (
            math.exp(t)
            if order is None
            else sum(t**k / math.factorial(k) for k in range(order + 1))
        )

    own = e(z[y] / temperature - margin)
    return math.log(own / (own + sum(e(v / temperature) for k, v in enumerate(z) if k != y)))


@pytest.mark.parametrize(
    "settings", [(1.0, 0.0, None), (2.0, 0.6, 4), (4.0, 0.0, 2), (3.0, 1.5, None)]
)
def test_against_the_formula(settings):
    found = Confidence(*settings)(LOGITS, Y)
    expected = [by_loop(z, y, *settings) for z, y in zip(LOGITS.tolist(), Y.tolist(), strict=True)]
    assert found == pytest.approx(expected, rel=1e-9)
    assert found.dtype == np.float64


def test_by_default_it_is_softmax():
    expected = -torch.nn.functional.cross_entropy(LOGITS, Y, reduction="none")
    assert Confidence()(LOGITS, Y) == pytest.approx(expected.numpy(), rel=1e-9)


def test_what_softmax_rounds_to_1_is_still_told_apart():
    sure = torch.tensor([[60.0, 0.0], [80.0, 0.0]])
    first, second = Confidence(2.0, 0.6, 4)(sure, torch.tensor([0, 0]))
    assert second - first > 1e-6
    assert np.isfinite(Confidence()(torch.tensor([[-900.0, 900.0]]), torch.tensor([0]))).all()


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"margin": -1.0}, "margin"),
        ({"order": 3}, "order"),
        ({"order": 0}, "order"),
        ({"order": True}, "order"),
        ({"order": 2.0}, "order"),
    ],
)
def test_what_is_refused(changed, key):
    with pytest.raises(InputError) as refusal:
        Confidence(**changed)
    assert refusal.value.key == key
