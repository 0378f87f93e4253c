"""Libraries warn into the log."""

import logging
import sys
import warnings

import pytest

from fedexp.core.library_warnings import into_the_log


def test_a_warning_is_a_line_of_the_log_and_not_of_the_terminal(caplog, capfd, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    caplog.set_level(logging.DEBUG, "fedexp")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = warnings.showwarning
        with into_the_log():
            warnings.warn("a single label was found", UserWarning, stacklevel=1)
        assert warnings.showwarning is before
    assert "UserWarning: a single label was found" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_who_asks_python_for_warnings_sees_them(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    before = warnings.showwarning
    with into_the_log():
        assert warnings.showwarning is before


def test_a_warning_that_is_an_error_stays_one(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with into_the_log(), pytest.raises(UserWarning):
            warnings.warn("this", UserWarning, stacklevel=1)
