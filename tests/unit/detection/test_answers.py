"""How a client answers, by hand and on losses whose Hessian is known."""

import math

import pytest
import torch

from fedexp.detection.answers import answers, own_parts
from fedexp.detection.evidence import Evidence, together


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_an_answer_by_hand():
    """It sent (1, 0), sends (0, -1), and the others moved the model by (2, 0): cos 45 degrees."""
    said = answers(rows((1, 0)), rows((0, -1)), rows((2, 0)))
    torch.testing.assert_close(said[0], rows(1 / math.sqrt(2))[0][None])
    assert said[1].tolist() == [True]


@pytest.mark.parametrize("bend", [0.1, 1.0, 3.0])
def test_an_honest_client_pushes_back_and_its_flip_pushes_on(bend):
    """F = bend (w - c)^2 / 2 in every coordinate: delta = -bend (w - c) / 10, wherever c is."""
    for optimum in (rows((5, -3, 2)), rows((-50, 30, 7))):
        start, move = rows((1, 1, 1)), rows((0.5, -0.2, 0.1))
        before, now = -bend * (start - optimum) / 10, -bend * (start + move - optimum) / 10
        torch.testing.assert_close(answers(before, now, move)[0], torch.ones(1).double())
        torch.testing.assert_close(answers(-before, -now, move)[0], -torch.ones(1).double())


def test_nothing_is_said_where_nothing_was_sent_or_nothing_moved():
    before, now = rows((0, 0), (1, 0), (1, 0), (1, 0)), rows((1, 0), (0, 0), (0, 1), (1, 0))
    moved = rows((1, 1), (1, 1), (0, 0), (1, 1))
    values, said = answers(before, now, moved)
    assert not said.any()
    assert values.isfinite().all()


def test_the_own_part_is_the_weight_of_a_mean():
    sent = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)).double()
    weights = rows((0.4, 0.3, 0.2, 0.1, 0.0))[0]
    parts = own_parts(sent, weights @ sent)
    torch.testing.assert_close(parts, weights[:, None] * sent)


def test_rows_that_are_the_same_share_alike():
    sent = rows((1, 2, 0, 0), (1, 2, 0, 0), (0, 0, 1, 0))
    parts = own_parts(sent, rows((1, 2, 3, 4))[0])
    torch.testing.assert_close(parts, rows((0.5, 1, 0, 0), (0.5, 1, 0, 0), (0, 0, 3, 0)))


def test_evidence_adds_up_by_hand():
    """Five clients, two rounds: medians 0.4 and 0.2, deviations 0.14826 and the floor."""
    everybody = torch.ones(5, dtype=torch.bool)
    nothing = Evidence(torch.zeros(5, 3, dtype=torch.float64))
    one = nothing.with_round(rows((0.5, 0.4, 0.4, 0.5, -0.4))[0], everybody, floor=0.1)
    two = one.with_round(rows((0.2, 0.2, 0.2, 0.2, -0.2))[0], everybody, floor=0.1)
    # Above the median of the first round lie 0, 0, 0.1 and 0.1: their median is 0.05.
    squares = 0.4**2 * 0.1**2 + 0.2**2 * 0.1**2
    torch.testing.assert_close(two.sums[:, 1], torch.full((5,), squares).double())
    torch.testing.assert_close(two.share, rows((1.2, 1, 1, 1.2, -1))[0])
    torch.testing.assert_close(two.chance[0], torch.tensor(math.sqrt(squares) / 0.2).double())


def test_what_sets_honest_clients_apart_weighs_less():
    """By one kind of evidence some are at odds with the others; by the other one is turned."""
    by_angle = rows((1.4, 1.3, 1.2, 1.1, 1.0, 0.0, -1.0, -2.0, -1.0))[0]
    by_answer = rows((1.04, 1.03, 1.02, 1.01, 1.0, 1.0, 0.99, 0.98, -1.0))[0]
    chance, usual = torch.full_like(by_angle, 0.01), torch.ones_like(by_angle)
    kinds = [Evidence(torch.stack([x, chance, usual], dim=1)) for x in (by_angle, by_answer)]
    share, _, earnest = together((kinds[0], kinds[1]), z=2.0)
    assert share[7] > 0.9
    assert share[8] < -0.9
    # 1.4826 times the median of 0, 1, 2, 2 and 3 is a deviation of 2.97; chance alone is 0.1.
    assert float(earnest[0]) == pytest.approx((1 / 2.9652**2 + 100) ** -0.5, rel=1e-3)


def test_what_chance_alone_could_turn_around_is_not_asked():
    """Behind DP-SGD answers are chance, and angles plain: six of eighteen are turned around."""
    by_angle = torch.cat([torch.ones(12), torch.full((6,), -4.0)]).double()
    by_answer = torch.linspace(-3, 5, 18, dtype=torch.float64)
    ones = torch.ones(18, dtype=torch.float64)
    angles = Evidence(torch.stack([by_angle, 0.3**2 * ones, ones], dim=1), apart=1.0)
    answered = Evidence(torch.stack([by_answer, 1.4**2 * ones, ones], dim=1))
    share, chance, _ = together((angles, answered), z=2.3)
    torch.testing.assert_close(share, by_angle)
    torch.testing.assert_close(chance, 0.3 * ones)
    both, _, _ = together((angles, answered), z=1.0)
    assert not torch.equal(both, by_angle)


def test_three_clients_are_no_cohort():
    nothing = Evidence(torch.zeros(3, 3, dtype=torch.float64))
    assert (
        nothing.with_round(torch.ones(3).double(), torch.ones(3, dtype=torch.bool), 0.1) is nothing
    )
    share, chance, earnest = together((nothing, nothing), z=2.0)
    assert share.tolist() == [0, 0, 0]
    assert chance.isinf().all()
    assert earnest.isinf().all()
