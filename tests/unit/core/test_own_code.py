"""Errors of code of the user's own are told by their line, those of fedexp's own are not."""

import json
import sys

import numpy as np
import pytest

from fedexp.core.checks import InputError, positive
from fedexp.core.flat import vector_of
from fedexp.core.own_code import own_code_named


def test_an_error_is_told_by_the_users_line():
    with (
        pytest.raises(InputError, match=r"test_own_code.py, line \d+: ZeroDivisionError: div"),
        own_code_named(),
    ):
        print(1 / 0)


def test_of_an_error_in_a_library_the_users_line_that_led_there():
    with (
        pytest.raises(InputError, match=r"test_own_code.py, line \d+: JSONDecodeError: "),
        own_code_named(),
    ):
        json.loads("{")


def test_an_error_of_fedexps_own_stays_what_it_is():
    with pytest.raises(AttributeError), own_code_named():
        vector_of(3)  # type: ignore[arg-type]


def test_what_has_its_words_already_keeps_them():
    with pytest.raises(InputError, match=r"^lr=0: must be"), own_code_named():
        positive(lr=0)


def test_a_part_that_ends_the_program_does_not():
    with (
        pytest.raises(InputError, match=r"test_own_code.py, line \d+, ends the program"),
        own_code_named(),
    ):
        sys.exit(3)


def test_what_ends_a_generator_too_early_is_the_users_line():
    def rounds():
        yield next(iter(()))  # which Python calls RuntimeError: generator raised StopIteration

    with (
        pytest.raises(InputError, match=r"test_own_code.py, line \d+: StopIteration"),
        own_code_named(),
    ):
        list(rounds())


def test_of_compiled_code_the_users_line_that_led_there():
    with (
        pytest.raises(InputError, match=r"test_own_code.py, line \d+: "),
        own_code_named(),
    ):
        np.random.SeedSequence(0.5)
