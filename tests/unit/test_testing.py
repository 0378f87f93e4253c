"""fedexp.testing on rules of strangers: a sound one passes, a broken one is told what is wrong."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import fedexp
from fedexp.testing import check_aggregator

SOUND = '''
"""Nearest to the median, by somebody who has never seen the inside of fedexp."""
import torch


class Nearest:
    def __init__(self, kept):
        self.kept = kept

    def init(self, d):
        return {"rounds": torch.zeros(1)}

    def __call__(self, updates, state, rng):
        rows = updates.matrix
        far = (rows - rows.median(dim=0).values).norm(dim=1)
        kept = far.argsort(stable=True)[: self.kept]
        return rows[kept].mean(dim=0), {"rounds": state["rounds"] + 1}
'''


def test_a_rule_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "nearest.py").write_text(SOUND)
    (tmp_path / "broken.py").write_text(SOUND.replace("rows[kept].mean(dim=0)", "rows[0]"))
    script = "import fedexp; from {} import Nearest; fedexp.testing.check_aggregator(Nearest(8))"

    def check(name):
        command = [sys.executable, "-c", script.format(name)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert check("nearest").stderr == ""
    assert "AssertionError: the step is a view of the rows" in check("broken").stderr


class Rule:
    """A mean, to be broken in one place."""

    def init(self, d):
        return {}

    def __call__(self, updates, state, rng):
        return self.step(updates.matrix, updates, rng), state

    def step(self, rows, updates, rng):
        return rows.mean(0)


def broken(step):
    return type("Broken", (Rule,), {"step": lambda self, *given: step(*given)})()


def one_unless_alone(rows):
    others = torch.tensor(len(rows) - 1.0)
    return others / others  # 0 / 0


def write_into(rows, updates, rng):
    rows -= rows.mean(0)
    return rows.mean(0)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda rows, u, rng: rows, r"must give a step of shape \[1\], not \[24, 1\]"),
        (lambda rows, u, rng: rows.mean(0).requires_grad_(), "must come without a gradient"),
        (lambda rows, u, rng: rows.mean(0).to_sparse(), r"not \[1\] torch.sparse"),
        (lambda rows, u, rng: rows.double().mean(0), "must be float32 as the rows are, not torch"),
        (lambda rows, u, rng: rows.mean(0) / 0, "must be finite where all rows are; 1 of its 1"),
        (lambda rows, u, rng: rows.mean(0).numpy(), r"it has given \(ndarray, dict\)"),
        (lambda rows, u, rng: rows[99], r"fails on the rows of 24 clients.*IndexError"),
        (write_into, "has written into the rows"),
        (lambda rows, u, rng: u.num_examples.zero_()[0] + rows.mean(0), "into num_examples"),
        (lambda rows, u, rng: rows[3], "is a view of the rows"),
        (lambda rows, u, rng: rows[3].clone(), "the order of the clients changes the step"),
        (lambda rows, u, rng: rows.sum(0), "do not get that row back: .*follows_agreement=False"),
        (lambda rows, u, rng: rows.mean(0) + 0 * torch.randn(1), "global generator of torch"),
        (lambda rows, u, rng: rows.mean(0) + 0 * np.random.rand(), "generator of NumPy"),
        (lambda rows, u, rng: rows.mean(0) + 0 * random.random(), "generator of Python's random"),
        (
            lambda rows, u, rng: rows.mean(0) * one_unless_alone(rows),
            "a single client's row must",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(step, message):
    with pytest.raises(AssertionError, match=message):
        check_aggregator(broken(step))


def test_random_steps_are_found():
    with pytest.raises(AssertionError, match="two different steps"):
        check_aggregator(
            broken(lambda rows, u, rng: rows.mean(0) + 1e-7 * torch.randn(rows.shape[1]))
        )


def test_refusing_ordinary_clients_is_told_and_refusing_one_is_fine():
    def refuse(most):
        def step(rows, updates, rng):
            if len(rows) <= most:
                raise fedexp.InputError("too few", "n", len(rows))
            return rows.mean(0)

        return broken(step)

    check_aggregator(refuse(1))
    with pytest.raises(AssertionError, match="refuses 24 ordinary clients: n=24: too few"):
        check_aggregator(refuse(30))


class Remembering(Rule):
    def __init__(self, init, call):
        self._init, self._call = init, call

    def init(self, d):
        return self._init(d)

    def __call__(self, updates, state, rng):
        return updates.matrix.mean(0), self._call(state)


@pytest.mark.parametrize(
    ("init", "call", "message"),
    [
        (lambda d: None, lambda s: s, "must give a mapping from names to tensors"),
        (lambda d: {"a": 1}, lambda s: s, "must give a mapping from names to tensors"),
        (lambda d: {"a": torch.zeros(d)}, lambda s: {}, "names, shapes and types of init's"),
        (lambda d: {"a": torch.zeros(d)}, lambda s: {"a": s["a"].add_(1)}, "into its old state"),
    ],
)
def test_state_that_is_not_handed_back(init, call, message):
    with pytest.raises(AssertionError, match=message):
        check_aggregator(Remembering(init, call))


class Claims(Rule):
    """Says how far one client moves it; and does what it is given."""

    def __init__(self, step, factor=1.0):
        self._step, self._factor = step, factor

    def step(self, rows, updates, rng):
        return self._step(rows, updates)

    def sensitivity(self, clip_norm, n):
        return None if self._factor is None else self._factor * clip_norm


def weighted(rows, updates):
    weights = updates.num_examples / updates.num_examples.sum()
    return weights.to(rows) @ rows


def test_a_bound_that_holds_or_is_not_given_is_fine():
    check_aggregator(Claims(lambda rows, updates: rows.mean(0)))
    check_aggregator(Claims(lambda rows, updates: rows.median(0).values, factor=None))


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (lambda rows, updates: rows.mean(0), 0.9),
        (lambda rows, updates: rows.median(0).values, 1.0),  # n times a median moves by far more
        (weighted, 1.0),  # one client that claims many examples
    ],
)
def test_a_bound_that_does_not_hold_is_refuted(step, factor):
    with pytest.raises(AssertionError, match="no privacy may be promised with this bound"):
        check_aggregator(Claims(step, factor))


def test_functions_of_tensors_and_of_arrays():
    check_aggregator(lambda rows: rows.mean(0))
    check_aggregator(lambda rows: np.sort(rows, axis=0)[len(rows) // 2])
    with pytest.raises(AssertionError, match="do not get that row back"):
        check_aggregator(lambda rows: np.sign(rows).mean(axis=0))
    check_aggregator(lambda rows: torch.sign(rows).mean(0), follows_agreement=False)


def test_the_global_generators_are_left_as_they_were():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(AssertionError):
        check_aggregator(broken(lambda rows, u, rng: rows.mean(0) + u.matrix[99]))
    check_aggregator(lambda rows: rows.mean(0))
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


@pytest.mark.parametrize("state", [None, {"seen": 1}])
def test_a_state_of_no_tensors_is_told_in_words(state):
    class Forgets(Rule):
        def __call__(self, updates, before, rng):
            return updates.matrix.mean(0), state

    with pytest.raises(AssertionError, match="a mapping from names to tensors as its state"):
        fedexp.testing.check_aggregator(Forgets())
