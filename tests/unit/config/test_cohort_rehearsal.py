"""A rule of one's own that gives no step is refused before the run, in one line."""

import sys

import pytest
import torch

from fedexp.config.cohort_rehearsal import rehearse_cohort
from fedexp.core.checks import InputError
from fedexp.core.own_code import own_code_named
from fedexp.federation.settings import Federated, LocalOnly


class Plain:
    def rows(self, cohort_size):
        return cohort_size

    sums = False


class Parts:
    channel, cohort_size, n_clients, pre_aggregation = Plain(), 3, 5, {}
    setting, detector = Federated(), None


class Rule:
    def __init__(self, give):
        self.give = give

    def init(self, d):
        return {}

    def __call__(self, updates, state, rng):
        return self.give(updates.matrix, state)


inferred = torch.inference_mode()

WRONG = {
    "nothing": (lambda rows, state: None, "must return (step, state), and returned a NoneType"),
    "no state": (lambda rows, state: rows.mean(0), "must return (step, state)"),
    "an array": (
        lambda rows, state: (rows.mean(0).numpy(), state),
        "and returned a ndarray",
    ),
    "a row too many": (lambda rows, state: (rows[:1], state), "returned [1, 1]"),
    "whole numbers": (lambda rows, state: (rows.mean(0).long(), state), "returned [1] torch.int64"),
    "a gradient": (lambda rows, state: (rows.mean(0).requires_grad_(), state), "with a gradient"),
    "no number": (lambda rows, state: (rows.mean(0) / 0, state), "must return a step without NaN"),
    "another state": (lambda rows, state: (rows.mean(0), ()), "a dict of tensors, and returned a"),
    "its rows": (lambda rows, state: (rows.mul_(2)[0], state), "changes the rows that it is given"),
    "inference": (inferred(lambda rows, state: (rows.mean(0), state)), "torch.no_grad() would do"),
    "a state of inference": (
        lambda rows, state: (rows.mean(0), inferred(lambda: {"mean": rows.mean(0)})()),
        "'mean' is one made in torch.inference_mode()",
    ),
    "an error": (lambda rows, state: 1 / 0, "3 rows: ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize(("give", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_step_is_refused_by_name(give, words):
    with pytest.raises(InputError, match=r"^aggregator=\S*Rule: ") as refused:
        rehearse_cohort(Parts(), Rule(give))
    assert words in str(refused.value)


MIXES = {
    "nothing": (lambda rows, rng: None, "must return updates of 3 rows: returned a NoneType"),
    "a tensor": (lambda rows, rng: rows.matrix, "returned a Tensor"),
    "fewer": (lambda rows, rng: rows.with_matrix(rows.matrix[:1]), "returned 1 rows of 3 clients"),
    "an error": (lambda rows, rng: rows.rows, "AttributeError: 'Updates' object has no"),
    "its rows": (lambda rows, rng: rows.with_matrix(rows.matrix.mul_(2)), "changes the rows"),
}


@pytest.mark.parametrize(("mix", "words"), MIXES.values(), ids=MIXES)
def test_what_is_no_mixer_is_refused_by_name(mix, words):
    parts = Parts()
    parts.pre_aggregation = {"mine": mix}
    with pytest.raises(InputError, match=r"^pre_aggregation\.mine=\S*") as refused:
        rehearse_cohort(parts, Rule(lambda rows, state: (rows.mean(0), state)))
    assert words in str(refused.value)


def test_a_mean_is_one():
    rehearse_cohort(Parts(), Rule(lambda rows, state: (rows.mean(0), {"m": torch.zeros(1)})))


class Unsaid:
    """Shares one model, and promises nothing."""

    def init(self, params, n_clients):
        return params


@pytest.mark.parametrize(("setting", "shape"), [(Unsaid(), (1,)), (LocalOnly(), (5, 1))])
def test_a_step_is_what_can_be_added_to_the_settings_parameters(setting, shape):
    parts = Parts()
    parts.setting = setting
    rehearse_cohort(parts, Rule(lambda rows, state: (torch.zeros(shape), state)))
    with pytest.raises(InputError, match=r"must return for rows \[3, 1\] a step"):
        rehearse_cohort(parts, Rule(lambda rows, state: (torch.zeros(2), state)))


def test_a_rule_that_ends_the_program_is_named_by_its_line():
    def give(rows, state):
        sys.exit(0)

    where = r"test_cohort_rehearsal.py, line \d+, ends the program"
    with pytest.raises(InputError, match=where), own_code_named():
        rehearse_cohort(Parts(), Rule(give))


@pytest.mark.parametrize("says", [-1, None, 2.0])
def test_a_channel_says_how_many_rows_arrive(says):
    class Channel(Plain):
        def rows(self, cohort_size):
            return says

    class Others(Parts):
        channel = Channel()

    with pytest.raises(
        InputError, match=r"^channel=\S*Channel: must say how many rows arrive of 3"
    ):
        rehearse_cohort(Others(), Rule(lambda rows, state: (rows[0], state)))
