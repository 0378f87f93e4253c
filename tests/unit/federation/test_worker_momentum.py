"""Worker momentum on paper."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.federation.worker_momentum import Momentum, NoMomentum, in_place_of
from tests.support.updates import updates


def sent_by_one(momentum, deltas):
    """What a client sends that trains `deltas` (single numbers), one a round."""
    sent, kept = [], {}
    for delta in deltas:
        rows, (kept,) = momentum(updates([[delta]], client_ids=(0,)), [kept], 1)
        sent.append(rows.matrix.item())
    return sent


def test_the_first_update_is_sent_as_it_is_and_then_averaged():
    momentum = Momentum(0.9, damped=True, start="first_update")
    given = updates([[1.0, 0.0], [2.0, 2.0]], client_ids=(0, 2))
    sent, (zero, two) = momentum(given, [{}, {}], 2)
    assert sent.matrix.tolist() == [[1.0, 0.0], [2.0, 2.0]]
    sent, _ = momentum(updates([[3.0, 1.0], [4.0, 4.0]], client_ids=(1, 2)), [{}, two], 2)
    assert sent.matrix[0].tolist() == [3.0, 1.0]  # client 1 for the first time
    assert sent.matrix[1].tolist() == pytest.approx([0.9 * 2 + 0.1 * 4] * 2)
    # Client 0 was away for a round.
    sent, _ = momentum(updates([[11.0, 10.0]], client_ids=(0,)), [zero], 2)
    assert sent.matrix[0].tolist() == pytest.approx([0.9 * 1 + 0.1 * 11, 0.1 * 10])


@pytest.mark.parametrize(
    ("damped", "start", "expected"),
    [
        (True, "first_update", [8.0, 0.5 * 8 + 0.5 * 4, 0.5 * 6 + 0.5 * 2]),
        (True, "zero", [4.0, 0.5 * 4 + 0.5 * 4, 0.5 * 4 + 0.5 * 2]),
        (False, "zero", [8.0, 0.5 * 8 + 4, 0.5 * 8 + 2]),
        (False, "first_update", [8.0, 0.5 * 8 + 4, 0.5 * 8 + 2]),
    ],
)
def test_the_conventions_by_hand(damped, start, expected):
    assert sent_by_one(Momentum(0.5, damped, start), [8.0, 4.0, 2.0]) == expected


@pytest.mark.parametrize("damped", [True, False])
@pytest.mark.parametrize("start", ["first_update", "zero"])
def test_beta_0_is_no_momentum_bit_for_bit(damped, start):
    deltas = [0.1, -0.0, float("inf"), 1e-40, 3.3]
    sent = torch.tensor(sent_by_one(Momentum(0.0, damped, start), deltas))
    assert torch.equal(sent.view(torch.int32), torch.tensor(deltas).view(torch.int32))


def test_the_momenta_are_those_of_a_matrix_of_all_clients():
    """The same bits as one formula over all rows, as it was when all momenta lay in one matrix."""
    g = torch.Generator().manual_seed(0)
    momentum, kept = Momentum(0.9, True, "first_update"), [{}, {}, {}]
    all_of_them, beta = torch.zeros(3, 50), torch.zeros(3)
    for _ in range(4):
        rows = torch.randn(3, 50, generator=g)
        sent, kept = momentum(updates(rows.tolist()), kept, 50)
        all_of_them = beta[:, None] * all_of_them + (1 - beta[:, None]) * rows
        beta = torch.full((3,), 0.9)
        assert torch.equal(sent.matrix, all_of_them)


def test_what_is_sent_beside_the_delta_has_no_momentum():
    momentum = Momentum(0.5, True, "first_update")
    _, kept = momentum(updates([[1.0, 5.0]]), [{}], 1)
    sent, (after,) = momentum(updates([[3.0, 7.0]]), kept, 1)
    assert sent.matrix.tolist() == [[2.0, 7.0]]
    assert after["momentum"].tolist() == [2.0]


def test_nothing_given_is_written_to():
    momentum = Momentum(0.5, True, "first_update")
    given = updates([[1.0]], client_ids=(0,))
    _, before = momentum(given, [{}], 1)
    momentum(updates([[9.0]], client_ids=(0,)), before, 1)
    assert given.matrix.tolist() == [[1.0]]
    assert before[0]["momentum"].tolist() == [1.0]


def test_a_row_that_is_not_finite_stays_with_its_client():
    momentum = Momentum(0.5, True, "first_update")
    sent, _ = momentum(updates([[float("nan")], [1.0]], client_ids=(0, 1)), [{}, {}], 1)
    assert sent.matrix[0].isnan()
    assert sent.matrix[1] == 1


def test_no_momentum_keeps_nothing():
    given = updates([[1.0]], client_ids=(0,))
    sent, kept = NoMomentum()(given, [{}], 1)
    assert sent is given
    assert kept == [{}]


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_a_momentum_that_never_listens_is_refused(beta):
    with pytest.raises(InputError, match="beta="):
        Momentum(beta, True, "zero")


def test_an_unknown_start_is_refused():
    with pytest.raises(InputError, match="start=first: "):
        Momentum(0.9, True, "first")


def test_malicious_clients_may_attack_with_what_they_have_just_trained():
    kept = [{"momentum": torch.tensor([8.0])}] * 2
    trained = updates([[4.0], [4.0]], client_ids=(0, 1))
    momentum = Momentum(0.5, damped=True, start="zero", malicious_too=False)
    attackers, nobody = np.array([False, True]), np.zeros(2, dtype=bool)
    rows, momenta = in_place_of(momentum, trained, kept, 1, attackers)
    assert rows.matrix.tolist() == [[6.0], [4.0]]
    assert [m["momentum"].tolist() for m in momenta] == [[6.0], [6.0]]  # of rounds without attack
    assert in_place_of(momentum, trained, kept, 1, nobody)[0].matrix.tolist() == [[6.0], [6.0]]
    as_ever = Momentum(0.5, damped=True, start="zero")
    assert in_place_of(as_ever, trained, kept, 1, attackers)[0].matrix.tolist() == [[6.0], [6.0]]
