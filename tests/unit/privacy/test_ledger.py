"""What a run keeps of its releases, and what it says they have cost."""

import io
import math
import time

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.privacy import accounting
from fedexp.privacy import ledger as ledger_module
from fedexp.privacy.accounting import Event, epsilon, gaussian_epsilon
from fedexp.privacy.ledger import Ledger, PureLedger

DELTA = 1e-5


def ledger(rates, noises=None, accountant="prv", adjacency="add_remove", delta=DELTA):
    noises = (1.0,) * len(rates) if noises is None else noises
    return Ledger(tuple(noises), tuple(rates), delta, accountant, adjacency)


def alone(noise, rate, steps, delta=DELTA):
    return epsilon([Event(noise, rate, steps)], delta, "prv").epsilon


def test_only_the_rounds_in_which_a_client_trained_count():
    book = ledger([1 / 19, 1 / 19, 1 / 10])
    state = book.init()
    assert book.epsilon(state).epsilon == 0
    for cohort in ({0: 38, 2: 20}, {0: 38}, {2: 20}):
        state = book.charge(state, cohort)
    assert state["steps"].tolist() == [76, 0, 40]
    assert state["steps"].dtype == torch.int64
    costs = [alone(1.0, 1 / 19, 76), 0.0, alone(1.0, 1 / 10, 40)]
    assert book.epsilons(state).tolist() == costs
    assert book.of_row(state, 2).epsilon == costs[2]


def test_the_run_costs_what_its_worst_client_costs_and_no_mean_of_them():
    book = ledger([1 / 19, 1 / 19, 1 / 10])
    state = book.charge(book.init(), {0: 76, 2: 40})
    costs = book.epsilons(state)
    assert book.epsilon(state).epsilon == float(costs.max())
    assert float(costs.mean()) < float(costs.median()) < float(costs.max()) < float(costs.sum())


def test_charging_leaves_the_state_before_alone():
    book = ledger([0.1])
    before = book.init()
    book.charge(before, {0: 5})
    assert before["steps"].tolist() == [0]


def test_a_saved_ledger_goes_on_and_a_forgotten_one_undercounts():
    book = ledger([0.1, 0.2])
    state = book.charge(book.init(), {0: 30, 1: 30})
    saved = io.BytesIO()
    torch.save(dict(state), saved)
    restored = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    whole = book.charge(state, {1: 30})
    assert book.epsilon(book.charge(restored, {1: 30})) == book.epsilon(whole)
    assert book.epsilon(book.charge(book.init(), {1: 30})).epsilon < book.epsilon(whole).epsilon


def test_the_maximum_is_that_of_all_rows():
    rates = [1 / (20 + k % 3) for k in range(12)]
    noises = [1.0 + 0.01 * (k % 2) for k in range(12)]
    book = ledger(rates, noises)
    state = book.charge(book.init(), {k: 20 + 7 * (k % 5) for k in range(12)})
    assert book.epsilon(state).epsilon == float(book.epsilons(state).max())


def test_a_client_that_joined_five_rounds():
    """Ten full-batch steps a round, noise 2: its cost has nothing of the 10% of clients in it."""
    book = ledger([1.0] * 100, [2.0] * 100, delta=1e-4)
    state = book.init()
    for _ in range(5):
        state = book.charge(state, {7: 10})
    found = book.epsilon(state).epsilon
    assert found == pytest.approx(18.72, abs=0.02)
    assert found >= gaussian_epsilon(2.0, 1e-4, 50)


def test_client_level_is_one_row_with_a_step_a_round():
    book = ledger([0.1], [1.0], delta=1e-3)
    state = book.init()
    for _ in range(100):
        state = book.charge(state, {0: 1})
    assert book.epsilon(state).epsilon == pytest.approx(4.7949, abs=1e-4)


def test_local_releases_have_the_adjacency_of_their_sensitivity():
    book = ledger([1.0, 1.0], [5.0, 5.0], adjacency="replace_one")
    guarantee = book.epsilon(book.charge(book.init(), {1: 100}))
    assert guarantee.adjacency == "replace_one"
    assert guarantee.epsilon == pytest.approx(10.0077, abs=1e-4)
    with pytest.raises(
        InputError, match=r"sample_rate=0.1: below 1 it amplifies for adjacency=add"
    ):
        ledger([0.1], adjacency="replace_one")


def test_no_noise_at_one_client_is_no_privacy_for_the_run():
    book = ledger([0.1, 0.1], [1.0, 0.0])
    state = book.charge(book.init(), {0: 5})
    assert book.epsilon(state).epsilon < math.inf
    assert book.epsilon(book.charge(state, {1: 1})).epsilon == math.inf


def test_the_question_before_a_round_has_the_answer_after_it():
    book = ledger([1 / 19, 1 / 10])
    state, spent = book.init(), []
    for _ in range(4):
        after = book.charge(state, {0: 38, 1: 20})
        value = book.epsilon(after).epsilon
        for budget in (value * 0.999, value, value * 1.001, 6.0):
            assert book.would_exceed(state, {0: 38, 1: 20}, budget) == (value > budget)
        state = after
        spent.append(value)
    assert spent == sorted(spent)
    assert spent[0] < 6.0 < spent[-1]


def test_a_round_that_nobody_joins_exceeds_nothing():
    book = ledger([0.1])
    assert not book.would_exceed(book.init(), {}, 0.001)
    assert not book.would_exceed(book.init(), {0: 0}, 0.001)


def test_asking_every_round_is_cheap(monkeypatch):
    """1000 clients with 10 sampling rates, 100 rounds: few of them need prv, and none twice."""
    asked = []
    compute = accounting._prv_epsilon

    def counting(history, delta, rdp):
        asked.append(history)
        return compute(history, delta, rdp)

    monkeypatch.setattr(accounting, "_prv_epsilon", counting)
    book = ledger([1 / (20 + k % 10) for k in range(1000)], [4.0] * 1000)
    each = {k: 20 + k % 10 for k in range(1000)}
    state = book.init()
    book.would_exceed(state, each, 100.0)  # the curves of 10 rates
    start = time.perf_counter()
    for _ in range(100):
        assert not book.would_exceed(state, each, 100.0)
        state = book.charge(state, each)
    assert asked == []
    assert time.perf_counter() - start < 10
    first = book.epsilon(state)
    assert 1 <= len(asked) <= 10
    assert book.epsilon(state) == first
    assert len(asked) == len(set(asked))


def test_rows_that_cannot_be_the_largest_are_not_asked(monkeypatch):
    """The margin below which rows are passed over is prv's whole distance above rdp."""
    book = ledger([0.2, 0.19, 0.01], accountant="prv")
    state = book.charge(book.init(), {0: 50, 1: 55, 2: 50})
    asked = []

    def counting(history, delta, accountant):
        asked.append((history[0].sample_rate, accountant) if history else None)
        return epsilon(history, delta, accountant)

    monkeypatch.setattr(ledger_module, "epsilon", counting)
    book.epsilon(state)
    assert (0.01, "rdp") in asked
    assert (0.01, "prv") not in asked


@pytest.mark.parametrize(
    ("message", "steps"),
    {"row=3: the ledger has rows 0 to 2": {3: 1}, "row=-1": {-1: 1}, "steps=-5": {0: -5}}.items(),
)
def test_charges_that_are_refused(message, steps):
    book = ledger([0.1] * 3)
    with pytest.raises(InputError, match=message):
        book.charge(book.init(), steps)


@pytest.mark.parametrize(
    ("message", "arguments"),
    {
        "accountant=gdp": {"accountant": "gdp"},
        "delta=0": {"delta": 0},
        "sample_rate=2": {"rates": [0.1, 2]},
        "noise_multiplier=-1": {"noises": [1.0, -1]},
        "noise_multipliers=1: one is needed for each of 2 rows": {"noises": [1.0]},
    }.items(),
)
def test_ledgers_that_are_refused(message, arguments):
    with pytest.raises(InputError, match=message):
        ledger(**{"rates": [0.1, 0.1], **arguments})


def test_a_budget_must_be_one():
    book = ledger([0.1])
    for budget in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="max_epsilon"):
            book.would_exceed(book.init(), {0: 1}, budget)


def test_pure_releases_add_up():
    book = PureLedger(rows=3, epsilon_per_release=0.5, adjacency="replace_one")
    state = book.charge(book.charge(book.init(), {0: 1, 2: 1}), {2: 1})
    assert book.epsilons(state).tolist() == [0.5, 0.0, 1.0]
    guarantee = book.epsilon(state)
    assert (guarantee.epsilon, guarantee.delta, guarantee.adjacency) == (1.0, 0.0, "replace_one")
    assert book.would_exceed(state, {2: 1}, 1.4)
    assert not book.would_exceed(state, {2: 1}, 1.5)
    assert not book.would_exceed(state, {0: 1}, 1.0)


def test_a_profile_is_epsilon_for_every_delta():
    kept = ledger([0.1, 0.2], [1.0, 1.3])
    state = kept.charge(kept.init(), {0: 100, 1: 80})
    deltas = (1e-5, 1e-3, 0.05)
    for scale in (1.0, 0.5):
        rows = ((1.0, 0.1, 100), (1.3, 0.2, 80))
        found = kept.profile(state, deltas, scale)
        for delta, value in zip(deltas, found, strict=True):
            expected = max(alone(z * scale, q, steps, delta) for z, q, steps in rows)
            assert value == pytest.approx(expected, rel=0.03, abs=0.02)
            assert value >= expected * 0.99
    assert kept.profile(kept.init(), deltas, 1.0) == (0.0, 0.0, 0.0)


def test_a_pure_profile_is_the_same_for_every_delta():
    kept = PureLedger(2, 0.5, "add_remove")
    assert kept.profile(kept.charge(kept.init(), {1: 4}), (1e-5, 0.1), 0.5) == (4.0, 4.0)
