"""What is kept of a row, and what is turned around."""

import numpy as np
import torch

from fedexp.attacks.evade import Evade
from fedexp.core.types import Updates
from fedexp.detection.consistency import Consistency


def updates(rows):
    n = len(rows)
    return Updates(rows, tuple(range(n)), torch.ones(n, dtype=torch.float64))


def rewritten(attack, given, malicious):
    return attack.rewrite(given, malicious, lambda m: m.mean(0), np.random.default_rng(0)).matrix


def test_what_is_shared_stays_and_the_rest_is_turned_around():
    """Honest rows point along the first axis: (2, 3) becomes (2, -3), and half of it (1, -3)."""
    rows = torch.tensor([[1.0, 0.0], [4.0, 0.0], [2.0, 3.0]])
    malicious = torch.tensor([False, False, True])
    assert rewritten(Evade(1.0, 1.0), updates(rows), malicious)[2].tolist() == [2.0, -3.0]
    assert rewritten(Evade(0.5, 2.0), updates(rows), malicious)[2].tolist() == [2.0, -6.0]


def test_consistency_does_not_see_it_where_it_sees_a_flip():
    g = torch.Generator().manual_seed(0)
    malicious = torch.arange(10) < 2
    rng = np.random.default_rng(0)
    for attack, caught in ((Evade(1.0, 1.0), 0), (None, 2)):
        detector = Consistency(0.01, 256, "drop", 0)
        state = detector.init(400)
        for _ in range(3):
            rows = 2 * torch.randn(400, generator=g) + torch.randn(10, 400, generator=g)
            given = updates(rows)
            sent = (
                rewritten(attack, given, malicious)
                if attack
                else torch.where(malicious[:, None], -rows, rows)
            )
            verdict, state = detector(updates(sent), state, rng)
        assert int(verdict.flagged[malicious].sum()) == caught
