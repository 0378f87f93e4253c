"""Refusals: what they let pass, what they stop, and what they say."""

import math
import pickle

import pytest

from fedexp.core.checks import (
    InputError,
    at_least,
    did_you_mean,
    in_range,
    non_negative,
    one_of,
    positive,
)

NO_NUMBERS = ["1", None, True, [1], 1j]


@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, -math.inf, *NO_NUMBERS])
def test_positive_refuses(value):
    with pytest.raises(InputError, match="must be a finite number above 0"):
        positive(lr=value)


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, *NO_NUMBERS])
def test_non_negative_refuses(value):
    with pytest.raises(InputError, match="must be a finite number, 0 or above"):
        non_negative(weight_decay=value)


@pytest.mark.parametrize("value", [0, 2.0, math.nan, *NO_NUMBERS])
def test_at_least_refuses(value):
    with pytest.raises(InputError, match="must be a whole number, 1 or above"):
        at_least(1, rounds=value)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, *NO_NUMBERS])
def test_in_range_refuses(value):
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        in_range(0, 1, fraction=value)


def test_what_is_allowed_passes():
    positive(lr=1, tau=1e-30)
    non_negative(weight_decay=0, proximal=0.5)
    at_least(1, rounds=1, workers=10**12)
    in_range(0, 1, low=0, high=1, between=0.3)  # also arguments that have a check's own names
    at_least(1, low=2)
    one_of(["mean", "median"], rule="median", choices="mean")


def test_the_first_argument_that_is_wrong_is_named():
    with pytest.raises(InputError) as caught:
        positive(lr=1.0, tau=-2, beta=-3)
    assert (caught.value.key, caught.value.value) == ("tau", -2)
    assert str(caught.value) == "tau=-2: must be a finite number above 0"


def test_one_of_suggests_the_nearest():
    with pytest.raises(InputError, match="rule=mediam: did you mean median") as caught:
        one_of(["mean", "median"], rule="mediam")
    assert str(caught.value).endswith("Allowed: mean, median")
    with pytest.raises(InputError, match="rule=xyz: Allowed: mean, median"):
        one_of(["mean", "median"], rule="xyz")


def test_nothing_near_gives_no_suggestion():
    assert did_you_mean("zzz", ["mean", "median"]) == ""
    assert did_you_mean("anything", []) == ""


def test_groups_are_put_in_front_of_the_key():
    error = InputError("must be above 0", "decay", -1).under("schedule").under("training")
    assert str(error) == "training.schedule.decay=-1: must be above 0"
    without_key = InputError("the disk is full")
    assert without_key.under("training") is without_key
    assert str(without_key) == "the disk is full"


def test_an_input_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(InputError("must be above 0", "lr", -1)))
    assert isinstance(error, ValueError)
    assert (error.reason, error.key, error.value) == ("must be above 0", "lr", -1)
    assert str(error) == "lr=-1: must be above 0"


def test_a_whole_number_that_64_bits_do_not_hold():
    at_least(0, seed=2**63 - 1)
    with pytest.raises(InputError, match=r"seed=\d+: must be below 2\*\*63"):
        at_least(0, seed=10**20)
