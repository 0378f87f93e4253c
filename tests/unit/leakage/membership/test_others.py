"""Scores against the other clients' rows: by hand, by a naive loop, and what leaves none."""

import numpy as np
import pytest

from fedexp.core.rng import generator
from fedexp.leakage.membership.others import against_others, asked_of, of_every_client


def naive(tables, client, never=None):
    """An example and a round at a time."""
    scores = []
    for j, c in enumerate(client):
        difference = variance = 0.0
        for slopes, row_of in tables:
            out = -1 if never is None else row_of[never[j]]
            if row_of[c] < 0 or row_of[c] == out:
                continue
            others = [slopes[r, j] for r in range(len(slopes)) if r not in (row_of[c], out)]
            difference += slopes[row_of[c], j] - (np.mean(others) if others else 0.0)
            variance += np.var(others, ddof=1) if len(others) > 1 else 1.0
        scores.append(difference / np.sqrt(variance) if variance else 0.0)
    return np.array(scores)


def drawn(rows, rounds=3, clients=6, n=8):
    """Rounds in which the clients are dealt to rows, the last of them to none."""
    rng = generator(0, "test_others")
    tables = []
    for _ in range(rounds):
        row_of = rng.permutation(np.arange(clients) % rows)
        row_of[rng.integers(clients)] = -1
        tables.append((rng.normal(5, 1, (rows, n)), row_of))
    return tables, rng.integers(clients, size=n), rng.integers(clients, size=n)


def test_a_case_by_hand():
    # Others 1 and 3 have mean 2 and variance 2: D = 5 - 2 = 3. Twice: 6 / sqrt(4) = 3.
    table = np.array([[5.0], [1.0], [3.0]]), np.array([0, 1, 2])
    assert asked_of([table, table], np.array([0])) == pytest.approx([3.0])


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_against_the_loop(rows):
    tables, client, _ = drawn(rows)
    found = asked_of(tables, client)
    np.testing.assert_allclose(found, naive(tables, client), rtol=1e-9)
    everybody = of_every_client(tables, np.arange(6), 8)
    np.testing.assert_allclose(everybody[client, np.arange(8)], found, rtol=1e-9)


@pytest.mark.parametrize("rows", [3, 6])
def test_who_never_counts_is_not_among_the_others(rows):
    tables, client, never = drawn(rows)
    found = asked_of(tables, client, never)
    np.testing.assert_allclose(found, naive(tables, client, never), rtol=1e-9)


def test_an_absent_client_and_rows_that_agree_have_score_0():
    table = np.ones((3, 2)), np.array([0, 1, 2, -1])
    assert asked_of([table], np.array([0, 3])).tolist() == [0.0, 0.0]


def test_a_large_mean_does_not_cancel():
    slopes = 1e8 + np.arange(4.0)[:, None]
    difference, variance = against_others(slopes)
    assert difference.ravel() == pytest.approx([-2, -2 / 3, 2 / 3, 2])
    assert variance.ravel() == pytest.approx([1, 7 / 3, 7 / 3, 1])
