"""Attacks, by hand."""

import math

import numpy as np
import pytest
import torch

from fedexp.attacks.none import NoAttack
from fedexp.attacks.sign_flip import SignFlip
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.types import Updates

ROWS = Updates(
    torch.tensor([[1.0, -2.0], [3.0, 4.0], [0.0, math.inf]]),
    (4, 7, 9),
    torch.ones(3, dtype=torch.float64),
)
DATA = Split(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2]))


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("scale", "flipped"), [(1.0, [-3.0, -4.0]), (4.0, [-12.0, -16.0]), (0.5, [-1.5, -2.0])]
)
def test_sign_flip_sends_the_opposite_times_scale(scale, flipped):
    rewritten = SignFlip(scale).rewrite(ROWS, torch.tensor([False, True, False]), None, rng())
    assert rewritten.matrix.tolist() == [[1.0, -2.0], flipped, [0.0, math.inf]]


def test_sign_flip_leaves_the_data_alone():
    assert SignFlip(1.0).poison(DATA, rng()) is DATA


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_sign_flip_refuses_a_scale_that_flips_nothing(scale):
    with pytest.raises(InputError, match="scale="):
        SignFlip(scale)


def test_no_attack_passes_everything_on():
    assert NoAttack().rewrite(ROWS, torch.tensor([True, True, True]), None, rng()) is ROWS
    assert NoAttack().poison(DATA, rng()) is DATA
