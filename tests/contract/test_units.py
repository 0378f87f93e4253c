"""What an attack or a rule does must not depend on the unit of the rows, nor on gradients' sign.

Papers state them for gradients, the rows here are deltas: minus the learning rate times gradients.
So every part is tried on the same rows in other units, c = 0.01 and c = -1: rows c x must give c
times what x gives. Where a parameter is itself in the unit of the rows, or has a direction, that
parameter is here with what becomes of it; there is nothing else that may.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from fedexp.config.parts import BUILDERS_OWN
from fedexp.core.rng import generator
from fedexp.core.types import Outcome, Updates
from tests.support.composing import choices, config_for

N, D = 12, 60
MALICIOUS = torch.tensor([k in (2, 11) for k in range(N)])
SMALL = ("n_clients=12", "cohort_size=12", "assumed_malicious=2")

LENGTHS = {  # parameters in the unit of a row
    "attack": {
        "gaussian": ("std",),
        "fang_krum": ("threshold",),
    },
    "aggregator": {
        "geometric_median": ("smoothing",),
    },
}
TURNED = {  # what is the same attack where every row changes its sign
    "alie": {"direction": "down"},
    "optimal_alie": {"direction": "down"},
    "min_max": {"perturbation": "std_down"},
    "min_sum": {"perturbation": "std_down"},
}
DRAWN = {"gaussian", "flame"}  # noise of their own, the same for -x
NOT_THE_ROWS = {"broken"}  # NaN in any unit


def rows(c=1.0):
    matrix = 0.4 + torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    return Updates(c * matrix, tuple(range(N)), torch.arange(1, N + 1).double())


def part(group, choice, c):
    """The part of a choice, its lengths times |c|, turned around where c is negative."""
    node = dict(config_for(f"{group}={choice}", *SMALL)[group])
    for kept_elsewhere in BUILDERS_OWN["attack"]:
        node.pop(kept_elsewhere, None)
    for key in LENGTHS[group].get(choice, ()):
        node[key] = abs(c) * node[key]
    if c < 0:
        node |= TURNED.get(choice, {})
    return instantiate(node, _convert_="all")


def expect(result, expected):
    size = float(expected.abs().max())
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4 * size)


@dataclass(frozen=True)
class MeanRule:
    """A server of the mean, with a loss that has no unit: how little goes the honest way."""

    honest: torch.Tensor

    def __call__(self, matrix):
        return matrix.mean(dim=0)

    def outcome(self, matrix):
        step = self(matrix)
        return Outcome(step, -float(step @ self.honest / self.honest.square().sum()))


each_unit = pytest.mark.parametrize("c", [0.01, -1.0])


@each_unit
@pytest.mark.parametrize("choice", sorted(set(choices("attack")) - NOT_THE_ROWS))
def test_attacks(choice, c):
    def sent(c):
        attack, given = part("attack", choice, c), rows(c)
        rule = MeanRule(given.matrix[~MALICIOUS].mean(dim=0))
        return attack.rewrite(given, MALICIOUS, rule, np.random.default_rng(0)).matrix[MALICIOUS]

    expect(sent(c), (abs(c) if choice in DRAWN else c) * sent(1.0))


@each_unit
@pytest.mark.parametrize("choice", sorted(set(choices("aggregator")) - DRAWN))
def test_rules(choice, c):
    def step(c):
        rule, given = part("aggregator", choice, c), rows(c)
        given = replace(given, reference=given.matrix.mean(dim=0))  # for the rule that wants one
        return rule(given, rule.init(D), generator(0, "units"))[0]

    expect(step(c), c * step(1.0))
