"""Worker momentum on paper."""

import pytest

from fedexp.core.checks import InputError
from fedexp.federation.memory import NoMemory, WorkerMomentum
from tests.support.updates import updates


def test_the_first_update_is_sent_as_it_is_and_then_averaged():
    memory = WorkerMomentum(0.9, 3)
    sent, state = memory(updates([[1.0, 0.0], [2.0, 2.0]], client_ids=(0, 2)), memory.init(2))
    assert sent.matrix.tolist() == [[1.0, 0.0], [2.0, 2.0]]
    sent, state = memory(updates([[3.0, 1.0], [4.0, 4.0]], client_ids=(1, 2)), state)
    assert sent.matrix[0].tolist() == [3.0, 1.0]  # client 1 for the first time
    assert sent.matrix[1].tolist() == pytest.approx([0.9 * 2 + 0.1 * 4] * 2)
    # Client 0 was away for a round.
    sent, _ = memory(updates([[11.0, 10.0]], client_ids=(0,)), state)
    assert sent.matrix[0].tolist() == pytest.approx([0.9 * 1 + 0.1 * 11, 0.1 * 10])


def test_nothing_given_is_written_to():
    memory = WorkerMomentum(0.5, 1)
    given, state = updates([[1.0]], client_ids=(0,)), memory.init(1)
    _, after = memory(given, state)
    memory(updates([[9.0]], client_ids=(0,)), after)
    assert given.matrix.tolist() == [[1.0]]
    assert state["momentum"].tolist() == [[0.0]]
    assert after["momentum"].tolist() == [[1.0]]


def test_a_row_that_is_not_finite_stays_with_its_client():
    memory = WorkerMomentum(0.5, 2)
    sent, _ = memory(updates([[float("nan")], [1.0]], client_ids=(0, 1)), memory.init(1))
    assert sent.matrix[0].isnan()
    assert sent.matrix[1] == 1


def test_no_memory_keeps_nothing():
    given = updates([[1.0]], client_ids=(0,))
    assert NoMemory()(given, {}) == (given, {})
    assert NoMemory().init(5) == {}


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_a_momentum_that_never_listens_is_refused(beta):
    with pytest.raises(InputError, match="worker_momentum="):
        WorkerMomentum(beta, 3)


def test_momenta_that_fit_no_memory_are_refused():
    with pytest.raises(InputError, match="more than 4 GiB"):
        WorkerMomentum(0.9, 10_000).init(1_000_000)
